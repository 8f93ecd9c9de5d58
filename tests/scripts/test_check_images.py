from conftest import write_digits

from scripts.check_images import main


def test_unreadable_images_are_listed(tmp_path, capfd):
    write_digits(tmp_path, val=2, train=3, classes=2)
    assert main([str(tmp_path), "-j", "2"]) == 0
    clean = capfd.readouterr()
    assert clean.out == ""
    assert "0 of 10 images are unreadable" in clean.err
    cut = tmp_path / "train" / "1" / "002.png"
    cut.write_bytes(cut.read_bytes()[:70])
    (tmp_path / "val" / "0" / "000.png").write_text("no image")
    (tmp_path / "val" / "0" / "new.JPEG").touch()
    assert main([str(tmp_path), "-j", "2"]) == 1
    damaged = capfd.readouterr()
    cut_line, *lines = damaged.out.splitlines()
    assert cut_line.startswith(f"{cut}: OSError: ")
    assert lines == [
        f"{tmp_path}/val/0/000.png: UnidentifiedImageError: no image",
        f"{tmp_path}/val/0/new.JPEG: UnidentifiedImageError: empty file",
    ]
    assert "3 of 11 images are unreadable" in damaged.err


def test_what_is_no_image_is_counted_once(tmp_path, capfd):
    write_digits(tmp_path, val=1, train=1, classes=2)
    for name in ("0/a.gif", "1/b.GIF", "1/c.jfif", "1/.DS_Store", "1/._000.png", "notes"):
        (tmp_path / "val" / name).touch()
    (tmp_path / "val" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "val" / "1" / "@eaDir").mkdir()
    (tmp_path / "val" / "1" / "@eaDir" / "000.png").touch()
    assert main([str(tmp_path), "-j", "1"]) == 0
    said = capfd.readouterr().err.splitlines()
    assert "0 of 4 images are unreadable" in said
    (line,) = [line for line in said if line.startswith("left out")]
    kinds, _, folder = line.removeprefix("left out    ").partition(" in ")
    assert sorted(kinds.split(", ")) == ["1 .jfif", "1 without ending", "2 .gif", "4 hidden"]
    assert folder == str(tmp_path / "val")


def test_a_folder_that_is_not_there(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err == f"error: data folder {tmp_path}/nowhere does not exist\n"
