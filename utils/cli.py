"""What every command shares: mistakes are one line, exit code 2."""

import argparse
import math
import os
import signal
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


# options that several scripts share; each is also spelt with underscores
SHARED = {
    "--attention-type": {"help": "the attention of all these networks"},
    "--attention-param": {"type": float, "help": "its setting, as for training"},
    "--batch-size": {
        "short": "-b",
        "type": number(int, 1),
        "default": 256,
        "help": "images at once",
    },
    "--workers": {
        "short": "-j",
        "type": number(int, 0),
        "default": 4,
        "help": "processes that load images",
    },
    "--image-size": {
        "type": number(int, 32),
        "help": "pixels a side; as the network was trained where not given",
    },
    "--gpu": {"help": "GPU number; -1: the CPU; GPU 0, or else the CPU, where not given"},
}


def add_shared(parser: argparse._ActionsContainer, *options: str) -> None:
    """Give `parser`, or a group of its arguments, those `options` of `SHARED`."""
    for option in options:
        settings = dict(SHARED[option])
        short = [settings.pop("short")] if "short" in settings else []
        spellings = dict.fromkeys([option, "--" + option[2:].replace("-", "_")])
        parser.add_argument(*short, *spellings, **settings)


def exit_code(command: Callable[[], int | None], interrupted: str = "interrupted") -> int:
    """Run `command`; its own code (None: 0), or 2 after printing the UsageError it raised.

    Ctrl-C prints `interrupted` and gives 130. Where the reader of its output went away, such as
    head, it ends in silence, with 141.
    """
    try:
        code = command() or 0
        sys.stdout.flush()
        return code
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # what is still buffered would be written, and fail, when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
