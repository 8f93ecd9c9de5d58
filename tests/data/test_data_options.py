"""--image-backend, --skip-bad-images and --synthetic, as the command takes them."""

import re
import shutil

import pytest
from tiny import Tiny

import main_imagenet
from networks import MODELS
from utils.data.images import choose_backend

SMALL = "-a tiny --image-size 32 -b 8 --gpu -1 -j 1 --epochs 1 --seed 0"
RUN = "imagenet-tiny-seed0"


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setitem(MODELS, "tiny", Tiny)


def run(*arguments) -> int:
    return main_imagenet.main([*map(str, arguments), *SMALL.split()])


def test_bad_images_are_skipped_counted_and_listed(digits, tmp_path, capsys):
    shutil.copytree(digits, tmp_path / "data")
    bad = tmp_path / "data" / "train" / "1" / "003.png"
    bad.write_bytes(bad.read_bytes()[:60])
    options = ["--ckpt", tmp_path, "--skip-bad-images", "--image-backend", "pil"]
    assert run(tmp_path / "data", *options) == 0
    assert "decoder pil\n" in capsys.readouterr().out
    log = (tmp_path / RUN / "log.txt").read_text()
    (line,) = [line for line in log.splitlines() if line.startswith("warning")]
    assert re.fullmatch(f"warning: skipped image {bad} \\(.+\\); 1 so far", line)


def test_synthetic_images_need_no_file_to_be_read(digits, tmp_path, capsys):
    shutil.copytree(digits, tmp_path / "data")
    for path in (tmp_path / "data").rglob("*.png"):
        path.write_bytes(b"")
    assert run(tmp_path / "data", "--ckpt", tmp_path, "--synthetic") == 0
    said = "24 training and 12 validation images in 3 classes, seed 0, decoder "
    assert said + choose_backend(None, "turbo") in capsys.readouterr().out
    assert (tmp_path / f"{RUN}-synthetic" / "checkpoint.pth.tar").exists()


def test_without_synthetic_a_data_folder_is_needed(capsys):
    with pytest.raises(SystemExit) as stop:
        main_imagenet.main([])
    assert stop.value.code == 2
    assert (
        "DATA, a folder with train/<class>/ and val/<class>/, is missing" in capsys.readouterr().err
    )
