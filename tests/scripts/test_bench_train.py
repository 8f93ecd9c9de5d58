"""The training benchmark on small images."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from published import published_network

from networks import create_model
from scripts.bench.common import Report
from scripts.bench_train import bench_network, contenders_for, main, parse_args

SMALL = "--device cpu -b 4 --image-size 32 --steps 2 --rounds 2"


def small(words):
    args = parse_args([*SMALL.split(), *words.split()])
    return contenders_for(args.archs[0], args)


@pytest.mark.parametrize("name", ["published", "ours"])
def test_both_loops_train_as_the_published_network(name):
    # 64 pixels: the published SimAM divides by zero on a map of one position
    contender = small("resnet18 --attention-param 0.1 --image-size 64")[name]
    loops, start = contender.start(), create_model("resnet18").state_dict()
    reference = published_network("resnet18", "simam").to_empty(device="cpu").train()
    theirs = {key.replace("conv2.", "conv2.0."): value for key, value in start.items()}
    reference.load_state_dict(theirs)
    loops.net.load_state_dict(start)
    loops.train()
    optimizer = torch.optim.SGD(reference.parameters(), 1e-4, momentum=0.9, weight_decay=1e-4)
    for images, targets in loops.batches:
        optimizer.zero_grad()
        F.cross_entropy(reference(images.contiguous()), targets).backward()
        optimizer.step()
    trained = dict(loops.net.named_parameters())
    for key, wanted in reference.named_parameters():
        key = key.replace("conv2.0.", "conv2.")
        moved, expected = trained[key] - start[key], wanted - start[key]
        # as a whole: single weights move by little more than rounding
        assert (moved - expected).norm() < 0.05 * expected.norm(), key


def test_who_takes_part():
    assert list(small("cifar_resnet20")) == ["published", "ours", "ours, no attention"]
    assert list(small("cifar_resnet20 --attention-type none")) == ["published", "ours"]


def test_timm_takes_part():
    pytest.importorskip("timm")
    assert "timm" not in small("mobilenet_v2 --no-timm")
    loops = small("mobilenet_v2")["timm"].start()
    assert sum(weight.numel() for weight in loops.net.parameters()) == 3_504_872


@pytest.mark.slow
def test_report(tmp_path, capsys):
    """Every contender in a process of its own."""
    path = tmp_path / "report.json"
    words = ["cifar_resnet20", *SMALL.split(), "--attention-type", "none"]
    assert main([*words, "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [row["contender"] for row in rows] == 3 * ["published", "ours"]
    assert [row["task"] for row in rows][::2] == ["evaluation", "one image", "training"]
    for row in rows:
        assert row["images/s"] == pytest.approx(1e3 * row["batch"] / row["ms"], rel=0.01)
        assert row["speed"] == 1 or row["contender"] != "published"
    assert capsys.readouterr().out.count("\n| cifar_resnet20 |") == len(rows)


class Killed:
    """Ends as the system ends a process that takes all memory."""

    def __init__(self, *_):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_one_that_fails_leaves_the_others_rows():
    contenders = small("cifar_resnet20 --attention-type none")
    contenders["published"] = replace(contenders["published"], loops=Killed)
    report = Report({})
    bench_network("cifar_resnet20", contenders, 2, report)
    rows, (failure,) = report.content["rows"], report.content["failures"]
    assert [(row["contender"], row["speed"]) for row in rows] == 3 * [("ours", None)]
    assert failure.startswith("cifar_resnet20, published: UsageError: out of memory, or killed")
