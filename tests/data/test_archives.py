"""Images in archives are those of class folders: listed, trained on and evaluated alike."""

import json
import os
import signal
import tarfile
from collections import Counter

import numpy as np
import pytest
from conftest import run_command
from packed import DEVKIT, FORMS, WNIDS, images_in, write_folders
from runs import SignalAtForward, assert_equal, command, load, path, run
from tars import tar_of

from networks.cifar.resnet import CifarResNet
from scripts import check_images, evaluate_all, predict
from utils.data import listing
from utils.data.listing import list_images
from utils.errors import UsageError


@pytest.fixture(scope="module")
def folders(digits, made_once):
    return made_once("folders", lambda root: write_folders(digits, root))


@pytest.fixture(scope="module")
def packed(folders, made_once):
    """packed(form) -> the folder that holds the images so."""
    return lambda form: made_once(form, lambda root: FORMS[form](folders, root))


@pytest.fixture(scope="module")
def names(made_once):
    """--class-names, for shards."""
    root = made_once("names", lambda root: (root / "names").write_text("\n".join(WNIDS)))
    return "--class-names", root / "names"


@pytest.fixture(scope="module")
def trained_on_folders(folders, names, made_once):
    def make(root):
        assert run(folders, root, "--epochs", 2, *names) == 0

    return made_once("trained_on_folders", make)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_images_are_listed(form, folders, packed):
    for split in ("train", "val"):
        expected, found = (list_images(str(root), split, WNIDS) for root in (folders, packed(form)))
        assert found.classes == expected.classes == list(WNIDS)
        assert np.array_equal(found.targets, expected.targets)
        assert found.checksum() == expected.checksum()
        assert found.left_out == ""
        for one, other in zip(found.images, expected.images, strict=True):
            assert one.read() == other.read()


@pytest.mark.parametrize(("form", "workers"), [*zip(FORMS, (4, 1, 0, 1, 0, 4), strict=True)])
def test_a_run_ends_the_same_stopped_or_not(
    form, workers, packed, names, trained_on_folders, tmp_path
):
    words = ["--epochs", 2, "-j", workers, *names]
    with SignalAtForward(CifarResNet, 1 + 3, signal.SIGTERM):  # the FLOPs and three steps
        assert run(packed(form), tmp_path, *words) == 143
    # an epoch that folders began goes on from archives: an image is known by its name
    assert run(packed(form), tmp_path, *words, "--resume", "auto") == 0
    assert_equal(load(tmp_path), load(trained_on_folders), "checkpoint")


@pytest.mark.slow
def test_two_processes_read_one_archive(folders, packed, names, tmp_path):
    ends = []
    for root in (folders, packed("official")):
        words = command(root, tmp_path / root.name, "--epochs", 1, "--gpu=-1,-1", "-j", 2, *names)
        done = run_command(*words)
        assert done.returncode == 0, done.stderr
        ends.append(load(tmp_path / root.name))
    assert_equal(*ends, "checkpoint")


@pytest.mark.parametrize("form", FORMS)
def test_they_are_evaluated_alike(form, folders, packed, names, trained_on_folders, capsys):
    best, said = path(trained_on_folders, "model_best.pth.tar"), []
    for root in (folders, packed(form)):
        assert run(root, trained_on_folders, "-e", "--resume", best, *names) == 0
        said.append(capsys.readouterr().out.splitlines()[-1])
        more = ["--class-names", names[1], "-j", "0", "--gpu", "-1"]
        assert evaluate_all.main([str(root), str(best), *map(str, more)]) == 0
        said.append(capsys.readouterr().out.splitlines()[-1])
    assert said[:2] == said[2:]
    assert check_images.main([str(packed(form)), "-j", "1"]) == 0
    assert "0 of 36 images are unreadable" in capsys.readouterr().err


def test_what_is_in_an_archive_is_predicted(folders, packed, trained_on_folders, capsys):
    best, said = path(trained_on_folders, "model_best.pth.tar"), []
    for place in (folders / "val" / WNIDS[0], packed("tar_a_class") / "val" / f"{WNIDS[0]}.tar"):
        words = [str(place), "--checkpoint", str(best), "--format", "jsonl", "--gpu", "-1"]
        assert predict.main(words) == 0
        said.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert [each["predictions"] for each in said[0]] == [each["predictions"] for each in said[1]]
    assert len(said[0]) == 4


def tree(root, train: dict[str, bytes], val: dict[str, bytes] | None = None):
    """A data folder with these files in train/ and in val/."""
    for split, files in (("train", train), ("val", val or train)):
        (root / split).mkdir(parents=True)
        for name, data in files.items():
            (root / split / name).write_bytes(data)
    return root


PNG = b"never decoded"
LINK = tarfile.TarInfo("a/link.png")
LINK.type, LINK.linkname = tarfile.SYMTYPE, "1.png"
WHOLE = tar_of({"a/1.png": PNG})


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.tar", WHOLE[:700], r"can't read archive .*x.tar \(ReadError: unexpected end of data\)"),
        ("x.tar", WHOLE[:512] + bytes(100), r"\(ReadError: "),
        ("x.tar", b"text" * 300, r"can't read archive .*x.tar \(ReadError: "),
        ("x.tar", b"", r"can't read archive .*x.tar \(ReadError: empty file\)"),
        ("x.tgz", tar_of({"a/1.png": PNG}, "w:gz"), "x.tgz is compressed.*; gunzip makes a .tar"),
        ("x.tar", tar_of({"a/1.png": PNG}, "w:xz"), "x.tar is compressed.*; unxz makes a .tar"),
        ("x.tar", tar_of({"a/1.png": PNG, "./a/1.png": PNG}), "holds a/1.png twice"),
        (
            "x.tar",
            tar_of({"1.png": PNG, "2.png": PNG, "1.cls": b"0"}),
            "2.png has no .cls or .json",
        ),
        ("x.tar", tar_of({"1.png": PNG, "1.json": b"{}"}), "1.json tells no class"),
        ("x.tar", tar_of({"1.png": PNG, "1.json": b"[1"}), "1.json tells no class"),
        ("x.tar", tar_of({"1.png": PNG, "1.cls": b"\xff"}), "1.cls tells no class"),
        ("x.tar", tar_of({"1.png": PNG, "1.cls": b"2"}), "--class-names has 2 lines, and none for"),
        ("x.tar", tar_of({"a/x.txt": b"text"}), "has no class folders, nor archives of images"),
        ("x.parquet", b"PAR1 and no more", r"can't read .*x.parquet \(ArrowInvalid: "),
    ],
)
def test_what_is_wrong_is_one_line(name, data, message, tmp_path):
    root = tree(tmp_path / "data", {name: data})
    with pytest.raises(UsageError, match=message):
        list_images(str(root), "train", ("a", "b"))


def test_what_is_no_image_is_counted(tmp_path):
    files = {"a/1.png": PNG, "a/._1.png": PNG, "__MACOSX/a/1.png": PNG, "a/n.txt": b""}
    root = tree(tmp_path / "data", {"x.tar": tar_of(files, more=[LINK]), "notes.md": b""})
    found = list_images(str(root), "train")
    assert Counter(found.left_out.partition(" in ")[0].split(", ")) == Counter(
        ["2 hidden", "1 .txt", "1 .md", "1 link or device"]
    )
    assert [str(each) for each in found.images] == [f"{root}/train/x.tar/a/1.png"]


def test_other_columns_and_a_missing_label_are_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = tree(tmp_path / "data", {})
    pq.write_table(pa.table({"pixels": [1]}), root / "train" / "x.parquet")
    with pytest.raises(UsageError, match="no columns image.bytes and label, but pixels"):
        list_images(str(root), "train")
    rows = [{"image": {"bytes": PNG, "path": None}, "label": None}]
    pq.write_table(pa.Table.from_pylist(rows), root / "val" / "x.parquet")
    with pytest.raises(UsageError, match="row 0 of group 0 has no label"):
        list_images(str(root), "val")


def test_validation_images_by_themselves_need_the_devkit(folders, packed, tmp_path):
    root = tree(tmp_path / "data", {}, {})
    for own in images_in(folders / "val").values():
        for name, data in own.items():
            (root / "val" / name).write_bytes(data)
    with pytest.raises(UsageError, match=f"a flat one needs {DEVKIT}.tar.gz in "):
        list_images(str(root), "val")
    os.link(packed("official") / f"{DEVKIT}.tar.gz", root / f"{DEVKIT}.tar.gz")
    found, expected = (list_images(str(each), "val") for each in (root, folders))
    assert found.classes == expected.classes
    assert [each.read() for each in found.images] == [each.read() for each in expected.images]


@pytest.mark.parametrize("form", ["official", "parquet"])
def test_the_index_is_kept_until_an_archive_changes(form, folders, packed, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(listing, "CACHED_FROM", 1)
    root = tmp_path / "data"
    root.mkdir()
    FORMS[form](folders, root)
    long_ago = 1_000_000_000
    for place in [root, *root.rglob("*")]:
        os.utime(place, (long_ago, long_ago))
    first = list_images(str(root), "train")
    (archive, *_) = sorted(root.rglob("*train*.*"))
    data = archive.read_bytes()
    archive.write_bytes(b"x" * len(data))  # which can't be read, but nobody looks
    os.utime(archive, (long_ago, long_ago))
    again = list_images(str(root), "train")
    assert again.checksum() == first.checksum()
    assert again.images[3] == first.images[3]
    os.utime(archive, (long_ago, long_ago + 1))
    with pytest.raises(UsageError, match="can't read "):
        list_images(str(root), "train")
    archive.write_bytes(data)
    assert list_images(str(root), "train").checksum() == first.checksum()


def test_an_archive_that_was_cut_meanwhile_is_a_bad_image(packed, tmp_path):
    root = tree(tmp_path / "data", {"x.tar": tar_of({"a/1.png": bytes(5000)})})
    (image,) = list_images(str(root), "train").images
    os.truncate(root / "train" / "x.tar", 2000)
    with pytest.raises(ValueError, match="shorter than when it was listed"):
        image.read()
