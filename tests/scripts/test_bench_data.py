"""The benchmark of the input pipelines, on two small photographs."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from scripts.bench_data import main

SMALL = "-j 1 --batch-size 4 --rounds 2 --steps 1"


@pytest.fixture
def photos(tmp_path):
    """Two smooth JPEGs of 300x260 pixels."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        folder = tmp_path / "data" / "val" / name
        folder.mkdir(parents=True)
        noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        noise.resize((300, 260), Image.Resampling.BICUBIC).save(folder / "1.JPEG")
    return tmp_path / "data"


@pytest.mark.slow
def test_the_benchmark_measures_what_it_says(photos, tmp_path, capsys):
    path = tmp_path / "report.json"
    words = [str(photos), str(photos), "--json", str(path)]
    assert main([*words, *SMALL.split()]) == 0
    assert str(tmp_path) not in path.read_text()
    report = json.loads(path.read_text())
    for row in report["data"]:
        assert (row["images"], row["width"], row["height"]) == (2, 300, 260)
    names = ["published", "ours, pil", "ours, turbo"]
    names += [f"{name}, data" for name in names]
    assert [row["pipeline"] for row in report["rows"]] == 2 * names
    for row in report["rows"]:
        assert row["images/s/core"] == pytest.approx(1e3 / row["ms"], rel=0.01)
        assert row["speed"] == 1 or row["pipeline"] != "published"
    assert all(row["mean"] <= row["worst image"] <= 2 for row in report["pixels"])
    assert capsys.readouterr().out.count("| ours, turbo |") == 2


def test_an_image_that_cant_be_decoded_is_named(photos, capsys):
    damaged = photos / "val" / "b" / "1.JPEG"
    damaged.write_bytes(b"no image")
    assert main([str(photos)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    wanted = rf"error: can't decode image {damaged} \(UnidentifiedImageError: no image\)"
    assert re.fullmatch(wanted, line)
