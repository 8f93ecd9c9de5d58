"""Files in folders: which are the user's own, which are images, what is said of the others."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import UsageError

# torchvision's, without importing it
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def is_image(name: str) -> bool:
    """Whether the name of a file, in any case of letters, ends like an image's."""
    return name.lower().endswith(IMAGE_ENDINGS)


def is_data(name: str) -> bool:
    """Whether a file or folder is the user's own, by its name: what systems and editors leave,
    such as .ipynb_checkpoints, ._cat.jpg, @eaDir and __MACOSX, is not."""
    return not name.startswith((".", "@eaDir", "__MACOSX"))


def walk(
    folder: str,
    endings: tuple[str, ...],
    left_out: Counter[str] | None = None,
    seen: Iterable[str] = (),
) -> Iterator[tuple[str, list[str]]]:
    """`folder` and every folder below it, with the data files in it that end so, in any case of
    letters, sorted as torchvision's ImageFolder does it.

    left_out: where the others are counted, by `kind_of`. Links are followed, to each real folder
    once, and to none of those `seen` elsewhere, nor to one that `folder` is in.
    """
    real = Path(folder).resolve()
    for place, names in sorted(_visit(folder, {*seen, *map(str, (real, *real.parents))})):
        found = sorted(n for n in names if is_data(n) and n.lower().endswith(endings))
        if left_out is not None:
            left_out.update(map(kind_of, {*names} - {*found}))
        yield place, found


def _visit(folder: str, seen: set[str]) -> Iterator[tuple[str, list[str]]]:
    """Each folder with the names of its files, and of folders that are no data."""
    for place, folders, names in os.walk(folder, followlinks=True):
        below = {name: os.path.realpath(os.path.join(place, name)) for name in sorted(folders)}
        names += [name for name in folders if not is_data(name)]
        folders[:] = [name for name, real in below.items() if is_data(name) and real not in seen]
        seen.update(below[name] for name in folders)
        yield place, names


def kind_of(name: str) -> str:
    """What is said of a file or folder that is left out: its ending, in small letters."""
    if not is_data(name):
        return "hidden"
    return os.path.splitext(name)[1].lower() or "without ending"


def counted(left_out: Counter[str]) -> str:
    """How many were left out of each kind, in words."""
    return ", ".join(f"{count} {kind}" for kind, count in left_out.most_common())


def find_files(
    paths: Sequence[str],
    endings: tuple[str, ...],
    kind: str,
    left_out: Counter[str] | None = None,
) -> list[str]:
    """The files among `paths`, and those below its folders that end so, in any case of letters.

    kind: what they are, for the message. left_out: see `walk`. Raises UsageError for a folder
    without any.
    """
    files = []
    for path in paths:
        if not os.path.isdir(path):
            files.append(path)
            continue
        found = walk(path, endings, left_out)
        inside = [os.path.join(place, name) for place, names in found for name in names]
        if not inside:
            raise UsageError(f"folder {path} holds no {kind} ({' '.join(endings)})")
        files += inside
    return files
