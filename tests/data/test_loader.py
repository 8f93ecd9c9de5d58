import multiprocessing
import re
import shutil
import time
from multiprocessing import resource_sharer

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from utils.data.images import EvalTransform, TrainTransform
from utils.data.listing import check_same_classes, list_images
from utils.data.loader import (
    MEAN,
    STD,
    BadImage,
    DeviceLoader,
    EvalBatches,
    ImageDataset,
    TrainBatches,
)
from utils.errors import UsageError
from utils.processes.launch import guarded

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Smooth random pictures larger than the network's input, in two classes."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            target = folder / split / name
            target.mkdir(parents=True)
            for number, size in enumerate([(90, 70), (64, 120)]):
                noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                noise.resize(size, Image.Resampling.BICUBIC).save(target / f"{number}.jpg")
    return folder


def test_listing_is_image_folders(digits):
    listing, reference = list_images(str(digits), "train"), ImageFolder(digits / "train")
    assert listing.classes == reference.classes
    assert list(zip(listing.paths, listing.targets, strict=True)) == reference.samples


def test_evaluation_sees_what_the_published_pipeline_saw(photos):
    reference = ImageFolder(
        photos / "val",
        transforms.Compose(
            [
                transforms.Resize(64),
                transforms.CenterCrop(56),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        ),
    )
    listing = list_images(str(photos), "val")
    dataset = ImageDataset(listing, EvalTransform(56))
    loader = DeviceLoader(dataset, EvalBatches(len(dataset), 3), 0, CPU)
    images = torch.cat([images for images, _ in loader])
    expected = torch.stack([image for image, _ in reference])
    torch.testing.assert_close(images, expected, atol=1e-6, rtol=1e-6)
    before_normalisation = (expected * torch.tensor(STD)[:, None, None]).add(
        torch.tensor(MEAN)[:, None, None]
    )
    uint8 = torch.stack([dataset[0, index][0] for index in range(len(dataset))])
    assert torch.equal(uint8, (before_normalisation * 255).round().byte())


def test_a_sample_depends_on_seed_epoch_and_index_alone(photos):
    listing = list_images(str(photos), "train")

    def sample(seed, epoch, index):
        return ImageDataset(listing, TrainTransform(32), seed)[epoch, index][0]

    first = sample(1, 2, 3)
    torch.rand(7)
    sample(1, 2, 0)
    assert torch.equal(sample(1, 2, 3), first)
    for other in [(0, 2, 3), (1, 0, 3), (1, 3, 3)]:
        assert not torch.equal(sample(*other), first)


@pytest.mark.parametrize("policy", [None, "ra"])
def test_sampling_leaves_the_global_generator_alone(policy, photos):
    before = torch.get_rng_state()
    ImageDataset(list_images(str(photos), "train"), TrainTransform(32, policy))[0, 0]
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_do_not_depend_on_the_number_of_workers(digits):
    dataset = ImageDataset(list_images(str(digits), "train"), TrainTransform(32), seed=5)

    def epoch(workers):
        batches = TrainBatches(len(dataset), 7, seed=5)
        loader = DeviceLoader(dataset, batches, workers, CPU)
        batches.start(3, first_step=1)
        return list(loader)

    alone, helped = epoch(0), epoch(2)
    assert len(alone) == len(helped) == 3
    for (images, targets), (same_images, same_targets) in zip(alone, helped, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(targets, same_targets)


def test_workers_start_with_the_loader_and_stay(digits):
    def workers() -> set[int]:
        return {child.pid for child in multiprocessing.active_children()}

    before = workers()
    dataset = ImageDataset(list_images(str(digits), "train"), TrainTransform(32))
    loader = DeviceLoader(dataset, TrainBatches(len(dataset), 8, seed=0), 2, CPU)
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
    assert guarded(lambda: DeviceLoader(dataset, batches, 1, CPU)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(r"error: DataLoader worker hung up \(\w+: .*\); .* fewer workers \(-j\)", line)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_batch_stays_until_the_next_is_asked_for(workers, digits):
    dataset = ImageDataset(list_images(str(digits), "train"), TrainTransform(32))

    def batches(workers):
        keys = TrainBatches(len(dataset), 2, seed=0)
        return DeviceLoader(dataset, keys, workers, CPU).loader

    expected = [images for images, *_ in batches(0)]
    assert len(expected) >= 10
    for (images, *_), same in zip(batches(workers), expected, strict=True):
        time.sleep(0.05)  # the workers go on, as far as they are asked to
        assert torch.equal(images, same)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_training_batches_cover_an_epoch_once(world):
    ranks = [TrainBatches(50, 12, seed=0, rank=rank, world=world) for rank in range(world)]
    steps = [list(batches) for batches in ranks]
    assert {len(each) for each in steps} == {5 if world == 1 else 4}
    for together in zip(*steps, strict=True):
        assert len({len(batch) for batch in together}) == 1
    keys = [key for each in steps for batch in each for key in batch]
    assert len(set(keys)) == len(keys) == (50 if world == 1 else 48)


def test_training_order_changes_with_epoch_and_seed():
    def order(seed, epoch):
        batches = TrainBatches(20, 20, seed)
        batches.start(epoch)
        return [index for _, index in next(iter(batches))]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    assert sorted(order(3, 4)) == list(range(20))


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_evaluation_batches_hold_every_image_once(world, batch_size):
    indices = [
        index
        for rank in range(world)
        for batch in EvalBatches(13, batch_size, rank, world)
        for _, index in batch
    ]
    assert sorted(indices) == list(range(13))


def test_a_damaged_image_is_named(digits, tmp_path):
    shutil.copytree(digits, tmp_path / "data")
    damaged = tmp_path / "data" / "train" / "1" / "003.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    listing = list_images(str(tmp_path / "data"), "train")
    dataset = ImageDataset(listing, TrainTransform(32))
    assert isinstance(dataset[0, listing.paths.index(str(damaged))], BadImage)
    for workers in (0, 1):
        loader = DeviceLoader(dataset, TrainBatches(len(dataset), 8, seed=0), workers, CPU)
        with pytest.raises(UsageError, match=f"can't decode image {damaged} .* --skip-bad-images"):
            list(loader)


def test_a_damaged_image_can_not_be_skipped_in_an_evaluation(digits, tmp_path):
    shutil.copytree(digits, tmp_path / "data")
    damaged = tmp_path / "data" / "val" / "1" / "001.png"
    damaged.write_bytes(b"no image")
    dataset = ImageDataset(list_images(str(tmp_path / "data"), "val"), EvalTransform(32))
    loader = DeviceLoader(dataset, EvalBatches(len(dataset), 5), 0, CPU)
    with pytest.raises(UsageError, match=f"can't decode image {damaged} .*check_images") as error:
        list(loader)
    assert "skip" not in str(error.value)


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 2])
def test_a_gpu_gets_what_the_cpu_gets(digits, workers):
    dataset = ImageDataset(list_images(str(digits), "train"), TrainTransform(32), seed=5)

    def two_epochs(device: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
        batches = TrainBatches(len(dataset), 7, seed=5)
        loader = DeviceLoader(dataset, batches, workers, torch.device(device))
        found = []
        for epoch in range(2):
            batches.start(epoch)
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
    dataset = ImageDataset(list_images(str(digits), "val"), EvalTransform(32))
    loader = DeviceLoader(dataset, EvalBatches(len(dataset), 4), 0, torch.device("cuda"))
    reserved = []
    for _ in range(40):  # more than there are streams
        list(loader)
        torch.cuda.synchronize()
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[-1] == reserved[1]


@pytest.mark.gpu
def test_a_damaged_image_is_named_on_a_gpu(digits, tmp_path):
    shutil.copytree(digits, tmp_path / "data")
    damaged = tmp_path / "data" / "train" / "1" / "003.png"
    damaged.write_bytes(b"no image")
    dataset = ImageDataset(list_images(str(tmp_path / "data"), "train"), TrainTransform(32))
    # one worker: with it, a thread pins what arrives
    loader = DeviceLoader(dataset, TrainBatches(24, 8, seed=0), 1, torch.device("cuda"))
    with pytest.raises(UsageError, match=f"can't decode image {damaged}"):
        list(loader)


def test_what_is_wrong_with_a_folder_is_said(digits, tmp_path):
    with pytest.raises(UsageError, match=r"data folder .*nowhere does not exist"):
        list_images(str(tmp_path / "nowhere"), "train")
    with pytest.raises(UsageError, match="has no folder train/"):
        list_images(str(tmp_path), "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(UsageError, match="has no class folders"):
        list_images(str(tmp_path), "train")
    shutil.copytree(digits, tmp_path / "data")
    (tmp_path / "data" / "train" / "zebra").mkdir()
    with pytest.raises(UsageError, match=r"class folder .*zebra holds no image"):
        list_images(str(tmp_path / "data"), "train")
    shutil.copy(digits / "val" / "0" / "000.png", tmp_path / "data" / "train" / "zebra")
    train, val = (list_images(str(tmp_path / "data"), split) for split in ("train", "val"))
    with pytest.raises(UsageError, match="in one of them only: zebra"):
        check_same_classes(train, val)
