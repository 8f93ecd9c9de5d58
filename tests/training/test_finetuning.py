"""Weights that stay, weights that learn more slowly, and what learns as ever."""

import pytest
import torch
from runs import load, path, run, same

from utils.errors import UsageError
from utils.training.finetuning import freeze


@pytest.fixture(scope="module")
def weights(undisturbed) -> dict[str, torch.Tensor]:
    return load(undisturbed)["state_dict"]


def changed(root, weights) -> set[str]:
    """Which weights and statistics an epoch from `weights` changed."""
    state = load(root)["state_dict"]
    return {key for key in state if not torch.equal(state[key], weights[key])}


@pytest.mark.parametrize(
    ("names", "kept"), [("backbone", ""), ("conv1,bn1,layer1", "layer2. layer3. fc.")]
)
def test_frozen_parts_stay_with_their_statistics(
    names, kept, undisturbed, weights, digits, tmp_path
):
    start = ["--weights", path(undisturbed)]
    assert run(digits, tmp_path, "--epochs", 1, *start, "--freeze", names) == 0
    free = tuple((kept or "fc.").split())
    assert changed(tmp_path, weights) == {key for key in weights if key.startswith(free)}


def test_a_run_with_frozen_parts_goes_on_with_the_same_alone(digits, tmp_path, capsys):
    assert run(digits, tmp_path / "whole", "--epochs", 2, "--freeze", "backbone") == 0
    for epochs in (1, 2):
        more = ("--epochs", epochs, "--freeze", "backbone", "--resume", "auto")
        assert run(digits, tmp_path / "parts", *more) == 0
    states = [load(tmp_path / name)["state_dict"] for name in ("whole", "parts")]
    assert same(*states)
    capsys.readouterr()
    assert run(digits, tmp_path / "parts", "--epochs", 3, "--resume", "auto") == 2
    assert "--freeze or --backbone-lr; go on with the same" in capsys.readouterr().err


def test_the_backbone_learns_at_a_share_of_the_rate(digits, tmp_path):
    """At none of it, weights stay, but not the statistics of norms; at all of it, as without."""
    more = ("--epochs", 1, "--wd", 0)
    for name, words in {"plain": (), "none": ("0",), "all": ("1",), "tenth": ("0.1",)}.items():
        factor = ("--backbone-lr", *words) if words else ()
        assert run(digits, tmp_path / name, *more, *factor) == 0
    states = {
        name: load(tmp_path / name)["state_dict"] for name in ("plain", "none", "all", "tenth")
    }
    assert same(states["all"], states["plain"])
    assert not torch.equal(states["none"]["fc.weight"], states["tenth"]["fc.weight"])
    assert torch.equal(states["none"]["layer1.0.bn1.weight"], torch.ones(16))
    assert not torch.equal(states["none"]["bn1.running_mean"], torch.zeros(16))
    assert not torch.equal(states["tenth"]["layer1.0.bn1.weight"], torch.ones(16))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("layer9", "^--freeze layer9: there is backbone, 0, 1, and their parts$"),
        ("0,1", "^--freeze 0,1 leaves nothing to train$"),
    ],
)
def test_what_can_not_be_frozen_is_told(names, message):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Linear(4, 2))
    with pytest.raises(UsageError, match=message):
        freeze(model, names)
