"""ImageNet's archives, or a folder made from them, as train/<class>/ and val/<class>/.

    python scripts/prepare_imagenet.py SOURCE DEST [--shorter-side 400] [--val-classes FILE]

SOURCE holds ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz; or
train/<class>/ instead of the first, and val/<class>/ or a flat val/ instead of the second. It is
only read; images of folders are linked, where the disk allows it, not copied. Stopped at any time,
the same command goes on. --shorter-side N writes smaller copies, quicker to decode, to DEST-N.
Exit code 1 where something is missing or damaged, said in one line each.
"""

import argparse
import io
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from PIL import Image

from scripts.prepare.archives import (
    CLASSES,
    DEVKIT,
    IMAGES,
    TRAIN_ARCHIVE,
    VAL_ARCHIVE,
    DamagedArchive,
    Piece,
    ValClasses,
    folder_pieces,
    tar_members,
    tar_pieces,
)
from scripts.prepare.parallel import chunks, run_parallel
from utils.cli import Parser, exit_code, number
from utils.data.endings import is_image
from utils.errors import UsageError, reason

QUALITY = 92


class Task(NamedTuple):
    """Images for one process: `pieces`, or the tar of a class at `offset` of the train archive."""

    dest: str
    shorter_side: int | None
    pieces: list[Piece]
    class_tar: tuple[str, int, str] | None = None


def run(task: Task) -> list[str]:
    """Make the task's images, those that are not there yet; returns what went wrong."""
    problems = []
    for piece in _pieces_of(task, problems):
        target = os.path.join(task.dest, piece.target)
        if not os.path.exists(target) or os.path.getsize(target) != piece.size:
            place(piece, target)
        if task.shorter_side:
            smaller = os.path.join(f"{task.dest}-{task.shorter_side}", piece.target)
            # an empty one is what a power cut left of a copy that had not reached the disk
            if not os.path.exists(smaller) or not os.path.getsize(smaller):
                with open(target, "rb") as file:
                    data = file.read()
                try:
                    data = shrink(data, task.shorter_side)
                except Exception as error:  # a damaged file makes Pillow raise almost anything
                    problems.append(f"can't decode {target}: {reason(error)}")
                else:
                    write_whole(smaller, data)
    return problems


def _pieces_of(task: Task, problems: list[str]) -> Iterator[Piece]:
    if task.class_tar is None:
        yield from task.pieces
        return
    archive, offset, folder = task.class_tar
    try:
        yield from tar_pieces(archive, folder, offset)
    except DamagedArchive as damage:
        problems.append(f"{folder}: {damage}; get the archive again")


def place(piece: Piece, target: str) -> None:
    """Make `target` of `piece`: a second name of the same file where possible, else a copy."""
    whole_file = piece.offset == 0 and piece.size == os.path.getsize(piece.source)
    if whole_file and not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with suppress(OSError):
            os.link(os.path.realpath(piece.source), target)
            return
    with open(piece.source, "rb") as file:
        file.seek(piece.offset)
        write_whole(target, file.read(piece.size))


def write_whole(path: str, data: bytes) -> None:
    """Write a file that is there completely or not at all.

    It is not waited for the disk, which for a million files would take hours: after a power cut a
    file may be too short, which the next try sees.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".part", "wb") as file:
        file.write(data)
    os.replace(path + ".part", path)


def shrink(data: bytes, shorter_side: int) -> bytes:
    """A JPEG of the image in `data` with its shorter side at most `shorter_side` pixels.

    `data` itself where it is a small enough RGB JPEG already, in pixels and in bytes.
    """
    with Image.open(io.BytesIO(data)) as file:
        plain = file.format == "JPEG" and file.mode == "RGB"
        image = file.convert("RGB")
    least = min(image.size)
    if least > shorter_side:
        width, height = (round(side * shorter_side / least) for side in image.size)
        image, plain = image.resize((width, height), Image.Resampling.LANCZOS), False
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return data if plain and len(data) <= buffer.tell() else buffer.getvalue()


def train_tasks(
    source: str, dest: str, shorter_side: int | None, problems: list[str]
) -> list[Task]:
    archive, folder = os.path.join(source, TRAIN_ARCHIVE), os.path.join(source, "train")
    if os.path.isfile(archive):
        members = []
        try:
            members.extend(tar_members(archive))
        except DamagedArchive as damage:
            problems.append(f"{damage}; get the archive again")
        return [
            Task(dest, shorter_side, [], (archive, member.offset_data, f"train/{member.name[:-4]}"))
            for member in members
        ]
    if os.path.isdir(folder):
        pieces = list(folder_pieces(folder, "train"))
        return [Task(dest, shorter_side, part) for part in chunks(pieces, 256)]
    raise UsageError(f"{source} holds neither {TRAIN_ARCHIVE} nor train/")


def val_tasks(
    source: str, dest: str, shorter_side: int | None, val_classes: str | None, problems: list[str]
) -> list[Task]:
    archive, folder = os.path.join(source, VAL_ARCHIVE), os.path.join(source, "val")
    if not os.path.isfile(archive) and not os.path.isdir(folder):
        raise UsageError(f"{source} holds neither {VAL_ARCHIVE} nor val/")
    pieces = []
    found = tar_pieces(archive, "val") if os.path.isfile(archive) else folder_pieces(folder, "val")
    try:
        pieces.extend(found)
    except DamagedArchive as damage:
        problems.append(f"{damage}; get the archive again")
    flat = [piece for piece in pieces if os.path.dirname(piece.target) == "val"]
    sorted_in = [piece for piece in pieces if os.path.dirname(piece.target) != "val"]
    if flat:
        class_of = ValClasses.read(val_classes or find_devkit(source))
        sorted_in += [
            piece._replace(target=f"val/{class_of[piece.target]}/{os.path.basename(piece.target)}")
            for piece in flat
        ]
    return [Task(dest, shorter_side, part) for part in chunks(sorted_in, 256)]


def find_devkit(source: str) -> str:
    for name in (f"{DEVKIT}.tar.gz", DEVKIT):
        if os.path.exists(os.path.join(source, name)):
            return os.path.join(source, name)
    raise UsageError(
        f"the validation images are in no class folders, and {source} has no {DEVKIT}.tar.gz; "
        "name a file that tells their classes with --val-classes"
    )


def count(root: str) -> Iterator[str]:
    """A line for each split: what is there, and what is not."""
    classes = {}
    for split in IMAGES:
        names = os.listdir(os.path.join(root, split)) if os.path.isdir(f"{root}/{split}") else []
        classes[split] = {
            name: sum(map(is_image, os.listdir(place)))
            for name in names
            if os.path.isdir(place := os.path.join(root, split, name))
        }
    known = set().union(*classes.values())
    for split, images in IMAGES.items():
        have, number = len(classes[split]), sum(classes[split].values())
        line = f"{root}/{split}: {have:,} of {CLASSES:,} classes, {number:,} of {images:,} images"
        absent = sorted(known - set(classes[split]))
        if absent:
            line += f"; no {', '.join(absent[:3])}{', ...' if len(absent) > 3 else ''}"
        yield line + (": complete" if (have, number) == (CLASSES, images) else ": INCOMPLETE")


def prepare(args: argparse.Namespace) -> int:
    source, dest = args.source, args.dest.rstrip("/")
    if not os.path.isdir(source):
        raise UsageError(f"source folder {source} does not exist")
    copy = f"{dest}-{args.shorter_side}" if args.shorter_side else dest
    if os.path.realpath(source) in (os.path.realpath(dest), os.path.realpath(copy)):
        raise UsageError(f"DEST must be another folder than SOURCE, {source}, and so must DEST-N")
    problems: list[str] = []
    try:
        tasks = train_tasks(source, dest, args.shorter_side, problems)
        tasks += val_tasks(source, dest, args.shorter_side, args.val_classes, problems)
        for found in run_parallel(run, tasks, args.workers, "Parts"):
            problems += found
    except OSError as error:
        raise UsageError(f"{error}; once that is mended, the same command goes on") from None
    for problem in problems:
        print(problem)
    lines = list(count(dest))
    if args.shorter_side:
        lines += count(copy)
    print("\n".join(lines))
    return 1 if problems or any(line.endswith("INCOMPLETE") for line in lines) else 0


def parse_args(argv: list[str] | None = None):
    parser = Parser(description=__doc__.split("\n\n")[0])
    add, count = parser.add_argument, number(int, 1)
    add("source", metavar="SOURCE", help="folder with the archives, or train/ and val/")
    add("dest", metavar="DEST", help="where train/<class>/ and val/<class>/ go")
    add("--shorter-side", type=count, help="pixels; also write resized copies")
    add(
        "--val-classes",
        metavar="FILE",
        help="the devkit, or lines of WordNet ids, in the order of the images or after their names",
    )
    add("-j", "--workers", type=count, default=os.cpu_count(), help="processes")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: prepare(args), "stopped; the same command goes on")


if __name__ == "__main__":
    sys.exit(main())
