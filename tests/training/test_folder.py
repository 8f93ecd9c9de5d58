"""Full disks and cut-off files: a run folder's last whole checkpoint stays, and is found."""

import shutil
import signal

import pytest
from runs import SignalAtForward, assert_same_run, full_disk, load, metrics, path, run

from networks.cifar.resnet import CifarResNet
from utils.checkpoints import Checkpoint
from utils.processes.lock import FolderLock
from utils.training.folder import changed_options, settings_beside
from utils.training.header import Origin

PREVIOUS = "checkpoint_previous.pth.tar"


@pytest.fixture
def root(undisturbed, tmp_path):
    """A copy of a run of three epochs."""
    return shutil.copytree(undisturbed, tmp_path / "copied")


def flipped(data: bytes) -> bytes:
    """With one bit changed, within the weights."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("spoil", [lambda data: data[:-1000], flipped], ids=["cut", "flipped"])
def test_auto_falls_back_to_the_previous_whole_checkpoint(spoil, root, undisturbed, digits, capsys):
    latest = path(root)
    latest.write_bytes(spoil(latest.read_bytes()))
    begun = latest.with_name(f"{latest.name}.tmp-somewhere-1")  # by a save that was killed
    begun.write_bytes(b"PK")
    assert run(digits, root, "--epochs", 3, "--resume", "auto") == 0
    said = capsys.readouterr().out
    assert f"passed over  checkpoint {latest} is damaged" in said
    assert f"resumed     {path(root, PREVIOUS)}, after epoch 2\n" in said
    assert_same_run(root, undisturbed)
    assert not begun.exists()
    # the file that was cut off has not pushed the whole one out
    assert load(root, PREVIOUS)["epoch"] == 2


def test_auto_finds_the_previous_where_the_latest_is_missing(root, undisturbed, digits, capsys):
    path(root).unlink()  # as a kill between two renames leaves it
    assert run(digits, root, "--epochs", 3) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert run(digits, root, "--epochs", 3, "--resume", "auto") == 0
    assert_same_run(root, undisturbed)


def test_a_folder_has_one_run_at_a_time(root, digits, capsys):
    before = {each: each.read_bytes() for each in path(root).parent.iterdir()}
    other = FolderLock(str(path(root).parent))
    assert run(digits, root, "--epochs", 4, "--resume", "auto") == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: another run is at work in {path(root).parent}; wait for its")
    assert {each: each.read_bytes() for each in path(root).parent.iterdir()} == before
    other.release()
    assert run(digits, root, "--epochs", 4, "--resume", "auto") == 0


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        *((text, []) for text in ("5", "[1]", "{", "", '{"epochs": 3}', '{"starts": 5}')),
        ('{"lr": "\\u001b[31m"}', [r"changed     --lr 0.1 (was \x1b[31m)"]),
    ],
)
def test_old_options_are_told_where_they_are_some(text, lines, root):
    path(root, "args.json").write_text(text)
    old = settings_beside(Checkpoint(str(path(root))))
    assert Origin.now(changed_options(old, {"lr": 0.1})).changes == lines


def test_nothing_whole_is_an_error(root, digits, capsys):
    for each in path(root).parent.glob("*.pth.tar"):
        each.write_bytes(each.read_bytes()[:100])
    assert run(digits, root, "--epochs", 3, "--resume", "auto") == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: no checkpoint in {path(root).parent} is whole; checkpoint ")


def test_a_full_disk_leaves_the_checkpoints_and_the_run_goes_on(root, digits, tmp_path, capsys):
    other = shutil.copytree(root, tmp_path / "other")
    kept = {each: each.read_bytes() for each in path(root).parent.glob("*.pth.tar")}
    with full_disk(1_000_000):  # less than a checkpoint
        assert run(digits, root, "--epochs", 5, "--resume", "auto") == 2
    *warnings, error = capsys.readouterr().err.splitlines()
    assert len(warnings) == 2  # one for each of epochs 4 and 5
    for line in warnings:
        assert line.startswith(f"warning: can't save {path(root)} (")
        assert line.endswith("File too large); the previous one stays")
    assert error.startswith(f"error: can't save {path(root)}: ")
    assert len(metrics(root)) == 5  # both epochs were trained and evaluated
    assert {each: each.read_bytes() for each in path(root).parent.glob("*.pth.tar*")} == kept
    # with space again, the run goes on as if nothing had been
    for each in (root, other):
        assert run(digits, each, "--epochs", 4, "--resume", "auto") == 0
    assert_same_run(root, other)


def test_a_run_stops_as_told_when_the_disk_is_full(digits, tmp_path, capsys):
    # less than the picture of the first batch
    with full_disk(4096), SignalAtForward(CifarResNet, 4, signal.SIGTERM):
        assert run(digits, tmp_path, "--epochs", 20) == 143
    *warnings, stopped = capsys.readouterr().err.splitlines()
    assert sorted(line[:35] for line in warnings) == [
        f"warning: can't save {tmp_path}"[:35],
        "warning: can't write TensorBoard events"[:35],
    ]
    assert "which could not be saved: [Errno 27]" in stopped
