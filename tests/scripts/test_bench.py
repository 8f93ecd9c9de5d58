"""What the benchmarks share: ratios, and the network with SimAM by its formula."""

import json
import time

import pytest
import torch

from networks import create_model
from scripts.bench.common import Report, race, seconds, summary, take_turns, with_formula


def test_ratio_is_taken_within_a_turn():
    """A machine that halves its speed for two of three turns does not change the ratio."""
    row = summary([1.0, 2.0, 2.0], [2.0, 4.0, 4.0])
    assert row["ratio"] == 0.5
    assert row["ms"] == 2000


def test_contenders_take_turns():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in ("a", "b")}
    times = race(calls, "cpu", rounds=3)
    assert order == ["a", "b"] * 5
    assert [len(each) for each in times.values()] == [3, 3]


def test_one_that_fails_is_left_out():
    told = []

    def fails():
        raise ValueError("no memory")

    contenders = {"well": lambda: 1.0, "broken": fails, "other": lambda: 2.0}
    times = take_turns(contenders, 3, lambda name, error: told.append((name, str(error))))
    assert times == {"well": [1.0] * 3, "other": [2.0] * 3}
    assert told == [("broken", "no memory")]
    with pytest.raises(ValueError, match="no memory"):
        take_turns(contenders, 3)


def test_without_rivals_there_is_no_ratio():
    assert summary([1.0] * 5, None) == {"ms": 1000, "ms_20": 1000, "ms_80": 1000}


def test_the_report_is_whole_after_every_row(tmp_path, capsys):
    path = tmp_path / "report.json"
    report = Report({"machine": "this"}, path)
    for count in (1, 2):
        report.add("rows", [{"ms": count}])
        assert json.loads(path.read_text())["rows"] == [{"ms": n + 1} for n in range(count)]
    assert report.exit_code() == 0
    report.fail("one: out of memory")
    assert report.exit_code() == 1
    assert json.loads(path.read_text()) == {
        "machine": "this",
        "rows": [{"ms": 1}, {"ms": 2}],
        "failures": ["one: out of memory"],
    }
    assert capsys.readouterr().err == "failed: one: out of memory\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.gpu
def test_queued_calls_are_timed_without_the_host():
    """An addition in a few microseconds that the host takes 0.3 ms to start."""
    x = torch.ones(1024, device="cuda")

    def slow_to_start():
        time.sleep(3e-4)
        x.add_(1)

    slow_to_start()
    assert seconds(slow_to_start, "cuda") > 2.5e-4
    assert seconds(slow_to_start, "cuda", queued=10) < 1e-4


def test_the_formulas_network_has_no_operator():
    net = with_formula(create_model("resnet18", "simam", 0.1, num_classes=3)).eval()
    plain = create_model("resnet18", "simam", 0.1, num_classes=3).eval()
    plain.load_state_dict(net.state_dict())
    x = torch.randn(1, 3, 32, 32)
    with torch.profiler.profile() as profile:
        y = net(x)
    assert not any("simam" in event.key for event in profile.key_averages())
    torch.testing.assert_close(y, plain(x), rtol=1e-4, atol=1e-4)
