"""The tables of reproduce.py."""

import subprocess
from collections.abc import Iterable, Mapping


def run_in_turn(commands: Iterable[list[str]], environment: Mapping[str, str]) -> int:
    """Run the commands until one fails; its exit code (128 + signal where it was killed), or 0."""
    for command in commands:
        code = subprocess.run(command, env=environment).returncode
        if code:
            return code if code > 0 else 128 - code
    return 0
