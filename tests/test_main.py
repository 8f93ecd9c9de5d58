"""The command line: its options, the published commands, and what it says of bad input."""

import re
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, run_command

import main_imagenet
from networks import create_model, list_attentions, list_models

OPTIONS = """
    --accumulate --amp --arch --attention-param --attention-type --auto-augment --backbone-lr
    --batch-size --ckpt --class-names --clip-grad --compile --cos-lr --crop-scale --cutmix
    --dist-backend --ema --epochs --evaluate --freeze --gpu --help --hflip --image-backend
    --image-size --label-smoothing --learning-rate --list --logger --lr --mixup --momentum --name
    --nesterov --no-wd-norm-bias --num-classes --optimizer --parallel --print-freq --profile
    --real-labels --report --resume --save-every-minutes --save-weights --sched --seed
    --skip-bad-images --subset-outputs --sync-bn --synthetic --top --tta --version --warmup-epochs
    --wd --weight-decay --weights --workers --worst --zero-init-residual -a -b -e -h -j -p
"""


def test_options_are_frozen(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")  # breaks no line
    monkeypatch.setattr("sys.argv", ["main_imagenet.py"])
    with pytest.raises(SystemExit):
        main_imagenet.main(["--help"])
    said = capsys.readouterr().out
    assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", said)) == set(OPTIONS.split())


def test_help_needs_no_heavy_import():
    start = [sys.executable, "-X", "importtime", str(ROOT / "main_imagenet.py"), "--help"]
    done = subprocess.run(start, capture_output=True, text=True)
    assert "--attention-type" in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & {"torch", "numpy", "torchvision", "PIL"}


def test_networks_and_modules_are_listed_without_data(capsys):
    assert main_imagenet.main(["--list"]) == 0
    networks, modules = capsys.readouterr().out.splitlines()
    assert networks.split() == ["networks", *list_models()]
    assert modules.split() == ["attention", *list_attentions()]


def test_adamw_has_a_learning_rate_of_its_own():
    assert main_imagenet.parse_args(["DATA", "--optimizer", "adamw"]).lr == 1e-3
    assert main_imagenet.parse_args(["DATA", "--optimizer", "adamw", "--lr", "0.1"]).lr == 0.1


def test_the_shell_is_told_what_may_come(tmp_path):
    pytest.importorskip("argcomplete")
    line, answer = "main_imagenet.py --batch", tmp_path / "answer"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer)}
    asked |= {"_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    run_command(**asked)
    assert answer.read_text().strip() == "--batch-size"


def test_published_commands_parse():
    def parse(words: str):
        return main_imagenet.parse_args(f"IMAGENET --gpu 0,1,2,3 -j 20 {words}".split())

    simam = "--attention_type simam --attention_param 0.1"
    resnet = parse(f"--epochs 100 -a resnet18 {simam}")
    mobile = parse(f"--epochs 150 -a mobilenet_v2 {simam} --lr .05 --cos_lr --wd 4e-5")
    evaluation = parse("-a resnet18 -e --resume CHECKPOINT.pth")
    assert all((args.gpu, args.workers) == ("0,1,2,3", 20) for args in (resnet, mobile, evaluation))
    assert all((a.attention_type, a.attention_param) == ("simam", 0.1) for a in (resnet, mobile))
    found = [(a.epochs, a.lr, a.sched, a.weight_decay) for a in (resnet, mobile)]
    assert found == [(100, 0.1, "step", 1e-4), (150, 0.05, "cosine", 4e-5)]
    assert (evaluation.evaluate, evaluation.resume) == (True, "CHECKPOINT.pth")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "DATA, a folder with train/<class>/ and val/<class>/, is missing"),
        ("DATA --optimizer adamw --nesterov", "--nesterov needs --optimizer sgd"),
        ("DATA --momentum 0 --nesterov", "--nesterov needs .* with a --momentum above 0"),
        ("DATA --parallel dp --sync-bn", "--sync-bn needs --parallel ddp"),
        ("DATA --parallel dp --compile", "--compile needs --parallel ddp"),
        ("DATA --multiprocessing-distributed", "--multiprocessing-distributed is gone: --gpu 0,1"),
        *((f"DATA {each} 2", f"{each} is gone: torchrun") for each in ("--world-size", "--rank")),
        ("DATA --dist_url=tcp://10.0.0.1:1234", "--dist-url is gone: torchrun --nnodes N"),
        ("DATA --local-rank=0", "--local-rank is gone: torchrun takes the place of"),
        ("DATA --pretrained", "--pretrained is gone: --weights FILE"),
        ("DATA --start-epoch 3", "--start-epoch is gone: --resume FILE"),
        ("DATA --log_freq 5", "--log-freq is gone: -p N"),
        ("DATA --no-cuda", "--no-cuda is gone: --gpu -1"),
    ],
)
def test_options_that_can_not_be_get_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main_imagenet.main(words.split())
    assert stop.value.code == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert re.match(f"error: {message}", error)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder of files that are no checkpoints of a 3-class ResNet-20 with SimAM."""
    folder = tmp_path_factory.mktemp("weights")
    state = create_model("cifar_resnet20", num_classes=10).state_dict()
    torch.save(state, folder / "ten.pth")
    torch.save(state | {"fc.bias": torch.full((10,), torch.nan)}, folder / "nan.pth")
    one = torch.tensor([-torch.inf, *[0.0] * 9])  # of a class that no image is of
    torch.save(state | {"fc.bias": one}, folder / "inf.pth")
    torch.save(state | {"bn1.running_var": torch.full((16,), -1.0)}, folder / "variance.pth")
    (folder / "cut.pth").write_bytes((folder / "ten.pth").read_bytes()[:100_000])
    (folder / "names.txt").write_text("\n".join(map(str, range(10))))
    torch.save(create_model("cifar_resnet32", num_classes=3).state_dict(), folder / "r32.pth")
    return folder


BAD = {
    "no such data": ("{nowhere}", "data folder .* does not exist"),
    "data without classes": ("{weights}", "has no folder train/"),
    "network in capitals": ("{data} -a ResNet18", r"arch 'ResNet18'.*; did you mean resnet18\?$"),
    "module in capitals": ("{data} --attention-type SimAM", r"; did you mean simam\?$"),
    "too few classes": ("{data} --num-classes 2", "--num-classes 2: .* has 3 class folders"),
    "no average": ("{data} -e --ema 0.9 --resume {weights}/ten.pth", "holds no average of weights"),
    "branches without a norm": (
        "{data} -a cifar_preresnet20 --zero-init-residual",
        "no residual branch of cifar_preresnet20 ends in a norm",
    ),
    "no such GPU": ("{data} --gpu 99", "--gpu 99: this machine has .*; --gpu -1 computes"),
    "nothing to evaluate": ("{data} -e", "-e needs a checkpoint"),
    "nothing to save": ("{data} --save-weights w.pth", "--save-weights needs"),
    "missing checkpoint": ("{data} --resume {nowhere}", "checkpoint .* does not exist"),
    "missing weights": ("{data} --weights {nowhere}", "checkpoint .* does not exist"),
    "cut checkpoint": ("{data} --resume {weights}/cut.pth", "checkpoint .*cut.pth is damaged"),
    "other class count": (
        "{data} --weights {weights}/ten.pth -e --num-classes 3",
        r"2 mis-shaped \(fc.weight \(10, 64\) for \(3, 64\)",
    ),
    "no number": (
        "{data} -e --weights {weights}/nan.pth --class-names {weights}/names.txt",
        "nan.pth makes outputs that are not finite",
    ),
    "one infinite output": (
        "{data} -e --weights {weights}/inf.pth --class-names {weights}/names.txt",
        "inf.pth makes outputs that are not finite",
    ),
    "negative variances": (
        "{data} -e --weights {weights}/variance.pth --class-names {weights}/names.txt",
        "variance.pth makes outputs that are not finite",
    ),
    "other network": ("{data} -e --resume {weights}/r32.pth", r"\d+ unexpected \(layer1.3.conv1"),
    "run folder is a file": ("{data} --ckpt {weights}/cut.pth", "can't write to run folder"),
    "save over a checkpoint": (
        "{data} --resume {weights}/ten.pth --save-weights {weights}/r32.pth",
        "r32.pth already exists; remove it or choose another name",
    ),
    "save to nowhere": (
        "{data} --resume {weights}/ten.pth --save-weights {nowhere}/w.pth",
        "can't write .*nowhere/w.pth",
    ),
}


@pytest.mark.parametrize(("words", "message"), BAD.values(), ids=BAD)
def test_bad_input_gets_one_line_and_leaves_no_trace(
    words, message, digits, weights, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    places = {"data": digits, "weights": weights, "nowhere": tmp_path / "nowhere"}
    before = sorted(weights.iterdir())
    small = "-a cifar_resnet20 --image-size 32 -j 0 --epochs 1 --gpu -1"
    assert main_imagenet.main(f"{small} {words}".format(**places).split()) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert re.search(message, error), error
    assert not list(tmp_path.iterdir())
    assert sorted(weights.iterdir()) == before
