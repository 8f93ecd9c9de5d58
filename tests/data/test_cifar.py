import pickle
import shutil
from hashlib import md5

import pytest
import torch
from operations import Operations
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision import datasets, transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2 import functional as F

from utils.data.batches import EvalBatches, TrainBatches
from utils.data.cifar import (
    CifarLoader,
    Images,
    augment,
    draw_augmentation,
    hold_out,
    read_folder,
    read_torchvision,
)
from utils.data.normalise import Normalise
from utils.data.preparation import CIFAR
from utils.errors import UsageError

CPU = Normalise(torch.device("cpu"), CIFAR)


@pytest.fixture
def images():
    pixels = torch.randint(256, (50, 3, 32, 32), dtype=torch.uint8)
    return Images(pixels, torch.arange(50) % 7, [str(label) for label in range(7)])


def test_every_crop_is_that_of_the_padded_image(images):
    image = images.pixels[:1]
    padded = F.pad(image, [4, 4, 4, 4])
    for top in range(9):
        for left in range(9):
            crop = F.crop(padded, top, left, 32, 32)
            for flip, expected in enumerate([crop, F.hflip(crop)]):
                assert torch.equal(augment(image, torch.tensor([[top, left, flip]])), expected)


def test_a_batch_is_augmented_image_by_image(images):
    draws = draw_augmentation(len(images), seed=1, epoch=2)
    one_by_one = [
        augment(image[None], draw[None]) for image, draw in zip(images.pixels, draws, strict=True)
    ]
    assert torch.equal(augment(images.pixels, draws), torch.cat(one_by_one))


def test_draws_are_spread_evenly_over_all_crops_and_flips():
    draws = draw_augmentation(81_000, seed=0, epoch=0)
    crops = torch.bincount(9 * draws[:, 0] + draws[:, 1])
    assert len(crops) == 81
    assert (crops - 1000).abs().max() < 6 * 1000**0.5  # six standard deviations
    assert draws[:, 2].unique().tolist() == [0, 1]
    assert abs(draws[:, 2].float().mean() - 0.5) < 0.01
    assert not torch.equal(draws, draw_augmentation(81_000, seed=0, epoch=1))
    assert not torch.equal(draws, draw_augmentation(81_000, seed=1, epoch=0))


def test_an_evaluated_image_is_torchvisions(images):
    steps = [transforms.ToTensor(), transforms.Normalize(CIFAR.mean, CIFAR.std)]
    theirs = transforms.Compose(steps)
    expected = [theirs(image.permute(1, 2, 0).numpy()) for image in images.pixels]
    batches = list(CifarLoader(images, EvalBatches(50, 20), CPU))
    assert [len(targets) for _, targets in batches] == [20, 20, 10]
    found = torch.cat([pixels for pixels, _ in batches])
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-5)
    assert torch.equal(torch.cat([targets for _, targets in batches]), images.targets)


def test_a_training_epoch_is_the_same_from_any_step_on(images):
    def epoch(first_step):
        batches = TrainBatches(50, 12, seed=3)
        loader = CifarLoader(images, batches, CPU)
        batches.start(5, first_step)
        return list(loader)

    whole, rest = epoch(0), epoch(2)
    assert [len(targets) for _, targets in whole] == [12, 12, 12, 12, 2]
    for one, other in zip(whole[2:], rest, strict=True):
        assert all(map(torch.equal, one, other))
    targets = torch.cat([targets for _, targets in whole])
    assert torch.equal(targets.sort().values, images.targets.sort().values)


@pytest.mark.parametrize("batches", [TrainBatches(50, 12, seed=3), EvalBatches(50, 12)])
def test_batches_are_channels_last_and_no_step_waits_for_a_copy(images, batches):
    assert all(
        pixels.is_contiguous(memory_format=torch.channels_last)
        for pixels, _ in CifarLoader(images, batches, CPU)
    )
    with FakeTensorMode(allow_non_fake_inputs=True):
        steps = iter(CifarLoader(images, batches, Normalise(torch.device("cuda"), CIFAR)))
        next(steps)  # with which the epoch's order comes to the device
        with Operations() as seen:
            rest = list(steps)
    assert len(rest) == 4
    assert {each.device.type for batch in rest for each in batch} == {"cuda"}
    assert seen.copies == []


def test_black_is_what_surrounds_an_image(images):
    loader = CifarLoader(images, TrainBatches(50, 50, seed=0), CPU)
    pixels, _ = next(iter(loader))
    draws = draw_augmentation(50, seed=0, epoch=0)
    order = torch.tensor([index for _, index in next(iter(loader.batches))])
    black = -torch.tensor(CIFAR.mean) / torch.tensor(CIFAR.std)
    topmost = draws[order, 0] == 0
    assert topmost.any()
    border = pixels[topmost][:, :, :4]
    torch.testing.assert_close(border, black[:, None, None].expand_as(border))


def test_a_tenth_is_held_out_always_the_same():
    images = Images(torch.zeros(50_000, 1, 1, 1), torch.arange(50_000), ["all"])
    train, val = hold_out(images)
    assert (len(train), len(val)) == (45_000, 5_000)
    assert torch.equal(torch.cat([train.targets, val.targets]).sort().values, images.targets)
    assert torch.equal(hold_out(images)[1].targets, val.targets)
    assert abs(val.targets.float().mean() - 25_000) < 6 * 50_000 / (12 * 5_000) ** 0.5


def test_a_checksum_knows_the_images_from_others(images):
    same = Images(images.pixels.clone(), images.targets.clone(), images.classes)
    assert same.checksum() == images.checksum()
    assert images.subset(torch.arange(49, -1, -1)).checksum() != images.checksum()
    same.targets[3] += 1
    assert same.checksum() != images.checksum()


def test_a_folder_is_read_as_torchvision_does(digits32):
    for split, images in zip(("train", "val"), read_folder(str(digits32)), strict=True):
        reference = ImageFolder(digits32 / split, transforms.PILToTensor())
        assert images.classes == reference.classes
        assert images.targets.tolist() == reference.targets
        assert torch.equal(images.pixels, torch.stack([image for image, _ in reference]))


def test_a_file_that_does_not_fit_is_named(digits32, tmp_path):
    folder = shutil.copytree(digits32, tmp_path / "data")
    path = folder / "train" / "1" / "003.png"
    Image.new("RGB", (32, 31)).save(path)
    with pytest.raises(UsageError, match=f"image {path} has 32x31 pixels, not 32x32"):
        read_folder(str(folder))
    path.write_bytes(b"no image")
    with pytest.raises(UsageError, match=f"can't decode image {path}"):
        read_folder(str(folder))


@pytest.mark.parametrize(("name", "key"), [("cifar10", "labels"), ("cifar100", "fine_labels")])
def test_torchvisions_files_are_read(name, key, digits32, tmp_path, monkeypatch):
    train, val = read_folder(str(digits32))
    reader = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    root = tmp_path / "torchvision" / reader.base_folder
    root.mkdir(parents=True)

    def write(file, content):
        data = pickle.dumps(content)
        (root / file).write_bytes(data)
        return md5(data).hexdigest()

    # torchvision checks its files by their MD5; these are as whole as it can tell
    for images, attribute in ((train, "train_list"), (val, "test_list")):
        rows = images.pixels.flatten(1).numpy()
        checksum = write(attribute, {"data": rows, key: images.targets.tolist()})
        monkeypatch.setattr(reader, attribute, [[attribute, checksum]])
    names = "label_names" if name == "cifar10" else "fine_label_names"
    checksum = write("meta", {names: train.classes})
    monkeypatch.setattr(reader, "meta", {"filename": "meta", "key": names, "md5": checksum})

    for found, expected in zip(read_torchvision(name, str(root.parent)), (train, val), strict=True):
        assert torch.equal(found.pixels, expected.pixels)
        assert torch.equal(found.targets, expected.targets)
        assert found.classes == expected.classes
    (root / "train_list").write_bytes(b"cut off")
    with pytest.raises(UsageError, match=f"does not hold {name} .* or not whole"):
        read_torchvision(name, str(root.parent))
    (root / "train_list").unlink()
    (root / "train_list").symlink_to("/proc/self/mem")  # can be opened, and not read
    with pytest.raises(UsageError, match=rf"can't read {name} from {root.parent} \(OSError"):
        read_torchvision(name, str(root.parent))
