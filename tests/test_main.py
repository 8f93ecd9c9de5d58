"""The command line: its options, the published commands, and what it says of bad input."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import main_imagenet
from networks import create_model
from utils.cli import Parser

ROOT = Path(__file__).resolve().parent.parent

OPTIONS = """
    --accumulate --amp --arch --attention-param --attention-type --attention_param
    --attention_type --auto-augment --batch-size --batch_size --ckpt --clip-grad --compile
    --cos-lr --cos_lr --cutmix --dist-backend --dist-url --dist_backend --dist_url --ema --epochs
    --evaluate --gpu --help --image-backend --image-size --image_size --label-smoothing
    --learning-rate --lr --mixup --momentum --multiprocessing-distributed
    --multiprocessing_distributed --nesterov --no-wd-norm-bias --num-classes --num_classes
    --optimizer --parallel --print-freq --print_freq --profile --rank --resume
    --save-every-minutes --save-weights --save_every_minutes --save_weights --sched --seed
    --skip-bad-images --sync-bn --synthetic --warmup-epochs --wd --weight-decay --weights
    --workers --world-size --world_size --zero-init-residual -a -b -e -h -j -p
"""


def build_parser(monkeypatch):
    kept, parse = [], Parser.parse_args
    monkeypatch.setattr(
        Parser, "parse_args", lambda parser, argv: kept.append(parser) or parse(parser, argv)
    )
    main_imagenet.parse_args(["DATA"])
    return kept[0]


def test_options_are_frozen(monkeypatch):
    parser = build_parser(monkeypatch)
    found = {word for action in parser._actions for word in action.option_strings}
    assert found == set(OPTIONS.split())


def test_published_defaults():
    args = main_imagenet.parse_args(["DATA"])
    assert (args.batch_size, args.epochs, args.lr, args.momentum, args.wd) == (
        256,
        90,
        0.1,
        0.9,
        1e-4,
    )
    assert (args.workers, args.print_freq, args.arch, args.attention_type) == (
        4,
        10,
        "resnet18",
        "none",
    )
    assert args.sched == "step"
    assert args.image_size == 224
    assert args.ckpt == "ckpts"


PUBLISHED = {
    "resnet18": "--epochs 100 -a resnet18 --attention_type simam --attention_param 0.1",
    "mobilenet_v2": "--epochs 150 -a mobilenet_v2 --attention_type simam --attention_param 0.1 "
    "--lr .05 --cos_lr --wd 4e-5",
    "evaluation": "-a resnet18 -e --resume CHECKPOINT.pth",
}


def test_published_commands_parse():
    args = {
        name: main_imagenet.parse_args(["IMAGENET", "--gpu", "0,1,2,3", "-j", "20", *words.split()])
        for name, words in PUBLISHED.items()
    }
    assert all((each.gpu, each.workers) == ("0,1,2,3", 20) for each in args.values())
    training = args["resnet18"], args["mobilenet_v2"]
    assert all((a.attention_type, a.attention_param) == ("simam", 0.1) for a in training)
    assert args["resnet18"].epochs == 100
    mobile = args["mobilenet_v2"]
    assert (mobile.epochs, mobile.lr, mobile.sched, mobile.wd) == (150, 0.05, "cosine", 4e-5)
    assert (args["evaluation"].evaluate, args["evaluation"].resume) == (True, "CHECKPOINT.pth")


def test_help_needs_no_heavy_import():
    code = (
        "import sys, main_imagenet\ntry: main_imagenet.main(['--help'])\nexcept SystemExit: pass\n"
    )
    code += "print('heavy:', sorted({'torch', 'numpy', 'torchvision', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "--attention-type" in done.stdout
    assert done.stdout.endswith("heavy: []\n")


@pytest.fixture
def weights(tmp_path):
    """A folder of files that are no checkpoints of a 3-class resnet18 with SimAM."""
    folder = tmp_path / "weights"
    folder.mkdir()
    state = create_model("resnet18", num_classes=10).state_dict()
    torch.save(state, folder / "ten.pth")
    (folder / "cut.pth").write_bytes((folder / "ten.pth").read_bytes()[:100_000])
    (folder / "text.pth").write_text("hello\n")
    (folder / "empty.pth").touch()
    torch.save(create_model("resnet34", num_classes=3).state_dict(), folder / "r34.pth")
    return folder


BAD = {
    "no such data": ("{nowhere}", "data folder .* does not exist"),
    "data without val": ("{weights}", "has no folder val/"),
    "unknown arch": ("{data} -a resnet81", "unknown arch 'resnet81'; known: resnet18,"),
    "unknown attention": (
        "{data} --attention-type sima",
        "unknown attention 'sima'; known: simam,",
    ),
    "attention parameter for none": ("{data} --attention-param 1", "takes no attention parameter"),
    "lambda zero": ("{data} --attention-type simam --attention-param 0", "must be positive"),
    "too few classes": ("{data} --num-classes 2", "--num-classes 2: .* has 3 class folders"),
    "no average": (
        "{data} -e --ema 0.9 --num-classes 10 --resume {weights}/ten.pth",
        "holds no average of weights",
    ),
    "branches without a norm": (
        "{data} -a cifar_preresnet20 --zero-init-residual",
        "no residual branch of cifar_preresnet20 ends in a norm",
    ),
    "no such GPU": ("{data} --gpu 99", "--gpu 99: this machine has .*; --gpu -1 computes"),
    "no GPU number": ("{data} --gpu first", "--gpu first is not a GPU number"),
    "nothing to evaluate": ("{data} -e", "-e needs a checkpoint"),
    "nothing to save": ("{data} --save-weights w.pth", "--save-weights needs"),
    "missing checkpoint": ("{data} --resume {nowhere}", "checkpoint .* does not exist"),
    "missing weights": ("{data} --weights {nowhere}", "checkpoint .* does not exist"),
    "truncated checkpoint": (
        "{data} --resume {weights}/cut.pth",
        "checkpoint .*cut.pth is damaged",
    ),
    "text file": ("{data} -e --resume {weights}/text.pth", "text.pth"),
    "empty file": ("{data} -e --resume {weights}/empty.pth", "empty.pth"),
    "folder as checkpoint": ("{data} -e --resume {weights}", "weights"),
    "other class count": (
        "{data} -e --resume {weights}/ten.pth",
        r"2 mis-shaped \(fc.weight \(10, 512\) for \(3, 512\)",
    ),
    "other network": (
        "{data} -e --resume {weights}/r34.pth",
        r"\d+ unexpected \(layer1.2.conv1.weight,",
    ),
    "run folder is a file": ("{data} --ckpt {weights}/text.pth", "can't write to run folder"),
    "save to nowhere": (
        "{data} --num-classes 10 --resume {weights}/ten.pth --save-weights {nowhere}/w.pth",
        "can't write .*nowhere/w.pth",
    ),
}


@pytest.mark.parametrize(("words", "message"), BAD.values(), ids=BAD)
def test_bad_input_gets_one_line_and_leaves_no_trace(
    words, message, digits, weights, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    places = {"data": digits, "weights": weights, "nowhere": tmp_path / "nowhere"}
    argv = words.format(**places).split() + ["--image-size", "32", "-j", "0", "--epochs", "1"]
    if "--gpu" not in argv:
        argv += ["--gpu", "-1"]
    assert main_imagenet.main(argv) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    assert re.search(message, error), error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "words",
    [
        "",
        "DATA -b 0",
        "DATA --lr nan",
        "DATA --lr -1",
        "DATA --epochs x",
        "DATA --nope",
        "DATA --ema 1",
        "DATA --optimizer adamw --nesterov",
        "DATA --parallel dp --sync-bn",
        "DATA --parallel dp --compile",
    ],
)
def test_options_that_do_not_parse_get_one_line(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main_imagenet.main(words.split())
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
