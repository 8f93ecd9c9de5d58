"""What the benchmarks share: turns, speeds, reports, mistakes."""

import importlib
import json

import pytest
import torch

from networks import create_model
from scripts.bench.common import Report, race, summary, take_turns, with_formula


def test_speed_is_taken_within_a_turn():
    """A machine that halves its speed for two of three turns does not change it."""
    row = summary([1.0, 2.0, 2.0], [2.0, 4.0, 4.0])
    assert (row["speed"], row["ms"]) == (2, 2000)
    times = {"ms": 1000, "ms_20": 1000, "ms_80": 1000}
    assert summary([1.0] * 5, None) == times | {"speed": None}


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


def test_the_report_is_whole_after_every_row(tmp_path, capsys):
    path = tmp_path / "report.json"
    report = Report({"machine": "this"}, str(path))
    for count in (1, 2):
        report.add("rows", [{"ms": count}])
        assert json.loads(path.read_text())["rows"] == [{"ms": n + 1} for n in range(count)]
    assert report.exit_code == 0
    report.fail("resnet18", "ours", ValueError("no memory"))
    assert report.exit_code == 1
    line = "resnet18, ours: ValueError: no memory"
    assert json.loads(path.read_text())["failures"] == [line]
    printed = capsys.readouterr()
    assert printed.out == "machine this\n\n| ms |\n|---|\n| 1 |\n| 2 |\n"
    assert printed.err == f"failed: {line}\n"


def test_the_formulas_network_has_no_operator():
    net = with_formula(create_model("resnet18", "simam", 0.1, num_classes=3)).eval()
    plain = create_model("resnet18", "simam", 0.1, num_classes=3).eval()
    plain.load_state_dict(net.state_dict())
    x = torch.randn(1, 3, 32, 32)
    with torch.profiler.profile() as profile:
        y = net(x)
    assert not any("SimAM" in event.key for event in profile.key_averages())
    torch.testing.assert_close(y, plain(x), rtol=1e-4, atol=1e-4)


no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("bench_simam --json nowhere/report.json", "nowhere; create it first"),
        ("bench_train resnet18 --json nowhere/report.json", "nowhere; create it first"),
        ("bench_data DATA --json nowhere/report.json", "nowhere; create it first"),
        ("compare_attentions resnet18 --json nowhere/report.json", "nowhere; create it first"),
        ("compare_attentions resnet19", "unknown arch 'resnet19'; known: resnet18"),
        ("bench_train resnet19", "unknown arch 'resnet19'; known: resnet18"),
        ("bench_train resnet18 --attention-type simam2", "simam2"),
        ("bench_data nowhere", "data folder nowhere does not exist"),
        pytest.param("bench_simam --device cuda", "there is no CUDA device", marks=no_gpu),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_measured(digits, capsys, words, message):
    name, *arguments = words.replace("DATA", str(digits)).split()
    assert importlib.import_module(f"scripts.{name}").main(arguments) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert message in line
    assert printed.out == ""
