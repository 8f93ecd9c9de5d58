"""Whole runs of the command, in this process: stopping, resuming, failing."""

import json
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch
from runs import SignalAtForward, assert_equal

import main_imagenet
from networks.resnet import ResNet

STEPS = 4  # 24 images in batches of 6
NAME = "imagenet-resnet18-simam-param0.1-seed3"


def command(data: Path, root: Path, *more) -> list[str]:
    words = f"{data} --gpu -1 -a resnet18 --attention-type simam --attention-param 0.1 --seed 3 "
    words += f"--image-size 32 -b 6 -j 0 --lr 0.002 --ckpt {root}"
    return words.split() + [str(word) for word in more]


def run(*arguments) -> int:
    return main_imagenet.main(command(*arguments))


def load(root: Path, name="checkpoint.pth.tar") -> dict:
    return torch.load(root / NAME / name, weights_only=True)


def metrics(root: Path) -> list[dict]:
    lines = (root / NAME / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def undisturbed(digits, tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed")
    assert run(digits, root, "--epochs", 3) == 0
    return root


def assert_same_run(root: Path, reference: Path) -> None:
    for name in ("checkpoint.pth.tar", "model_best.pth.tar"):
        assert_equal(load(root, name), load(reference, name), name)
    timing = {"images_per_s", "seconds"}
    for one, other in zip(metrics(root), metrics(reference), strict=True):
        assert_equal(
            {k: one[k] for k in one.keys() - timing},
            {k: other[k] for k in other.keys() - timing},
            "metrics",
        )


def test_a_run_writes_what_it_promises(undisturbed):
    folder = undisturbed / NAME
    names = {path.name for path in folder.iterdir()}
    assert {
        "log.txt",
        "metrics.jsonl",
        "args.json",
        "checkpoint.pth.tar",
        "model_best.pth.tar",
    } <= names
    assert [line["epoch"] for line in metrics(undisturbed)] == [0, 1, 2]
    expected = (
        "epoch lr train_loss train_acc1 train_acc5 val_loss val_acc1 val_acc5 images_per_s seconds"
    )
    assert list(metrics(undisturbed)[0]) == expected.split()
    lines = (folder / "log.txt").read_text().splitlines()
    beginnings = ["device ", "network ", "parameters ", "FLOPs ", "data ", "run folder "]
    assert all(line.startswith(start) for line, start in zip(lines, beginnings, strict=False))
    assert json.loads((folder / "args.json").read_text())["attention_param"] == 0.1
    assert load(undisturbed)["epoch"] == 3
    best = max(line["val_acc1"] for line in metrics(undisturbed))
    assert load(undisturbed)["best_acc1"] == best
    first_best = [line["val_acc1"] for line in metrics(undisturbed)].index(best)
    assert load(undisturbed, "model_best.pth.tar")["epoch"] == first_best + 1


def test_tensorboards_own_reader_finds_the_scalars(undisturbed):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(undisturbed / NAME))
    events.Reload()
    for name in ("train/loss", "train/acc1", "val/loss", "val/acc1", "val/acc5", "lr"):
        found = {event.step: event.value for event in events.Scalars(name)}
        expected = {line["epoch"]: line[name.replace("/", "_")] for line in metrics(undisturbed)}
        assert found == pytest.approx(expected), name


def test_a_run_that_gets_nothing_right_keeps_its_first_state_as_the_best(digits, tmp_path, capsys):
    # so slow, among so many classes, that no image is ever taken for one of the three there are
    options = ("--num-classes", 1000, "--lr", 1e-9)
    with SignalAtForward(ResNet, 3, signal.SIGTERM):
        assert run(digits, tmp_path, *options, "--epochs", 2) == 143
    for epochs in (2, 3):
        assert run(digits, tmp_path, *options, "--epochs", epochs, "--resume", "auto") == 0
        assert [line["val_acc1"] for line in metrics(tmp_path)] == epochs * [0]
        best = load(tmp_path, "model_best.pth.tar")
        assert (best["epoch"], best["best_acc1"]) == (1, 0)
        assert load(tmp_path)["best_acc1"] == 0
        assert f"best Acc@1  0.000, {tmp_path / NAME}/model_best" in capsys.readouterr().out


def test_a_checkpoint_from_before_there_was_a_best_goes_on(digits, tmp_path):
    """Earlier versions wrote 0 until an evaluation got something right."""
    with SignalAtForward(ResNet, 3, signal.SIGTERM):
        assert run(digits, tmp_path, "--epochs", 1) == 143
    latest = tmp_path / NAME / "checkpoint.pth.tar"
    torch.save(load(tmp_path) | {"best_acc1": 0.0}, latest)
    assert run(digits, tmp_path, "--epochs", 1, "--resume", "auto") == 0
    best = load(tmp_path, "model_best.pth.tar")["best_acc1"]
    assert best == metrics(tmp_path)[0]["val_acc1"] > 0


def test_two_runs_with_one_seed_are_the_same(undisturbed, digits, tmp_path):
    assert run(digits, tmp_path, "--epochs", 3, "-j", 2) == 0
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.parametrize(
    ("forward", "signum", "position"),
    [
        pytest.param(1 + STEPS + 2 + 3, signal.SIGINT, (1, 3), id="within an epoch"),
        pytest.param(1 + STEPS, signal.SIGTERM, (0, STEPS), id="at an epoch's last step"),
        pytest.param(1 + STEPS + 1, signal.SIGTERM, (0, STEPS), id="in the validation"),
    ],
)
def test_a_stopped_run_goes_on_bit_for_bit(
    undisturbed, digits, tmp_path, capsys, forward, signum, position
):
    with SignalAtForward(ResNet, forward, signum):
        assert run(digits, tmp_path, "--epochs", 3) == 128 + signum
    assert "the same command with --resume auto goes on" in capsys.readouterr().err
    stopped = load(tmp_path)
    assert (stopped["epoch"], stopped["step"]) == position
    assert run(digits, tmp_path, "--epochs", 3, "--resume", "auto", "-j", 2) == 0
    assert_same_run(tmp_path, undisturbed)


def test_more_epochs_later_are_the_same_run(undisturbed, digits, tmp_path):
    assert run(digits, tmp_path, "--epochs", 1, "--resume", "auto") == 0
    latest = tmp_path / NAME / "checkpoint.pth.tar"
    assert run(digits, tmp_path, "--epochs", 3, "--resume", latest) == 0
    assert_same_run(tmp_path, undisturbed)


def test_a_seed_that_was_not_given_is_kept_for_the_resumed_part(digits, tmp_path):
    words = [w for w in command(digits, tmp_path, "--epochs", 1) if w not in ("--seed", "3")]
    assert main_imagenet.main(words) == 0
    folder = tmp_path / NAME.removesuffix("-seed3")
    first = torch.load(folder / "checkpoint.pth.tar", weights_only=True)["seed"]
    words[-1] = "2"
    assert main_imagenet.main([*words, "--resume", "auto"]) == 0
    assert torch.load(folder / "checkpoint.pth.tar", weights_only=True)["seed"] == first


def test_a_second_run_does_not_overwrite_the_first(undisturbed, digits, capsys):
    before = (undisturbed / NAME / "checkpoint.pth.tar").read_bytes()
    assert run(digits, undisturbed, "--epochs", 1) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert (undisturbed / NAME / "checkpoint.pth.tar").read_bytes() == before


def test_evaluation_of_the_best_checkpoint_repeats_its_accuracy(undisturbed, digits, capsys):
    best = undisturbed / NAME / "model_best.pth.tar"
    before = sorted(undisturbed.rglob("*"))
    assert run(digits, undisturbed, "-e", "--resume", best, "-b", 5) == 0
    expected = max(metrics(undisturbed), key=lambda line: line["val_acc1"])
    line = f" * Acc@1 {expected['val_acc1']:.3f} Acc@5 {expected['val_acc5']:.3f}"
    assert capsys.readouterr().out.splitlines()[-1] == line
    assert sorted(undisturbed.rglob("*")) == before


def test_saved_weights_are_the_bare_network(undisturbed, digits, tmp_path, capsys):
    best, target = undisturbed / NAME / "model_best.pth.tar", tmp_path / "weights.pth"
    assert run(digits, undisturbed, "--resume", best, "--save-weights", target) == 0
    weights = torch.load(target, weights_only=True)
    original = torch.load(best, weights_only=True)["state_dict"]
    assert weights.keys() == original.keys()
    assert all(torch.equal(weights[key], original[key]) for key in original)
    capsys.readouterr()
    outputs = []
    for source in (("--weights", target), ("--resume", best)):
        assert run(digits, undisturbed, "-e", *source) == 0
        outputs.append(capsys.readouterr().out.splitlines()[-1])
    assert outputs[0] == outputs[1]


@pytest.fixture
def one_epoch(undisturbed, digits, tmp_path):
    """A run folder after one epoch, for a second that goes wrong; its checkpoint's bytes."""
    root = tmp_path / "root"
    assert run(digits, root, "--epochs", 1) == 0
    return root, (root / NAME / "checkpoint.pth.tar").read_bytes()


def test_a_loss_that_explodes_ends_the_run_and_keeps_the_checkpoint(one_epoch, digits, capsys):
    root, before = one_epoch
    assert run(digits, root, "--epochs", 2, "--lr", 1e30, "--resume", "auto") == 2
    error = capsys.readouterr().err.strip()
    latest = root / NAME / "checkpoint.pth.tar"
    assert "\n" not in error
    assert error.startswith("error: the loss is NaN or infinite since epoch 2, step ")
    assert error.endswith(f"(learning rate 1e+30); the last good checkpoint is {latest}")
    assert latest.read_bytes() == before


def test_a_damaged_image_ends_the_run_and_keeps_the_checkpoint(one_epoch, digits, tmp_path, capsys):
    root, before = one_epoch
    shutil.copytree(digits, tmp_path / "damaged")
    image = tmp_path / "damaged" / "train" / "0" / "001.png"
    image.write_bytes(b"no image")
    assert run(tmp_path / "damaged", root, "--epochs", 2, "--resume", "auto", "-j", 1) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: can't decode image {image} (")
    assert "\n" not in error
    assert (root / NAME / "checkpoint.pth.tar").read_bytes() == before


def test_a_full_disk_keeps_the_checkpoint_and_is_said(one_epoch, digits, capsys):
    root, before = one_epoch
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        assert run(digits, root, "--epochs", 3, "--resume", "auto") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    errors = capsys.readouterr().err.strip().splitlines()
    assert [line.split(":")[0] for line in errors] == ["warning", "warning", "error"]
    assert all("can't save" in line and "File too large" in line for line in errors)
    assert (root / NAME / "checkpoint.pth.tar").read_bytes() == before
    assert run(digits, root, "--epochs", 2, "--resume", "auto") == 0


@pytest.mark.parametrize("more", [("-b", 5), ("--seed", 4)])
def test_within_an_epoch_other_batches_are_refused(digits, tmp_path, capsys, more):
    with SignalAtForward(ResNet, 3, signal.SIGTERM):
        assert run(digits, tmp_path, "--epochs", 1) == 143
    latest = tmp_path / NAME / "checkpoint.pth.tar"
    root = tmp_path if more[0] == "-b" else tmp_path / "other"
    assert run(digits, root, "--epochs", 1, "--resume", latest, *more) == 2
    assert "stands within epoch" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_published_style_checkpoint_is_no_training_state(digits, tmp_path, capsys):
    from networks import create_model

    path = tmp_path / "published.pth"
    state = create_model("resnet18", "simam", num_classes=3).state_dict()
    torch.save({"epoch": 90, "arch": "resnet18", "state_dict": state}, path)
    assert run(digits, tmp_path, "--epochs", 1, "--resume", path) == 2
    assert (
        f"holds weights but no training state; to start a new training from them: --weights {path}"
        in capsys.readouterr().err
    )
    assert run(digits, tmp_path, "-e", "--resume", path) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(" * Acc@1 ")
