import io
import os
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

WNIDS = ["n02119789", "n02100735", "n01440764"]  # official numbers 1, 2, 3: not in their order
PER_CLASS = 4
VAL_NUMBERS = [3, 1, 2, 2, 1, 3]


def jpeg(seed: int, size=(60, 45), mode: str = "RGB") -> bytes:
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).convert(mode).save(buffer, "JPEG", quality=98)
    return buffer.getvalue()


def tar_of(files: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def devkit() -> bytes:
    savemat = pytest.importorskip("scipy.io").savemat
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    synsets = np.array([(i, w, f"word {i}") for i, w in enumerate(WNIDS, 1)], dtype=kind)
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets[:, None]}, do_compression=True)
    folder = "ILSVRC2012_devkit_t12/data"
    truth = "".join(f"{number}\n" for number in VAL_NUMBERS).encode()
    return tar_of(
        {
            f"{folder}/meta.mat": meta.getvalue(),
            f"{folder}/ILSVRC2012_validation_ground_truth.txt": truth,
        },
        "w:gz",
    )


def train_images() -> dict[str, bytes]:
    return {
        f"{wnid}/{wnid}_{number}.JPEG": jpeg(100 * c + number)
        for c, wnid in enumerate(WNIDS)
        for number in range(PER_CLASS)
    }


def val_images() -> dict[str, bytes]:
    """By name; in their classes they are WNIDS[VAL_NUMBERS[i] - 1]/name."""
    return {f"ILSVRC2012_val_{i:08}.JPEG": jpeg(1000 + i) for i in range(1, 7)}


def expected() -> dict[str, bytes]:
    val = zip(VAL_NUMBERS, val_images().items(), strict=True)
    return {f"train/{name}": data for name, data in train_images().items()} | {
        f"val/{WNIDS[number - 1]}/{name}": data for number, (name, data) in val
    }


@pytest.fixture
def archives(tmp_path):
    """The three official archives, in small."""
    source = tmp_path / "source"
    source.mkdir()
    classes = {
        f"{wnid}.tar": tar_of(
            {name.split("/")[1]: d for name, d in train_images().items() if name.startswith(wnid)}
        )
        for wnid in WNIDS
    }
    (source / "ILSVRC2012_img_train.tar").write_bytes(tar_of(classes))
    (source / "ILSVRC2012_img_val.tar").write_bytes(tar_of(val_images()))
    (source / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(devkit())
    return source


def contents(folder) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def prepare(*arguments) -> subprocess.CompletedProcess:
    script = str(ROOT / "scripts" / "prepare_imagenet.py")
    command = [sys.executable, script, *map(str, arguments), "-j", "2"]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def test_archives_become_class_folders(archives, tmp_path):
    before = contents(archives)
    result = prepare(archives, tmp_path / "made")
    assert contents(tmp_path / "made") == expected()
    assert contents(archives) == before
    # the miniature is not all of ImageNet, and it is said what is there
    assert result.returncode == 1
    assert result.stdout.splitlines() == [
        f"{tmp_path}/made/train: 3 of 1,000 classes, 12 of 1,281,167 images: INCOMPLETE",
        f"{tmp_path}/made/val: 3 of 1,000 classes, 6 of 50,000 images: INCOMPLETE",
    ]


def test_what_is_interrupted_goes_on(archives, tmp_path):
    made = tmp_path / "made"
    prepare(archives, made)
    kept = made / "train" / WNIDS[1] / f"{WNIDS[1]}_0.JPEG"
    inode = kept.stat().st_ino
    # as a kill leaves it: a class not begun, a file not begun, a file half written, one cut by a
    # crash of the machine
    shutil.rmtree(made / "train" / WNIDS[0])
    (made / "train" / WNIDS[1] / f"{WNIDS[1]}_1.JPEG").unlink()
    half = made / "train" / WNIDS[1] / f"{WNIDS[1]}_1.JPEG.part"
    half.write_bytes(b"half")
    cut = made / "val" / WNIDS[0] / "ILSVRC2012_val_00000002.JPEG"
    cut.write_bytes(cut.read_bytes()[:20])
    prepare(archives, made)
    assert contents(made) == expected()
    assert kept.stat().st_ino == inode


@pytest.mark.parametrize(
    ("archive", "within", "message"),
    [
        ("ILSVRC2012_img_train.tar", WNIDS[1], f"ends within {WNIDS[1]}.tar"),
        ("ILSVRC2012_img_val.tar", "val_00000004", "ends within ILSVRC2012_val_00000004.JPEG"),
        ("ILSVRC2012_img_val.tar", "val_00000001", "ends within ILSVRC2012_val_00000001.JPEG"),
    ],
)
def test_an_archive_that_was_cut_off(archives, archive, within, message, tmp_path):
    path = archives / archive
    data = path.read_bytes()
    path.write_bytes(data[: data.index(within.encode()) + 700])
    result = prepare(archives, tmp_path / "made")
    assert result.returncode == 1
    assert message in result.stdout
    assert "get the archive again" in result.stdout
    made = contents(tmp_path / "made")
    assert 0 < len(made) < len(expected())
    assert made.items() <= expected().items()


def test_a_broken_class_costs_that_class_only(archives, tmp_path):
    path = archives / "ILSVRC2012_img_train.tar"
    data = bytearray(path.read_bytes())
    header = data.index(f"{WNIDS[1]}_2.JPEG".encode())
    data[header : header + 300] = b"x" * 300
    path.write_bytes(data)
    result = prepare(archives, tmp_path / "made")
    assert result.returncode == 1
    (problem,) = [line for line in result.stdout.splitlines() if "again" in line]
    assert problem.startswith(f"train/{WNIDS[1]}: {path} is broken at byte ")
    lost = {f"train/{WNIDS[1]}/{WNIDS[1]}_{number}.JPEG" for number in (2, 3)}
    wanted = {name: data for name, data in expected().items() if name not in lost}
    assert contents(tmp_path / "made") == wanted


@pytest.mark.parametrize("truth", ["ids", "names", "devkit folder"])
def test_a_tree_with_flat_validation_images(archives, truth, tmp_path):
    tree = tmp_path / "tree"
    for name, data in {f"train/{n}": d for n, d in train_images().items()}.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    (tree / "val").mkdir()
    for name, data in val_images().items():
        (tree / "val" / name).write_bytes(data)
    lines = [WNIDS[number - 1] for number in VAL_NUMBERS]
    file = tmp_path / "classes.txt"
    if truth == "ids":
        file.write_text("\n".join(lines) + "\n")
    elif truth == "names":
        rows = zip(val_images(), lines, strict=True)
        rows = reversed([f"{name.removesuffix('.JPEG')},{wnid} 1 2 3 4" for name, wnid in rows])
        file.write_text("ImageId,PredictionString\n" + "\n".join(rows))
    else:
        file = tmp_path / "ILSVRC2012_devkit_t12"
        with tarfile.open(archives / "ILSVRC2012_devkit_t12.tar.gz") as tar:
            tar.extractall(tmp_path, filter="data")
    before = contents(tree)
    prepare(tree, tmp_path / "made", "--val-classes", file)
    assert contents(tmp_path / "made") == expected()
    assert contents(tree) == before
    image = f"train/{WNIDS[0]}/{WNIDS[0]}_0.JPEG"
    assert os.path.samefile(tree / image, tmp_path / "made" / image)


def test_what_is_no_image_is_left_out(archives, tmp_path):
    prepare(archives, tmp_path / "made")
    tree = tmp_path / "tree"
    shutil.copytree(tmp_path / "made" / "train", tree / "train")
    (tree / "val").mkdir()
    for name, data in val_images().items():
        (tree / "val" / name).write_bytes(data)
    for place in ("val/valprep.sh", "val/.DS_Store", f"train/{WNIDS[0]}/.DS_Store"):
        (tree / place).write_text("no image")
    devkit = archives / "ILSVRC2012_devkit_t12.tar.gz"
    made = tmp_path / "again"
    (made / "train" / WNIDS[0]).mkdir(parents=True)
    (made / "train" / WNIDS[0] / "Thumbs.db").touch()  # it is not counted either
    result = prepare(tree, made, "--val-classes", devkit)
    assert result.stdout.splitlines() == [
        f"{made}/train: 3 of 1,000 classes, 12 of 1,281,167 images: INCOMPLETE",
        f"{made}/val: 3 of 1,000 classes, 6 of 50,000 images: INCOMPLETE",
    ]
    (made / "train" / WNIDS[0] / "Thumbs.db").unlink()
    assert contents(made) == expected()


def test_resized_copies(archives, tmp_path):
    big, grey, small = jpeg(1, (200, 100)), jpeg(2, mode="CMYK"), train_images()
    tree = tmp_path / "tree"
    images = {"a/big.JPEG": big, "a/cmyk.JPEG": grey, "a/bad.JPEG": b"text"}
    for split in ("train", "val"):
        for name, data in images.items():
            (tree / split / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / split / name).write_bytes(data)
        tiny = next(iter(small.values()))
        with Image.open(io.BytesIO(tiny)) as image:
            image.save(tree / split / "a" / "tiny.JPEG", quality=30)
    result = prepare(tree, tmp_path / "made", "--shorter-side", "50")
    assert result.returncode == 1
    assert f"can't decode {tmp_path}/made/train/a/bad.JPEG: UnidentifiedImageError" in result.stdout
    copy = tmp_path / "made-50" / "train" / "a"
    assert sorted(path.name for path in copy.iterdir()) == ["big.JPEG", "cmyk.JPEG", "tiny.JPEG"]
    with Image.open(copy / "big.JPEG") as image, Image.open(io.BytesIO(big)) as original:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (100, 50))
        reference = original.resize((100, 50), Image.Resampling.BICUBIC)
        assert np.abs(np.int16(image) - np.int16(reference)).mean() < 4
    with Image.open(copy / "cmyk.JPEG") as image:
        assert (image.mode, image.size) == ("RGB", (60, 45))
    # what is small enough is not compressed again
    assert (copy / "tiny.JPEG").read_bytes() == (tree / "train" / "a" / "tiny.JPEG").read_bytes()
    time = (copy / "big.JPEG").stat().st_mtime_ns
    prepare(tree, tmp_path / "made", "--shorter-side", "50")
    assert (copy / "big.JPEG").stat().st_mtime_ns == time
    # as a power cut leaves what has not reached the disk
    before = contents(copy)
    (copy / "cmyk.JPEG").write_bytes(b"")
    prepare(tree, tmp_path / "made", "--shorter-side", "50")
    assert contents(copy) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "made"], "source folder nowhere does not exist"),
        (["empty", "made"], "empty holds neither ILSVRC2012_img_train.tar nor train/"),
        (["empty", "empty"], "DEST must be another folder than SOURCE, empty"),
        (["small-9", "small", "--shorter-side", "9"], "another folder than SOURCE, small-9"),
        (["empty", "made", "--shorter-side", "0"], "0 is not at least 1"),
    ],
)
def test_what_is_wrong_is_said(arguments, message, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "small-9").mkdir()
    monkeypatch.chdir(tmp_path)
    result = prepare(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_flat_validation_images_need_their_classes(archives, tmp_path):
    (archives / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    result = prepare(archives, tmp_path / "made")
    assert result.returncode == 2
    assert "--val-classes" in result.stderr
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("unreadable", ["archive", "image"])
def test_what_the_disk_does_not_give_is_named(archives, unreadable, tmp_path):
    if unreadable == "archive":
        path = archives / "ILSVRC2012_img_val.tar"
        path.unlink()
        path.symlink_to("/proc/self/mem")  # a file with nothing where it begins: an I/O error
    else:
        (archives / "ILSVRC2012_img_train.tar").unlink()
        path = archives / "train" / WNIDS[0] / "gone.JPEG"
        path.parent.mkdir(parents=True)
        path.symlink_to("nowhere")
    result = prepare(archives, tmp_path / "made")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: [Errno ")
    assert line.endswith(f"'{path}'; once that is mended, the same command goes on")


def damaged_devkit(archives, damage: str) -> str:
    """What --val-classes is given, damaged."""
    if damage == "binary":
        (archives / "classes.txt").write_bytes(bytes(range(128, 256)))
        return "classes.txt"
    if damage == "cut off":
        path = archives / "ILSVRC2012_devkit_t12.tar.gz"
        path.write_bytes(path.read_bytes()[:-60])
        return path.name
    with tarfile.open(archives / "ILSVRC2012_devkit_t12.tar.gz") as tar:
        tar.extractall(archives, filter="data")
    folder = archives / "ILSVRC2012_devkit_t12"
    if damage == "meta":
        (folder / "data" / "meta.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    else:
        with (folder / "data" / "ILSVRC2012_validation_ground_truth.txt").open("a") as file:
            file.write(f"{damage}\n")
    return folder.name


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("binary", "can't read the validation classes from FILE (UnicodeDecodeError: "),
        ("cut off", "can't read the validation classes from FILE (EOFError: "),
        ("meta", "can't read the meta.mat of FILE ("),
        ("1001", "FILE holds '1001', which is no class number of its meta.mat"),
        ("one", "FILE holds 'one', which is no class number of its meta.mat"),
    ],
)
def test_validation_classes_that_can_not_be_read(archives, damage, message, tmp_path):
    file = archives / damaged_devkit(archives, damage)
    result = prepare(archives, tmp_path / "made", "--val-classes", file)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: " + message.replace("FILE", str(file)))
    assert not (tmp_path / "made").exists()
