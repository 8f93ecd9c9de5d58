"""Checkpoints: saved whole or not at all, loaded without running anything they contain."""

import io
import os
import pickle
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from .errors import UsageError


class CheckpointError(UsageError):
    """A checkpoint that can't be read, or does not fit the network."""


def save_atomically(content: Any, path: str, previous: str | None = None) -> None:
    """Write `content` to `path` with torch.save: complete, or leaving what was there.

    previous: where the file that was at `path` is kept; None replaces it. Killed at any moment,
    one of the two is whole. Raises OSError where the file can't be written.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    temporary = f"{path}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        if previous and os.path.exists(path):
            os.replace(path, previous)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def read_file(path: str) -> Any:
    """The tensors and plain values in `path`, on the CPU. Raises CheckpointError."""
    if not os.path.isfile(path):
        raise CheckpointError(f"checkpoint {path} does not exist")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"checkpoint {path} holds more than plain data: {reason}") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"can't read checkpoint {path} (is it whole?): {reason}") from None


def state_dict_of(content: Any, path: str) -> dict[str, torch.Tensor]:
    """The weights in what `read_file` returned for `path`. Raises CheckpointError without any."""
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"checkpoint {path} holds no network weights")
    return dict(state)


def load_state(model: nn.Module, state: Mapping[str, torch.Tensor], path: str) -> None:
    """Load `state` into `model`, every key and shape; `path` is for the message.

    Raises CheckpointError that counts the missing, unexpected and mis-shaped keys and names the
    first of each; `model` is left as it was.
    """
    wanted = model.state_dict()
    shapes = {
        key: (tuple(state[key].shape), tuple(wanted[key].shape)) for key in state if key in wanted
    }
    problems = {
        "missing": [key for key in wanted if key not in state],
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
        raise CheckpointError(f"checkpoint {path} does not fit the network: {'; '.join(found)}")
    model.load_state_dict(state)


def load_weights(model: nn.Module, path: str) -> None:
    """Load the weights in the file `path` into `model`; raises as `load_state` does."""
    load_state(model, state_dict_of(read_file(path), path), path)


def classifier_of(keys: Iterable[str]) -> str:
    """The prefix of the classifier's keys, with its dot: the last weight of the network."""
    weights = [key for key in keys if key.endswith(".weight")]
    return weights[-1].removesuffix("weight")


def num_classes_of(state: Mapping[str, torch.Tensor]) -> int:
    """How many classes the network with the weights `state` tells apart."""
    return len(state[classifier_of(state) + "weight"])


def load_start_weights(model: nn.Module, path: str) -> list[str]:
    """Load the file's weights; a classifier of another size stays as `model` has it.

    Returns the lines that say so. Raises CheckpointError, see `load_state`.
    """
    state = state_dict_of(read_file(path), path)
    wanted = model.state_dict()
    prefix = classifier_of(wanted)
    own = {key: value for key, value in wanted.items() if key.startswith(prefix)}
    notes = [f"weights     {path}"]
    if any(key in state and state[key].shape != value.shape for key, value in own.items()):
        notes.append(
            f"            its classifier of {len(state[prefix + 'weight'])} classes is made anew"
        )
        state |= own
    load_state(model, state, path)
    return notes


def check_identity(content: Any, identity: Mapping[str, Any], path: str) -> None:
    """Raise CheckpointError if the file says that it holds another network than `identity`.

    Weights alone say nothing of it; SimAM's can't be told from those of a plain network.
    """
    if not isinstance(content, Mapping) or "attention" not in content:
        return
    names = ("arch", "attention", "attention_param")
    if any(content[name] != identity[name] for name in names):
        options = f"-a {content['arch']} --attention-type {content['attention']}"
        if content["attention_param"] is not None:
            options += f" --attention-param {content['attention_param']:g}"
        raise CheckpointError(
            f"checkpoint {path} is of another network; it was trained with {options}"
        )
