"""What the README says can be done is done here, or in the test that is named."""

import ast
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from subprocess import CalledProcessError

import pytest
from commands import accept, commands, fences, spans
from conftest import ROOT, run_command
from torch.distributed.run import get_args_parser

from scripts import reproduce
from utils import options

PAGES = ("README.md", "mmdetection/README.md")
LINK = re.compile(r"\[[^]]*\]\(([^)#]+)[^)]*\)")
PATH = re.compile(
    r"`((?:networks|utils|scripts|tests|mmdetection|\.ci)/[\w./*-]*|main_imagenet\.py)"
)


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
    found = [text for text in fences("README.md", "python") if text.startswith(first_line)]
    assert len(found) == 1, first_line
    return found[0].split("\n", 1)[1]


def test_python_examples_run():
    for text in fences("README.md", "python"):
        if not text.startswith(("# networks/", "# tests/")):
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


@pytest.mark.slow
def test_the_worked_example_trains_and_passes_the_tests(digits, tmp_path):
    for name in ("networks", "utils", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    for name in ("main_imagenet.py", "pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("tests/test_attentions.py", "tests/test_identify.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    module = tmp_path / "networks" / "attentions" / "contrast.py"
    module.write_text(example("# networks/attentions/contrast.py"))
    row = example("# networks/attentions/__init__.py: ATTENTIONS")
    add_to(tmp_path / "networks" / "attentions" / "__init__.py", "ATTENTIONS", row)
    add_to(tmp_path / "networks" / "resnet.py", "RESNETS", example("# networks/resnet.py: RESNETS"))
    row = example("# tests/test_attentions.py: FORMULAS")
    add_to(tmp_path / "tests" / "test_attentions.py", "FORMULAS", row)
    options = "-a resnet26 --attention-type contrast --attention-param 2 --epochs 1 --gpu -1"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
    inside = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    command = ["main_imagenet.py", digits, *options.split(), "--image-size", "32"]
    done = subprocess.run([sys.executable, *command], timeout=300, **inside)
    assert done.returncode == 0, done.stderr
    command = ["-m", "pytest", "-q", "tests", "-k", "contrast or formula_here or resnet26"]
    tests = subprocess.run([sys.executable, *command], timeout=300, **inside)
    assert tests.returncode == 0, tests.stdout
    assert "network     resnet26, attention contrast (parameter 2), 3 classes" in done.stdout


def mentioned(text: str) -> bool:
    """Whether a test, or the gate, has the text."""
    here = {Path(__file__), ROOT / "tests" / "commands.py"}
    files = {ROOT / ".ci" / "run", *(ROOT / "tests").rglob("*.py")} - here
    return any(text in file.read_text() for file in files)


# programs that are not of this repository: what a test that runs them says
OTHERS = {"tensorboard": "tensorboard.main", "torchrun": "torch.distributed.run", "pip": '"pip"'}
SHELL_WORDS = ("cp", "export", "sed", "source", "TOOLS=", "train()", "check()")
COMMANDS = [(page, line) for page in PAGES for line in commands(page)]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_command_is_taken_and_its_script_is_tested(page, line):
    if page != "README.md" and line.strip("'").startswith(SHELL_WORDS):
        return  # the tests below run these
    accept(line)
    words = shlex.split(line)
    scripts = [word for word in words if word.endswith((".py", ".sh"))]
    for name in scripts:
        assert mentioned(Path(name).name if name.endswith(".sh") else Path(name).stem), name
    for program, text in OTHERS.items():
        if program in words:
            assert mentioned(text), program


@pytest.mark.parametrize(
    "line",
    [
        "python main_imagenet.py DATA --epoch 3",
        "python main_imagenet.py DATA --optimizer sgd|adam",
        "python scripts/predict.py IMAGE",
        "python scripts/reproduce.py table3 --seeds 1",
        "python scripts/reproduce.py table5",
        "python scripts/convert_checkpoint.py IN OUT --to ours|pytorch",
        "DATA=IMAGENET bash scripts/train_imagenet.sh resnet50 simam --warmup 5",
        "torchrun --nproc-per-node 2 main_imagenet.py DATA --gpus 2",
        "python -m pip install --quick .",
        "simam predict IMAGE --checkpoints FILE",
        "bash scripts/gpu_report.sh --all",
    ],
)
def test_a_command_that_rots_is_found(line, capsys):
    with pytest.raises((SystemExit, pytest.fail.Exception, AssertionError, CalledProcessError)):
        accept(line)


def test_options_in_the_text_exist(capsys):
    scripts = {each.stem for each in (ROOT / "scripts").glob("*.py")} - {"__init__", "command"}
    parsers = [importlib.import_module(f"scripts.{name}") for name in sorted(scripts)]
    calls = [(parser, []) for parser in parsers if hasattr(parser, "parse_args")]
    calls += [(options, []), *((reproduce, [f"table{number}"]) for number in (2, 3, 4))]
    for parser, words in calls:
        with pytest.raises(SystemExit):
            parser.parse_args([*words, "--help"])
    known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    named = [span for span in spans("README.md") if span.startswith("--")]
    assert len(named) > 30
    for span in named:
        assert span.split()[0] in known, span


def test_the_commands_that_show_a_network_run_in_order(
    trained, digits, photos, tmp_path, monkeypatch, capsys
):
    """As written, but for the places, in the folder where they leave their pictures."""
    monkeypatch.chdir(tmp_path)
    (block,) = (text for text in fences("README.md", "bash") if "gradcam.py" in text)
    best, last = trained / "model_best.pth.tar", trained / "checkpoint.pth.tar"
    places = {"IMAGE_OR_FOLDER...": digits / "val", "IMAGE...": photos[0], "IMAGE": photos[1]}
    places |= {"FILE": best, "A": best, "B": last, "RUN_FOLDER...": trained}
    ran = []
    for line in block.splitlines():
        _, script, *words = shlex.split(line, comments=True) or ["", ""]
        if Path(script).name in ("predict.py", "gradcam.py", "show_attention.py", "plot_curves.py"):
            module = importlib.import_module(f"scripts.{Path(script).stem}")
            assert module.main([str(places.get(word, word)) for word in words]) == 0, line
            ran.append(Path(script).stem)
    assert ran == ["predict", "gradcam", "show_attention", "plot_curves"]
    assert {path.name for path in tmp_path.iterdir()} == {
        *("gradcam.png", "attention.png", "curves.png")
    }
    assert capsys.readouterr().out.count("%") == 12 * 3 + 2


def test_copying_into_mmdetection_works_as_written(tmp_path):
    tree, package = tmp_path / "tree", tmp_path / "package"
    (package / ".mim").mkdir(parents=True)
    tree.mkdir()
    (package / ".mim" / "configs").mkdir()
    for text in fences("mmdetection/README.md", "bash"):
        if text.startswith(("cp ", "sed ")):
            script = text.replace("MMDETECTION", str(tree)).replace("PACKAGE", str(package))
            subprocess.run(["bash", "-euc", script], cwd=ROOT, check=True)
    backbone = "models/backbones/resnet_simam.py"
    assert (tree / "mmdet" / backbone).exists()
    assert (package / backbone).exists()
    for config in (ROOT / "mmdetection" / "configs").glob("*_rcnn/*.py"):
        place = config.relative_to(ROOT / "mmdetection")
        assert (package / ".mim" / place).read_text() == config.read_text()
        assert "mmdet::" not in (tree / place).read_text()


def test_every_row_of_the_detectors_trains_a_config_that_exists():
    """The table's commands, with the page's functions, and `torchrun` that shows its words."""
    (functions,) = (t for t in fences("mmdetection/README.md", "bash") if t.startswith("train()"))
    rows = [span for span in spans("mmdetection/README.md") if " && check " in span]
    assert len(rows) == 4
    for row in rows:
        script = f'TOOLS=TOOLS\ntorchrun() {{ echo "$@"; }}\n{functions}\n{row}'
        done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True)
        train, check = (line.split() for line in done.stdout.splitlines())
        parse = get_args_parser().parse_args
        (tool, config), (test, same, weights) = (
            [parse(words).training_script, *parse(words).training_script_args[:n]]
            for words, n in ((train, 1), (check, 2))
        )
        assert (tool, test, config) == ("TOOLS/train.py", "TOOLS/test.py", same)
        assert (ROOT / config).exists(), config
        assert weights == f"work_dirs/{Path(config).stem}/epoch_12.pth"


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
        options = shlex.split(line)[3:]
        done = run_command(digits, *options, *small, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    numbers = re.compile(r"\d+\.\d{3}")
    last = done.stdout.splitlines()[-1]
    assert numbers.sub("N", last) == numbers.sub("N", shown())
