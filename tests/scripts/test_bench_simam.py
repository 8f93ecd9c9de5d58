"""The benchmark on small maps."""

import json
from dataclasses import replace

import pytest
import torch

from networks.attentions import SimAM
from scripts import bench_simam
from scripts.bench.common import with_formula
from utils.errors import UsageError


class Wrong(SimAM):
    def forward(self, x):
        return super().forward(x) * 1.01


SMALLEST = "--device", "cpu", "--smallest"


@pytest.mark.slow
def test_report(tmp_path, capsys, monkeypatch):
    compiled = replace(bench_simam.SMALLEST, compiled=bench_simam.Sizes.compiled)
    monkeypatch.setattr(bench_simam, "SMALLEST", compiled)
    path = tmp_path / "report.json"
    assert bench_simam.main([*SMALLEST, "--json", str(path)]) == 0
    report = json.loads(path.read_text())
    assert report["torch"] == torch.__version__
    layers, blocks, networks = (report[kind] for kind in ("layers", "blocks", "networks"))
    found = {(row["maps"], row["layout"], row["pass"], row["SimAM"]) for row in layers}
    assert len(found) == len(layers) == 2 * 2 * 3
    for row in layers:
        elements = torch.Size(map(int, row["maps"].split("x"))).numel()
        maps = {"forward": 2, "forward+backward": 5}[row["pass"]]
        assert row["GB/s"] == pytest.approx(maps * 4 * elements / row["ms"] / 1e6, rel=0.01)
        assert row["max error"] < 1e-5
        if row["SimAM"] == "formula":
            assert row["speed"] == 1
            assert row["maps kept"] > 3.5
    contenders = ["no attention", "formula", "operator", "one operator", "compiled"]
    assert [row["SimAM"] for row in blocks] == 2 * contenders
    assert [row["speed"] for row in blocks if row["SimAM"] == "no attention"] == [1, 1]
    found = [(row["step"], row["attention"]) for row in networks]
    attentions = ("none", "formula", "operator", "one operator", "se")
    assert found == [(s, attention) for s in ("training", "evaluation") for attention in attentions]
    costs = {row["attention"]: row for row in report["costs"]}
    assert tuple(costs) == attentions
    assert costs["formula"]["kept GB"] > costs["operator"]["kept GB"] > costs["none"]["kept GB"] > 0
    assert all(row["host ms"] > 0 for row in costs.values())
    printed = capsys.readouterr().out.splitlines()
    tables = [line for line in printed if line.startswith("|")]
    assert len(tables) == len(layers) + len(blocks) + len(networks) + len(costs) + 8


def test_refuses_to_time_what_is_wrong():
    x, grad = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    reference = with_formula(SimAM())
    assert bench_simam.check(SimAM(), reference, x, grad) < 1e-5
    with pytest.raises(UsageError, match="wrong by"):
        bench_simam.check(Wrong(), reference, x, grad)


@pytest.mark.slow
def test_what_is_wrong_is_reported_and_the_others_are_timed(monkeypatch, tmp_path, capsys):
    contenders = {"formula": with_formula(SimAM(0.1)), "operator": Wrong(0.1)}
    monkeypatch.setattr(bench_simam, "layers", lambda _compiled: contenders)
    path = tmp_path / "report.json"
    assert bench_simam.main([*SMALLEST, "--only", "layers", "--json", str(path)]) == 1
    report = json.loads(path.read_text())
    assert {row["SimAM"] for row in report["layers"]} == {"formula"}
    lines = [f"failed: {line}" for line in report["failures"]]
    assert lines == capsys.readouterr().err.splitlines()
    where = "2x3x5x7, float32, channels-last, operator"
    assert lines[0].startswith(f"failed: {where}: UsageError: wrong")
