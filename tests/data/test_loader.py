"""Images in class folders, as batches on the device."""

import multiprocessing
import re
import shutil
import time
from multiprocessing import resource_sharer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from utils.config import Config, Data, Network, Optim
from utils.data.batches import EvalBatches, TrainBatches
from utils.data.images import EvalTransform, TrainTransform
from utils.data.listing import list_images, synthetic_listing
from utils.data.loader import (
    BadImage,
    DeviceLoader,
    ImageDataset,
    SyntheticLoader,
    eval_loader,
    train_loader,
)
from utils.data.normalise import Normalise
from utils.data.preparation import IMAGENET
from utils.errors import UsageError
from utils.processes.dist import Dist
from utils.processes.ending import exit_code

ALONE = Dist(0, 1, torch.device("cpu"))
CPU = Normalise(ALONE.device)


def training(data: Path, batch_size: int, workers: int = 0, normalise: Normalise = CPU):
    """Crops of 32 pixels, drawn from seed 5."""
    dataset = ImageDataset(list_images(str(data), "train"), TrainTransform(32), seed=5)
    return DeviceLoader(dataset, TrainBatches(len(dataset), batch_size, 5), workers, normalise)


def validation(data: Path, batch_size: int, normalise: Normalise = CPU):
    dataset = ImageDataset(list_images(str(data), "val"), EvalTransform(IMAGENET.at(32)))
    return DeviceLoader(dataset, EvalBatches(len(dataset), batch_size), 0, normalise)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Smooth random pictures larger than the network's input, in two classes."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name in ("train/cat", "train/dog", "val/cat", "val/dog"):
        (folder / name).mkdir(parents=True)
        for number, size in enumerate([(90, 70), (64, 120)]):
            noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            noise.resize(size, Image.Resampling.BICUBIC).save(folder / name / f"{number}.jpg")
    return folder


def test_evaluation_sees_what_the_published_pipeline_saw(pictures):
    steps = [transforms.Resize(64), transforms.CenterCrop(56), transforms.ToTensor()]
    steps += [transforms.Normalize(IMAGENET.mean, IMAGENET.std)]
    reference = ImageFolder(pictures / "val", transforms.Compose(steps))
    listing, data = list_images(str(pictures), "val"), Data(batch_size=3, workers=0)
    found = list(eval_loader(listing, data, IMAGENET.at(56), ALONE))
    assert [len(targets) for _, targets in found] == [3, 1]
    expected, targets = zip(*reference, strict=True)
    images = torch.cat([images for images, _ in found])
    torch.testing.assert_close(images, torch.stack(expected), atol=1e-6, rtol=1e-6)
    assert torch.cat([targets for _, targets in found]).tolist() == list(targets)


def test_a_sample_depends_on_seed_epoch_and_index_alone(pictures):
    listing = list_images(str(pictures), "train")

    def sample(seed, epoch, index):
        return ImageDataset(listing, TrainTransform(32), seed)[epoch, index][0]

    first = sample(1, 2, 3)
    torch.rand(7)
    sample(1, 2, 0)
    assert torch.equal(sample(1, 2, 3), first)
    for other in [(0, 2, 3), (1, 0, 3), (1, 3, 3)]:
        assert not torch.equal(sample(*other), first)


@pytest.mark.parametrize("policy", [None, "ra"])
def test_sampling_leaves_the_global_generator_alone(policy, pictures):
    before = torch.get_rng_state()
    ImageDataset(list_images(str(pictures), "train"), TrainTransform(32, policy))[0, 0]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_config_is_followed(digits):
    """Accumulated batches come as one, and two nodes share them."""
    network = Network(arch="resnet18", num_classes=3)
    data = Data(image_size=48, batch_size=4, workers=0, image_backend="pil", skip_bad_images=True)
    config = Config(network=network, data=data, optim=Optim(accumulate=2))
    listing, second_node = list_images(str(digits), "train"), Dist(1, 2, ALONE.device)
    for dist, size in ((ALONE, 8), (second_node, 8)):
        loader = train_loader(listing, config, dist, seed=3, dtype=torch.bfloat16)
        images, targets = next(iter(loader))
        assert images.shape == (size, 3, 48, 48)
        assert images.dtype == torch.bfloat16
        batches = TrainBatches(24, 8 * dist.world, 3, dist.rank, dist.world)
        assert targets.tolist() == [listing.targets[index] for _, index in next(iter(batches))]
    dataset = loader.loader.dataset
    assert (dataset.backend, dataset.skip_bad, dataset.seed) == ("pil", True, 3)
    val = eval_loader(list_images(str(digits), "val"), data, IMAGENET.at(48), second_node)
    assert [len(targets) for _, targets in val] == [4, 2]


def test_synthetic_images_are_made_once():
    listing = synthetic_listing("val", 7)
    data = Data(image_size=8, batch_size=20_000, synthetic=True)
    config = Config(network=Network(arch="resnet18", num_classes=7), data=data)
    for loader, images in (
        (train_loader(listing, config, ALONE, seed=0), 50_000),
        (eval_loader(listing, data, IMAGENET.at(8), ALONE), 50_000),
    ):
        assert isinstance(loader, SyntheticLoader)
        found = list(loader)
        assert sum(len(targets) for _, targets in found) == images
        assert found[0][1].unique().tolist() == list(range(7))
        assert torch.equal(found[0][0], found[1][0])
        assert found[0][0].shape == (20_000, 3, 8, 8)
        assert found[0][0].is_contiguous(memory_format=torch.channels_last)


def test_workers_start_with_the_loader_and_stay(digits):
    def workers() -> set[int]:
        return {child.pid for child in multiprocessing.active_children()}

    before = workers()
    loader = training(digits, 8, workers=2)
    started = workers() - before
    assert len(started) == 2
    for _ in range(2):
        assert len(list(loader)) == 3
        assert workers() - before == started


def hang_up(image, rng) -> torch.Tensor:
    """A transform whose worker closes the connections by which its batches would be fetched."""

    def serve():
        while True:
            resource_sharer._resource_sharer._listener.accept().close()

    resource_sharer._resource_sharer._serve = serve
    return torch.zeros(3, 8, 8, dtype=torch.uint8)


def test_a_worker_that_hangs_up_is_one_line(digits, capsys):
    dataset = ImageDataset(list_images(str(digits), "train"), hang_up)
    batches = TrainBatches(len(dataset), 8, seed=0)
    assert exit_code(lambda: DeviceLoader(dataset, batches, 1, CPU)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(r"error: DataLoader worker hung up \(\w+: .*\); .* fewer workers \(-j\)", line)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_batch_stays_until_the_next_is_asked_for(workers, digits):
    expected = [images for images, *_ in training(digits, 2).loader]
    assert len(expected) == 12
    found = training(digits, 2, workers).loader
    for (images, *_), same in zip(found, expected, strict=True):
        time.sleep(0.05)  # the workers go on, as far as they are asked to
        assert torch.equal(images, same)


@pytest.fixture
def damaged(digits, tmp_path) -> Path:
    """The digits, with an image that is cut off, and one that is none."""
    root = shutil.copytree(digits, tmp_path / "data")
    cut_off = root / "train/1/003.png"
    cut_off.write_bytes(cut_off.read_bytes()[:60])
    (root / "val/1/001.png").write_bytes(b"no image")
    return root


# one worker: with it, a thread pins what arrives for a GPU
@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named(damaged, workers, device):
    path = damaged / "train/1/003.png"
    loader = training(damaged, 8, workers, Normalise(device))
    with pytest.raises(UsageError, match=f"^can't decode image {path} .*, --skip-bad-images"):
        list(loader)
    dataset = loader.loader.dataset
    assert isinstance(dataset[0, [*map(str, dataset.listing.images)].index(str(path))], BadImage)


def test_a_damaged_image_can_not_be_skipped_in_an_evaluation(damaged):
    message = f"^can't decode image {damaged}/val/1/001.png .*check_images[^-]*$"
    with pytest.raises(UsageError, match=message):
        list(validation(damaged, 5))


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 2])
def test_a_gpu_gets_what_the_cpu_gets(digits, workers):
    def two_epochs(device: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
        loader = training(digits, 7, workers, Normalise(torch.device(device)))
        found = []
        for epoch in range(2):
            loader.batches.start(epoch)
            found += loader
        return found

    expected, found = two_epochs("cpu"), two_epochs("cuda")
    assert len(expected) == len(found) == 8
    for (images, targets), (gpu_images, gpu_targets) in zip(expected, found, strict=True):
        assert gpu_images.is_cuda
        assert gpu_images.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(gpu_images.cpu(), images, atol=1e-6, rtol=1e-6)
        assert torch.equal(gpu_targets.cpu(), targets)


@pytest.mark.gpu
def test_epochs_take_no_more_gpu_memory(digits):
    loader = validation(digits, 4, Normalise(torch.device("cuda")))
    reserved = []
    for _ in range(40):  # more than there are streams
        list(loader)
        torch.cuda.synchronize()
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[-1] == reserved[1]
