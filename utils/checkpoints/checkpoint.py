"""A checkpoint, ours or another's: read once, then asked for weights, network, classes, images."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import nn

from ..config import Network
from ..data.classes import names_of, outputs_of, shown_names
from ..data.preparation import CIFAR, IMAGENET, Preparation
from ..errors import UsageError, some
from .formats import CheckpointError, is_stored, read_file
from .names import StateDict, names_simam, remap_legacy_keys
from .recognition import classifier_of, identify, is_of

# where training scripts keep the weights in what they save, and their average; the first that is
# there counts
AVERAGE = "state_dict_ema"
AVERAGES = (AVERAGE, "model_ema", "ema", "params_ema")
PLACES = ("state_dict", "model", "model_state_dict", "net", "network", "weights", "params")
# a file that says more of itself is not believed
MOST_CLASSES, LARGEST_IMAGE = 2**20, 4096
# what weights may be in a file; they are computed with in float32
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class Recognised(NamedTuple):
    """The network of a file. assumed: of which of its entries the file says nothing, each with the
    reason for the value taken; under "weights", of which type they are, where not float32."""

    network: Network
    assumed: dict[str, str]


class Checkpoint:
    """The file at `path`. content: what it holds by name, {} for what has no names.

    file: what `read_file` returned, where it is at hand. Raises CheckpointError, as all methods do:
    for a file that can't be read, and what it does not hold.
    """

    def __init__(self, path: str, file: Any = None):
        self.path = path
        self.file = read_file(path) if file is None else file
        self.content: Mapping[str, Any] = self.file if isinstance(self.file, Mapping) else {}

    def refusal(self, why: str) -> CheckpointError:
        """The error that says `why` the file does not serve."""
        return CheckpointError(f"checkpoint {self.path} {why}")

    @cached_property
    def raw_weights(self) -> StateDict:
        """The weights under the file's own keys: those of the first of `PLACES` that there is, the
        only ones in another place, or the file itself."""
        places = [name for name, each in self.content.items() if _holds_tensors(each)]
        known = [name for name in PLACES + AVERAGES if name in places]
        if len(places) > 1 and not known:
            raise self.refusal(f"holds several networks, {some(places)}; save one of them alone")
        state = self.content[[*known, *places][0]] if places else self.file
        named = state if isinstance(state, Mapping) else {}
        if not any(isinstance(each, torch.Tensor) for each in named.values()):
            what = f", but {some(map(str, self.content))}" if self.content else ""
            raise self.refusal(f"holds no network weights{what}")
        odd = [f"{k}: {_in_words(v)}" for k, v in named.items() if not _is_weight(k, v)]
        if odd:
            raise self.refusal(
                f"holds entries that are no plain weights ({some(odd)}); save named tensors, "
                "after dequantize(), to_dense() or contiguous() where one is needed"
            )
        return dict(state)

    @cached_property
    def weights(self) -> StateDict:
        """The weights under our keys, see `remap_legacy_keys`: floating-point and finite."""
        try:
            state = remap_legacy_keys(self.raw_weights)
        except ValueError as error:
            raise self.refusal(f"is ambiguous: {error}") from None
        weights = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
        odd = [
            f"{key}: {value.dtype}" for key, value in weights.items() if value.dtype not in FLOATS
        ]
        if odd:
            raise self.refusal(
                f"holds weights that are no plain floats ({some(odd)}); save them as floats, of a "
                "quantised network those that it was made of"
            )
        bad = [key for key, value in weights.items() if not value.float().isfinite().all()]
        if bad:
            raise self.refusal(
                f"makes outputs that are not finite, as its weights are ({some(bad)})"
            )
        return state

    @property
    def types(self) -> str:
        """Of its floating-point weights."""
        types = {str(each.dtype) for each in self.weights.values() if each.is_floating_point()}
        return " and ".join(sorted(types)).replace("torch.", "")

    @property
    def label(self) -> str:
        """The path, and the types of the weights where they are not all float32."""
        return self.path if self.types == "float32" else f"{self.path} ({self.types})"

    @property
    def average(self) -> "Checkpoint":
        """The same file with the moving average of its weights in their place."""
        kept = [name for name in AVERAGES if isinstance(self.content.get(name), Mapping)]
        if not kept:
            raise self.refusal("holds no average of weights; leave out --ema")
        return Checkpoint(self.path, {**self.content, "state_dict": self.content[kept[0]]})

    @property
    def network(self) -> Network | None:
        """What a file of ours says of its network; None without a word that is known."""
        kinds = {"arch": str, "attention": str, "attention_param": int | float | None}
        kinds["num_classes"] = int
        said = {name: self.content.get(name, ...) for name in kinds}
        plain = all(isinstance(said[name], kind) for name, kind in kinds.items())
        sane = plain and 0 < said["num_classes"] <= MOST_CLASSES
        if sane and abs(said["attention_param"] or 0) < MOST_CLASSES:
            with suppress(UsageError):  # an attention that there is not
                return Network(**said)
        return None

    @property
    def num_classes(self) -> int:
        """How many classes its network tells apart."""
        prefix = classifier_of(self.weights)
        if prefix is None:
            raise self.refusal("has no classifier")
        return len(self.weights[f"{prefix}weight"])

    def preparation(self, arch: str) -> Preparation:
        """How the images of its network, an `arch`, are prepared: as it says, else CIFAR's for a
        CIFAR network, else ImageNet's. Raises CheckpointError where it says what can't be."""
        if "preparation" not in self.content:
            return CIFAR if arch.startswith("cifar_") else IMAGENET
        with suppress(TypeError):
            prepared = Preparation(**self.content["preparation"])
            shorter, crop, mean, std = prepared
            sides = type(shorter) is type(crop) is int and 0 < crop <= shorter <= LARGEST_IMAGE
            types = {type(number) for number in (*mean, *std)}
            if sides and len(mean) == len(std) == 3 and types == {float}:
                return prepared
        raise self.refusal("is damaged: its preparation of images is no such thing")

    @property
    def classes(self) -> list[str]:
        """The class folders of its training; empty where it does not say them."""
        said = self.content.get("classes")
        plain = isinstance(said, list) and all(isinstance(name, str) for name in said)
        return said if plain else []

    def class_names(self, num_classes: int) -> list[str]:
        """A name for each output of its network, see `shown_names`."""
        return shown_names(self.classes, num_classes)

    def outputs_for(self, folders: Sequence[str], said: Sequence[str] = ()) -> list[int]:
        """The output of its network that each class folder means, see `outputs_of`.

        said: the user's word for what the outputs are called.
        """
        names = names_of(said or self.classes, self.num_classes)
        return outputs_of(folders, names, f"checkpoint {self.path}")

    def check_is(self, network: Network) -> None:
        """Raise CheckpointError if the file says that it holds another network.

        Bare weights say nothing of it: SimAM's can't be told from those of a plain network, except
        by the published names.
        """
        said = self.network
        if said and replace(said, num_classes=network.num_classes) != network:
            raise self.refusal(f"is of another network; it was trained with {said.options}")
        if network.attention == "none" and names_simam(self.raw_weights):
            raise self.refusal(
                "is a published one of a network with SimAM; use it with "
                f"--attention-type simam --attention-param {_published_lambda(network.arch):g}"
            )

    def recognise(self, attention: str | None = None, param: float | None = None) -> Recognised:
        """Which network it holds: by its own word, then by keys and shapes.

        attention, param: the user's word, where it is known better.
        """
        said, assumed = self.network, {}
        if self.types != "float32":
            assumed["weights"] = f"{self.types}, computed in float32"
        if said and attention in (None, said.attention):
            network = said if param is None else replace(said, attention_param=param)
            if is_of(self.weights, network):
                return Recognised(network, assumed)
        fits = {network.attention: network for network in identify(self.weights)}
        if not fits:
            raise self.refusal(f"fits no network here; its weights are {some(self.weights)}")
        if attention not in (None, *fits):
            raise self.refusal(f"has no weights of {attention}; {what_fits(self.weights)}")
        name = attention or ("none" if "none" in fits else next(iter(fits)))
        if names_simam(self.raw_weights):
            name = attention or "simam"
        elif len(fits) > 1 and not attention:
            assumed["attention"] = f"{' and '.join(fits)} have the same keys, taken for {name}"
        if param is None and name == "simam":
            param = _published_lambda(fits[name].arch)
            assumed["attention_param"] = f"lambda {param:g} as published"
        return Recognised(replace(fits[name], attention_param=param), assumed)

    def check_finite(self, outputs: torch.Tensor | float) -> None:
        """Raise CheckpointError where `outputs` of its network, or their loss, are not finite."""
        if not torch.as_tensor(outputs).isfinite().all():
            raise self.refusal("makes outputs that are not finite")

    def build(self, network: Network) -> nn.Module:
        """The network with the file's weights."""
        model = network.build()
        self.load_into(model)
        return model

    def load_into(self, model: nn.Module) -> None:
        """Load the weights into `model`, every key and shape, see `load_state`."""
        load_state(model, self.weights, self.path)

    def start(self, model: nn.Module, classes: Sequence[str] = ()) -> list[str]:
        """As `load_into`, but without a classifier of its size, or of other `classes`, `model`
        keeps its own.

        Returns the lines that say so.
        """
        wanted, state = model.state_dict(), self.weights
        head = classifier_of(wanted)
        own = {key: value for key, value in wanted.items() if key.startswith(head)}
        notes = [f"weights     {self.label}"]
        other = bool(classes) and self.classes not in ([], list(classes))
        other |= any(key in state and state[key].shape != own[key].shape for key in own)
        if classifier_of(state) is None:
            notes.append("            it has no classifier; a new one is made")
        elif other:
            notes.append(f"            its classifier of {self.num_classes} classes is made anew")
        load_state(model, state | own if notes[1:] else state, self.path)
        return notes


def load_weights(model: nn.Module, path: str) -> None:
    """Load the weights in the file `path` into `model`, every key and shape.

    Takes our checkpoints and bare weights, the published ones, torchvision's, timm's ResNets,
    mmdetection's backbones, safetensors, and what DataParallel, DDP or torch.compile made of any.
    Raises CheckpointError, see `read_file` and `load_state`.
    """
    Checkpoint(path).load_into(model)


def load_state(model: nn.Module, state: StateDict, path: str) -> None:
    """Load `state` into `model`, every key and shape; `path` is for the message.

    Batch counters may be missing, as in files older than PyTorch 0.4.1. Raises CheckpointError
    that counts the missing, unexpected and mis-shaped keys, names the first of each, and says
    which network would fit; `model` is left as it was.
    """
    wanted = model.state_dict()
    problems = {
        "missing": [
            key for key in wanted if key not in state and not key.endswith("num_batches_tracked")
        ],
        "unexpected": [key for key in state if key not in wanted],
        "mis-shaped": [
            f"{key} {tuple(state[key].shape)} for {tuple(wanted[key].shape)}"
            for key in state
            if key in wanted and state[key].shape != wanted[key].shape
        ],
    }
    found = [f"{len(keys)} {kind} ({some(keys)})" for kind, keys in problems.items() if keys]
    if found:
        raise CheckpointError(
            f"checkpoint {path} does not fit the network: {'; '.join(found)}; {what_fits(state)}"
        )
    # a plain dict has no version, which makes PyTorch fill in missing batch counters
    model.load_state_dict(dict(state))


def what_fits(state: StateDict) -> str:
    """Which options name a network that these weights fit, in words."""
    fits = identify(state)
    if not fits:
        return "it fits no network here"
    attentions = " or ".join(network.attention for network in fits)
    one = fits[0]
    return f"it fits -a {one.arch} --attention-type {attentions} with {one.num_classes} classes"


def _published_lambda(arch: str) -> float:
    return 1e-4 if arch.startswith("cifar_") else 0.1


def _holds_tensors(content: Any) -> bool:
    return isinstance(content, Mapping) and any(
        isinstance(each, torch.Tensor) and each.dim() > 1 for each in content.values()
    )


def _is_weight(key: Any, value: Any) -> bool:
    """Whether `value` is a named tensor that can be copied."""
    return isinstance(key, str) and is_stored(value)


def _in_words(value: Any) -> str:
    """What stands in the place of a weight."""
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return f"{value.dtype}, {value.layout}, {value.device}"
