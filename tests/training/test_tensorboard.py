"""What TensorBoard's own server answers for a run folder."""

import io
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from itertools import pairwise

import pytest
import torch
from PIL import Image
from runs import NAME

from scripts import train_cifar

CIFAR = "digits32-cifar_resnet20-simam-param0.0001-seed1"


@pytest.fixture(scope="module")
def root(undisturbed, digits32, tmp_path_factory):
    """The folder of a run of main_imagenet.py and one of scripts/train_cifar.py."""
    root = shutil.copytree(undisturbed, tmp_path_factory.mktemp("shown") / "ckpts")
    words = f"--data-dir {digits32} --attentions simam --iterations 3 -p 1 --gpu -1 --ckpt {root}"
    assert train_cifar.main(words.split()) == 0
    return root


@pytest.fixture(scope="module")
def ask(root):
    """A function from a path to what `tensorboard --logdir` answers there."""
    options = f"--logdir {root} --host 127.0.0.1 --port 0"
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tensorboard.main", *options.split()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        found = (re.search(r"http://127\.0\.0\.1:\d+/", line) for line in server.stderr)
        address = next(each[0] for each in found if each)

        def ask(path: str, **query) -> bytes:
            url = f"{address}data/{path}?{urllib.parse.urlencode(query)}"
            with urllib.request.urlopen(url, timeout=30) as answer:
                return answer.read()

        while len(json.loads(ask("runs"))) < 2:
            time.sleep(0.5)
        yield ask
        server.kill()


def test_the_server_shows_the_scalars(root, ask):
    steps = ("loss", "lr", "images_per_s", "data_wait", "grad_norm")
    expected = {"lr", "images_per_s", "best/acc1", *(f"step/{name}" for name in steps)}
    expected |= {f"{split}/{name}" for split in ("train", "val") for name in ("loss", "acc1")}
    tags = json.loads(ask("plugin/scalars/tags"))
    # images seen after each step, the last of which has 24 images: 280 in batches of 128
    for name, count, seen in (
        (NAME, 3, list(range(6, 3 * 24 + 1, 6))),
        (CIFAR, 1, [128, 256, 280]),
    ):
        assert expected <= tags[name].keys()
        epochs = list(map(json.loads, (root / name / "metrics.jsonl").read_text().splitlines()))
        assert len(epochs) == count
        for tag in ("train/loss", "val/acc1"):
            points = json.loads(ask("plugin/scalars/scalars", run=name, tag=tag))
            found = {step: value for _, step, value in points}
            lines = {
                (1 + line["epoch"]) * seen[-1] // count: line[tag.replace("/", "_")]
                for line in epochs
            }
            assert found == pytest.approx(lines)
        for tag in steps:
            points = json.loads(ask("plugin/scalars/scalars", run=name, tag=f"step/{tag}"))
            assert [step for _, step, _ in points] == seen
            assert all(0 < value < 10_000 for *_, value in points)
        points = json.loads(ask("plugin/scalars/scalars", run=name, tag="step/loss"))
        sizes = [after - before for before, after in pairwise([0, *seen])][: len(seen) // count]
        losses = [value for *_, value in points][: len(sizes)]
        total = sum(size * loss for size, loss in zip(sizes, losses, strict=True))
        assert total / sum(sizes) == pytest.approx(epochs[0]["train_loss"], rel=1e-5)


def test_training_and_validation_share_a_chart(ask):
    (category,) = json.loads(ask("plugin/custom_scalars/layout"))["category"]
    charts = {chart["title"]: chart["multiline"]["tag"] for chart in category["chart"]}
    assert {"train/loss", "val/loss"} <= set(charts["loss"])
    assert {"train/acc1", "val/acc1"} <= set(charts["top-1"])


@pytest.mark.parametrize("tag", ["first batch", "predictions"])
def test_the_server_shows_images(ask, tag):
    assert tag in json.loads(ask("plugin/images/tags"))[NAME]
    (image,) = json.loads(ask("plugin/images/images", run=NAME, tag=tag, sample=0))
    query = dict(urllib.parse.parse_qsl(image["query"]))
    picture = Image.open(io.BytesIO(ask("plugin/images/individualImage", **query)))
    assert picture.width >= 4 * 32  # six images, four in a row
    assert picture.height >= 2 * 32
    assert len(picture.convert("L").getcolors()) > 50


def test_the_server_shows_settings_with_results(root, ask):
    request = {
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_RUNNING"],
        "colParams": [
            *({"hparam": name} for name in ("1 arch", "3 attention_param", "4 lr", "6 epochs")),
            {"metric": {"tag": "best/acc1"}},
        ],
        "startIndex": 0,
        "sliceSize": 10,
    }
    shown = json.loads(ask("plugin/hparams/session_groups", request=json.dumps(request)))
    groups = {group["sessions"][0]["name"]: group for group in shown["sessionGroups"]}
    expected = {
        NAME: {"1 arch": "cifar_resnet20", "3 attention_param": 0.1, "4 lr": 0.006, "6 epochs": 3},
        CIFAR: {"1 arch": "cifar_resnet20", "3 attention_param": 1e-4, "6 epochs": 1},
    }
    assert groups.keys() == expected.keys()
    for name, hparams in expected.items():
        assert {key: groups[name]["hparams"].get(key) for key in hparams} == hparams
        found = {each["name"]["tag"]: each["value"] for each in groups[name]["metricValues"]}
        best = torch.load(root / name / "checkpoint.pth.tar", weights_only=True)["best_acc1"]
        assert found["best/acc1"] == pytest.approx(best)
