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
    expected = {"lr", "images/per_s", "grad_norm"}
    expected |= {f"{split}/{name}" for split in ("train", "val") for name in ("loss", "acc1")}
    tags = json.loads(ask("plugin/scalars/tags"))
    for name, count in ((NAME, 3), (CIFAR, 1)):
        assert expected <= tags[name].keys()
        epochs = list(map(json.loads, (root / name / "metrics.jsonl").read_text().splitlines()))
        assert len(epochs) == count
        for tag in ("train/loss", "val/acc1"):
            points = json.loads(ask("plugin/scalars/scalars", run=name, tag=tag))
            found = {step: value for _, step, value in points}
            lines = {line["epoch"]: line[tag.replace("/", "_")] for line in epochs}
            assert found == pytest.approx(lines)
        norms = json.loads(ask("plugin/scalars/scalars", run=name, tag="grad_norm"))
        assert [step for _, step, _ in norms] == list(range(count))
        assert all(0 < value < 1000 for *_, value in norms)


def test_the_server_shows_the_first_batch(ask):
    assert "first batch" in json.loads(ask("plugin/images/tags"))[NAME]
    (image,) = json.loads(ask("plugin/images/images", run=NAME, tag="first batch", sample=0))
    query = dict(urllib.parse.parse_qsl(image["query"]))
    picture = Image.open(io.BytesIO(ask("plugin/images/individualImage", **query)))
    assert picture.width >= 4 * 32  # six images, four in a row
    assert picture.height >= 2 * 32
    assert len(picture.convert("L").getcolors()) > 50


def test_the_server_shows_settings_with_results(root, ask):
    request = {
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_RUNNING"],
        "colParams": [
            *({"hparam": name} for name in ("arch", "attention_param", "epochs", "lr")),
            {"metric": {"tag": "final/best_acc1"}},
        ],
        "startIndex": 0,
        "sliceSize": 10,
    }
    shown = json.loads(ask("plugin/hparams/session_groups", request=json.dumps(request)))
    groups = {group["sessions"][0]["name"]: group for group in shown["sessionGroups"]}
    expected = {
        NAME: {"arch": "cifar_resnet20", "attention_param": 0.1, "epochs": 3, "lr": 0.006},
        CIFAR: {"arch": "cifar_resnet20", "attention_param": 1e-4, "epochs": 1},
    }
    assert groups.keys() == expected.keys()
    for name, hparams in expected.items():
        assert {key: groups[name]["hparams"].get(key) for key in hparams} == hparams
        (metric,) = groups[name]["metricValues"]
        assert metric["name"]["tag"] == "final/best_acc1"
        best = torch.load(root / name / "checkpoint.pth.tar", weights_only=True)["best_acc1"]
        assert metric["value"] == pytest.approx(best)
