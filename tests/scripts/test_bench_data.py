import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from scripts.bench_data import Pipeline, main


def test_the_benchmark_measures_what_it_says(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        folder = tmp_path / "data" / "val" / name
        folder.mkdir(parents=True)
        noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        noise.resize((300, 260), Image.Resampling.BICUBIC).save(folder / "1.JPEG")
    report = tmp_path / "report.json"
    small = "-j 1 --batch-size 4 --rounds 1 --steps 1 --train-batch 2 --train-steps 1"
    assert main([str(tmp_path / "data"), "--json", str(report), *small.split()]) == 0
    result = json.loads(report.read_text())
    assert result["data"]["images"]["images"] == 2
    assert result["data"]["images"]["mean_width"] == 300
    assert len(result["rows"]) == 6
    assert all(row["images_per_s_and_core"]["median"] > 0 for row in result["rows"])
    assert result["pixel_difference_in_255ths"]["train"]["mean"] <= 2
    assert 0 <= result["waiting"]["share"] <= 1
    assert str(tmp_path) not in report.read_text()
    printed = capsys.readouterr().out
    assert printed.count("| ours, turbo |") == 2
    assert main([str(tmp_path / "nowhere")]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-a", "resnet19"], "unknown arch 'resnet19'; known: resnet18"),
        (["--json", "nowhere/report.json"], "--json nowhere/report.json: its folder does not exis"),
        ([], r"can't decode image {data}/val/2/003.png \(UnidentifiedImageError: no image\)"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_measured(
    digits, tmp_path, capsys, monkeypatch, options, message
):
    data = shutil.copytree(digits, tmp_path / "data")
    if not options:
        (data / "val" / "2" / "003.png").write_bytes(b"no image")
        shutil.rmtree(data / "train")
    monkeypatch.setattr(Pipeline, "measure", None)
    try:
        code = main([str(data), *options])
    except SystemExit as end:
        code = end.code
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match("error: " + message.format(data=data), line)
