"""Scripts prepare images as the training that made the checkpoint did."""

import json

import onnx
import pytest
import torch
from conftest import run_command
from PIL import Image
from utils.checkpoints.files import write_weights
from utils.checkpoints.loading import load_network

from networks import create_model
from scripts import evaluate_all, export_onnx, gradcam, predict, show_attention, train_cifar
from utils.data.preparation import CIFAR, IMAGENET, preparation_of


@pytest.fixture(scope="module")
def cifar_run(digits32, tmp_path_factory):
    """The run folder of a SimAM ResNet-20 that train_cifar.py trained for eight epochs."""
    root = tmp_path_factory.mktemp("cifar_run")
    words = f"--data-dir {digits32} --attentions simam --iterations 24 --gpu -1 --ckpt {root}"
    assert train_cifar.main(words.split()) == 0
    (folder,) = root.iterdir()
    return folder


def written(folder) -> dict:
    """The last line of metrics.jsonl."""
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])


def accuracy(data, checkpoint, capsys) -> float:
    """Percent of val/ that predict.py is right about."""
    words = [
        data / "val",
        "--checkpoint",
        checkpoint,
        "--gpu",
        "-1",
        "-j",
        "0",
        "--format",
        "jsonl",
    ]
    capsys.readouterr()
    assert predict.main([str(word) for word in words]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    right = [each["predictions"][0]["class"] == each["image"].split("/")[-2] for each in said]
    return 100 * sum(right) / len(right)


def loss(data, checkpoint, folder) -> float:
    """As evaluate_all.py says it."""
    out = folder / "rows.json"
    words = [data, checkpoint, "--gpu", "-1", "-j", "0", "--json", out]
    assert evaluate_all.main([str(word) for word in words]) == 0
    (row,) = json.loads(out.read_text())
    return row["loss"]


def test_a_cifar_runs_accuracy_comes_again(cifar_run, digits32, tmp_path, capsys):
    last = written(cifar_run)
    checkpoint = cifar_run / "checkpoint.pth.tar"
    assert accuracy(digits32, checkpoint, capsys) == pytest.approx(last["val_acc1"])
    assert loss(digits32, checkpoint, tmp_path) == pytest.approx(last["val_loss"], rel=1e-4)
    # older files of ours, and bare weights, say nothing of it
    content = torch.load(checkpoint, weights_only=True)
    del content["preparation"]
    torch.save(content, tmp_path / "older.pth.tar")
    assert loss(digits32, tmp_path / "older.pth.tar", tmp_path) == pytest.approx(
        last["val_loss"], rel=1e-4
    )
    write_weights(content["state_dict"], str(tmp_path / "bare.pth"))
    assert load_network(str(tmp_path / "bare.pth")).preparation == CIFAR


def test_a_run_at_another_size_comes_again(digits, tmp_path, capsys):
    """The digits at 64 pixels, whose evaluation cuts out the middle of 73."""
    words = ("--image-size", 64, "--epochs", 2, "-b", 8, "-j", 0, "--lr", 0.02, "--seed", 1)
    done = run_command(digits, *words, "--gpu", -1, "--ckpt", tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "imagenet-resnet18-seed1"
    last, checkpoint = written(folder), folder / "checkpoint.pth.tar"
    assert accuracy(digits, checkpoint, capsys) == pytest.approx(last["val_acc1"])
    assert loss(digits, checkpoint, tmp_path) == pytest.approx(last["val_loss"], rel=1e-4)


def test_pictures_and_exports_of_a_cifar_network(cifar_run, photos, tmp_path, capsys):
    checkpoint = str(cifar_run / "checkpoint.pth.tar")
    options = ["--checkpoint", checkpoint, "--gpu", "-1", "-o"]
    assert show_attention.main([str(photos[0]), *options, str(tmp_path / "a.png")]) == 0
    assert gradcam.main([str(photos[0]), *options, str(tmp_path / "g.png")]) == 0
    for name in ("a.png", "g.png"):
        with Image.open(tmp_path / name) as picture:
            assert len(picture.convert("RGB").getcolors(1_000_000)) > 30
    target = str(tmp_path / "network.onnx")
    assert export_onnx.main([checkpoint, target]) == 0
    graph = onnx.load(target)
    sides = [each.dim_value for each in graph.graph.input[0].type.tensor_type.shape.dim]
    assert sides[1:] == [3, 32, 32]
    notes = {entry.key: json.loads(entry.value) for entry in graph.metadata_props}
    assert notes["preparation"] == {
        **{"shorter_side": 32, "centre_crop": 32},
        **{"mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.201]},
    }


def test_the_networks_of_one_picture_see_their_own_images(cifar_run, photos, tmp_path, monkeypatch):
    sizes = []
    draw = gradcam.draw

    def watched(names, heads, columns):
        sizes.extend(panel.image.shape for column in columns for panel in column)
        return draw(names, heads, columns)

    monkeypatch.setattr(gradcam, "draw", watched)
    write_weights(create_model("resnet18").state_dict(), str(tmp_path / "bare.pth"))
    paths = [cifar_run / "checkpoint.pth.tar", tmp_path / "bare.pth"]
    words = [word for path in paths for word in ("--checkpoint", str(path))]
    out = ["-o", str(tmp_path / "g.png"), "--gpu", "-1"]
    assert gradcam.main([str(photos[0]), *words, *out]) == 0
    assert gradcam.main([str(photos[0]), *words, *out, "--image-size", "64"]) == 0
    assert sizes == [(3, side, side) for side in (32, 224, 64, 64)]


def test_another_size_keeps_the_rest():
    assert IMAGENET.at(None) == IMAGENET
    assert IMAGENET.at(96)[:2] == (109, 96)
    assert IMAGENET.at(96).at(224) == IMAGENET
    assert CIFAR.at(64) == CIFAR._replace(shorter_side=64, centre_crop=64)


@pytest.mark.parametrize(
    "said",
    [None, 7, {}, {"centre_crop": 32}, IMAGENET._asdict() | {"mean": 0.5}, list(IMAGENET)],
)
def test_what_is_no_preparation_is_not_taken(said):
    assert preparation_of({"preparation": said}, "resnet18") == IMAGENET
    assert preparation_of({"preparation": said}, "cifar_resnet20") == CIFAR
    assert preparation_of(["no mapping"], "mobilenet_v2") == IMAGENET


def test_what_a_file_says_is_taken():
    mine = IMAGENET.at(96)._replace(mean=(0.5, 0.5, 0.5))
    assert preparation_of({"preparation": mine._asdict()}, "cifar_resnet20") == mine
