"""What every command line shares; imports nothing heavy, so that --help answers at once."""

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; takes every option with underscores for dashes, too.

    removed: options that there were once, and what replaces each.
    """

    def __init__(self, doc: str, removed: Mapping[str, str] | None = None, **settings: Any):
        super().__init__(description=doc.split("\n\n")[0], allow_abbrev=False, **settings)
        self.removed = dict(removed or {})

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None):
        words = [self._dashed(word) for word in (sys.argv[1:] if args is None else args)]
        for word in words:
            name = word.partition("=")[0]
            if name in self.removed:
                self.error(f"{name} is gone: {self.removed[name]}")
        return super().parse_known_args(words, namespace)

    def _dashed(self, word: str) -> str:
        name, equals, value = word.partition("=")
        dashed = name.replace("_", "-")
        known = dashed in self._option_string_actions or dashed in self.removed
        return dashed + equals + value if known else word

    def error(self, message: str):
        self.exit(2, f"error: {message} (see --help)\n")


def number(kind: type, low: float, exclusive: bool = False):
    """An argparse type: a finite `kind` of at least (above, if exclusive) `low`; whole numbers in
    63 bits, for those who count so."""

    def parse(text: str):
        value = kind(text)
        if kind is int and value >= 2**63:
            raise argparse.ArgumentTypeError(f"{text} is not below {2**63}")
        if not low <= value < math.inf or (exclusive and value == low):
            raise argparse.ArgumentTypeError(
                f"{text} is not {'above' if exclusive else 'at least'} {low}"
            )
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
    add("-j", "--workers", type=number(int, 0), default=4, help="processes that load images")
