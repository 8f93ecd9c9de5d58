"""ImageNet as it is handed out: its archives, and the classes of its validation images."""

import os
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path

from tqdm import tqdm

from utils.data.listing import IMAGENET_CLASSES, is_image
from utils.errors import UsageError, reason

from .images import is_whole, write_whole

TRAIN_ARCHIVE = "ILSVRC2012_img_train.tar"
VAL_ARCHIVE = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12"
LARGEST = 2**28  # bytes of an image, or of the devkit: those of ImageNet have less than 20 MB


def unpack_train(archive: str, folder: str, problems: list[str]) -> None:
    """Unpack the classes' tars within the training archive to `folder`/<class>/<image>.

    A line for what is damaged, and for what is no class, joins `problems`; the rest is unpacked.
    """
    seen = set()
    with noting_damage(archive, problems), tarfile.open(archive, "r:") as tar:
        for member in tqdm(members(tar), "Classes", IMAGENET_CLASSES, disable=None):
            named = re.fullmatch(r"n\d{8}\.tar", member.name) and member.name not in seen
            if not (named and member.isfile() and not member.issparse()):
                problems.append(f"{archive}: left out {member.name!r}, no class or there twice")
                continue
            seen.add(member.name)
            place = f"{archive}, {member.name}"
            with (
                noting_damage(place, problems),
                tarfile.open(fileobj=tar.extractfile(member), mode="r:") as images,
            ):
                target_of = partial(os.path.join, folder, member.name[:-4])
                unpack(images, target_of, place, problems)


def unpack_val(
    archive: str, folder: str, class_of: Callable[[str], str], problems: list[str]
) -> None:
    """Unpack the validation archive to `folder`/<class>/<image>; as `unpack_train` does."""
    with noting_damage(archive, problems), tarfile.open(archive, "r:") as tar:
        unpack(tar, lambda image: os.path.join(folder, class_of(image), image), archive, problems)


def unpack(
    tar: tarfile.TarFile, target_of: Callable[[str], str], archive: str, problems: list[str]
) -> None:
    """Write the images that are not there yet; no link is followed, nor a folder in a name.

    archive: its name, for a line on each that is left out.
    """
    seen = set()
    for member in tqdm(members(tar), "Images", leave=False, disable=None):
        image = os.path.basename(member.name)
        if not (member.isfile() and is_image(image)):
            continue
        if member.issparse() or member.size > LARGEST or image in seen:
            problems.append(f"{archive}: left out {member.name!r}, sparse, huge or there twice")
            continue
        seen.add(image)
        target = target_of(image)
        if not is_whole(target, member.size):
            write_whole(target, tar.extractfile(member).read())


def members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """What is in `tar`; raises ReadError, after all that can be read, where it is damaged."""
    yield from tar
    tar.fileobj.seek(tar.offset)
    # tarfile takes a broken header for the end, which is an empty block
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"broken at byte {tar.offset}")


@contextmanager
def noting_damage(archive: str, problems: list[str]) -> Iterator[None]:
    """A context that ends where the archive is damaged, which joins `problems`."""
    try:
        yield
    except tarfile.TarError as error:
        problems.append(f"{archive}: {error}; get the archive again")


class ValClasses:
    """The class folder of a validation image: the one it is in, else its class as `path` says.

    path: the devkit's archive, or text whose lines hold a WordNet id, in the order of the images
    or after an image's name. It is read, and UsageError raised for it, when an image needs it.
    """

    def __init__(self, path: str):
        self.path = path

    def __call__(self, image: str) -> str:
        """image: its place below val/."""
        stem = os.path.splitext(image)[0]
        folder = os.path.dirname(image) or self.by_stem.get(stem)
        if not folder:
            raise UsageError(f"{self.path} tells no class of validation image {image}")
        return folder

    @cached_property
    def by_stem(self) -> dict[str, str]:
        """WordNet ids by the images' names without the ending."""
        try:
            read = devkit_ids if self.path.endswith(".gz") else Path.read_text
            text = read(Path(self.path))
        except ImportError:
            raise UsageError("reading the devkit needs scipy: pip install scipy") from None
        except Exception as error:  # a damaged devkit makes scipy raise almost anything
            raise UsageError(
                f"can't read the validation images' classes from {self.path} ({reason(error)}); "
                "--val-classes names another file"
            ) from None
        # a line: an image's name, perhaps, and the id; headings have none
        lines = re.findall(r"^(?:(\w+)(?:\.\w+)?[ \t,]+)?(n\d{8})\b", text, re.MULTILINE)
        numbered = enumerate(lines, 1)
        return {stem or f"ILSVRC2012_val_{n:08}": wnid for n, (stem, wnid) in numbered}


def devkit_ids(path: Path) -> str:
    """The WordNet ids of the validation images in their order, a line each."""
    from scipy.io import loadmat

    with tarfile.open(path) as tar:
        for member in tar:  # before it is unpacked to look at the next
            if member.offset_data + member.size > LARGEST:
                raise ValueError(f"unpacks to more than {LARGEST} bytes")
        truth = tar.extractfile(f"{DEVKIT}/data/ILSVRC2012_validation_ground_truth.txt").read()
        synsets = loadmat(tar.extractfile(f"{DEVKIT}/data/meta.mat"), squeeze_me=True)["synsets"]
    wnid_of = {int(each["ILSVRC2012_ID"]): str(each["WNID"]) for each in synsets}
    return "\n".join(wnid_of[int(number)] for number in truth.split())
