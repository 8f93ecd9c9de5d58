"""Parquet files of images, as Hugging Face hands them out: a column `image` of bytes and a path,
and a column `label` of numbers, whose names the file may say."""

import json
import os
from collections.abc import Iterator, Sequence

from ..errors import UsageError, reason
from .places import Row, open_parquet
from .tars import named

ENDINGS = (".parquet",)


def images_in(folder: str, name: str, names: Sequence[str] = ()) -> list[tuple[str, Row]]:
    """The images in the file `name` of a folder: the class of each, and where it is.

    names: of the classes, in place of those that the file says. Raises UsageError for a file that
    is damaged or has other columns.
    """
    path = os.path.join(folder, name)
    try:
        found = list(_images(path, names))
    except UsageError:
        raise
    except Exception as error:  # a damaged file makes pyarrow raise almost anything
        raise UsageError(f"can't read {path} ({reason(error)}); get it again") from None
    archive = os.fsencode(name)
    return [(label, Row(folder, os.fsencode(own), archive, *at)) for label, own, *at in found]


def _images(path: str, names: Sequence[str]) -> Iterator[tuple[str, str, int, int]]:
    """Of each image its class, its name with the class first, its group of rows and its row."""
    file = open_parquet(path)
    columns = {file.schema.column(index).path for index in range(len(file.schema.names))}
    if not {"image.bytes", "label"} <= columns:
        raise UsageError(
            f"{path} has no columns image.bytes and label, but {', '.join(sorted(columns))}"
        )
    names = names or _class_names(file)
    asked = ["label", *{"image.path"} & columns]
    stem = os.path.splitext(os.path.basename(path))[0]
    for group in range(file.num_row_groups):
        rows = file.read_row_group(group, asked, use_threads=False).flatten()
        labels = rows.column("label").to_pylist()
        paths = rows.column("image.path").to_pylist() if asked[1:] else [None] * len(labels)
        for row, (label, said) in enumerate(zip(labels, paths, strict=True)):
            if label is None or str(label) == "-1":  # of a test split
                raise UsageError(f"{path}: row {row} of group {group} has no label")
            name = named(label, names)
            own = os.path.basename(said) if said else f"{stem}-{group:05}-{row:05}"
            yield name, f"{name}/{own}", group, row


def _class_names(file) -> list[str]:
    """What Hugging Face's own entry in the file calls the classes, by number."""
    said = (file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(said).get("info", {}).get("features", {})
    return features.get("label", {}).get("names", [])
