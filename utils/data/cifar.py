"""CIFAR, and any folder of 32x32 images: the whole set on the device, augmented there in batch."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.error import URLError

import torch
from torch.nn.functional import pad
from torchvision.datasets import CIFAR10, CIFAR100

from ..errors import UsageError, reason
from ..recording import Records
from .batches import EvalBatches, TrainBatches
from .images import Crop, open_image
from .listing import check_same_classes, list_images
from .loader import Batch
from .normalise import Normalise
from .places import Place
from .preparation import CIFAR
from .seed import mix_seed

SIZE = CIFAR.centre_crop
PADDING = 4
# numbers mixed into a seed, so that what is drawn from it stays apart from the epochs' orders
AUGMENTATION, SPLIT = 1, 2


@dataclass(frozen=True)
class Images:
    """A split: uint8 pixels (N, 3, 32, 32), targets (N,), which index the names in classes."""

    pixels: torch.Tensor
    targets: torch.Tensor
    classes: list[str]

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, indices: torch.Tensor) -> "Images":
        return Images(self.pixels[indices], self.targets[indices], self.classes)

    def checksum(self) -> int:
        """A number that other images, targets or another order of them would change."""
        return zlib.crc32(self.targets.numpy(), zlib.crc32(self.pixels.contiguous().numpy()))


def read_torchvision(name: str, root: str, download: bool = False) -> tuple[Images, Images]:
    """CIFAR-10 or CIFAR-100 from torchvision's files in `root`: training and test images.

    download: get them if they aren't there. Raises UsageError where they are not, or not whole.
    """
    dataset = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    splits = []
    for train in (True, False):
        try:
            split = dataset(root, train, download=download)
        except (URLError, OSError) as error:
            what = f"download {name} to" if download else f"read {name} from"
            raise UsageError(f"can't {what} {root} ({reason(error)})") from None
        except RuntimeError:
            raise UsageError(
                f"{root} does not hold {name} as torchvision keeps it, or not whole; --download "
                "gets it, --root names another folder, --data-dir takes class folders"
            ) from None
        pixels = torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous()
        splits.append(Images(pixels, torch.tensor(split.targets), split.classes))
    return tuple(splits)


def read_folder(root: str) -> tuple[Images, Images]:
    """The images in `root`/train/<class> and `root`/val/<class>.

    Raises UsageError for what is wrong with the folders, and for the first file that is no image
    of 32x32 pixels.
    """
    listings = [list_images(root, split) for split in ("train", "val")]
    check_same_classes(*listings)
    splits = []
    for listing in listings:
        pixels = torch.empty(len(listing.images), 3, SIZE, SIZE, dtype=torch.uint8)
        for image, place in zip(pixels, listing.images, strict=True):
            image[:] = _read_image(place)
        splits.append(Images(pixels, torch.from_numpy(listing.targets), listing.classes))
    return tuple(splits)


def _read_image(place: Place) -> torch.Tensor:
    try:
        image = open_image(place, "pil")
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise UsageError(f"can't decode image {place} ({reason(error)})") from None
    if (image.width, image.height) != (SIZE, SIZE):
        size = f"{image.width}x{image.height}"
        raise UsageError(f"image {place} has {size} pixels, not {SIZE}x{SIZE}")
    return image.resized(Crop(0, 0, SIZE, SIZE), SIZE, SIZE)


def hold_out(images: Images) -> tuple[Images, Images]:
    """A tenth of the training images is held out for validation: of CIFAR's 50,000, 5,000.

    Which ones is the same for every run. Returns (the others, the held out).
    """
    generator = torch.Generator().manual_seed(mix_seed(SPLIT))
    order = torch.randperm(len(images), generator=generator)
    held_out = len(images) // 10
    return images.subset(order[held_out:]), images.subset(order[:held_out])


def draw_augmentation(images: int, seed: int, epoch: int) -> torch.Tensor:
    """(images, 3): top and left of each image's crop, 0 to 8, and whether it is flipped.

    Drawn from (seed, epoch) for all images at once, so that a sample depends on its index alone.
    """
    generator = torch.Generator().manual_seed(mix_seed(seed, epoch, AUGMENTATION))
    offsets = torch.randint(2 * PADDING + 1, (images, 2), generator=generator)
    return torch.cat([offsets, torch.randint(2, (images, 1), generator=generator)], 1)


def augment(pixels: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Crops of images that got a black border of 4 pixels, as `draws` says; some flipped.

    pixels: (N, 3, 32, 32), draws: (N, 3), see `draw_augmentation` -> (N, 3, 32, 32), channels-last.
    """
    top, left, flip = draws[:, :, None].unbind(1)
    along = torch.arange(SIZE, device=pixels.device)
    rows, columns = top + along, left + torch.where(flip == 1, SIZE - 1 - along, along)
    which = torch.arange(len(pixels), device=pixels.device)[:, None, None]
    padded = pad(pixels, (PADDING,) * 4)
    return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class CifarLoader:
    """A `Loader` of images that are all on the device, as are an epoch's order and draws, so that
    no step waits for a copy.

    batches: `EvalBatches`, or `TrainBatches` for augmented images, drawn from its seed. record:
    replay the making of a batch on a GPU, see `Records`; a batch then lasts until the next.
    """

    def __init__(
        self,
        images: Images,
        batches: TrainBatches | EvalBatches,
        normalise: Normalise,
        record: bool = False,
    ):
        self.batches, self.normalise, self.device = batches, normalise, normalise.device
        self.pixels = images.pixels.to(self.device, memory_format=torch.channels_last)
        self.targets = images.targets.to(self.device)
        self.records = Records(record)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        draws = None
        if isinstance(self.batches, TrainBatches):
            draws = draw_augmentation(len(self.targets), self.batches.seed, self.batches.epoch)
            draws = draws.to(self.device)
        for indices in self.batches.indices(self.device):
            own = None if draws is None else draws[indices]
            yield self.records.call(self._batch, indices, own)

    def _batch(self, indices: torch.Tensor, draws: torch.Tensor | None) -> Batch:
        pixels = self.pixels[indices]
        if draws is not None:
            pixels = augment(pixels, draws)
        return self.normalise(pixels), self.targets[indices]
