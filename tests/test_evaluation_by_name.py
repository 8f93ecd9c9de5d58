"""Evaluations of others' files, on folders that hold some of the classes: the right outputs."""

import json
import re

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from torchvision import datasets

import main_imagenet
from networks import create_model
from scripts import convert_checkpoint, evaluate_all
from utils.checkpoints import Checkpoint
from utils.data.classes import KNOWN

SHARED = ROOT.parent / "shared" / "data"
SAMPLE, RELEASED = SHARED / "imagenet-sample", SHARED / "published-cifar100"
OPTIONS = ("--gpu", "-1", "-j", "0")
WORDNET = [wnid for wnid, _ in KNOWN[1000]]


def evaluate(capsys, *words) -> tuple[str, float]:
    """The last line of `-e`, and the mean loss."""
    assert main_imagenet.main([*map(str, words), "-e", *OPTIONS]) == 0
    *_, progress, line = capsys.readouterr().out.splitlines()
    return line, float(re.search(r"loss (\S+)", progress)[1])


def says(order: list[int], path) -> None:
    """Save a plain ResNet-18 that says the classes `order`, the likeliest first, of any image."""
    state = create_model("resnet18").state_dict()
    state["fc.weight"].zero_()
    state["fc.bias"].zero_()
    state["fc.bias"][order] = torch.arange(len(order), 0, -1.0)
    torch.save(state, path)


def made_sample(folder, wnids: list[str]):
    """A validation folder with an image of each class."""
    for wnid in wnids:
        (folder / "val" / wnid).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(folder / "val" / wnid / "a.png")
    return folder


@pytest.mark.parametrize("real", [False, True], ids=["made", "real"])
def test_some_of_imagenets_classes_mean_their_outputs(real, tmp_path, capsys):
    if real and not SAMPLE.exists():
        pytest.skip(f"needs {SAMPLE}")
    data = SAMPLE if real else made_sample(tmp_path / "data", WORDNET[5::10])
    there = sorted(WORDNET.index(each.name) for each in (data / "val").iterdir())
    absent = [index for index in range(1000) if index not in there]
    says([there[7], absent[0], there[3], *absent[1:9], there[4], there[5]], tmp_path / "w.pth")
    words = (data, "-a", "resnet18", "--weights", tmp_path / "w.pth", "--image-size", 32)
    assert evaluate(capsys, *words)[0] == " * Acc@1 1.000 Acc@5 2.000"
    # over the outputs of these classes alone, as for ImageNet-A
    line, _ = evaluate(capsys, *words, "--subset-outputs")
    assert line.startswith(" * Acc@1 1.000 Acc@5 ")
    assert float(line.split()[-1]) >= 4


@pytest.fixture
def authors(tmp_path, capsys):
    """A file as the authors' CIFAR-100 code saves it, made by its rules."""
    torch.manual_seed(4)
    state = create_model("cifar_resnet20", "simam", 1e-4, num_classes=100).state_dict()
    renamed = {key.replace("downsample", "shortcut"): value for key, value in state.items()}
    renamed = {re.sub(r"^fc\.", "linear.", key): value for key, value in renamed.items()}
    renamed = {re.sub(r"(\.conv2)\.", r"\1.0.", key): value for key, value in renamed.items()}
    content = {"epoch": 129, "arch": "resnet20", "best_acc": 69.83, "state_dict": renamed}
    torch.save(content, tmp_path / "made.pth.tar")
    return tmp_path / "made.pth.tar"


@pytest.mark.parametrize("name", ["made", "checkpoint_000", "model_best_in_100_epochs"])
def test_the_authors_cifar_files_are_evaluated_and_converted(
    name, authors, digits32, tmp_path, capsys
):
    source = authors if name == "made" else RELEASED / f"{name}.pth.tar"
    if not source.exists():
        pytest.skip(f"needs {source}")
    network = ["-a", "cifar_resnet20", "--attention-type", "simam", "--attention-param", "1e-4"]
    line, loss = evaluate(capsys, digits32, *network, "--resume", source)
    # by hand: CIFAR's mean and deviation, 32 pixels, uncut; the folders 0 to 9 of 100 outputs
    model = Checkpoint(str(source)).build(Checkpoint(str(source)).recognise().network).eval()
    mean, std = np.array([[0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]])
    pixels, targets = zip(*datasets.ImageFolder(digits32 / "val", np.array), strict=True)
    images, targets = (np.array(pixels) / 255 - mean) / std, torch.tensor(targets)
    with torch.no_grad():
        logits = model(torch.tensor(images).permute(0, 3, 1, 2).float())
    by_hand = torch.nn.functional.cross_entropy(logits, targets).item()
    assert loss == pytest.approx(by_hand, abs=1e-3)
    top1 = 100 * (logits.argmax(1) == targets).double().mean().item()
    assert line.startswith(f" * Acc@1 {top1:.3f} Acc@5 ")

    table = ["--json", str(tmp_path / "a.json")]
    assert evaluate_all.main([str(digits32), str(source), *OPTIONS, *table]) == 0
    (row,) = json.loads((tmp_path / "a.json").read_text())
    assert (row["arch"], row["attention"], row["image_size"]) == ("cifar_resnet20", "simam", 32)
    assert f" * Acc@1 {row['acc1']:.3f} Acc@5 {row['acc5']:.3f}" == line
    ours = str(tmp_path / "ours.safetensors")
    assert convert_checkpoint.main([str(source), ours, "--to", "ours"]) == 0
    assert evaluate(capsys, digits32, *network, "--resume", ours) == (line, loss)


def test_other_folders_are_named(tmp_path, capsys):
    says([3], tmp_path / "w.pth")
    data = made_sample(tmp_path / "data", ["n01491361", "zebra_", "sofa"])
    words = [str(data), "-a", "resnet18", "--weights", str(tmp_path / "w.pth"), "-e", *OPTIONS]
    for code in (
        main_imagenet.main(words),
        evaluate_all.main([str(data), str(tmp_path / "w.pth"), *OPTIONS]),
    ):
        assert code == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all("2 of 3 class folders mean no output of checkpoint" in each for each in errors)
    assert all("'sofa', 'zebra_'" in each for each in errors)
