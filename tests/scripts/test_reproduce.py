"""The paper's tables from what was run, and running what is missing."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import astuple
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from jobs import Job
from runs import SignalAtForward

from networks import create_model
from networks.cifar.resnet import CifarResNet
from scripts import reproduce, train_cifar
from scripts.paper import table3, table4
from utils.report.paper import RELEASED, TABLE3, Released
from utils.training.complexity import count_parameters


def code_of(*words) -> int:
    try:
        return reproduce.main([str(word) for word in words])
    except SystemExit as stop:
        return stop.code


def rows(path: Path) -> dict[tuple, dict]:
    """A table's rows by what names them."""
    found = json.loads(path.read_text())["rows"]
    names = ("dataset", "detector", "arch", "metric", "attention")
    return {tuple(row[name] for name in names if name in row): row for row in found}


def write_run(folder: Path, settings: dict, accuracies: list[float]) -> None:
    folder.mkdir(parents=True)
    (folder / "args.json").write_text(json.dumps(settings))
    others = {"val_acc5": 99.0, "train_acc1": 98.0, "train_loss": 0.1, "val_loss": 0.2}
    epochs = [json.dumps({"epoch": i, "val_acc1": a, **others}) for i, a in accuracies]
    (folder / "metrics.jsonl").write_text("\n".join(epochs))


def test_table2_collects_what_is_finished(tmp_path, capsys):
    whole = {"epochs": 2, "iterations": 64_000}
    for seed, final in ((1, 92.5), (2, 92.9), (4, 92.1)):
        name = f"cifar10-cifar_resnet20-simam-param0.0001-seed{seed}"
        write_run(tmp_path / name, whole, [(0, 93), (1, final)])
    write_run(tmp_path / "cifar100-cifar_resnet56-seed1", whole, [(0, 70), (1, 72)])
    plain = tmp_path / "cifar10-cifar_resnet20-seed"
    write_run(Path(f"{plain}1"), whole, [(0, 92)])  # begun
    write_run(Path(f"{plain}2"), whole | {"iterations": 500}, [(0, 60), (1, 61)])
    write_run(Path(f"{plain}3"), {"epochs": 1}, [(0, 99)])  # another script's
    assert code_of("table2", "--ckpt", tmp_path) == 0
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        f"passed over {plain}2: its iterations is 500, not 64000",
        f"passed over {plain}3: its iterations is None, not 64000",
    ]
    *lines, last = said.out.splitlines()
    assert len(lines) == 2 + 96
    assert last == f"wrote {tmp_path / 'table2.json'}"
    assert "| cifar10 | cifar_resnet20 | none | not run | 0 | 92.33 ± 0.19 |  |  |" in lines
    ours = f"| cifar10 | cifar_resnet20 | simam | 92.50 ± {np.std([92.5, 92.9, 92.1], ddof=1):.2f} "
    assert any(line.startswith(f"{ours}| 3 | 92.73 ± 0.18 | -0.23 |") for line in lines)
    assert "| cifar100 | cifar_resnet56 | none | 72.00 | 1 | 72.24 ± 0.37 | -0.24 |  |" in lines
    row = rows(tmp_path / "table2.json")["cifar10", "cifar_resnet20", "simam"]
    assert row["acc1"] == [92.5, 92.9, 92.1]


def test_table2_takes_modules_of_which_the_paper_has_no_figure(tmp_path, capsys):
    whole = {"epochs": 1, "iterations": 64_000}
    write_run(tmp_path / "cifar10-cifar_resnet20-triplet-seed1", whole, [(0, 91)])
    words = "table2 --dataset cifar10 --archs cifar_resnet20 --attentions triplet,pfaam"
    assert code_of(*words.split(), "--ckpt", tmp_path) == 0
    said = capsys.readouterr().out
    assert "| cifar10 | cifar_resnet20 | triplet | 91.00 | 1 |  |  |  |" in said
    assert "| cifar10 | cifar_resnet20 | pfaam | not run | 0 |  |  |  |" in said


def test_table2_runs_what_is_missing_and_goes_on_where_it_was_stopped(digits32, tmp_path, capsys):
    data = f"--data-dir {digits32} --gpu -1 --iterations 3".split()
    root = tmp_path / "runs"
    words = ["table2", "--run", *data, "--archs", "cifar_resnet20", "--attentions", "none,simam"]
    words += ["--seeds", "1", "--ckpt", root]
    # each run: the header's count of FLOPs, three steps, one batch of validation
    with SignalAtForward(CifarResNet, 5 + 3, signal.SIGTERM):
        assert code_of(*words) == 143
    assert capsys.readouterr().err.endswith("; the same command goes on\n")
    first = root / "digits32-cifar_resnet20-seed1"
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    assert code_of(*words) == 0
    said = capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before
    assert f"finished    {first}\n" in said
    assert "resumed" in said
    assert said.count("shortened: 3 of the paper's 64,000 iterations; no reproduction") == 1
    assert json.loads((root / "table2.json").read_text())["shortened"] is True

    second = root / "digits32-cifar_resnet20-simam-param0.0001-seed1"
    row = rows(root / "table2.json")["digits32", "cifar_resnet20", "simam"]
    last = json.loads((second / "metrics.jsonl").read_text())
    assert (row["mean"], row["runs"], row["paper"]) == (last["val_acc1"], 1, 92.73)
    assert row["difference"] is None  # from the paper's 64,000 iterations there is none to take

    # they are train_cifar.py's own runs
    assert train_cifar.main([*data, "--attentions", "none,simam", "--ckpt", str(root)]) == 0
    assert capsys.readouterr().out == f"finished    {first}\nfinished    {second}\n"


@pytest.fixture
def quick(monkeypatch):
    """What it takes to print resnet18's rows of Table 3 without waiting for its speed."""
    monkeypatch.setattr(table3, "LATENCY_ROUNDS", 1)
    return ["table3", "--archs", "resnet18", "--device", "cpu"]


SE = {"attention_type": "se", "attention_param": 16}


@pytest.fixture
def write_papers(trained):
    """Writes the folder of a run of the paper's ResNet-18 with SimAM, but for some `changes`: what
    a real run says of itself, with ImageNet's sizes."""
    real = json.loads((trained / "args.json").read_text())
    sizes = {"num_classes": 1000, "images": 1_281_167, "image_size": 224, "epochs": 100}

    def write(folder: Path, best: float, **changes) -> Path:
        assert {*sizes, *changes} <= real.keys()
        settings = real | sizes | changes
        write_run(folder, settings, [(0, best), *((i, 60) for i in range(1, settings["epochs"]))])
        return folder

    return write


def test_table3_has_runs_and_sizes_and_speed(tmp_path, capsys, quick, write_papers):
    for seed, best in ((1, 71.0), (2, 71.5)):
        write_papers(tmp_path / f"imagenet-resnet18-se-seed{seed}", best, **SE)
    elsewhere = write_papers(tmp_path / "elsewhere", 71.3)
    assert code_of(*quick, elsewhere, "--ckpt", tmp_path, "--out", tmp_path / "new" / "out") == 0
    table = rows(tmp_path / "new" / "out.json")
    assert list(table) == [key for key in TABLE3 if key[0] == "resnet18"]
    assert (table["resnet18", "se"]["mean"], table["resnet18", "se"]["runs"]) == (71.25, 2)
    assert table["resnet18", "simam"]["difference"] == pytest.approx(71.3 - 71.31)
    said = capsys.readouterr()
    assert not said.err
    assert (
        "| resnet18 | cbam | not run | 0 | 71.24 |  | not run | 90.04 | 11.78 (11.78) |" in said.out
    )
    assert re.search(r"\| se \| 71.25 ± 0.35 \| 2 \| 71.19 \| \+0.06 \| 99.00 \| 90.21 ", said.out)
    for key, row in table.items():
        parameters = count_parameters(create_model(*key)) / 1e6
        assert row["ours"]["params_m"] == pytest.approx(parameters)
        assert row["ours"]["gflops"] == pytest.approx(TABLE3[key].gflops, abs=0.006)
        assert 0 < row["ours"]["fps"] < 10_000
        assert tuple(row["theirs"].values()) == astuple(TABLE3[key])


def test_table3_compares_with_the_digits_of_the_authors_logs(quick, monkeypatch):
    found = {("mobilenet_v2", "simam"): [{"val_acc1": 72.5, "val_acc5": 90.0}]}
    monkeypatch.setitem(RELEASED, ("imagenet", "mobilenet_v2", "simam"), Released(72.364, 90.742))
    row = next(row for row in table3.rows_of("mobilenet_v2", found, "cpu") if row.runs)
    assert row.difference == pytest.approx(72.5 - 72.364)
    assert row.theirs == TABLE3["mobilenet_v2", "simam"]


def test_table3_passes_over_what_was_not_trained_as_the_papers(
    tmp_path, trained, capsys, quick, write_papers
):
    """The real run of a few digits, and others that differ by a single setting."""
    root = tmp_path / "ckpts"
    others = {
        "classes": ({"num_classes": 100}, "its num_classes is 100, not 1000"),
        "deep": ({"arch": "resnet152"}, "its network is not in Table 3"),
        "images": ({"images": 128_116}, "its images is 128116, not 1281167"),
        "lambda": ({"attention_param": 1e-4}, "its attention_param is 0.0001, not 0.1"),
        "mobile": ({"arch": "mobilenet_v2"}, "its epochs is 100, not 150"),
        "short": ({"epochs": 90}, "its epochs is 90, not 100"),
        "size": ({"image_size": 160}, "its image_size is 160, not 224"),
        "synthetic": ({"synthetic": True}, "its synthetic is True, not False"),
    }
    for name, (changes, _) in others.items():
        write_papers(root / f"imagenet-{name}", 99.0, **changes)
    write_papers(root / "imagenet-whole", 71.3)
    gc = {"attention_type": "gc", "attention_param": 16}  # of which the paper has no figure
    write_papers(root / "imagenet-gc", 71.0, **gc)
    assert code_of(*quick, trained, "--ckpt", root) == 0
    whys = {str(root / f"imagenet-{name}"): why for name, (_, why) in others.items()}
    whys[str(trained)] = "its num_classes is 3, not 1000"
    said = capsys.readouterr()
    assert said.err.splitlines() == [f"passed over {path}: {why}" for path, why in whys.items()]
    assert "| resnet18 | gc | 71.00 | 1 |  |  | 99.00 |  | 11.78 | " in said.out
    reached = {key: row["mean"] for key, row in rows(root / "table3.json").items() if row["runs"]}
    assert reached == {("resnet18", "simam"): 71.3, ("resnet18", "gc"): 71.0}


def test_table3_says_what_evaluates_a_checkpoint(tmp_path, trained, capsys, quick):
    checkpoint = trained / "model_best.pth.tar"
    assert code_of(*quick, checkpoint, "--ckpt", tmp_path) == 2
    said = capsys.readouterr().err
    assert said == f"error: {checkpoint} is no finished run; evaluate_all.py takes checkpoints\n"


def test_table3_run_starts_what_is_missing(tmp_path, monkeypatch, capfd, quick, write_papers):
    """With `echo` in Python's place, which shows the commands."""
    write_papers(tmp_path / "imagenet-resnet18-simam-param0.1", 71)
    write_papers(tmp_path / "imagenet-resnet18-se-param16", 71, **SE, num_classes=10)
    monkeypatch.setenv("PYTHON", "echo")
    monkeypatch.setenv("DATA", "elsewhere")
    assert code_of(*quick, "--run", "--data", "images", "--ckpt", tmp_path) == 0
    said = capfd.readouterr()
    assert set(said.err.splitlines()) == {
        f"passed over {tmp_path}/imagenet-resnet18-se-param16: its num_classes is 10, not 1000"
    }
    started = [line for line in said.out.splitlines() if "main_imagenet.py" in line]
    script = ROOT / "scripts" / ".." / "main_imagenet.py"
    recipe = "--gpu 0,1,2,3 -j 20 -b 256 --momentum 0.9 --epochs 100 --lr 0.1 --wd 1e-4"
    assert started == [
        f"{script} images -a resnet18 --attention-type {attention} {recipe} "
        f"--resume auto --ckpt {tmp_path}"
        for attention in ("none", "se", "cbam", "eca", "srm")
    ]


# in Python's place: the command on the CPU, and small
SMALL = """#!/usr/bin/env bash
exec {python} "$@" --gpu -1 --image-size 32 -b 8 -j 0 -p 1 --lr 0.001
"""


def test_table3_run_waits_for_the_command_to_save(digits, tmp_path):
    """The signal goes to all processes of the terminal's foreground, as Ctrl-C does."""
    small, root = tmp_path / "small.sh", tmp_path / "ckpts"
    small.write_text(SMALL.format(python=sys.executable))
    small.chmod(0o755)
    words = f"table3 --run --data {digits} --archs mobilenet_v2 --device cpu --ckpt {root}".split()
    script = ROOT / "scripts" / "reproduce.py"
    environment = ("env", f"PYTHON={small}")
    with Job(tmp_path / "out", script, *words, mark=tmp_path, wrapper=environment) as job:
        job.after_steps(2)
        os.killpg(job.process.pid, signal.SIGINT)
        assert job.finish() == 128 + signal.SIGINT
        assert job.all_gone()
        done = job.steps()
    assert re.match(r"stopped after epoch \d+, step \d of 3", job.last_line())
    (folder,) = root.glob("imagenet-*")  # nothing was started after it
    state = torch.load(folder / "checkpoint.pth.tar", weights_only=True)
    assert 3 * state["epoch"] + state["step"] == done


FIGURES = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")


def write_work_dir(folder: Path, ap: float, epochs: int = 12) -> None:
    """The log of a detector, as mmdetection writes it; with masks' figures 0.1 below the boxes'."""
    log = folder / "1" / "vis_data" / "scalars.json"
    log.parent.mkdir(parents=True)
    lines = [{"loss": 0.5, "step": 12}]
    for epoch in range(epochs - 1, epochs + 1):
        first = {"bbox": ap, "segm": ap - 0.1} if epoch == epochs else {"bbox": 0, "segm": 0}
        named = {
            f"coco/{m}_{name}": first[m] + 0.01 * i for m in first for i, name in enumerate(FIGURES)
        }
        lines.append(named | {"step": epoch})
    log.write_text("\n".join(map(json.dumps, lines)) + '\n{"cut o')


def test_table4_reads_mmdetections_logs(tmp_path, capsys):
    named, second = "mask-rcnn_r50-simam_fpn_1x_coco", tmp_path / "second"
    write_work_dir(tmp_path / named, 0.39)
    write_work_dir(second / named, 0.4)
    write_work_dir(tmp_path / "mask-rcnn_r101_fpn_1x_coco", 0.5, epochs=11)
    write_work_dir(tmp_path / "mask-rcnn_r101-se_fpn_2x_coco", 0.5)
    assert code_of("table4", second / named, "--ckpt", tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 18 + 1
    for metric, ours in (
        ("bbox", "39.50 ± 0.71 | 2 | 39.80 | -0.30 | 39.5 40.5 41.5 42.5 43.5 44.5"),
        ("segm", "29.50 ± 0.71 | 2 | 36.00 | -6.50 | 29.5 30.5 31.5 32.5 33.5 34.5"),
    ):
        paper = " ".join(
            f"{v:.1f}" for v in astuple(table4.TABLE4["mask-rcnn_r50", metric, "simam"])
        )
        assert f"| mask-rcnn_r50 | {metric} | simam | {ours} | {paper} |" in lines
    assert sum("not run" in line for line in lines) == 16
    row = rows(tmp_path / "table4.json")["mask-rcnn_r50", "bbox", "simam"]
    assert row["ours"]["ap_large"] == pytest.approx(44.5)
    assert code_of("table4", second, "--ckpt", tmp_path) == 2
    assert "second holds no mmdetection log" in capsys.readouterr().err


# in the place of mmdetection's train.py: says what it was given, and logs as mmdetection does
TRAIN = f"""
import json, os, pathlib, sys
work_dir = pathlib.Path(sys.argv[sys.argv.index("--work-dir") + 1])
if os.environ["RANK"] == "0":
    print("trains", os.environ["WORLD_SIZE"], *sys.argv[1:], flush=True)
    log = work_dir / "1" / "vis_data" / "scalars.json"
    log.parent.mkdir(parents=True)
    entry = {{f"coco/bbox_{{name}}": 0.25 for name in {FIGURES}}}
    log.write_text(json.dumps(entry | {{"step": 12}}))
"""


def test_table4_run_starts_what_is_missing(tmp_path, monkeypatch, capfd):
    tools = tmp_path / "mmdet" / ".mim" / "tools"
    tools.mkdir(parents=True)
    (tmp_path / "mmdet" / "__init__.py").touch()
    (tools / "train.py").write_text(TRAIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    root = tmp_path / "work_dirs"
    missing = [("faster-rcnn_r101", "none"), ("mask-rcnn_r50", "se"), ("mask-rcnn_r101", "simam")]
    for detector, metric, attention in table4.TABLE4:
        if metric == "bbox" and (detector, attention) not in missing:
            named = detector if attention == "none" else f"{detector}-{attention}"
            write_work_dir(root / f"{named}_fpn_1x_coco", 0.39)
    assert code_of("table4", "--run", "--ckpt", root) == 0
    out = capfd.readouterr().out
    assert "--run trains the missing rows: 3 detectors" in out
    started = [line for line in out.splitlines() if line.startswith("trains ")]
    configs = ROOT / "mmdetection" / "configs"
    assert sorted(started) == sorted(
        f"trains 4 {configs}/{detector.partition('-')[0]}_rcnn/"
        f"{detector}-{attention}_fpn_1x_coco.py --launcher pytorch "
        f"--work-dir {root}/{detector}-{attention}_fpn_1x_coco --resume"
        for detector, attention in missing
    )
    assert "| faster-rcnn_r101 | bbox | none | 25.00 | 1 | 39.60 |" in out
    assert "| faster-rcnn_r50 | bbox | simam | 39.00 | 1 | 39.20 |" in out
    assert code_of("table4", "--run", "--ckpt", root) == 0  # again: nothing is missing
    assert "trains " not in capfd.readouterr().out.replace("--run trains", "")


def test_table4_needs_no_package_that_mmdetections_environment_has_not(tmp_path):
    code = "import sys; sys.modules.update(dict.fromkeys(('torchvision', 'tensorboard', 'thop')))"
    code += "; from scripts import reproduce; sys.exit(reproduce.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "table4", "--ckpt", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True)


needs_no_mmdet = pytest.mark.skipif(find_spec("mmdet") is not None, reason="mmdetection is here")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("table5", "invalid choice: 'table5'"),
        ("table2 --archs resnet18", "resnet18 is none of cifar_resnet20 cifar_resnet56"),
        ("table2 --attentions simm", "unknown attention 'simm'; known: simam"),
        ("table2 --run --root nowhere", "nowhere does not hold cifar10"),
        ("table3 --archs resnet19", "resnet19 is none of resnet18 resnet34"),
        ("table3 --run --archs resnet18 --device cpu", "DATA is not set"),
        ("table4 --out {file}/table", "can't make folder {file}: File exists"),
        pytest.param("table4 --run", "--run needs mmdetection", marks=needs_no_mmdet),
    ],
)
def test_mistakes_are_one_line(words, said, tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("DATA", raising=False)
    file = tmp_path / "file"
    file.touch()
    more = [] if words == "table5" else ["--ckpt", tmp_path]
    assert code_of(*words.format(file=file).split(), *more) == 2
    error = capfd.readouterr().err
    assert said.format(file=file) in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["reproduce", "search_lambda", "evaluate_all", "model_table"])
def test_help_is_answered_before_torch_is_imported(name):
    command = [sys.executable, "-X", "importtime", ROOT / "scripts" / f"{name}.py", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: {name}.py")
    assert not re.search(r"\| +torch$", done.stderr, re.M)
