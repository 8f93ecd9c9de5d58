"""The same images in every form that they are handed out in."""

import io
import json
from pathlib import Path

import numpy as np
from tars import tar_of

WNIDS = ("n01440764", "n02100735", "n02119789")
DEVKIT = "ILSVRC2012_devkit_t12"


def images_in(folder: Path) -> dict[str, dict[str, bytes]]:
    """By class and name."""
    return {
        label.name: {path.name: path.read_bytes() for path in sorted(label.iterdir())}
        for label in sorted(folder.iterdir())
    }


def write_folders(digits: Path, root: Path) -> None:
    """`digits`, called as ImageNet is, with a name of its own for each image."""
    for split in ("train", "val"):
        paths = sorted((digits / split).rglob("*.png"))
        for number, path in enumerate(paths, 1):
            wnid = WNIDS[int(path.parent.name)]
            name = f"{wnid}_{number}" if split == "train" else f"ILSVRC2012_val_{number:08}"
            target = root / split / wnid / f"{name}.JPEG"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())


def devkit(labels: list[str]) -> bytes:
    """That says so of the validation images in their order."""
    from scipy.io import savemat

    numbers = {wnid: number for number, wnid in enumerate(reversed(WNIDS), 1)}  # not in order
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    synsets = np.array([(i, w, f"word {i}") for w, i in numbers.items()], dtype=kind)
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets[:, None]}, do_compression=True)
    truth = "".join(f"{numbers[label]}\n" for label in labels).encode()
    files = {"meta.mat": meta.getvalue(), "ILSVRC2012_validation_ground_truth.txt": truth}
    return tar_of({f"{DEVKIT}/data/{name}": data for name, data in files.items()}, "w:gz")


def official(folders: Path, root: Path) -> None:
    """Two archives, that of training of archives, and the devkit."""
    train, val = images_in(folders / "train"), images_in(folders / "val")
    inner = {f"{label}.tar": tar_of(files) for label, files in train.items()}
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_of(inner))
    flat = {name: (label, data) for label, own in val.items() for name, data in own.items()}
    images = {name: flat[name][1] for name in sorted(flat)}
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar_of(images))
    kit = devkit([flat[name][0] for name in images])
    (root / f"{DEVKIT}.tar.gz").write_bytes(kit)


def tar_a_class(folders: Path, root: Path) -> None:
    for split in ("train", "val"):
        (root / split).mkdir()
        for label, files in images_in(folders / split).items():
            (root / split / f"{label}.tar").write_bytes(tar_of(files))


def one_tar(folders: Path, root: Path) -> None:
    """As `tar cf train.tar train` makes it."""
    for split in ("train", "val"):
        (root / split).mkdir()
        files = {
            f"./{split}/{label}/{name}": data
            for label, own in images_in(folders / split).items()
            for name, data in own.items()
        }
        (root / split / f"{split}.tar").write_bytes(tar_of(files))


def shards(folders: Path, root: Path, ending: str = "cls") -> None:
    """Two of each split, the images in another order, with the class as a number."""
    for split in ("train", "val"):
        (root / split).mkdir()
        samples = [
            (name, data, number)
            for number, own in enumerate(images_in(folders / split).values())
            for name, data in own.items()
        ]
        samples = samples[1::2][::-1] + samples[::2]
        for shard in range(2):
            files = {}
            for name, data, number in samples[shard::2]:
                key = name.removesuffix(".JPEG")
                label = json.dumps({"label": number}) if ending == "json" else str(number)
                files |= {name: data, f"{key}.{ending}": label.encode()}
            (root / split / f"{split}-{shard:06}.tar").write_bytes(tar_of(files))


def shards_of_json(folders: Path, root: Path) -> None:
    shards(folders, root, "json")


def parquet(folders: Path, root: Path) -> None:
    """As Hugging Face's datasets writes it, in two files of several groups of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    said = {"info": {"features": {"label": {"names": WNIDS, "_type": "ClassLabel"}}}}
    metadata = {"huggingface": json.dumps(said)}
    for split in ("train", "val"):
        (root / split).mkdir()
        rows = [
            {"image": {"bytes": data, "path": name}, "label": number}
            for number, own in enumerate(images_in(folders / split).values())
            for name, data in own.items()
        ]
        for shard in range(2):
            table = pa.Table.from_pylist(rows[shard::2]).replace_schema_metadata(metadata)
            target = root / split / f"{split}-{shard:05}-of-00002.parquet"
            pq.write_table(table, target, row_group_size=3)


FORMS = {
    each.__name__: each
    for each in (official, tar_a_class, one_tar, shards, shards_of_json, parquet)
}
