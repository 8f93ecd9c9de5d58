"""ImageNet's archives in small, changed as bytes and by odd members, and prepared."""

import gzip
import io
import tarfile
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image
from scipy.io import savemat
from tars import tar_of

from scripts import prepare_imagenet
from utils.data.imagenet import ARCHIVES, DEVKIT

WNIDS = ["n01440764", "n02100735", "n02119789"]
ODD_NAMES = [
    *("../../../x.tar", "../evil.JPEG", "/tmp/../evil.JPEG", "a/b/c.JPEG", "n01440764.tar"),
    *("n09999999.tar", "x.JPEG", "\x1b[31m.JPEG", "n" * 200 + ".JPEG", "..", ""),
]
ODD_TYPES = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 15), (seed, 90, 255 - seed)).save(buffer, "JPEG")
    return buffer.getvalue()


def matlab(synsets: np.ndarray, packed: bool) -> bytes:
    """A table of classes as the devkit has it."""
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": synsets}, do_compression=packed)
    return buffer.getvalue()


def odd_member(draw: Random) -> tuple[tarfile.TarInfo, ...]:
    """A member of any type and name, or one that says it is a sparse file of a terabyte."""
    member = tarfile.TarInfo(draw.choice(ODD_NAMES))
    member.type, member.linkname = draw.choice(ODD_TYPES), draw.choice(["/etc/passwd", "x", ".."])
    if draw.random() < 0.3:
        member.type = tarfile.REGTYPE
        member.pax_headers = {
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.map": "0,0",
            "GNU.sparse.size": str(2**40),
            "GNU.sparse.name": draw.choice(ODD_NAMES),
        }
    return (member,)


def changed(draw: Random, data: bytes) -> tuple[bytes, str]:
    """`data` cut off, or with some bytes changed; headers of tar more often than others."""
    changed, how = bytearray(data), []
    for _ in range(draw.choice([1, 3])):
        at = draw.randrange(len(changed))
        if draw.random() < 0.7:
            at = at // 512 * 512 + draw.randrange(160)
        kind = draw.choice(["cut", "bytes", "zeros"])
        if kind == "cut":
            del changed[max(at, 1) :]
        else:
            length = draw.choice([1, 4, 12, 512])
            new = draw.randbytes(length) if kind == "bytes" else bytes(length)
            changed[at : at + length] = new
        how.append(f"{kind} at {at}")
    return bytes(changed), ", ".join(how)


class Archives:
    """See `fuzz.Kind`."""

    def __init__(self, _folder: Path):
        kind = [("ILSVRC2012_ID", "O"), ("WNID", "O")]
        synsets = np.array([*enumerate(WNIDS, 1)], dtype=kind)[:, None]
        self.tables = [
            matlab(synsets, packed=True),
            matlab(synsets, packed=False),
            matlab(np.zeros(2**27, np.uint8), packed=True),
        ]
        self.huge = gzip.compress(tar_of({"large": bytes(2**28)}), compresslevel=1)

    def devkit(self, draw: Random, more: tuple[tarfile.TarInfo, ...]) -> bytes:
        """One whose table of classes may be changed or huge, as the whole may be."""
        if draw.random() < 0.05:
            return self.huge
        table = draw.choice(self.tables)
        if draw.random() < 0.5:
            table, _ = changed(draw, table)
        truth = f"{DEVKIT}/data/ILSVRC2012_validation_ground_truth.txt"
        files = {truth: b"1\n2\n3\n1\n2\n3\n", f"{DEVKIT}/data/meta.mat": table}
        return gzip.compress(tar_of(files, more=more), compresslevel=1)

    def make(self, draw: Random, place: Path) -> str:
        inner = {
            f"{wnid}.tar": {f"{wnid}_{n}.JPEG": jpeg(10 * n) for n in range(3)} for wnid in WNIDS
        }
        val = {f"ILSVRC2012_val_{n:08}.JPEG": jpeg(n) for n in range(1, 7)}
        odd = draw.choice(["train", "class", "val", "devkit", "nothing"])
        more = {odd: odd_member(draw)}
        archives = {
            ARCHIVES["train"]: tar_of(
                {
                    name: tar_of(images, more=more.get("class", ()))
                    for name, images in inner.items()
                },
                more=more.get("train", ()),
            ),
            ARCHIVES["val"]: tar_of(val, more=more.get("val", ())),
        }
        source = place / "source"
        source.mkdir()
        if draw.random() < 0.5:
            ids = "\n".join(draw.choices(WNIDS, k=6)).encode()
            (source / "classes.txt").write_bytes(ids)
            self.words = ["--val-classes", str(source / "classes.txt")]
        else:
            self.words = []
            archives[f"{DEVKIT}.tar.gz"] = self.devkit(draw, more.get("devkit", ()))
        how = [f"odd in {odd}", str(odd in more and (more[odd][0].name, more[odd][0].type))]
        name = draw.choice([*archives, "none"])
        if name != "none":
            archives[name], words = changed(draw, archives[name])
            how.append(f"{name}: {words}")
        for name, data in archives.items():
            (source / name).write_bytes(data)
        return ", ".join(how)

    def read(self, _draw: Random, place: Path) -> int:
        made = place / "out" / "a" / "b" / "c" / "made"
        code = prepare_imagenet.main([str(place / "source"), str(made), *self.words, "-j", "1"])
        for path in (place / "out").rglob("*"):
            if not path.is_dir():
                split, folder, _image = path.relative_to(made).parts
                assert split in ("train", "val")
                assert folder in WNIDS
                assert not path.is_symlink()
                assert path.is_file()
        return code
