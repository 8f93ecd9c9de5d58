"""What the README says can be done is done here, or in the test that is named."""

import ast
import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PAGES = ("README.md", "mmdetection/README.md")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^]]*\]\(([^)#]+)[^)]*\)")
PATH = re.compile(
    r"`((?:networks|utils|scripts|tests|mmdetection|\.ci)/[\w./*-]*|main_imagenet\.py)"
)


def blocks(page: str, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall((ROOT / page).read_text()) if kind == language]


def commands(page: str) -> list[str]:
    """The page's shell commands, without comments, each on one line."""
    joined = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    lines = (" ".join(shlex.split(line, comments=True)) for line in joined.splitlines())
    return [line for line in lines if line]


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_exist(page):
    text = (ROOT / page).read_text()
    here = (ROOT / page).parent
    for target in LINK.findall(text):
        if not target.startswith("https://"):
            assert (here / target).exists(), target
    for path in PATH.findall(text):
        found = list(ROOT.glob(path.rstrip("/."))) or list(here.glob(path.rstrip("/.")))
        assert found, path


def example(first_line: str) -> str:
    """The Python block that begins so, without that line."""
    found = [text for text in blocks("README.md", "python") if text.startswith(first_line)]
    assert len(found) == 1, first_line
    return found[0].split("\n", 1)[1]


def test_python_examples_run():
    for text in blocks("README.md", "python"):
        if not text.startswith("# networks/"):
            subprocess.run([sys.executable, "-c", text], cwd=ROOT, check=True, timeout=120)


def add_to(path: Path, table: str, example: str) -> None:
    """Add the example's last line to the literal dict `table`, its other lines at the top."""
    *imports, row = example.strip().splitlines()
    text = path.read_text()
    (start,) = (
        node.lineno
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == table
    )
    lines = text.splitlines()
    lines.insert(start, row)
    docstring_end = ast.parse(text).body[0].end_lineno
    path.write_text("\n".join([*lines[:docstring_end], *imports, *lines[docstring_end:]]) + "\n")


def test_the_worked_example_trains(digits, tmp_path):
    for name in ("networks", "utils"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "main_imagenet.py", tmp_path)
    module = tmp_path / "networks" / "attentions" / "contrast.py"
    module.write_text(example("# networks/attentions/contrast.py"))
    row = example("# networks/attentions/__init__.py: ATTENTIONS")
    add_to(tmp_path / "networks" / "attentions" / "__init__.py", "ATTENTIONS", row)
    add_to(tmp_path / "networks" / "resnet.py", "RESNETS", example("# networks/resnet.py: RESNETS"))
    options = "-a resnet26 --attention-type contrast --attention-param 2 --epochs 1 --gpu -1"
    done = subprocess.run(
        [sys.executable, "main_imagenet.py", digits, *options.split(), "--image-size", "32"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "network     resnet26, attention contrast (parameter 2), 3 classes" in done.stdout


@functools.cache
def help_of(script: str) -> str:
    command = [sys.executable, str(ROOT / script), "--help"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def mentioned(text: str) -> bool:
    """Whether a test, or the gate, has the text."""
    files = [ROOT / ".ci" / "run", *(ROOT / "tests").rglob("*.py")]
    return any(text in file.read_text() for file in files if file != Path(__file__))


# programs that are not of this repository: what a test that runs them says
OTHERS = {"tensorboard": "tensorboard.main", "torchrun": "torch.distributed.run"}


@pytest.mark.parametrize("line", commands("README.md"))
def test_a_commands_script_and_options_exist_and_are_tested(line):
    words = [word for word in shlex.split(line) if not re.match(r"[A-Z]+=", word)]
    if words[0] in OTHERS:
        assert mentioned(OTHERS[words[0]])
    elif words[:4] == ["python", "-m", "pip", "install"]:
        assert mentioned('"pip"')
        return
    scripts = [n for n, word in enumerate(words) if word.endswith((".py", ".sh", ".sbatch"))]
    for at in scripts:
        name, flags = words[at], [word for word in words[at:] if word.startswith("-")]
        if not name.endswith(".py"):
            subprocess.run(["bash", "-n", str(ROOT / name)], check=True)
            assert name.endswith(".sbatch") or mentioned(Path(name).name)
            continue
        assert mentioned(Path(name).stem)
        for flag in flags:
            assert re.search(rf"(?<![\w-]){flag}(?![\w-])", help_of(name)), flag
    assert scripts or words[0] in OTHERS


def shown() -> str:
    """The line that the page says an evaluation ends with."""
    (line,) = re.findall(r"^    ( \* Acc@1 .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    return line


@pytest.mark.slow
def test_the_first_commands_work_as_written(digits, tmp_path):
    """Training, then the evaluation of the file that the page says it leaves; on small images."""
    lines = [line for line in commands("README.md") if line.startswith("python main_imagenet.py")]
    training = lines[0]
    (evaluation,) = (line for line in lines if " -e --resume ckpts/" in line)
    small = ["--image-size", "32", "-b", "8", "-j", "0", "--gpu", "-1"]
    for line, more in ((training, ["--epochs", "1"]), (evaluation, [])):
        _, script, _, *options = shlex.split(line)
        done = subprocess.run(
            [sys.executable, ROOT / script, digits, *options, *small, *more],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
    numbers = re.compile(r"\d+\.\d{3}")
    last = done.stdout.splitlines()[-1]
    assert numbers.sub("N", last) == numbers.sub("N", shown())
