"""Full disks and cut-off files: the last whole checkpoint stays, and is found."""

import random
import shutil

import pytest
import torch
from conftest import run_command
from jobs import COMMAND, Job, checkpoint, same, training, weights
from utils.checkpoints.files import CheckpointError, read_file


@pytest.fixture(scope="module")
def finished(many_digits, tmp_path_factory):
    """Root of a run of two epochs."""
    root = tmp_path_factory.mktemp("finished")
    done = run_command(*training(many_digits, root, "--gpu=-1", "-j0"))
    assert done.returncode == 0, done.stderr
    return root


def test_the_last_two_and_the_best_are_kept(finished):
    epochs = [
        read_file(str(checkpoint(finished, name)))["epoch"]
        for name in ("checkpoint.pth.tar", "checkpoint_previous.pth.tar")
    ]
    assert epochs == [2, 1]
    best = read_file(str(checkpoint(finished, "model_best.pth.tar")))
    latest = read_file(str(checkpoint(finished)))
    assert best["best_acc1"] == latest["best_acc1"]
    assert not list(checkpoint(finished).parent.glob("*.tmp*"))


def test_a_checkpoint_cut_off_anywhere_is_recognised(finished, tmp_path):
    whole = checkpoint(finished).read_bytes()
    cut = tmp_path / "cut.pth.tar"
    draw = random.Random(0)
    near_the_ends = [
        0,
        1,
        2,
        3,
        4,
        30,
        64,
        1000,
        *(len(whole) - n for n in (1, 2, 22, 23, 100, 5000)),
    ]
    for size in near_the_ends + [draw.randrange(len(whole)) for _ in range(30)]:
        cut.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"cut\.pth\.tar"):
            read_file(str(cut))


def test_auto_falls_back_to_the_previous_whole_checkpoint(finished, many_digits, tmp_path):
    root = shutil.copytree(finished, tmp_path / "ckpts")
    latest = checkpoint(root)
    latest.write_bytes(latest.read_bytes()[:-1000])
    begun = latest.with_name(f"{latest.name}.tmp-somewhere-1")  # by a save that was killed
    begun.write_bytes(b"PK")
    done = run_command(*training(many_digits, root, "--gpu=-1", "-j0", "--resume=auto"))
    assert done.returncode == 0, done.stderr
    assert f"passed over  checkpoint {latest} is damaged" in done.stdout
    assert f"resumed     {checkpoint(root, 'checkpoint_previous.pth.tar')}: epoch 2" in done.stdout
    assert same(weights(root), weights(finished))
    assert not begun.exists()
    # the file that was cut off has not pushed the whole one out
    assert read_file(str(checkpoint(root, "checkpoint_previous.pth.tar")))["epoch"] == 1


def test_auto_finds_the_previous_where_the_latest_is_missing(finished, many_digits, tmp_path):
    root = shutil.copytree(finished, tmp_path / "ckpts")
    checkpoint(root).unlink()  # as a kill between two renames leaves it
    done = run_command(*training(many_digits, root, "--gpu=-1", "-j0"))
    assert done.returncode == 2
    assert "already holds a run" in done.stderr
    done = run_command(*training(many_digits, root, "--gpu=-1", "-j0", "--resume=auto"))
    assert done.returncode == 0, done.stderr
    assert same(weights(root), weights(finished))


def test_nothing_whole_is_an_error(finished, many_digits, tmp_path):
    root = shutil.copytree(finished, tmp_path / "ckpts")
    for path in checkpoint(root).parent.glob("*.pth.tar"):
        path.write_bytes(path.read_bytes()[:100])
    done = run_command(*training(many_digits, root, "--gpu=-1", "-j0", "--resume=auto"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: no checkpoint in ")


def test_full_disk_leaves_the_checkpoints_and_the_run_goes_on(finished, many_digits, tmp_path):
    root = shutil.copytree(finished, tmp_path / "ckpts")
    kept = {path: path.read_bytes() for path in checkpoint(root).parent.glob("*.pth.tar")}
    command = training(many_digits, root, "--gpu=-1", "-j0", "--resume=auto", epochs=4)
    limit = ("bash", "-c", 'ulimit -f 8000; exec "$@"', "limit")  # KiB: less than a checkpoint
    with Job(tmp_path / "output", COMMAND, *command, mark=tmp_path, wrapper=limit) as job:
        assert job.finish() == 2
        warnings = [line for line in job.err.read_text().splitlines() if "warning" in line]
        assert len(warnings) == 2  # one for each of epochs 3 and 4
        assert all("can't save" in line and "too large" in line for line in warnings)
        assert job.last_line().startswith(f"error: can't save {checkpoint(root)}")
        assert job.out.read_text().count("Acc@1") == 2  # both epochs were trained and evaluated
    assert {path: path.read_bytes() for path in kept} == kept
    assert set(checkpoint(root).parent.glob("*.pth.tar*")) == set(kept)
    # with space again, the run goes on as if nothing had been
    assert run_command(*command).returncode == 0
    straight = tmp_path / "straight"
    assert (
        run_command(*training(many_digits, straight, "--gpu=-1", "-j0", epochs=4)).returncode == 0
    )
    assert same(weights(root), weights(straight))
    assert torch.load(checkpoint(root), weights_only=True)["epoch"] == 4
