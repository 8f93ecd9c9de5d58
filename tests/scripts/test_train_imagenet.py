"""scripts/train_imagenet.sh: the command of every row of the paper's Table 3."""

import os
import subprocess

import pytest
from conftest import ROOT

from utils.options import parse_args
from utils.report.paper import TABLE3


def recipe(*arguments, **environment) -> subprocess.CompletedProcess:
    """What the script would run, with `echo` in Python's place."""
    env = {k: v for k, v in os.environ.items() if k != "DATA"} | {"PYTHON": "echo"} | environment
    command = ["bash", str(ROOT / "scripts" / "train_imagenet.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env)


@pytest.mark.parametrize(("arch", "attention"), TABLE3)
def test_every_row_has_the_papers_recipe(arch, attention):
    shown = recipe(arch, attention, "--resume", "auto", DATA="IMAGENET").stdout.split()
    assert shown[0].endswith("main_imagenet.py")
    args = parse_args(shown[1:])
    assert (args.data, args.arch, args.attention_type) == ("IMAGENET", arch, attention)
    assert args.attention_param == (0.1 if attention == "simam" else None)
    mobile = arch == "mobilenet_v2"
    schedule = (150, 0.05, 4e-5, "cosine") if mobile else (100, 0.1, 1e-4, "step")
    assert (args.epochs, args.lr, args.weight_decay, args.sched) == schedule
    assert (args.batch_size, args.momentum, args.gpu) == (256, 0.9, "0,1,2,3")
    assert args.resume == "auto"


def test_simam_is_what_is_trained_where_nothing_is_said():
    for more in ([], ["--seed", "3"]):
        args = parse_args(recipe("resnet18", *more, DATA="IMAGENET").stdout.split()[1:])
        assert (args.attention_type, args.seed) == ("simam", 3 if more else None)


@pytest.mark.parametrize(
    ("arguments", "data", "words"),
    [
        ([], "IMAGENET", "which network?"),
        (["resnet19"], "IMAGENET", "resnet19 is not in the paper's Table 3; known: resnet18"),
        (["resnet18", "simm"], "IMAGENET", "simm is not in the paper's Table 3; known: none se"),
        (["resnet18"], "", "DATA is not set"),
    ],
)
def test_mistakes_are_one_line(arguments, data, words):
    done = recipe(*arguments, DATA=data)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
