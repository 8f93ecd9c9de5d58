import gzip
import io
import os
import shutil
import signal
import tarfile
from threading import Thread

import numpy as np
import pytest
from PIL import Image
from tars import tar_of

from scripts.prepare_imagenet import main

A, B, C = WNIDS = ["n02119789", "n02100735", "n01440764"]  # official numbers 1, 2, 3: not in order
VAL_NUMBERS = [3, 1, 2, 2, 1, 3]
TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"


def jpeg(seed: int, size=(60, 45), mode: str = "RGB", quality: int = 98) -> bytes:
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).convert(mode).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


TRAIN_IMAGES = {
    wnid: {f"{wnid}_{number}.JPEG": jpeg(100 * c + number) for number in range(4)}
    for c, wnid in enumerate(WNIDS)
}
VAL_IMAGES = {f"ILSVRC2012_val_{i:08}.JPEG": jpeg(1000 + i) for i in range(1, 7)}
VAL_WNIDS = [WNIDS[number - 1] for number in VAL_NUMBERS]
EXPECTED = {
    f"train/{c}/{n}": data for c, files in TRAIN_IMAGES.items() for n, data in files.items()
}
EXPECTED |= {f"val/{c}/{n}": VAL_IMAGES[n] for c, n in zip(VAL_WNIDS, VAL_IMAGES, strict=True)}


def devkit(numbers=VAL_NUMBERS, meta: bytes | None = None) -> bytes:
    savemat = pytest.importorskip("scipy.io").savemat
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    synsets = np.array([(i, w, f"word {i}") for i, w in enumerate(WNIDS, 1)], dtype=kind)
    mat = io.BytesIO()
    savemat(mat, {"synsets": synsets[:, None]}, do_compression=True)
    files = {
        "meta.mat": meta or mat.getvalue(),
        "ILSVRC2012_validation_ground_truth.txt": "".join(f"{n}\n" for n in numbers).encode(),
    }
    return tar_of({f"ILSVRC2012_devkit_t12/data/{n}": d for n, d in files.items()}, "w:gz")


def huge_devkit() -> bytes:
    """A megabyte that says it unpacks to a terabyte."""
    member = tarfile.TarInfo("ILSVRC2012_devkit_t12/data/meta.mat")
    member.size = 2**40
    return gzip.compress(member.tobuf() + bytes(2**20))


def huge_table() -> bytes:
    """Some kilobytes, of which scipy would make 32 MB."""
    mat = io.BytesIO()
    savemat = pytest.importorskip("scipy.io").savemat
    savemat(mat, {"synsets": np.zeros(2**25, np.uint8)}, do_compression=True)
    return devkit(meta=mat.getvalue())


@pytest.fixture
def archives(tmp_path):
    """The three official archives, in small."""
    classes = {f"{wnid}.tar": tar_of(files) for wnid, files in TRAIN_IMAGES.items()}
    write(tmp_path / "source", {TRAIN: tar_of(classes), VAL: tar_of(VAL_IMAGES), DEVKIT: devkit()})
    return tmp_path / "source"


def write(folder, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def contents(folder) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def prepare(*arguments) -> int:
    return main([*map(str, arguments), "-j", "2"])


def counts(made) -> list[str]:
    """What is said of all that is in the miniature."""
    return [
        f"{made}/train: 3 of 1,000 classes, 12 of 1,281,167 images: INCOMPLETE",
        f"{made}/val: 3 of 1,000 classes, 6 of 50,000 images: INCOMPLETE",
    ]


def test_archives_become_class_folders(archives, tmp_path, capsys):
    before = contents(archives)
    assert prepare(archives, tmp_path / "made") == 1  # the miniature is not all of ImageNet
    assert capsys.readouterr().out.splitlines() == counts(tmp_path / "made")
    assert contents(tmp_path / "made") == EXPECTED
    assert contents(archives) == before


def test_what_is_interrupted_goes_on(archives, tmp_path):
    made = tmp_path / "made"
    prepare(archives, made)
    kept = made / "train" / B / f"{B}_0.JPEG"
    inode = kept.stat().st_ino
    # as a kill leaves it: a class not begun, a file not begun, a file half written, one cut by a
    # crash of the machine
    shutil.rmtree(made / "train" / A)
    kept.with_name(f"{B}_1.JPEG").unlink()
    kept.with_name(f"{B}_1.JPEG.part").write_bytes(b"half")
    cut = made / "val" / A / "ILSVRC2012_val_00000002.JPEG"
    cut.write_bytes(cut.read_bytes()[:20])
    prepare(archives, made)
    assert contents(made) == EXPECTED
    assert kept.stat().st_ino == inode


def test_ctrl_c_is_one_line(archives, tmp_path, capsys, request):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    ids = tmp_path / "ids"
    os.mkfifo(ids)

    def press() -> None:
        with open(ids, "w"):  # when the command reads it
            os.kill(os.getpid(), signal.SIGINT)

    thread = Thread(target=press)
    thread.start()
    assert prepare(archives, tmp_path / "made", "--val-classes", ids) == 130
    thread.join()
    assert capsys.readouterr().err == "stopped; the same command goes on\n"


@pytest.mark.parametrize(
    ("archive", "where", "damage", "said"),
    [
        (TRAIN, f"{B}_2", "cut", "unexpected end of data"),
        (TRAIN, f"{B}_2", "break", "broken at byte "),
        (TRAIN, f"{C}.tar", "break", "broken at byte "),
        (VAL, "val_00000004", "cut", "unexpected end of data"),
    ],
)
def test_a_damaged_archive_is_refused(archives, archive, where, damage, said, tmp_path, capsys):
    data = (archives / archive).read_bytes()
    at = data.index(where.encode())
    rest = b"x" * 300 + data[at + 300 :] if damage == "break" else data[at : at + 700]
    (archives / archive).write_bytes(data[:at] + rest)
    assert prepare(archives, tmp_path / "made") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: can't read archive {archives}/{archive} (ReadError: {said}")
    assert line.endswith("; get it again")
    assert not (tmp_path / "made").exists()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def sparse(name: str, size: int) -> tarfile.TarInfo:
    """A member that says it is a file of so many bytes, all of them a hole."""
    member = tarfile.TarInfo(name)
    member.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(size)}
    return member


def test_nothing_outside_is_written_and_no_link_followed(archives, tmp_path, capsys):
    secret = tmp_path / "secret.JPEG"
    secret.write_bytes(jpeg(7))
    odd = [
        special("link.JPEG", tarfile.SYMTYPE, str(secret)),
        special("hard.JPEG", tarfile.LNKTYPE, f"{A}_0.JPEG"),
        special("pipe.JPEG", tarfile.FIFOTYPE),
        sparse("hole.JPEG", 2**40),
    ]
    evil = {"../../../evil.JPEG": jpeg(8), "/root.JPEG": jpeg(9)}
    outside = tar_of({"a.JPEG": jpeg(1)})
    outer = {f"{A}.tar": tar_of(evil, more=odd), "../../../x.tar": outside, f"../{B}.tar": outside}
    linked = special(f"{C}.tar", tarfile.SYMTYPE, str(archives / VAL))
    (archives / TRAIN).write_bytes(tar_of(outer, more=[linked]))
    before = contents(tmp_path)
    assert prepare(archives, tmp_path / "a" / "b" / "made") == 1
    added = contents(tmp_path).keys() - before.keys()
    train = f"a/b/made/train/{A}/root.JPEG"
    assert {name for name in added if not name.startswith("a/b/made/val/")} == {train}
    assert "left out    5 link or device, 3 hidden in " in capsys.readouterr().err


def test_a_class_that_is_no_name_of_a_folder_is_refused(archives, tmp_path, capsys):
    (archives / "train").mkdir()
    shard = {"1.jpg": jpeg(1), "1.cls": b"../../evil"}
    (archives / "train" / "0.tar").write_bytes(tar_of(shard))
    assert prepare(archives, tmp_path / "made") == 2
    assert "class '../../evil' can't be the name of a folder" in capsys.readouterr().err


@pytest.mark.parametrize("truth", ["ids", "names", "devkit"])
def test_a_tree_with_flat_validation_images(truth, tmp_path, capsys):
    tree, made, file = tmp_path / "tree", tmp_path / "made", tmp_path / "classes.txt"
    write(tree, {name: data for name, data in EXPECTED.items() if name.startswith("train/")})
    write(tree / "val", VAL_IMAGES)
    if truth == "ids":
        file.write_text("\n".join(VAL_WNIDS) + "\n")
    elif truth == "names":
        rows = reversed(list(zip(VAL_IMAGES, VAL_WNIDS, strict=True)))
        lines = [f"{name.removesuffix('.JPEG')},{wnid} 1 2 3 4" for name, wnid in rows]
        file.write_text("\n".join(["ImageId,PredictionString", *lines]))
    else:
        file = tmp_path / "kit.tar.gz"
        file.write_bytes(devkit())
    # what is no image is neither taken nor counted
    for place in ("val/valprep.sh", "val/.DS_Store", f"train/{A}/.DS_Store"):
        write(tree, {place: b"no image"})
    write(made, {f"train/{A}/Thumbs.db": b""})
    before = contents(tree)
    prepare(tree, made, "--val-classes", file)
    assert capsys.readouterr().out.splitlines() == counts(made)
    (made / "train" / A / "Thumbs.db").unlink()
    assert contents(made) == EXPECTED
    assert contents(tree) == before
    image = f"train/{A}/{A}_0.JPEG"
    assert os.path.samefile(tree / image, made / image)


def test_resized_copies(tmp_path, capsys):
    big = jpeg(1, (200, 100))
    images = {"big": big, "cmyk": jpeg(2, mode="CMYK"), "tiny": jpeg(3, quality=30), "bad": b"text"}
    tree = tmp_path / "tree"
    write(tree, {f"{s}/a/{n}.JPEG": data for s in ("train", "val") for n, data in images.items()})
    command = tree, tmp_path / "made", "--shorter-side", "50"
    assert prepare(*command) == 1
    said = f"can't decode {tree}/train/a/bad.JPEG: UnidentifiedImageError"
    assert said in capsys.readouterr().out
    copy = tmp_path / "made" / "train" / "a"
    assert sorted(path.name for path in copy.iterdir()) == ["big.JPEG", "cmyk.JPEG", "tiny.JPEG"]
    with Image.open(copy / "big.JPEG") as image, Image.open(io.BytesIO(big)) as original:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (100, 50))
        reference = original.resize((100, 50), Image.Resampling.BICUBIC)
        assert np.abs(np.int16(image) - np.int16(reference)).mean() < 4
    with Image.open(copy / "cmyk.JPEG") as image:
        assert (image.mode, image.size) == ("RGB", (60, 45))
    # what is small enough is not compressed again
    assert (copy / "tiny.JPEG").read_bytes() == images["tiny"]
    time, before = (copy / "big.JPEG").stat().st_mtime_ns, contents(copy)
    (copy / "cmyk.JPEG").write_bytes(b"")  # as a power cut leaves what has not reached the disk
    prepare(*command)
    assert (copy / "big.JPEG").stat().st_mtime_ns == time
    assert contents(copy) == before


def test_an_archive_for_each_class_holds_the_same(archives, tmp_path, capsys):
    made = tmp_path / "made"
    assert prepare(archives, made, "--tars") == 1
    assert capsys.readouterr().out.splitlines() == counts(made)
    for name in ("train", "val"):
        assert sorted(path.name for path in (made / name).iterdir()) == [
            f"{c}.tar" for c in sorted(WNIDS)
        ]
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*.tar")}
    prepare(archives, made, "--tars")
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*.tar")} == before
    prepare(made, tmp_path / "again")
    assert contents(tmp_path / "again") == EXPECTED


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "made"], "source folder nowhere does not exist"),
        (["empty", "made"], "empty has no folder val/; it must hold "),
        (["empty", "empty"], "DEST must be another folder than SOURCE, empty"),
        (
            ["flat", "made"],
            f"flat/val has no class folders, nor archives of images; a flat one needs {DEVKIT}",
        ),
    ],
)
def test_what_is_wrong_is_said(arguments, message, tmp_path, monkeypatch, capsys):
    for name in ("empty", "flat/train"):
        (tmp_path / name).mkdir(parents=True)
    write(tmp_path / "flat" / "val", VAL_IMAGES)
    monkeypatch.chdir(tmp_path)
    assert prepare(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("unreadable", ["archive", "image"])
def test_what_the_disk_does_not_give_is_said(archives, unreadable, tmp_path, capsys):
    if unreadable == "archive":
        path = archives / VAL
        path.unlink()
        path.symlink_to("/proc/self/mem")  # a file with nothing where it begins: an I/O error
    else:
        (archives / TRAIN).unlink()
        path = archives / "train" / A / "gone.JPEG"
        path.parent.mkdir(parents=True)
        path.symlink_to("nowhere")
    assert prepare(archives, tmp_path / "made") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "error: [Errno " if unreadable == "image" else "error: can't read archive "
    )
    assert "[Errno " in line
    assert str(archives) in line


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_regular_file_is_not_read(archives, kind, tmp_path, capsys):
    (archives / TRAIN).unlink()
    path = archives / "train" / A / "x.JPEG"
    path.parent.mkdir(parents=True)
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    assert prepare(archives, tmp_path / "made") == 2
    assert (
        capsys.readouterr().err
        == f"error: can't read {path}: no regular file; take it out of the folder\n"
    )


@pytest.mark.parametrize(
    ("name", "damaged", "message"),
    [
        ("classes.txt", lambda: bytes(range(128, 256)), "can't read {} (UnicodeDecodeError: "),
        ("a.tar.gz", lambda: devkit()[:-60], "can't read {} (EOFError: "),
        ("a.tar.gz", lambda: devkit(meta=b"MATLAB 5.0 MAT-file" + bytes(200)), "can't read {} ("),
        ("a.tar.gz", huge_devkit, "can't read {} (ValueError: unpacks to more than "),
        ("a.tar.gz", huge_table, "can't read {} (ValueError: meta.mat unpacks to more than "),
        ("a.tar.gz", lambda: devkit([1001]), "can't read {} (KeyError: 1001)"),
        ("a.tar.gz", lambda: devkit(["one"]), "can't read {} (ValueError: "),
        ("classes.txt", lambda: b"fish\n", "{} tells no class of validation image "),
        ("classes.txt", lambda: A.encode(), "{} tells no class of validation image "),
    ],
)
def test_validation_classes_that_do_not_serve(archives, name, damaged, message, tmp_path, capsys):
    file = archives / name
    file.write_bytes(damaged())
    assert prepare(archives, tmp_path / "made", "--val-classes", file) == 2
    (line,) = capsys.readouterr().err.splitlines()
    said = message.replace("read {}", "read the validation images' classes from {}").format(file)
    assert line.startswith(f"error: {said}")
    assert not (tmp_path / "made" / "train").exists()
