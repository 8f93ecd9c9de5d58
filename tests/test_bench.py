"""What the benchmarks share: ratios, and the network with SimAM by its formula."""

import torch

from networks import create_model
from utils.bench import race, summary, with_formula


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


def test_the_formulas_network_has_no_operator():
    net = with_formula(create_model("resnet18", "simam", 0.1, num_classes=3)).eval()
    plain = create_model("resnet18", "simam", 0.1, num_classes=3).eval()
    plain.load_state_dict(net.state_dict())
    x = torch.randn(1, 3, 32, 32)
    with torch.profiler.profile() as profile:
        y = net(x)
    assert not any("simam" in event.key for event in profile.key_averages())
    torch.testing.assert_close(y, plain(x), rtol=1e-4, atol=1e-4)
