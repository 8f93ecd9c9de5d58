"""What TensorBoard's own server answers for a run folder."""

import io
import json
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import pytest
from PIL import Image
from test_training import NAME, load, metrics, run


@pytest.fixture(scope="module")
def root(digits, tmp_path_factory):
    root = tmp_path_factory.mktemp("shown")
    assert run(digits, root, "--epochs", 2, "-p", 2) == 0
    return root


@pytest.fixture(scope="module")
def ask(root):
    """A function from a path to what `tensorboard --logdir` answers there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "tensorboard.main", "--logdir", str(root)]
    server = subprocess.Popen(
        [*command, "--port", str(port), "--host", "127.0.0.1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def ask(path: str, **query) -> bytes:
        query = urllib.parse.urlencode(query)
        url = f"http://127.0.0.1:{port}/data/{path}?{query}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.read()

    try:
        for _ in range(120):
            try:
                if json.loads(ask("runs")):
                    break
            except OSError:
                pass
            assert server.poll() is None
            time.sleep(0.5)
        yield ask
    finally:
        server.kill()
        server.wait()


def test_the_server_shows_the_scalars(root, ask):
    expected = {"lr", "images/per_s", "grad_norm"}
    expected |= {f"{split}/{name}" for split in ("train", "val") for name in ("loss", "acc1")}
    tags = json.loads(ask("plugin/scalars/tags"))
    assert expected <= tags[NAME].keys()
    for tag in ("train/loss", "val/acc1"):
        points = json.loads(ask("plugin/scalars/scalars", run=NAME, tag=tag))
        found = {step: value for _, step, value in points}
        lines = {line["epoch"]: line[tag.replace("/", "_")] for line in metrics(root)}
        assert found == pytest.approx(lines)


def test_the_server_shows_the_first_batch(ask):
    assert "first batch" in json.loads(ask("plugin/images/tags"))[NAME]
    (image,) = json.loads(ask("plugin/images/images", run=NAME, tag="first batch", sample=0))
    query = dict(urllib.parse.parse_qsl(image["query"]))
    picture = Image.open(io.BytesIO(ask("plugin/images/individualImage", **query)))
    assert picture.width >= 4 * 32
    assert picture.height >= 2 * 32
    assert len(picture.convert("L").getcolors()) > 50


def test_the_server_shows_settings_with_results(root, ask):
    experiment = json.loads(ask("plugin/hparams/experiment", request="{}"))
    settings = {each["name"] for each in experiment["hparamInfos"]}
    assert {"arch", "lr", "attention_type", "epochs"} <= settings
    tags = {each["name"]["tag"] for each in experiment["metricInfos"]}
    assert "final/best_acc1" in tags
    points = json.loads(ask("plugin/scalars/scalars", run=NAME, tag="final/best_acc1"))
    assert points[-1][2] == pytest.approx(load(root)["best_acc1"])
