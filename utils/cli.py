"""What every command shares: mistakes are one line, exit code 2."""

import argparse
import math
import sys
from collections.abc import Callable

from .errors import UsageError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str):
        self.exit(2, f"error: {message} (see --help)\n")


def number(kind: type, low: float, exclusive: bool = False):
    """An argparse type: a finite `kind` of at least (above, if exclusive) `low`."""

    def parse(text: str):
        value = kind(text)
        if not math.isfinite(value) or value < low or (exclusive and value == low):
            raise argparse.ArgumentTypeError(
                f"{text} is not {'above' if exclusive else 'at least'} {low}"
            )
        return value

    parse.__name__ = "whole number" if kind is int else "number"
    return parse


def comma_list(kind: Callable[[str], object]):
    """An argparse type: values of `kind` between commas, each once."""

    def parse(text: str) -> list:
        values = [kind(part) for part in text.split(",")]
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


def exit_code(command: Callable[[], int | None]) -> int:
    """Run `command`; its own code (None: 0), or 2 after printing the UsageError it raised."""
    try:
        return command() or 0
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
