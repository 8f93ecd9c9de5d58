"""The weights in a checkpoint, ours or another's: found, renamed, recognised, loaded strictly."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from networks import default_param
from utils.checkpoints.names import names_simam, remap_legacy_keys

from .files import CheckpointError, read_file
from .recognition import identify, is_of

StateDict = dict[str, torch.Tensor]

# where training scripts keep the weights in what they save; the first that is there counts
AVERAGE = "state_dict_ema"
PLACES = ("state_dict", "model", AVERAGE)
# the lambda of the published ImageNet networks, and the paper's on CIFAR
PUBLISHED_LAMBDA, CIFAR_LAMBDA = 0.1, 1e-4


def raw_state_dict_of(content: Any, path: str) -> StateDict:
    """The weights in what `read_file` returned for `path`, under the file's own keys.

    Raises CheckpointError without any.
    """
    state = content
    for place in PLACES:
        if isinstance(content, Mapping) and isinstance(content.get(place), Mapping):
            state = content[place]
            break
    if (
        not isinstance(state, Mapping)
        or not state
        or not all(map(_is_weight, state.keys(), state.values()))
    ):
        raise CheckpointError(f"checkpoint {path} holds no network weights")
    return dict(state)


def _is_weight(key: Any, value: Any) -> bool:
    """Whether `value` is a named tensor with as many numbers as its shape says.

    A few numbers expanded to a huge shape would take that much memory once they are copied.
    """
    return (
        isinstance(key, str)
        and isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    )


def state_dict_of(content: Any, path: str) -> StateDict:
    """The weights in what `read_file` returned for `path`, under our keys.

    Knows the names and wrappings of `remap_legacy_keys`. Raises CheckpointError without weights.
    """
    try:
        return remap_legacy_keys(raw_state_dict_of(content, path))
    except ValueError as error:
        raise CheckpointError(f"checkpoint {path} is ambiguous: {error}") from None


def average_of(content: Any, path: str) -> StateDict:
    """The moving average of the weights in what `read_file` returned for `path`, our keys.

    Raises CheckpointError where the file has none.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get(AVERAGE), Mapping):
        raise CheckpointError(f"checkpoint {path} holds no average of weights; leave out --ema")
    return state_dict_of(content[AVERAGE], path)


def load_state(model: nn.Module, state: Mapping[str, torch.Tensor], path: str) -> None:
    """Load `state` into `model`, every key and shape; `path` is for the message.

    Batch counters may be missing, as in files older than PyTorch 0.4.1. Raises CheckpointError
    that counts the missing, unexpected and mis-shaped keys, names the first of each, and says
    which network would fit; `model` is left as it was.
    """
    wanted = model.state_dict()
    shapes = {
        key: (tuple(state[key].shape), tuple(wanted[key].shape)) for key in state if key in wanted
    }
    problems = {
        "missing": [
            key for key in wanted if key not in state and not key.endswith("num_batches_tracked")
        ],
        "unexpected": [key for key in state if key not in wanted],
        "mis-shaped": [
            f"{key} {has} for {want}" for key, (has, want) in shapes.items() if has != want
        ],
    }
    found = [
        f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for kind, keys in problems.items()
        if keys
    ]
    if found:
        raise CheckpointError(
            f"checkpoint {path} does not fit the network: {'; '.join(found)}; {_what_fits(state)}"
        )
    # a plain dict has no version, which makes PyTorch fill in missing batch counters
    model.load_state_dict(dict(state))


def _what_fits(state: Mapping[str, torch.Tensor]) -> str:
    fits = identify(state)
    if not fits:
        return "it fits no network here"
    arch, _, num_classes = fits[0]
    attentions = " or ".join(attention for _, attention, _ in fits)
    return f"it fits -a {arch} --attention-type {attentions} with {num_classes} classes"


def load_weights(model: nn.Module, path: str) -> None:
    """Load the weights in the file `path` into `model`, every key and shape.

    Takes our checkpoints and bare weights, the published ones, torchvision's, timm's ResNets,
    mmdetection's backbones, safetensors, and what DataParallel, DDP or torch.compile made of any.
    Raises CheckpointError, see `read_file` and `load_state`.
    """
    load_state(model, state_dict_of(read_file(path), path), path)


def classifier_of(state: Mapping[str, torch.Tensor]) -> str | None:
    """The prefix of the classifier's keys, with its dot: the one linear layer in no attention."""
    for key, value in state.items():
        if value.dim() == 2 and key.endswith(".weight") and ".attn_" not in key:
            return key.removesuffix("weight")
    return None


def num_classes_of(state: Mapping[str, torch.Tensor], path: str) -> int:
    """How many classes the network with the weights `state`, read from `path`, tells apart.

    Raises CheckpointError where it has no classifier.
    """
    prefix = classifier_of(state)
    if prefix is None:
        raise CheckpointError(f"checkpoint {path} has no classifier")
    return len(state[f"{prefix}weight"])


def load_start_weights(model: nn.Module, path: str) -> list[str]:
    """Load the file's weights; without a classifier of its size, `model` keeps its own.

    Returns the lines that say so. Raises CheckpointError, see `load_state`.
    """
    state = state_dict_of(read_file(path), path)
    wanted = model.state_dict()
    own = {key: wanted[key] for key in wanted if key.startswith(classifier_of(wanted))}
    notes = [f"weights     {path}"]
    has = classifier_of(state)
    if has is None:
        notes.append("            it has no classifier; a new one is made")
        state |= own
    elif any(key in state and state[key].shape != value.shape for key, value in own.items()):
        num_classes = num_classes_of(state, path)
        notes.append(f"            its classifier of {num_classes} classes is made anew")
        state |= own
    load_state(model, state, path)
    return notes


def network_of(content: Any) -> dict[str, Any] | None:
    """What a file of ours says of its network, as `create_model` takes it; None without a word."""
    kinds = {
        "arch": str,
        "attention": str,
        "attention_param": int | float | None,
        "num_classes": int,
    }
    said = content if isinstance(content, Mapping) else {}
    if all(name in said and isinstance(said[name], kind) for name, kind in kinds.items()):
        return {name: said[name] for name in kinds}
    return None


def check_identity(content: Any, identity: Mapping[str, Any], path: str) -> None:
    """Raise CheckpointError if the file says that it holds another network than `identity`.

    Bare weights say nothing of it: SimAM's can't be told from those of a plain network, except by
    the published names.
    """
    said = network_of(content)
    names = ("arch", "attention", "attention_param")
    if said and any(said[name] != identity[name] for name in names):
        options = f"-a {said['arch']} --attention-type {said['attention']}"
        if said["attention_param"] is not None:
            options += f" --attention-param {said['attention_param']:g}"
        raise CheckpointError(
            f"checkpoint {path} is of another network; it was trained with {options}"
        )
    if identity["attention"] == "none" and names_simam(raw_state_dict_of(content, path)):
        raise CheckpointError(
            f"checkpoint {path} is a published one of a network with SimAM; use it with "
            f"--attention-type simam --attention-param {PUBLISHED_LAMBDA}"
        )


class Recognised(NamedTuple):
    """network: as `create_model` takes it. assumed: of which of its entries the file says nothing,
    each with the reason for the value taken."""

    network: dict[str, Any]
    assumed: dict[str, str]


def recognise(
    content: Any, path: str, attention: str | None = None, param: float | None = None
) -> Recognised:
    """Which network is in what `read_file` returned for `path`.

    What the file itself says comes first, then keys and shapes. attention, param: the user's
    word, where it is known better. Raises CheckpointError where no network fits.
    """
    said, state = network_of(content), state_dict_of(content, path)
    if said and attention in (None, said["attention"]):
        network = said | ({} if param is None else {"attention_param": param})
        if is_of(state, network):
            return Recognised(network, {})
    fits = {name: (arch, num_classes) for arch, name, num_classes in identify(state)}
    if not fits or attention not in (None, *fits):
        wish = f" has no weights of {attention};" if fits else ":"
        raise CheckpointError(f"checkpoint {path}{wish} {_what_fits(state)}")
    assumed = {}
    name = attention or ("none" if "none" in fits else next(iter(fits)))
    if names_simam(raw_state_dict_of(content, path)):
        name = attention or "simam"
    elif len(fits) > 1 and not attention:
        assumed["attention"] = f"{' and '.join(fits)} have the same keys, taken for {name}"
    arch, num_classes = fits[name]
    if param is None:
        param = default_param(name)
        if name == "simam":
            param = CIFAR_LAMBDA if arch.startswith("cifar_") else PUBLISHED_LAMBDA
            assumed["attention_param"] = f"lambda {param:g} as published"
    network = {"arch": arch, "attention": name, "attention_param": param}
    return Recognised(network | {"num_classes": num_classes}, assumed)
