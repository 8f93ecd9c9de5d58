"""The paper's tables from what was run, and running what is missing."""

import json
import os
import shutil
import signal
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from conftest import ROOT
from jobs import Job
from runs import SignalAtForward, assert_equal
from utils.checkpoints.files import save_atomically

from networks import create_model
from networks.cifar.resnet import CifarResNet
from scripts import reproduce, train_cifar
from scripts.paper import table3
from utils.data.preparation import IMAGENET
from utils.report.paper import TABLE3
from utils.training.complexity import count_parameters

PNG = b"\x89PNG"
CURVES = {"lr": 0.1, "train_loss": 1, "train_acc1": 50, "val_loss": 1, "val_acc5": 99, "seconds": 2}


def run(*words) -> int:
    try:
        return reproduce.main([str(word) for word in words])
    except SystemExit as stop:
        return stop.code


def write_run(folder, settings: dict, accuracies: list[float]) -> None:
    folder.mkdir(parents=True)
    (folder / "args.json").write_text(json.dumps(settings))
    lines = [json.dumps({"epoch": i, **CURVES, "val_acc1": a}) for i, a in enumerate(accuracies)]
    (folder / "metrics.jsonl").write_text("\n".join(lines))


def write_detector(folder, ap: float) -> None:
    log = folder / "1" / "vis_data" / "scalars.json"
    log.parent.mkdir(parents=True)
    names = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
    entry = {f"coco/bbox_{name}": ap + 0.1 * i for i, name in enumerate(names)}
    log.write_text(json.dumps(entry | {"step": 12}))


def rows(path) -> dict:
    found = json.loads(path.read_text())["rows"]
    names = ("dataset", "arch", "attention") if "dataset" in found[0] else ("arch", "attention")
    return {tuple(row[name] for name in names): row for row in found}


def test_table2_collects_what_is_finished(tmp_path, capsys):
    finals = {1: 92.5, 2: 92.9, 4: 92.1}
    for seed, final in finals.items():
        folder = tmp_path / f"cifar10-cifar_resnet20-simam-param0.0001-seed{seed}"
        write_run(folder, {"epochs": 2, "iterations": 64_000, "seed": seed}, [93, final])
    plain = {"epochs": 2, "iterations": 64_000, "seed": 1}
    write_run(tmp_path / "cifar100-cifar_resnet56-seed1", plain, [70, 72])
    write_run(tmp_path / "cifar10-cifar_resnet20-seed1", plain, [92])  # begun
    write_run(tmp_path / "cifar10-cifar_resnet20-seed2", plain | {"iterations": 500}, [60, 61])
    write_run(tmp_path / "cifar10-cifar_resnet20-seed3", {"epochs": 1}, [99])  # another script's
    assert run("table2", "--ckpt", tmp_path) == 0
    said = capsys.readouterr()
    assert said.err.strip().endswith("seed3: its iterations are None, not 64000")
    assert "seed2: its iterations are 500, not 64000\n" in said.err
    lines = said.out.splitlines()
    assert len(lines) == 2 + 96 + 1
    assert "| cifar10 | cifar_resnet20 | none | not run | 0 | 92.33 ± 0.19 |  |  |" in lines
    ours = f"| cifar10 | cifar_resnet20 | simam | 92.50 ± {np.std([92.5, 92.9, 92.1], ddof=1):.2f} "
    assert any(line.startswith(f"{ours}| 3 | 92.73 ± 0.18 | -0.23 |") for line in lines)
    assert "| cifar100 | cifar_resnet56 | none | 72.00 | 1 | 72.24 ± 0.37 | -0.24 |  |" in lines
    table = rows(tmp_path / "table2.json")
    trained = table["cifar10", "cifar_resnet20", "simam"]["trained"]
    assert [each["seed"] for each in trained] == [1, 2, 4]
    assert trained[0]["curves"]["val_acc1"] == [93, 92.5]
    assert len((tmp_path / "table2.csv").read_text().splitlines()) == 97
    assert (tmp_path / "table2.png").read_bytes().startswith(PNG)


def test_table2_runs_what_is_missing_and_goes_on_where_it_was_stopped(digits32, tmp_path, capsys):
    data = f"--data-dir {digits32} --gpu -1 --iterations 3".split()
    root = tmp_path / "runs"
    words = ["table2", "--run", *data, "--archs", "cifar_resnet20", "--attentions", "none,simam"]
    words += ["--seeds", "1", "--ckpt", root]
    # each run: the header's count of FLOPs, three steps, one batch of validation
    with SignalAtForward(CifarResNet, 5 + 3, signal.SIGTERM):
        assert run(*words) == 143
    assert capsys.readouterr().err.endswith("; the same command goes on\n")
    first = root / "digits32-cifar_resnet20-seed1"
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    assert run(*words) == 0
    said = capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before
    assert f"run folder  {first}" not in said
    assert "resumed" in said
    assert said.count("shortened: 3 of the paper's 64,000 iterations; no reproduction") == 1
    assert json.loads((root / "table2.json").read_text())["shortened"] is True

    # what was stopped is what train_cifar.py reaches undisturbed
    assert train_cifar.main([*data, "--attentions", "simam", "--ckpt", str(tmp_path / "own")]) == 0
    name = "digits32-cifar_resnet20-simam-param0.0001-seed1/checkpoint.pth.tar"
    states = [torch.load(place / name, weights_only=True) for place in (root, tmp_path / "own")]
    assert_equal(*states, "checkpoint")
    row = rows(root / "table2.json")["digits32", "cifar_resnet20", "simam"]
    last = json.loads((tmp_path / "own" / name).with_name("metrics.jsonl").read_text())
    assert (row["mean"], row["runs"], row["paper"]) == (last["val_acc1"], 1, 92.73)
    assert row["difference"] is None  # from the paper's 64,000 iterations there is none to take
    capsys.readouterr()
    assert run(*words) == 0  # nothing is missing, nothing is trained
    assert "Epoch" not in capsys.readouterr().out


@pytest.fixture
def quick_latency(monkeypatch):
    monkeypatch.setattr(table3, "LATENCY_ROUNDS", 1)


# what args.json says of a run that trained as the paper's ResNet-18
PAPERS = {
    **{"arch": "resnet18", "attention_type": "none", "attention_param": None, "epochs": 100},
    **{"num_classes": 1000, "images": 1_281_167, "synthetic": False, "image_size": 224},
}
SIMAM, SE = (
    {"attention_type": name, "attention_param": p} for name, p in (("simam", 0.1), ("se", 16))
)


def write_papers(folder, best: float, **changes) -> None:
    settings = PAPERS | changes
    write_run(folder, settings, [best, *[60.0] * (settings["epochs"] - 1)])


def test_table3_has_runs_and_sizes_and_speed(tmp_path, capsys, quick_latency):
    for seed, best in ((1, 71.0), (2, 71.5)):
        write_papers(tmp_path / f"imagenet-resnet18-se-seed{seed}", best, **SE)
    elsewhere = tmp_path / "elsewhere"
    write_papers(elsewhere, 70.5)
    words = ["table3", elsewhere, "--archs", "resnet18", "--device", "cpu"]
    assert run(*words, "--ckpt", tmp_path, "--out", tmp_path / "out") == 0
    table = rows(tmp_path / "out.json")
    assert list(table) == [key for key in TABLE3 if key[0] == "resnet18"]
    assert (table["resnet18", "se"]["mean"], table["resnet18", "se"]["runs"]) == (71.25, 2)
    assert table["resnet18", "none"]["difference"] == pytest.approx(70.5 - 70.33)
    said = capsys.readouterr()
    assert "| resnet18 | cbam | not run | 0 | 71.24 |" in said.out
    assert not said.err
    for key, row in table.items():
        assert row["params_m"] == pytest.approx(
            count_parameters(create_model(*key)) / 1e6, abs=1e-4
        )
        assert row["gflops"] == pytest.approx(TABLE3[key].gflops, abs=0.006)


def test_table3_passes_over_what_was_not_trained_as_the_papers(
    tmp_path, trained, capsys, quick_latency
):
    """The real run of a few digits, and others that differ by a single setting."""
    root = tmp_path / "ckpts"
    shutil.copytree(trained, root / "imagenet-digits")
    others = {
        "imagenet-classes": SIMAM | {"num_classes": 100},
        "imagenet-images": SIMAM | {"images": 128_116},
        "imagenet-synthetic": SIMAM | {"synthetic": True},
        "imagenet-size": SIMAM | {"image_size": 160},
        "imagenet-short": SIMAM | {"epochs": 90},
        "imagenet-lambda": SIMAM | {"attention_param": 1e-4},
        "imagenet-deep": {"arch": "resnet152"},
        "imagenet-mobile": SIMAM | {"arch": "mobilenet_v2"},
    }
    for name, changes in others.items():
        write_papers(root / name, 99.0, **changes)
    write_papers(root / "imagenet-simam", 71.3, **SIMAM)
    cifar = tmp_path / "cifar10-cifar_resnet20-seed1"
    write_run(cifar, {"arch": "cifar_resnet20", "attention": "none", "epochs": 1}, [92])
    assert run("table3", cifar, "--archs", "resnet18", "--device", "cpu", "--ckpt", root) == 0
    lines = capsys.readouterr().err.splitlines()
    whys = {
        "imagenet-classes": "its num_classes is 100, not 1000",
        "imagenet-deep": "its network is not in the paper's Table 3",
        "imagenet-digits": "its num_classes is 3, not 1000",
        "imagenet-images": "its images is 128116, not 1281167",
        "imagenet-lambda": "its attention_param is 0.0001, not 0.1",
        "imagenet-mobile": "its epochs is 100, not 150",
        "imagenet-short": "its epochs is 90, not 100",
        "imagenet-size": "its image_size is 160, not 224",
        "imagenet-synthetic": "its synthetic is True, not False",
    }
    expected = [f"passed over {root / name}: {why}" for name, why in whys.items()]
    assert lines == [*expected, f"passed over {cifar}: its network is not in the paper's Table 3"]
    table = rows(root / "table3.json")
    assert {key: row["mean"] for key, row in table.items() if row["runs"]} == {
        ("resnet18", "simam"): 71.3
    }


@pytest.mark.parametrize("text", ["[]", "7", "{", '{"epochs": []}'])
def test_table3_takes_no_settings_for_no_run(text, tmp_path, capsys):
    folder = tmp_path / "imagenet-resnet18"
    write_papers(folder, 70)
    (folder / "args.json").write_text(text)
    assert run("table3", folder, "--archs", "resnet18", "--device", "cpu", "--ckpt", tmp_path) == 2
    assert f"{folder} is no finished run" in capsys.readouterr().err


def test_table3_evaluates_checkpoints(digits, tmp_path, capsys, quick_latency, monkeypatch):
    def write(name: str, attention: str, param: float, num_classes: int, size: int = 224):
        said = {"arch": "resnet18", "attention": attention, "attention_param": param}
        model = create_model(**said, num_classes=num_classes)
        content = {**said, "num_classes": num_classes, "state_dict": model.state_dict()}
        content["preparation"] = IMAGENET.at(size)._asdict()
        save_atomically(content, str(tmp_path / name))
        return tmp_path / name

    good, few = write("se.pth", "se", 16, 1000), write("few.pth", "se", 16, 3)
    mild, small = write("mild.pth", "simam", 1e-4, 1000), write("small.pth", "se", 16, 1000, 64)
    words = ["--archs", "resnet18", "--device", "cpu", "--ckpt", tmp_path]
    assert run("table3", good, *words) == 2
    assert f"{good} is no finished run; a checkpoint needs --data DATA" in capsys.readouterr().err
    assert run("table3", good, *words, "--data", digits) == 0
    assert f"passed over {good}: its images is 12, not 50000" in capsys.readouterr().err
    assert not any(row["runs"] for row in rows(tmp_path / "table3.json").values())

    monkeypatch.setitem(table3.IMAGES, "val", 12)  # as if ImageNet had these
    assert run("table3", good, few, mild, small, *words, "--data", digits) == 0
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        f"passed over {few}: its num_classes is 3, not 1000",
        f"passed over {mild}: its attention_param is 0.0001, not 0.1",
        f"passed over {small}: its image_size is 64, not 224",
    ]
    row = rows(tmp_path / "table3.json")["resnet18", "se"]
    assert row["runs"] == 1
    shown = next(line for line in said.out.splitlines() if line.startswith(f"| {good} "))
    assert f"| {row['mean']:.3f} | {row['top5']:.3f} |" in shown


def test_table3_run_passes_the_scripts_refusal_on(tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("DATA", raising=False)
    assert run("table3", "--run", "--archs", "resnet18", "--ckpt", tmp_path) == 2
    assert "DATA is not set" in capfd.readouterr().err


@pytest.mark.parametrize("by", ["option", "environment"])
def test_table3_run_starts_what_is_missing(by, tmp_path, monkeypatch, capfd, quick_latency):
    """With `echo` in Python's place, which shows the commands."""
    write_papers(tmp_path / "imagenet-resnet18-simam-param0.1", 71, **SIMAM)
    write_papers(tmp_path / "imagenet-resnet18-se-param16", 71, **SE | {"num_classes": 10})
    monkeypatch.setenv("PYTHON", "echo")
    monkeypatch.setenv("DATA", "elsewhere" if by == "option" else "images")
    data = ["--data", "images"] if by == "option" else []
    words = ["table3", "--run", *data, "--archs", "resnet18", "--device", "cpu"]
    assert run(*words, "--ckpt", tmp_path) == 0
    said = capfd.readouterr()
    assert said.err.count("passed over") == 1
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


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_table3_run_waits_for_the_command_to_save(signum, digits, tmp_path):
    """The signal goes to all processes of the terminal's foreground, as Ctrl-C does."""
    small, root = tmp_path / "small.sh", tmp_path / "ckpts"
    small.write_text(SMALL.format(python=sys.executable))
    small.chmod(0o755)
    words = f"table3 --run --data {digits} --archs resnet18 --device cpu --ckpt {root}".split()
    script = ROOT / "scripts" / "reproduce.py"
    environment = ("env", f"PYTHON={small}")
    with Job(tmp_path / "out", script, *words, mark=tmp_path, wrapper=environment) as job:
        job.after_steps(2)
        os.killpg(job.process.pid, signum)
        assert job.finish() == 128 + signum
        assert job.all_gone()
        done = job.steps()
    assert job.last_line().startswith("stopped after epoch 1, step ")
    (folder,) = root.glob("imagenet-*")  # nothing was started after it
    state = torch.load(folder / "checkpoint.pth.tar", weights_only=True)
    assert 3 * state["epoch"] + state["step"] == done


def test_table4_reads_mmdetections_logs(tmp_path, capsys):
    for root, ap in ((tmp_path, 0.39), (tmp_path / "second", 0.4)):
        write_detector(root / "faster-rcnn_r50-simam_fpn_1x_coco", ap)
    second = tmp_path / "second" / "faster-rcnn_r50-simam_fpn_1x_coco"
    assert run("table4", second, "--ckpt", tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 18 + 1
    ours = "| 39.50 ± 0.71 | 2 | 39.20 | +0.30 | 39.5 49.5 59.5 69.5 79.5 89.5 "
    paper = "| 39.2 60.7 42.8 22.8 43.0 50.6 |"
    assert f"| faster-rcnn_r50 | bbox | simam {ours}{paper}" in lines
    assert sum("not run" in line for line in lines) == 17
    assert (tmp_path / "table4.png").read_bytes().startswith(PNG)
    assert run("table4", tmp_path / "second", "--ckpt", tmp_path) == 2
    assert "second holds no mmdetection log" in capsys.readouterr().err


# in the place of mmdetection's train.py: says what it was given, and logs as mmdetection does
TRAIN = """
import json, os, pathlib, sys
work_dir = pathlib.Path(sys.argv[sys.argv.index("--work-dir") + 1])
if os.environ["RANK"] == "0":
    print("trains", os.environ["WORLD_SIZE"], *sys.argv[1:], flush=True)
    log = work_dir / "1" / "vis_data" / "scalars.json"
    log.parent.mkdir(parents=True)
    names = "mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l"
    kinds = ("bbox", "segm") if "mask" in work_dir.name else ("bbox",)
    entry = {f"coco/{kind}_{name}": 0.25 for kind in kinds for name in names}
    log.write_text(json.dumps(entry | {"step": 12}))
"""


def test_table4_run_starts_what_is_missing(tmp_path, monkeypatch, capfd):
    tools = tmp_path / "mmdet" / ".mim" / "tools"
    tools.mkdir(parents=True)
    (tmp_path / "mmdet" / "__init__.py").touch()
    (tools / "train.py").write_text(TRAIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    root = tmp_path / "work_dirs"
    for detector in ("faster-rcnn_r50", "mask-rcnn_r50"):
        write_detector(root / f"{detector}-simam_fpn_1x_coco", 0.39)
    assert run("table4", "--run", "--ckpt", root) == 0
    out = capfd.readouterr().out
    assert "--run trains the rows with SimAM; 2 missing" in out
    started = [line for line in out.splitlines() if line.startswith("trains ")]
    configs = ROOT / "mmdetection" / "configs"
    assert started == [
        f"trains 4 {configs}/{kind}_rcnn/{kind}-rcnn_r101-simam_fpn_1x_coco.py --launcher pytorch "
        f"--work-dir {root}/{kind}-rcnn_r101-simam_fpn_1x_coco --resume"
        for kind in ("faster", "mask")
    ]
    assert "| mask-rcnn_r101 | segm | simam | 25.00 | 1 | 37.60 |" in out
    assert "| faster-rcnn_r50 | bbox | simam | 39.00 | 1 | 39.20 |" in out
    assert "| faster-rcnn_r101 | bbox | none | not run | 0 | 39.60 |" in out
    assert run("table4", "--run", "--ckpt", root) == 0  # again: nothing is missing
    assert "trains " not in capfd.readouterr().out.replace("--run trains", "")


@pytest.mark.skipif(find_spec("mmdet") is not None, reason="mmdetection is here")
def test_table4_run_needs_mmdetection(tmp_path, capsys):
    assert run("table4", "--run", "--ckpt", tmp_path) == 2
    error = capsys.readouterr().err
    assert "--run needs mmdetection" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["table5"], "invalid choice: 'table5'"),
        (["table2", "--archs", "resnet18"], "--archs resnet18 is not in the paper's table"),
        (["table2", "--attentions", "srm"], "--attentions srm is not in the paper's table"),
        (["table2", "--run", "--root", "nowhere"], "nowhere does not hold cifar10"),
        (["table3", "--archs", "resnet19"], "--archs resnet19 is not in the paper's table"),
    ],
)
def test_mistakes_are_one_line(words, said, tmp_path, capsys):
    more = ["--ckpt", tmp_path] if words != ["table5"] else []
    assert run(*words, *more) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
