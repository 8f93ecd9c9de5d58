"""What the modules cost: counts against arithmetic by hand, and the table of a small network."""

import json
import weakref

import pytest
import torch
from torch import nn

from networks import ATTENTIONS, create_model
from networks.attentions import SE, PfAAM
from scripts.bench.costs import count_own, kept_for_backward
from scripts.compare_attentions import main, time_of

IMAGE = torch.zeros(1, 3, 5, 5)


def test_operations_and_traffic_are_counted_by_hand():
    """A map of C = 8 channels, M = 25 positions: PfAAM reads it for two means, multiplies these
    into a map, takes its sigmoid, and scales the map by it; all of four bytes."""
    net = nn.Sequential(nn.Conv2d(3, 8, 1), PfAAM())
    own = count_own(net, PfAAM, IMAGE)
    assert own.arithmetic == 5 * 200
    assert own.moved == 4 * ((200 + 8) + (200 + 25) + (8 + 25 + 200) + 2 * 200 + 3 * 200)


def test_products_count_multiply_adds():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), SE(8, 2))
    own = count_own(net, SE, IMAGE)
    # mean, product, ReLU, product, sigmoid, scaling; views are free
    assert own.arithmetic == 200 + 8 * 4 + 4 + 4 * 8 + 8 + 200


def test_only_the_modules_own_operations_count():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Identity())
    own = count_own(net, nn.Identity, IMAGE)
    assert own.arithmetic == own.moved == 0


def test_what_is_kept_for_backward():
    layer, x = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.ReLU()), torch.randn(2, 4, 3, 3)
    results = []
    layer.register_forward_hook(lambda _module, _inputs, out: results.append(weakref.ref(out)))
    kept = kept_for_backward(layer, x, layer.parameters())
    assert kept == 2 * x.nbytes  # the input and the result, no weight
    assert results[0]() is None  # it is gone with its measurement


def test_a_time_is_relative_to_the_same_turn():
    """A machine that halves its speed for two of three turns does not change it."""
    found = time_of([2.0, 4.0, 4.0], [1.0, 2.0, 2.0], 10)
    assert (found.ms, found.relative, found.low, found.high) == (400, 2, 2, 2)


@pytest.mark.slow
def test_the_table_has_every_module(tmp_path, capsys):
    path = tmp_path / "costs.json"
    words = "cifar_resnet20 --device cpu --image-size 32 -b 2 --rounds 2"
    assert main([*words.split(), "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [row["attention"] for row in rows] == list(ATTENTIONS)
    for row in rows:
        extra = sum(
            sign * weight.numel()
            for sign, attention in ((1, row["attention"]), (-1, "none"))
            for weight in create_model("cifar_resnet20", attention).parameters()
        )
        assert row["extra_parameters"] == extra
        assert row["kept"] >= 1
        assert (row["moved"] > 0) == (row["operations"] > 0) == (row["attention"] != "none")
        assert row["training"]["low"] <= row["training"]["relative"] <= row["training"]["high"]
    plain = rows[0]
    assert plain["kept"] == plain["evaluation"]["relative"] == plain["one_image"]["high"] == 1
    printed = capsys.readouterr().out
    assert printed.count("\n| cifar_resnet20 |") == len(rows)
    assert "| cifar_resnet20 | none | 0 | 0.04 | 0.0 | 0.0 | 1.00 | 1.00 (1.00 to 1" in printed
