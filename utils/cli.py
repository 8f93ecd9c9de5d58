"""What every command line shares; imports nothing heavy, so that --help answers at once."""

import argparse
import difflib
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

# processes that load images: as many as there are cores for them, and no more than help
WORKERS = min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Tells the defaults that are values, and leaves examples as they were written."""

    def _get_help_string(self, action: argparse.Action) -> str:
        silent = action.default is None or action.default is False
        return action.help if silent else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; takes every option with underscores for dashes, too.

    doc: of its first paragraph and its examples, which are indented, --help is made. removed:
    options that there were once, and what replaces each.
    """

    def __init__(self, doc: str, removed: Mapping[str, str] | None = None, **settings: Any):
        about, _, rest = doc.partition("\n\n")
        examples = [line for line in rest.splitlines() if line.startswith("    ")]
        super().__init__(
            description=about,
            epilog="\n".join(["examples:", *examples]) if examples else None,
            allow_abbrev=False,
            formatter_class=Help,
            **settings,
        )
        self.removed = dict(removed or {})
        self.add_argument("--version", action="version", version=_version())

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None):
        if "_ARGCOMPLETE" in os.environ:  # the shell asks what may come next
            import argcomplete

            argcomplete.autocomplete(self)
        return super().parse_args(args, namespace)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None):
        words = [self._dashed(word) for word in (sys.argv[1:] if args is None else args)]
        for word in words:
            self._check_known(word.partition("=")[0])
        return super().parse_known_args(words, namespace)

    def _check_known(self, name: str) -> None:
        if name in self.removed:
            self.error(f"{name} is gone: {self.removed[name]}")
        known = self._option_string_actions
        if not name.startswith("--") or name in known or self._subparsers:
            return
        for close in difflib.get_close_matches(name, known, n=1, cutoff=0.7):
            self.error(f"unrecognized arguments: {name}; did you mean {close}?")

    def _dashed(self, word: str) -> str:
        name, equals, value = word.partition("=")
        dashed = name.replace("_", "-")
        known = dashed in self._option_string_actions or dashed in self.removed
        return dashed + equals + value if known else word

    def error(self, message: str):
        self.exit(2, f"error: {message} (see --help)\n")


def _version() -> str:
    project = Path(__file__).parents[1].joinpath("pyproject.toml").read_text()
    return "simam " + re.search(r'^version = "(.*)"', project, re.MULTILINE)[1]


def _interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


# Ctrl-C while a command still imports
sys.excepthook = _interrupted


def number(kind: type, low: float, exclusive: bool = False, high: float = math.inf):
    """An argparse type: a finite `kind` of at least (above, if exclusive) `low`, and not above
    `high`; whole numbers in 63 bits, for those who count so."""

    def parse(text: str):
        value = kind(text)
        if kind is int and value >= 2**63:
            raise argparse.ArgumentTypeError(f"{text} is not below {2**63}")
        if not low <= value < math.inf or (exclusive and value == low):
            raise argparse.ArgumentTypeError(
                f"{text} is not {'above' if exclusive else 'at least'} {low}"
            )
        if value > high:
            raise argparse.ArgumentTypeError(f"{text} is above {high}")
        return value

    parse.__name__ = "whole number" if kind is int else "number"
    return parse


def comma_list(kind: Callable[[str], object], known: Sequence[object] | None = None):
    """An argparse type: values of `kind`, of the `known` ones, between commas, each once."""

    def parse(text: str) -> list:
        values = [kind(part) for part in text.split(",")]
        for value in values:
            if known and value not in known:
                raise argparse.ArgumentTypeError(f"{value} is none of {' '.join(map(str, known))}")
        if len(set(values)) < len(values):
            raise argparse.ArgumentTypeError(f"{text} names one twice")
        return values

    parse.__name__ = "list"
    return parse


def share(text: str) -> float:
    """An argparse type: a number from 0 up to, but not, 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 0 and below 1")
    return value


def add_gpu(parser: argparse._ActionsContainer) -> None:
    """Give `parser` --gpu, for a command that computes on one device."""
    parser.add_argument("--gpu", help="GPU number; -1: the CPU; GPU 0, or else the CPU, by default")


def add_recognition(parser: Parser) -> None:
    """Give `parser` what `load_trained` takes besides a file."""
    add = parser.add_argument
    add("--attention-type", help="the attention of all these networks")
    add("--attention-param", type=float, help="its setting, as for training")
    add("--image-size", type=number(int, 32), help="pixels a side; as in training by default")


def add_batches(parser: Parser) -> None:
    """Give `parser` the options of a loader."""
    add = parser.add_argument
    add("-b", "--batch-size", type=number(int, 1), default=256, help="images at once")
    add("-j", "--workers", type=number(int, 0), default=WORKERS, help="processes that load images")
