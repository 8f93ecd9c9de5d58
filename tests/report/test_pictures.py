"""Where pictures are written, and that nothing else is."""

import os

import numpy as np
import pytest
from PIL import Image

from utils.errors import UsageError
from utils.report.pictures import check_output, new_figure, save_figure, short_path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_only_a_free_png_is_taken(folder):
    (folder / "photo.png").write_bytes(b"photo")
    (folder / "old.png").write_bytes(b"old")
    os.link("photo.png", "same.png")
    (folder / "folder.png").mkdir()
    for wanted, default, words in [
        ("a.jpg", "d.png", "must end in .png"),
        ("photo.png", "d.png", "is one of the inputs"),
        ("./same.png", "d.png", "is one of the inputs"),
        (None, "old.png", "already exists"),
        ("folder.png", "d.png", "it is a folder"),
        ("none/a.png", "d.png", "can't write none/a.png: No such file or directory"),
    ]:
        with pytest.raises(UsageError, match=words):
            check_output(wanted, default, ["photo.png", "gone.png"])
    assert check_output(None, "new.png", ["photo.png"]) == "new.png"
    assert check_output("old.png", "new.png", ["photo.png"]) == "old.png"
    assert sorted(os.listdir()) == ["folder.png", "old.png", "photo.png", "same.png"]


def test_a_figure_has_its_size_and_colours(folder, capsys):
    figure = new_figure(3.2, 1.5)
    axis = figure.subplots()
    axis.imshow([[0.0, 1.0]], cmap="gray", aspect="auto", interpolation="nearest")
    axis.set_axis_off()
    save_figure(figure, "a.png")
    assert capsys.readouterr().out == "wrote a.png\n"
    with Image.open("a.png") as picture:
        pixels = picture.convert("RGB")
    assert pixels.size == (320, 150)
    assert [pixels.getpixel(at) for at in ((20, 75), (300, 75))] == [(0, 0, 0), (255, 255, 255)]
    assert os.listdir() == ["a.png"]


def test_a_big_picture_is_written_with_fewer_colours(folder):
    figure = new_figure(8, 8)
    rng = np.random.default_rng(0)
    noise = rng.integers(256, size=(800, 800, 3), dtype=np.uint8)
    figure.figimage(noise)
    save_figure(figure, "a.png")
    with Image.open("a.png") as picture:
        assert (picture.size, picture.mode) == ((800, 800), "P")
        pixels = np.asarray(picture.convert("RGB"), np.int64)
    assert os.path.getsize("a.png") < 800 * 800 * 1.05
    assert abs(pixels - noise).mean() < 40


@pytest.mark.parametrize(
    ("path", "short"),
    [
        ("a/b/c.png", "b/c.png"),
        ("c.png", "c.png"),
        ("/x/quite-a-folder/a.pth.tar", "...folder/a.pth.tar"),
    ],
)
def test_short_paths_keep_their_end(path, short):
    assert short_path(path, 19) == short
