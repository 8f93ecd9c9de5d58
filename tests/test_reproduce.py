"""The paper's tables from what was run, and running what is missing."""

import json
import signal
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from runs import SignalAtForward, assert_equal

from networks import create_model
from networks.cifar.resnet import CifarResNet
from scripts import reproduce, train_cifar
from scripts.paper_tables import table3
from utils.complexity import count_parameters
from utils.files import save_atomically
from utils.paper import TABLE3

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
    assert run("table2", "--ckpt", tmp_path) == 0
    said = capsys.readouterr()
    assert said.err.strip().endswith("seed2: it has 500 iterations, not 64,000")
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


def test_table3_has_runs_and_sizes_and_speed(tmp_path, capsys, quick_latency):
    settings = {"epochs": 2, "arch": "resnet18", "attention_type": "se"}
    for seed, best in ((1, 71.0), (2, 71.5)):
        write_run(tmp_path / f"imagenet-resnet18-se-seed{seed}", settings, [best, 70])
    elsewhere = tmp_path / "elsewhere"
    write_run(elsewhere, settings | {"attention_type": "none"}, [60, 70.5])
    words = ["table3", elsewhere, "--archs", "resnet18", "--device", "cpu"]
    assert run(*words, "--ckpt", tmp_path, "--out", tmp_path / "out") == 0
    table = rows(tmp_path / "out.json")
    assert list(table) == [key for key in TABLE3 if key[0] == "resnet18"]
    assert (table["resnet18", "se"]["mean"], table["resnet18", "se"]["runs"]) == (71.25, 2)
    assert table["resnet18", "none"]["difference"] == pytest.approx(70.5 - 70.33)
    assert "| resnet18 | cbam | not run | 0 | 71.24 |" in capsys.readouterr().out
    for key, row in table.items():
        assert row["params_m"] == pytest.approx(
            count_parameters(create_model(*key)) / 1e6, abs=1e-4
        )
        assert row["gflops"] == pytest.approx(TABLE3[key].gflops, abs=0.006)
        assert row["fps"] == pytest.approx(1000 / row["latency_ms"], rel=1e-3)


def test_table3_evaluates_checkpoints(digits, tmp_path, capsys, quick_latency):
    model = create_model("resnet18", "se", num_classes=3).eval()
    said = {"arch": "resnet18", "attention": "se", "attention_param": 16, "num_classes": 3}
    path = tmp_path / "se.pth.tar"
    save_atomically({**said, "state_dict": model.state_dict()}, str(path))
    words = ["table3", path, "--archs", "resnet18", "--device", "cpu", "--ckpt", tmp_path]
    assert run(*words) == 2
    assert f"{path} is no finished run; a checkpoint needs --data DATA" in capsys.readouterr().err
    assert run(*words, "--data", digits) == 0
    out = capsys.readouterr().out
    evaluated = next(line for line in out.splitlines() if line.startswith(f"| {path} "))
    row = rows(tmp_path / "table3.json")["resnet18", "se"]
    assert row["runs"] == 1
    assert f"| {row['mean']:.3f} | {row['top5']:.3f} |" in evaluated


def test_table3_run_passes_the_scripts_refusal_on(tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("DATA", raising=False)
    assert run("table3", "--run", "--archs", "resnet18", "--ckpt", tmp_path) == 2
    assert "DATA is not set" in capfd.readouterr().err


def test_table4_reads_mmdetections_logs(tmp_path, capsys):
    names = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
    for root, ap in ((tmp_path, 0.39), (tmp_path / "second", 0.4)):
        folder = root / "faster-rcnn_r50-simam_fpn_1x_coco" / "1" / "vis_data"
        folder.mkdir(parents=True)
        entry = {f"coco/bbox_{name}": ap + 0.1 * i for i, name in enumerate(names)}
        (folder / "scalars.json").write_text(json.dumps(entry | {"step": 12}))
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
