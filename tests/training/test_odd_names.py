"""Folders, classes and files may be called anything that a file system takes."""

import csv
import json
import os
import shutil

import pytest
from runs import load, metrics, path
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import main_imagenet
from scripts import check_images, evaluate_all, predict

TEXT = "a [b]* {c} 'd' \"e\"\n$f_1$ é"
NO_TEXT = os.fsdecode(b"no\xfftext")


def run(data, root, *more) -> int:
    words = "-a cifar_resnet20 --gpu -1 --image-size 32 -b 6 -j 0 --seed 3"
    return main_imagenet.main([str(data), "--ckpt", str(root), *words.split(), *map(str, more)])


@pytest.fixture(scope="module")
def odd(digits, tmp_path_factory):
    """`digits` with a data folder, two classes and some images of odd names."""
    data = shutil.copytree(digits, tmp_path_factory.mktemp("odd") / f"{TEXT} {NO_TEXT}")
    for split in ("train", "val"):
        for old, new in (("0", TEXT), ("1", NO_TEXT)):
            folder = (data / split / old).rename(data / split / new)
            (folder / "000.png").rename(folder / f"{TEXT}.png")
            (folder / "001.png").rename(folder / f"{NO_TEXT}.png")
    return data


@pytest.mark.parametrize("name", [TEXT, NO_TEXT], ids=["text", "no text"])
def test_a_run_is_as_any_other(odd, tmp_path, name, capsys):
    root = tmp_path / name
    assert run(odd, root, "--epochs", 1) == 0
    assert run(odd, root, "--epochs", 2, "--resume", "auto") == 0
    assert len(metrics(root)) == 2
    assert load(root)["classes"] == sorted([TEXT, NO_TEXT, "2"])
    assert "Epoch 2/2" in path(root, "log.txt").read_text()
    said = capsys.readouterr().err
    if name == TEXT:
        events = EventAccumulator(str(path(root, ".")))
        events.Reload()
        assert [each.step for each in events.Scalars("val/acc1")] == [24, 48]  # images seen
    else:
        assert said.count("no TensorBoard events") == 2


def test_every_command_takes_them(odd, tmp_path, capsys):
    root = tmp_path / TEXT
    assert run(odd, root, "--epochs", 1) == 0
    checkpoint = path(root)
    assert run(odd, root, "-e", "--resume", checkpoint) == 0
    options = ["--gpu", "-1", "-j", "0"]
    table = ["--csv", str(tmp_path / "a.csv"), "--json", str(tmp_path / "a.json")]
    assert evaluate_all.main([str(odd), str(checkpoint), *options, *table]) == 0
    (row,) = json.loads((tmp_path / "a.json").read_text())
    assert (row["file"], row["images"]) == (str(checkpoint), 12)
    assert check_images.main([str(odd), "-j", "1"]) == 0
    capsys.readouterr()
    words = [str(odd / "val"), "--checkpoint", str(checkpoint), *options, "--format"]
    assert predict.main([*words, "csv"]) == 0
    rows = list(csv.reader(capsys.readouterr().out.splitlines(keepends=True)))
    assert len(rows) == 1 + 12 * 3
    assert predict.main([*words, "jsonl"]) == 0
    images = [json.loads(line)["image"] for line in capsys.readouterr().out.splitlines()]
    assert all(os.path.isfile(image) for image in images)
