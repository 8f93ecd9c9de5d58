"""Where pictures are written, and that nothing else is."""

import os

import pytest
from PIL import Image

from utils.errors import UsageError
from utils.pictures import check_output, new_figure, save_figure


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
