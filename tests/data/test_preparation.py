"""Scripts prepare images as the training that made the checkpoint did."""

import json

import pytest
import torch
from PIL import Image
from runs import path, run
from torchvision.models import ResNet18_Weights

from networks import create_model
from scripts import evaluate_all, export_onnx, gradcam, predict, show_attention, train_cifar
from utils.checkpoints import Checkpoint
from utils.checkpoints.formats import CheckpointError, write_weights
from utils.data.preparation import CIFAR, IMAGENET

CPU = ["--gpu", "-1"]


@pytest.fixture(scope="module")
def cifar_run(digits32, tmp_path_factory):
    """The run folder of a SimAM ResNet-20 that train_cifar.py trained for two epochs."""
    root = tmp_path_factory.mktemp("cifar_run")
    words = f"--data-dir {digits32} --attentions simam --iterations 6 --ckpt {root}"
    assert train_cifar.main([*words.split(), *CPU]) == 0
    (folder,) = root.iterdir()
    return folder


def assert_comes_again(folder, data, tmp_path, capsys) -> None:
    """What the run in `folder` reached at last is what predict.py and evaluate_all.py find."""
    written = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    checkpoint, options = str(folder / "checkpoint.pth.tar"), [*CPU, "-j", "0"]
    capsys.readouterr()
    words = [f"{data}/val", "--checkpoint", checkpoint, "--format", "jsonl"]
    assert predict.main([*words, *options]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    right = [each["predictions"][0]["class"] == each["image"].split("/")[-2] for each in said]
    assert 100 * sum(right) / len(right) == pytest.approx(written["val_acc1"])
    assert loss(data, checkpoint, tmp_path) == pytest.approx(written["val_loss"], rel=1e-4)


def loss(data, checkpoint, folder) -> float:
    """As evaluate_all.py says it."""
    words = [data, checkpoint, *CPU, "-j", "0", "--json", folder / "rows.json"]
    assert evaluate_all.main([str(word) for word in words]) == 0
    (row,) = json.loads((folder / "rows.json").read_text())
    return row["loss"]


def test_a_cifar_runs_numbers_come_again(cifar_run, digits32, tmp_path, capsys):
    assert_comes_again(cifar_run, digits32, tmp_path, capsys)
    # older files of ours say nothing of it
    content = torch.load(cifar_run / "checkpoint.pth.tar", weights_only=True)
    del content["preparation"]
    torch.save(content, tmp_path / "older.pth.tar")
    newer = loss(digits32, cifar_run / "checkpoint.pth.tar", tmp_path)
    assert loss(digits32, tmp_path / "older.pth.tar", tmp_path) == newer


def test_a_run_at_another_size_comes_again(digits, tmp_path, capsys):
    """The digits at 64 pixels, whose evaluation cuts out the middle of 73."""
    assert run(digits, tmp_path, "--image-size", 64, "--epochs", 1) == 0
    assert_comes_again(path(tmp_path).parent, digits, tmp_path, capsys)


def test_pictures_of_networks_with_images_of_their_own(cifar_run, photos, tmp_path):
    checkpoints = [cifar_run / "checkpoint.pth.tar", tmp_path / "bare.pth"]
    write_weights(create_model("resnet18").state_dict(), str(checkpoints[1]))
    files = [word for path in checkpoints for word in ("--checkpoint", str(path))]
    assert show_attention.main([str(photos[0]), *files[:2], *CPU, "-o", f"{tmp_path}/a.png"]) == 0
    assert gradcam.main([str(photos[0]), *files, *CPU, "-o", f"{tmp_path}/g.png"]) == 0
    for name in ("a.png", "g.png"):
        with Image.open(tmp_path / name) as picture:
            assert len(picture.convert("RGB").getcolors(1_000_000)) > 30


def test_an_exported_cifar_network_says_how(cifar_run, tmp_path):
    target = str(tmp_path / "network.pt2")
    assert export_onnx.main([str(cifar_run / "checkpoint.pth.tar"), target]) == 0
    notes = {"network.json": ""}
    program = torch.export.load(target, extra_files=notes)
    program.module()(torch.randn(2, 3, 32, 32))
    with pytest.raises(AssertionError, match="== 32"):
        program.module()(torch.randn(2, 3, 224, 224))
    assert json.loads(notes["network.json"])["preparation"] == {
        **{"shorter_side": 32, "centre_crop": 32},
        **{"mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.201]},
    }


def test_imagenets_is_that_of_torchvisions_weights():
    theirs = ResNet18_Weights.IMAGENET1K_V1.transforms()
    sides = (*theirs.resize_size, *theirs.crop_size)
    assert (*sides, tuple(theirs.mean), tuple(theirs.std)) == IMAGENET


def test_another_size_keeps_the_rest():
    assert IMAGENET.at(None) == IMAGENET
    assert IMAGENET.at(96)[:2] == (109, 96)
    assert IMAGENET.at(96).at(224) == IMAGENET
    assert CIFAR.at(64) == CIFAR._replace(shorter_side=64, centre_crop=64)


@pytest.mark.parametrize(
    "said",
    [None, 7, {}, {"centre_crop": 32}, IMAGENET._asdict() | {"mean": 0.5}, list(IMAGENET)],
)
def test_what_is_no_preparation_is_refused(said):
    with pytest.raises(CheckpointError, match="^checkpoint w.pth is damaged: its preparation"):
        Checkpoint("w.pth", {"preparation": said}).preparation("resnet18")


@pytest.mark.parametrize(("arch", "usual"), [("resnet18", IMAGENET), ("cifar_resnet20", CIFAR)])
def test_a_file_that_says_nothing_has_the_usual_one(arch, usual):
    assert Checkpoint("", {"arch": arch}).preparation(arch) == usual


def test_what_a_file_says_is_taken():
    mine = IMAGENET.at(96)._replace(mean=(0.5, 0.5, 0.5))
    assert Checkpoint("", {"preparation": mine._asdict()}).preparation("cifar_resnet20") == mine
