"""Is your copy of SimAM right?

    python -m simam.check FILE[:NAME]

Runs the class or function NAME of FILE, or every one that has "simam" in its name, against the
paper's Eq. 5, and says what is wrong with it. Ends with 0 where all are right, 1 where one is
wrong, 2 where there is nothing to check.
"""

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from .copies import check


def load(path: str, name: str) -> dict[str, Callable]:
    """The copies in a file, by name. Raises ValueError where there is none."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location("copy_of_simam", path)
    if spec is None:
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(path).resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} can't be imported ({type(error).__name__}: {error})") from error
    own = {
        each: value
        for each, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    }
    wanted = {
        each: value
        for each, value in own.items()
        if (each == name if name else "simam" in each.lower())
    }
    if not wanted:
        names = ", ".join(own) or "none"
        raise ValueError(f"{path} has no {name or 'SimAM'}; its classes and functions: {names}")
    return wanted


def main(words: list[str]) -> int:
    if len(words) != 1 or words[0] in ("-h", "--help"):
        print(__doc__.strip())
        return 0 if words[:1] in (["-h"], ["--help"]) else 2
    path, _, name = words[0].partition(":") if ".py:" in words[0] else (words[0], "", "")
    wrong = False
    try:
        for each, copy in load(path, name).items():
            faults = check(copy)
            wrong = wrong or bool(faults)
            print("\n  - ".join([f"{each}: {'wrong' if faults else 'right'}", *faults]))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
