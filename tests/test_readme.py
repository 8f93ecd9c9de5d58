"""What the READMEs say can be done: commands that their programs take, code that runs, links."""

import importlib
import io
import re
import shlex
import subprocess
from contextlib import redirect_stdout, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT, run_command

ROOMS = ("networks", "utils", "scripts", "mmdetection", "tests")
PAGES = [ROOT / "README.md", *sorted(p for room in ROOMS for p in (ROOT / room).rglob("README.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PROGRAM = re.compile(r"(?:[A-Z_]+=\S+ )*(?:python|bash|torchrun|sbatch) +(.*)")


def fences(page: Path, language: str) -> list[str]:
    return [text for kind, text in FENCE.findall(page.read_text()) if kind == language]


def spans(page: Path) -> list[str]:
    """The code within sentences and tables, each on one line."""
    found = re.findall(r"`([^`]+)`", FENCE.sub("", page.read_text()))
    return [" ".join(span.split()) for span in found]


def commands(page: Path) -> list[str]:
    """What follows `python`, `bash`, `torchrun` or `sbatch`, in bash fences and in spans."""
    lines = "\n".join(fences(page, "bash")).replace("\\\n", " ").splitlines()
    found = map(PROGRAM.match, [*lines, *spans(page)])
    return list(dict.fromkeys(match[1] for match in found if match))


def accept(command: str) -> None:
    """Fail unless the files in `command` are there, and its program takes its words."""
    words = shlex.split(command, comments=True)
    for word in words:
        assert word.split("/")[0] not in ROOMS or (ROOT / word).exists(), word
    scripts = [n for n, word in enumerate(words) if word.endswith((".py", ".sh", ".sbatch"))]
    if not scripts:
        return
    program, arguments = words[scripts[0]], words[scripts[0] + 1 :]
    if program.endswith(".sbatch"):
        program = "main_imagenet.py"  # which it starts
    if program.endswith(".sh") or program.startswith("$"):
        return  # it is no parser of ours that takes the words
    try:
        parser_of(program)(arguments)
    except SystemExit as end:
        pytest.fail(f"exit code {end.code}: {command}")


def parser_of(program: str):
    return importlib.import_module(program.removesuffix(".py").replace("/", ".")).parse_args


@cache
def known_options() -> set[str]:
    """What every --help says, and every shell script."""
    said = io.StringIO()
    for path in (ROOT / "main_imagenet.py", *ROOT.glob("scripts/[a-z]*.py")):
        with redirect_stdout(said), suppress(SystemExit):
            # reproduce.py's options are those of a table; to the others it is a word as any
            parser_of(str(path.relative_to(ROOT)))(["table2", "--help"])
    texts = [said.getvalue(), *(path.read_text() for path in ROOT.glob("scripts/*.sh"))]
    return set(re.findall(r"--[a-z][a-z-]+", "\n".join(texts)))


def room(page: Path) -> str:
    return str(page.parent.relative_to(ROOT))


def cases(find) -> list:
    """What `find` finds on each page, with the page."""
    return [pytest.param(p, each, id=f"{room(p)}: {each[:60]}") for p in PAGES for each in find(p)]


@pytest.mark.parametrize(("page", "command"), cases(commands))
def test_a_command_is_taken(page, command):
    accept(command)


@pytest.mark.parametrize(
    "command", ["main_imagenet.py DATA --epoch 3", "scripts/predict.py IMAGE", "scripts/demo.bash"]
)
def test_a_command_that_rots_is_found(command, capsys):
    with pytest.raises((pytest.fail.Exception, AssertionError)):
        accept(command)


@pytest.mark.parametrize("page", PAGES, ids=room)
def test_links_paths_and_options_are_there(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target
    for first, *_ in map(str.split, spans(page)):
        if first.split("/")[0] in ROOMS and "/" in first:
            assert list(ROOT.glob(first)), first
        if first.startswith("--") and page.parent.name != "mmdetection":
            assert first.partition("=")[0].replace("_", "-") in known_options(), first


@pytest.mark.parametrize(("page", "text"), cases(lambda page: fences(page, "python")))
def test_python_runs(page, text, tmp_path, monkeypatch):
    """But for what is a part of the file that its first line names."""
    part = re.match(r"# (\w+/\S+\.py)", text)
    if part:
        assert (ROOT / part[1]).parent.is_dir()
        return
    if "from simam" in text and not find_spec("simam"):
        pytest.skip("the package is not installed")
    monkeypatch.chdir(tmp_path)
    exec(compile(text, str(page), "exec"), {"__name__": "readme"})


@pytest.mark.slow
def test_the_first_page_trains_and_evaluates(digits32, tmp_path):
    """Its two commands, on small images and the CPU, end with the line that it shows."""
    page = ROOT / "README.md"
    training, evaluation = (c for c in commands(page) if c.startswith("main_imagenet.py IMAGENET "))
    best = str(tmp_path / "ckpts" / "imagenet-resnet50-simam-param0.1" / "model_best.pth.tar")
    small = shlex.split("--image-size 32 -b 32 -j 0 --gpu -1 --lr 0.001")
    for command, more in ((training, ["--epochs", "1"]), (evaluation, [])):
        words = shlex.split(command.replace("CHECKPOINT.pth", best))[2:]
        done = run_command(digits32, *words, *small, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    (shown,) = re.findall(r"`( \* Acc@1 [^`]*)`", page.read_text())
    numbers = re.compile(r"\d+\.\d{3}")
    assert numbers.sub("N", done.stdout.splitlines()[-1]) == numbers.sub("N", shown)


def test_the_detectors_files_are_copied_as_written(tmp_path):
    """Into a source tree of mmdetection and into an installed package."""
    tree, package = tmp_path / "tree", tmp_path / "package"
    tree.mkdir()
    (package / ".mim" / "configs").mkdir(parents=True)
    page = ROOT / "mmdetection" / "README.md"
    for text in fences(page, "bash"):
        if text.startswith("cp "):
            script = text.replace("MMDETECTION", str(tree)).replace("PACKAGE", str(package))
            subprocess.run(["bash", "-euc", script], cwd=ROOT, check=True)
    rows = re.findall(r"`train (\S+) && check \1`", page.read_text())
    assert len(rows) == 4
    for row in rows:
        config = f"configs/{row}_fpn_1x_coco.py"
        own = (ROOT / "mmdetection" / config).read_text()
        assert (package / ".mim" / config).read_text() == (tree / config).read_text() == own
    for mmdet in (tree / "mmdet", package):
        assert (mmdet / "models" / "backbones" / "resnet_simam.py").exists()


def test_tensorboard_is_for_this_machine_alone():
    places = [*PAGES, *(ROOT / "scripts").glob("*.sh")]
    lines = [line for place in places for line in place.read_text().splitlines()]
    started = [line for line in lines if "tensorboard" in line and "--logdir" in line]
    assert len(started) == 3
    assert all("--host 127.0.0.1" in line for line in started)
