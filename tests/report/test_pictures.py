"""Where pictures are written, and that nothing else is."""

import os

import pytest
from PIL import Image

from utils.errors import UsageError, needed
from utils.report.pictures import check_output, new_figure, save_figure, short_path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_only_a_free_png_is_taken(folder):
    (folder / "photo.png").write_bytes(b"photo")
    (folder / "old.png").write_bytes(b"old")
    os.symlink("photo.png", "same.png")
    for wanted, default, words in [
        ("a.jpg", "d.png", "use .png"),
        ("./photo.png", "d.png", "is one of the inputs"),
        ("same.png", "d.png", "is one of the inputs"),
        (None, "old.png", "already exists"),
        ("none/a.png", "d.png", "can't write none/a.png: there is no folder"),
    ]:
        with pytest.raises(UsageError, match=words):
            check_output(wanted, default, ["photo.png", "gone.png"])
    assert check_output(None, "new.png", ["photo.png"]) == "new.png"
    assert check_output("old.png", "new.png", ["photo.png"]) == "old.png"
    assert sorted(os.listdir()) == ["old.png", "photo.png", "same.png"]


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


def test_a_missing_package_is_named():
    with pytest.raises(UsageError, match="needs matplotlib .*: pip install matplotlib"):
        needed("matplotlib.none", "matplotlib")


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
