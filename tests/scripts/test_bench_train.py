"""The training benchmark on small images."""

import json

import pytest
import torch
import torch.nn.functional as F
from published import E_LAMBDA, published_network

from networks import create_model
from scripts.bench.stopwatch import PARTS, Stopwatch, split
from scripts.bench_train import (
    LR,
    PLAIN,
    TO_PLAIN,
    Ours,
    Plain,
    Rival,
    main,
    names_for,
    network,
    parse_args,
    race_at,
)

SMALL = ["--device", "cpu", "-b", "4", "--image-size", "32", "--steps", "2", "--rounds", "2"]


@pytest.fixture
def args():
    # 64 pixels: the published SimAM divides by zero on a map of one position
    return parse_args(["resnet18", *SMALL, "--image-size", "64"])


def plain_step(net, images, targets, velocities):
    """Stochastic gradient descent as it is defined, with momentum 0.9 and weight decay 1e-4."""
    loss = F.cross_entropy(net(images), targets)
    grads = torch.autograd.grad(loss, list(net.parameters()))
    with torch.no_grad():
        for weight, grad, velocity in zip(net.parameters(), grads, velocities, strict=True):
            velocity.mul_(0.9).add_(grad + 1e-4 * weight)
            weight.sub_(LR * velocity)


@pytest.mark.parametrize("kind", [Plain, Ours])
def test_both_loops_train_as_the_published_network(kind, args):
    reference = published_network("resnet18", "simam").to_empty(device="cpu").train()
    reference.load_state_dict(
        {
            key.replace("conv2.", "conv2.0."): value
            for key, value in create_model("resnet18").state_dict().items()
        }
    )
    net = create_model("resnet18", "simam", E_LAMBDA)
    net.load_state_dict(
        {key.replace("conv2.0.", "conv2."): value for key, value in reference.state_dict().items()}
    )
    before = [weight.detach().clone() for weight in net.parameters()]
    contender = kind(net, args)
    velocities = [torch.zeros_like(weight) for weight in reference.parameters()]
    for images, targets in contender.batches:
        plain_step(reference, images.contiguous(), targets, velocities)
    contender.train()
    moved = zip(net.parameters(), before, reference.parameters(), strict=True)
    for weight, old, wanted in moved:
        assert not torch.equal(weight, old)
        torch.testing.assert_close(weight - old, wanted - old, rtol=0.05, atol=1e-6)


def test_the_parts_of_a_step(args):
    contender = Ours(network("ours", "resnet18", args), args)
    contender.train()
    marks = contender.watch.take()
    step = ["data", "other", "forward", "other", "backward", "optimizer", "other"]
    assert [part for part, _ in marks] == 2 * step + ["data", "other"]
    parts = split(marks)
    assert sum(parts.values()) == pytest.approx(marks[-1][1] - marks[0][1])
    assert all(parts[part] > 0 for part in PARTS)
    contender.evaluate()
    assert {part for part, _ in contender.watch.take()} == {"forward", "other"}


def test_split():
    watch = Stopwatch("cpu")
    for part in ("data", "other", "data"):
        watch.begin(part)
    assert [part for part, _ in watch.take()] == ["data", "other", "data"]
    assert watch.take() == []
    marks = [("data", 1.0), ("other", 3.0), ("data", 4.0), ("forward", 4.5)]
    assert split(marks) == dict.fromkeys(PARTS, 0.0) | {"data": 2.5, "other": 1.0}


def test_report(tmp_path, capsys):
    """Every contender in a process of its own."""
    report = tmp_path / "report.json"
    assert main(["cifar_resnet20", *SMALL, "--json", str(report)]) == 0
    rows = json.loads(report.read_text())["rows"]
    names = ["published", "ours", "ours, no attention"]
    assert [row["contender"] for row in rows] == 3 * names  # timm has no such network
    for row in rows:
        assert row["images_per_s"] == pytest.approx(1e3 * row["batch"] / row["ms"], rel=0.01)
        if row["contender"] == "published":
            assert row["ratio"] == 1
        if row["task"] == "training":
            # medians of two rounds are means, so the parts still add up
            assert sum(row["parts"].values()) == pytest.approx(row["ms"], rel=0.1)
            assert row["peak memory"] > 100e6  # torch itself
    printed = capsys.readouterr().out.splitlines()
    assert len([line for line in printed if line.startswith("| cifar_resnet20")]) == len(rows)


def test_one_that_fails_leaves_the_others_rows():
    """A process that is killed, as the system does it to one that takes all memory."""
    args = parse_args(["cifar_resnet20", *SMALL])
    rivals = {name: Rival(name, "cifar_resnet20", args) for name in ("published", "ours", PLAIN)}
    failures = []
    assert len(race_at("evaluate", rivals, args, lambda *failure: failures.append(failure))) == 3
    assert failures == []
    rivals["published"].process.kill()
    rows = race_at("train", rivals, args, lambda *failure: failures.append(failure))
    for rival in rivals.values():
        rival.end()
    assert [row["contender"] for row in rows] == ["ours", PLAIN]
    assert all("ratio" not in row and row[TO_PLAIN] > 0 for row in rows)
    ((name, error),) = failures
    assert name == "published"
    assert str(error) == "was killed, for its memory? -b takes less"


def test_timm_takes_part(args):
    pytest.importorskip("timm")
    assert "timm" in names_for("mobilenet_v2", args)
    args.no_timm = True
    assert "timm" not in names_for("mobilenet_v2", args)
    net = network("timm", "mobilenet_v2", args)
    assert sum(weight.numel() for weight in net.parameters()) == 3_504_872


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet19"], "resnet19"),
        (["resnet18", "--attention-type", "simam2"], "simam2"),
        (["resnet18", "--json", "nowhere/report.json"], "its folder does not exist"),
        (["resnet18", "--rounds", "1"], "at least 2"),
        pytest.param(
            ["resnet18", "--device", "cuda"],
            "there is no CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message):
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
