"""Pixels as a network's input, against torchvision's own."""

import pytest
import torch
from operations import Operations
from torchvision.transforms import Compose, Normalize, ToTensor

from utils.data.normalise import Normalise
from utils.data.preparation import CIFAR, IMAGENET

CPU = torch.device("cpu")


@pytest.fixture
def pixels():
    images = torch.randint(256, (4, 9, 7, 3), dtype=torch.uint8)
    images[0, 0, 0], images[0, 0, 1] = 0, 255
    return images.permute(0, 3, 1, 2)


@pytest.mark.parametrize("preparation", [IMAGENET, CIFAR])
def test_pixels_are_normalised_as_by_torchvision(preparation, pixels):
    theirs = Compose([ToTensor(), Normalize(preparation.mean, preparation.std)])
    expected = torch.stack([theirs(each.permute(1, 2, 0).numpy()) for each in pixels])
    normalised = Normalise(CPU, preparation)(pixels)
    torch.testing.assert_close(normalised, expected, rtol=1e-6, atol=1e-6)
    assert normalised.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_one_pass_that_rounds_once(dtype, pixels):
    normalise = Normalise(CPU, dtype=dtype)
    with Operations() as seen:
        normalised = normalise(pixels)
    assert seen.counts == {"empty_like": 1, "addcmul": 1}
    mean, std = (torch.tensor(each)[:, None, None] for each in (IMAGENET.mean, IMAGENET.std))
    exact = (pixels.double() / 255 - mean) / std
    assert normalised.dtype == dtype
    # half a unit in the last place, and what float32 adds to it
    torch.testing.assert_close(
        normalised.double(), exact, rtol=torch.finfo(dtype).eps / 2 + 1e-6, atol=1e-6
    )


def test_without_a_word_images_are_imagenets(pixels):
    assert torch.equal(Normalise(CPU)(pixels), Normalise(CPU, IMAGENET)(pixels))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_can_be_undone(dtype, pixels, device):
    normalise = Normalise(device, dtype=dtype)
    normalised = normalise(pixels.to(device))
    assert (normalised.dtype, normalised.device.type) == (dtype, device.type)
    undone = normalise.undo(normalised).cpu()
    assert undone.dtype == torch.uint8
    coarse = {torch.float32: 0, torch.float16: 0, torch.bfloat16: 1}[dtype]
    assert (undone.int() - pixels.int()).abs().max() <= coarse
