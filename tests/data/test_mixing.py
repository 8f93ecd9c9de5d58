"""Mixup and CutMix, against the same mixed by hand."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from utils.config import Config, Data, Network
from utils.data.batches import TrainBatches
from utils.data.loader import SyntheticLoader
from utils.data.mixing import MixingLoader
from utils.data.normalise import Normalise

STEPS = 4


def mixing(mixup: float, cutmix: float, first_step: int = 0, seed: int = 7):
    """A loader, whose batches are all the same images, and the mixed one."""
    torch.manual_seed(3)
    normalise = Normalise(torch.device("cpu"))
    loader = SyntheticLoader(TrainBatches(6 * STEPS, 6, 0), 16, 5, normalise)
    network = Network(arch="cifar_resnet20", num_classes=5)
    config = Config(network=network, data=Data(mixup=mixup, cutmix=cutmix))
    mixed = MixingLoader(loader, config, seed)
    mixed.batches.start(2, first_step)
    return loader, mixed


def shares_of(targets: torch.Tensor, original: torch.Tensor) -> list[float]:
    """The share of its own class in each row whose two classes differ."""
    differ = original != original.roll(1)
    return targets[differ, original[differ]].tolist()


def test_mixup_blends_images_and_targets_alike():
    loader, mixed = mixing(0.4, 0)
    assert len(mixed) == STEPS
    assert mixed.normalise is loader.normalise
    images, targets = next(iter(loader))
    for blended, shares in mixed:
        first = shares_of(shares, targets)
        share = first[0]
        assert first == pytest.approx([share] * len(first))
        assert torch.equal(shares.sum(1), torch.ones(6))
        expected = share * images + (1 - share) * images.roll(1, 0)
        torch.testing.assert_close(blended, expected, rtol=1e-4, atol=1e-5)


def test_cutmix_pastes_images_and_shares_targets_by_area():
    loader, mixed = mixing(0, 1.0)
    images, targets = next(iter(loader))
    for pasted, shares in mixed:
        own, other = pasted == images, pasted == images.roll(1, 0)
        assert (own | other).all()
        kept = (~(other & ~own)).float().mean((1, 2, 3))  # pixels that are equal anyway: few
        assert shares_of(shares, targets)[0] == pytest.approx(kept.max().item(), abs=0.05)


def test_mixing_depends_on_seed_epoch_and_step_alone():
    whole = [shares for _, shares in mixing(0.4, 1.0)[1]]
    torch.rand(9)
    assert all(map(torch.equal, whole[2:], [s for _, s in mixing(0.4, 1.0, first_step=2)[1]]))
    other_epoch = mixing(0.4, 1.0)[1]
    other_epoch.batches.start(3)
    for others in (other_epoch, mixing(0.4, 1.0, seed=8)[1]):
        assert not any(map(torch.equal, whole, [shares for _, shares in others]))
    assert not torch.equal(whole[0], whole[1])


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0), (0, 1.0)])
def test_images_stay_channels_last_on_a_gpu(mixup, cutmix):
    """Where `roll` makes them contiguous, as it does for tensors of a GPU that is not there."""
    loader, mixed = mixing(mixup, cutmix)
    with FakeTensorMode(allow_non_fake_inputs=True):
        images = torch.empty(6, 16, 16, 3, dtype=torch.uint8, device="cuda")
        loader.images = images.permute(0, 3, 1, 2)
        loader.normalise = Normalise(torch.device("cuda"))
    assert not loader.images.roll(1, 0).is_contiguous(memory_format=torch.channels_last)
    for images, _ in mixed:
        assert images.device.type == "cuda"
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_mixing_leaves_the_global_generator_alone():
    _, mixed = mixing(0.4, 1.0)
    before = torch.get_rng_state()
    assert len(list(mixed)) == STEPS
    assert torch.equal(torch.get_rng_state(), before)
