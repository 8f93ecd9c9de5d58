"""A file is written whole or not at all, is checked before any work, and is read line by line."""

import os
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from runs import full_disk

from utils.disk import append_line, check_target, read_entries, write_atomically, write_text
from utils.errors import UsageError


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("new.txt", "the ending of .*/new.txt says no format; use .png or .pdf"),
        ("old.png", ".*/old.png already exists; remove it or choose another name"),
        ("folder.png", "can't write .*/folder.png: it is a folder"),
        (
            "none/new.png",
            "can't write .*/none/new.png: there is no folder .*/none; create it first",
        ),
        ("/proc/new.png", "can't write /proc/new.png: No such file or directory"),
    ],
)
def test_a_target_that_can_not_be_written_is_refused(tmp_path, name, message):
    (tmp_path / "old.png").write_text("mine")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UsageError, match=f"^{message}$"):
        check_target(str(tmp_path / name), (".png", ".pdf"))


def test_a_target_that_can_be_written_is_not_touched(tmp_path, monkeypatch):
    (tmp_path / "old.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    for path, replace in (("new.PNG", False), ("old.txt", True)):
        check_target(path, (".png", ".txt"), replace)
    check_target("anything")
    assert os.listdir() == ["old.txt"]
    assert (tmp_path / "old.txt").read_text() == "mine"


def test_the_previous_file_is_kept_where_that_is_wanted(tmp_path):
    path, previous = tmp_path / "a", tmp_path / "b"
    for number in range(3):
        write_atomically(b"%d" % number, str(path), str(previous))
        assert path.read_bytes() == b"%d" % number
    assert previous.read_bytes() == b"1"
    write_atomically(b"3", str(path))
    assert (path.read_bytes(), previous.read_bytes()) == (b"3", b"1")
    assert len(os.listdir(tmp_path)) == 2


def test_a_write_that_fails_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "a"
    path.write_text("before")
    with full_disk(1000):
        with pytest.raises(OSError, match="File too large"):
            write_atomically(bytes(2000), str(path), str(tmp_path / "b"))
        with pytest.raises(UsageError, match=f"^can't write {path}: File too large$"):
            write_text("x" * 2000, str(path))
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a"]


def test_a_write_that_is_killed_leaves_a_whole_file(tmp_path):
    """Killed by the system at any moment, the file or the one kept before is as it was written."""
    path, previous = tmp_path / "a", tmp_path / "b"
    code = "from utils.disk import write_atomically as write; import sys, itertools\n"
    code += "for n in itertools.count(): write(bytes([n % 256]) * 3_000_000, *sys.argv[1:])"
    for _ in range(5):
        command = [sys.executable, "-c", code, str(path), str(previous)]
        with subprocess.Popen(command, cwd=ROOT) as process:
            while not previous.exists():
                time.sleep(0.01)
            time.sleep(0.03)
            process.kill()
        whole = [each.read_bytes() for each in (path, previous) if each.exists()]
        assert whole
        assert all(len(data) == 3_000_000 and len(set(data)) == 1 for data in whole)
        previous.unlink(missing_ok=True)


def test_a_file_is_written_where_a_link_points(tmp_path):
    link, target, previous = (tmp_path / name for name in ("link", "a", "b"))
    link.symlink_to(target)
    write_text("für λ\n", str(link))
    assert target.read_bytes() == "für λ\n".encode()
    write_atomically(b"new", str(link), str(previous))
    assert (target.read_bytes(), previous.read_bytes()) == (b"new", "für λ\n".encode())
    assert link.is_symlink()


def test_lines_are_added_and_read(tmp_path):
    path = str(tmp_path / "a.jsonl")
    for number in range(3):
        append_line(path, f'{{"n": {number}}}')
    assert read_entries(path) == [{"n": 0}, {"n": 1}, {"n": 2}]
    with pytest.raises(OSError, match="none"):
        read_entries(str(tmp_path / "none"))


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path):
    path = tmp_path / "a.jsonl"
    append_line(str(path), '{"n": 0}')
    with full_disk(path.stat().st_size + 4), pytest.raises(OSError, match="File too large"):
        append_line(str(path), '{"n": 1}')
    assert not path.read_text().endswith("\n")
    append_line(str(path), '{"n": 2}')
    with open(path, "ab") as file:
        file.write(b'\xff\xfe\n5\n[1]\n\n{"n": 3}')
    assert read_entries(path) == [{"n": 0}, {"n": 2}, {"n": 3}]
