"""The benchmark on small maps."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from networks.attentions import simam
from scripts.bench.common import Report
from utils.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bench():
    return runpy.run_path(str(ROOT / "scripts" / "bench_simam.py"))


@pytest.fixture
def tiny(bench, monkeypatch):
    """The benchmark's main with one small map and one network on small images."""
    scope = bench["main"].__globals__
    monkeypatch.setitem(scope, "MAPS", (("ResNet", (4, 9, 9)), ("detection", (3, 5, 7))))
    monkeypatch.setitem(scope, "NETWORKS", {"cpu": (("resnet18", 2),)})
    monkeypatch.setitem(scope, "IMAGE_SIZE", 32)
    monkeypatch.setitem(scope, "ROUNDS", {"cpu": 3})
    return bench["main"]


@pytest.mark.slow
def test_report(tiny, tmp_path, capsys):
    tiny(["--device", "cpu", "--json", str(tmp_path / "report.json")])
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["torch"] == torch.__version__
    assert {row["contender"] for row in report["layers"]} == {
        "formula",
        "compiled formula",
        "operator",
    }
    assert {row["layout"] for row in report["layers"]} == {"contiguous", "channels-last"}
    for row in report["layers"]:
        elements = torch.Size(row["shape"]).numel()
        maps = {"forward": 2, "backward": 3, "forward+backward": 5}[row["pass"]]
        if row["ms"] > 0:
            assert row["GB/s"] == pytest.approx(maps * 4 * elements / row["ms"] / 1e6, rel=0.1)
        assert row["max error"] < 1e-5
        if row["contender"] == "formula":
            assert row["ratio"] == 1
            assert row["kept"] > 3.5
    assert {row["attention"] for row in report["networks"]} == {"none", "formula", "operator"}
    assert {row["step"] for row in report["networks"]} == {"training", "evaluation"}
    printed = capsys.readouterr().out.splitlines()
    tables = [line for line in printed if line.startswith("|")]
    assert len(tables) == len(report["layers"]) + len(report["networks"]) + 4


def test_refuses_to_time_what_is_wrong(bench):
    def wrong(x, e_lambda):
        return simam(x, e_lambda) * 1.01

    x, grad = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    assert bench["check"](simam, x, grad) < 1e-5
    with pytest.raises(UsageError, match="wrong by"):
        bench["check"](wrong, x, grad)


def test_what_is_wrong_is_reported_and_the_others_are_timed(bench, monkeypatch, capsys):
    scope = bench["main"].__globals__
    monkeypatch.setitem(scope, "ROUNDS", {"cpu": 2})
    monkeypatch.setitem(scope, "simam", lambda x, e_lambda: simam(x, e_lambda) * 1.01)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # takes a minute
    report = Report({})
    rows = bench["bench_layer"]((2, 3, 8, 8), torch.float32, "contiguous", "cpu", report)
    assert [row["contender"] for row in rows] == 3 * ["formula", "compiled formula"]
    (line,) = report.rows("failures")
    assert line.startswith("operator, (2, 3, 8, 8), float32, contiguous: UsageError: wrong by 0.0")
    assert report.exit_code() == 1
    assert capsys.readouterr().err == f"failed: {line}\n"


def refused(*arguments):
    command = [sys.executable, str(ROOT / "scripts" / "bench_simam.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_refuses_a_folder_that_is_not_there(tmp_path):
    done = refused("--json", str(tmp_path / "none" / "report.json"))
    assert done.returncode == 2
    assert "its folder does not exist" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu():
    done = refused("--device", "cuda")
    assert done.returncode == 2
    assert "there is no CUDA device" in done.stderr
