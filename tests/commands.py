"""The commands on a page of documentation, and whether the programs in them would take them."""

import importlib
import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
PROGRAM = re.compile(r"([A-Z_]+=\S+ )*(python|bash|simam|sbatch) ")
# what a page writes in the place of a number
NUMBERS = {"N": "3", "M": "30", "NORM": "1", "DECAY": "0.99", "ALPHA": "0.2"}
# what must be in the place of "...": the options of main_imagenet.py alone are no command
ELIDED = {"main_imagenet.py": ["DATA"]}


def fences(page: str, language: str) -> list[str]:
    return [text for kind, text in FENCE.findall((ROOT / page).read_text()) if kind == language]


def spans(page: str) -> list[str]:
    """The code within sentences and tables, each on one line."""
    text = FENCE.sub("", (ROOT / page).read_text()).replace("\\|", "|")
    return [" ".join(span.split()) for span in SPAN.findall(text)]


def commands(page: str) -> list[str]:
    """The shell's lines in bash fences, and the spans that call a program, without comments."""
    joined = "\n".join(fences(page, "bash")).replace("\\\n", " ")
    inline = [span for span in spans(page) if PROGRAM.match(f"{span} ")]
    lines = (shlex.join(shlex.split(line, comments=True)) for line in joined.splitlines())
    return list(dict.fromkeys([*filter(None, lines), *map(shlex.join, map(shlex.split, inline))]))


def alternatives(words: list[str]) -> list[list[str]]:
    """One command for each choice of `a|b`; placeholders are replaced, "..." dropped."""
    plain = (NUMBERS.get(word, word.removesuffix("...")) for word in words)
    return [list(each) for each in itertools.product(*(w.split("|") for w in plain if w))]


def accept(line: str) -> None:
    """Fail unless the programs in `line` take its words, as far as can be told without a run."""
    for words in alternatives(shlex.split(line)):
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        PROGRAMS[Path(words[0]).name](words[1:])


def parse(module: str, words: list[str]) -> None:
    """Give `words` to the script's own parser, which ends the process at a mistake."""
    parser = "utils.options" if module == "main_imagenet" else module
    try:
        importlib.import_module(parser).parse_args(words)
    except SystemExit as end:
        pytest.fail(f"{module} does not take {shlex.join(words)} ({end.code})")


def python(words: list[str]) -> None:
    if words[:2] == ["-m", "pip"]:
        return pip(words[2:])
    if words[:2] == ["-m", "pytest"]:
        return run_tests(words[2:])
    name, words = words[0], words[1:]
    assert (ROOT / name).exists(), name
    module = name.removesuffix(".py").replace("/", ".")
    if module in NO_PARSER:
        assert len(words) == NO_PARSER[module], words
        return None
    return parse(module, words or ELIDED.get(name, []))


# these take so many words, and no options
NO_PARSER = {"scripts.make_digits": 1, "scripts.model_table": 0}


def bash(words: list[str]) -> None:
    script = ROOT / words[0]
    subprocess.run(["bash", "-n", str(script)], check=True)
    SHELL[script.name](words[1:])


def at_most(count: int):
    def check(words: list[str]) -> None:
        assert len(words) <= count
        assert not any(word.startswith("-") for word in words)

    return check


def show_recipe(words: list[str]) -> None:
    """What train_imagenet.sh would run, taken by the command's own parser."""
    environment = {**os.environ, "PYTHON": "echo", "DATA": "DATA"}
    command = ["bash", str(ROOT / "scripts" / "train_imagenet.sh"), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    parse("main_imagenet", done.stdout.split()[1:])


def run_tests(words: list[str]) -> None:
    """pytest's words: a marker that is registered, and places that exist."""
    for option, value in zip(words, words[1:], strict=False):
        if option == "-m":
            assert value.removeprefix("not ") in ("slow", "gpu")
    for word in words:
        if word.startswith("tests"):
            assert (ROOT / word).exists(), word


SHELL = {
    "demo.sh": at_most(0),
    "gpu_report.sh": at_most(1),
    "setup_mmdet.sh": at_most(1),
    "test.sh": run_tests,
    "train_imagenet.sh": show_recipe,
}


def pip(words: list[str]) -> None:
    imported = "from pip._internal.commands import create_command"
    elsewhere(f"{imported}; create_command(sys.argv[1]).parse_args(sys.argv[2:])", words)


def elsewhere(code: str, words: list[str]) -> None:
    """Run `code` on `words` in a process of its own, whose imports and warnings are its own."""
    command = [sys.executable, "-W", "ignore", "-c", f"import sys; {code}", *words]
    subprocess.run(command, check=True)


def torchrun(words: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    args = get_args_parser().parse_args(words)
    python([args.training_script, *args.training_script_args])


def sbatch(words: list[str]) -> None:
    at = next(n for n, word in enumerate(words) if word.endswith(".sbatch"))
    subprocess.run(["bash", "-n", str(ROOT / words[at])], check=True)
    parse("main_imagenet", words[at + 1 :])


def simam(words: list[str]) -> None:
    from scripts.command import COMMANDS

    module, _ = COMMANDS[words[0]] if words else ("", "")
    if words[1:]:
        parse(module, words[1:])


def tensorboard(words: list[str]) -> None:
    imported = "from tensorboard.program import TensorBoard"
    elsewhere(f"{imported}; TensorBoard().configure(sys.argv)", words)


PROGRAMS = {
    **{"python": python, "bash": bash, "torchrun": torchrun, "sbatch": sbatch},
    **{"simam": simam, "tensorboard": tensorboard},
}
