"""Table 3: ImageNet, accuracies beside parameters, FLOPs, and speed on this machine."""

import argparse
import functools
import glob
import json
import operator
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scripts.paper import of_checkout, run_in_turn
from utils.data.listing import IMAGENET_CLASSES, IMAGENET_IMAGES
from utils.errors import UsageError
from utils.report import tables
from utils.report.paper import TABLE3
from utils.report.results import read_run

LATENCY_ROUNDS = 15
PAPERS_LAMBDA = 0.1

Key = tuple[str, str]  # of TABLE3
Reached = dict[Key, list[tuple[float, float]]]  # top-1 and top-5 of each run


def difference(key: Key, has: Mapping[str, Any], of: str, more: Mapping[str, Any]) -> str | None:
    """Where what `has` says of a run or a checkpoint is not the paper's ImageNet row `key`.

    of: the training or validation images. more: what else it must have. None where all is equal.
    """
    from networks import default_param

    if key not in TABLE3:
        return "its network is not in the paper's Table 3"
    param = PAPERS_LAMBDA if key[1] == "simam" else default_param(key[1])
    wanted = {"num_classes": IMAGENET_CLASSES, "images": IMAGENET_IMAGES[of], "image_size": 224}
    for name, value in {**wanted, "attention_param": param, **more}.items():
        if has.get(name) != value:
            return f"its {name} is {has.get(name)}, not {value}"
    return None


def finished(args: argparse.Namespace, report: Callable[[str], None]) -> Reached:
    """The best epoch of each finished run in ROOT and in the folders given.

    report: called with a line for each run that was not trained as the paper's.
    """
    found: Reached = {}
    in_root = sorted(glob.glob(f"{glob.escape(args.ckpt)}/imagenet-*"))
    for path in {os.path.realpath(path): path for path in [*in_root, *args.paths]}.values():
        run = read_run(path)
        if not run:
            continue
        key = run.settings.get("arch"), run.settings.get("attention_type")
        epochs = 150 if key[0] == "mobilenet_v2" else 100
        why = difference(key, run.settings, "train", {"synthetic": False, "epochs": epochs})
        if why:
            report(f"passed over {path}: {why}")
            continue
        best = max(run.epochs, key=operator.itemgetter("val_acc1"))
        found.setdefault(key, []).append((best["val_acc1"], best["val_acc5"]))
    return found


def evaluated(args: argparse.Namespace) -> Reached:
    """What scripts/evaluate_all.py says of the paths that are no finished runs, on --data."""
    from scripts import evaluate_all

    checkpoints = [path for path in args.paths if not read_run(path)]
    if not checkpoints:
        return {}
    if not args.data:
        raise UsageError(f"{checkpoints[0]} is no finished run; a checkpoint needs --data DATA")
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "rows.json")
        gpu = ["--gpu", "-1"] if args.device == "cpu" else []
        if evaluate_all.main([args.data, *checkpoints, "--json", out, *gpu]):
            raise UsageError("not every checkpoint could be evaluated")
        rows = json.loads(Path(out).read_text())
    found: Reached = {}
    for row in rows:
        key = row["arch"], row["attention"]
        why = difference(key, row, "val", {})
        if why:
            say(f"passed over {row['file']}: {why}")
        else:
            found.setdefault(key, []).append((row["acc1"], row["acc5"]))
    return found


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def both(one: Reached, other: Reached) -> Reached:
    return {key: one.get(key, []) + other.get(key, []) for key in {**one, **other}}


def measure_latency(models: Mapping[str, Any], device: str) -> dict[str, float]:
    """Median milliseconds for one image, by name; the models take turns."""
    import torch

    from scripts.bench.common import race

    image = torch.zeros(1, 3, 224, 224, device=device)

    @torch.inference_mode()
    def call(model) -> None:
        model(image)
        if device == "cuda":
            torch.cuda.synchronize()

    ready = {name: model.to(device).eval() for name, model in models.items()}
    calls = {name: functools.partial(call, model) for name, model in ready.items()}
    times = race(calls, device, LATENCY_ROUNDS)
    return {name: 1e3 * statistics.median(each) for name, each in times.items()}


def train_missing(args: argparse.Namespace, keys: list[Key]) -> int:
    """Run scripts/train_imagenet.sh for `keys`; returns the first exit code that is not 0."""
    recipe = str(of_checkout("scripts/train_imagenet.sh"))
    more = "--resume", "auto", "--ckpt", args.ckpt
    commands = (["bash", recipe, *key, *more] for key in keys)
    data = {"DATA": args.data} if args.data else {}
    return run_in_turn(commands, {"PYTHON": sys.executable, **os.environ, **data})


def network_rows(arch: str, found: Reached, device: str):
    """The rows of one network, one for each attention."""
    from networks import create_model
    from utils.training.complexity import count_flops, count_parameters

    papers = {attention: row for (name, attention), row in TABLE3.items() if name == arch}
    models = {attention: create_model(arch, attention) for attention in papers}
    sizes = {name: (count_parameters(m) / 1e6, count_flops(m) / 1e9) for name, m in models.items()}
    latency = measure_latency(models, device)
    for attention, paper in papers.items():
        reached = found.get((arch, attention), [])
        top5 = [acc5 for _, acc5 in reached]
        yield {
            "arch": arch,
            "attention": attention,
            **tables.compare([acc1 for acc1, _ in reached], paper.acc1),
            "top5": statistics.mean(top5) if top5 else None,
            "paper_top5": paper.acc5,
            "params_m": round(sizes[attention][0], 4),
            "paper_params_m": paper.params_m,
            "gflops": round(sizes[attention][1], 4),
            "paper_gflops": paper.gflops,
            "latency_ms": round(latency[attention], 3),
            "fps": round(1e3 / latency[attention], 2),
            "paper_fps": paper.fps,
        }


COLUMNS = {
    "network": operator.itemgetter("arch"),
    "attention": operator.itemgetter("attention"),
    "top-1": tables.COMPARISON["ours"],
    **{name: tables.COMPARISON[name] for name in ("runs", "paper", "difference")},
    "top-5": lambda row: tables.spread(row["top5"], None),
    "paper's": lambda row: f"{row['paper_top5']:.2f}",
    "parameters (paper's), M": lambda row: f"{row['params_m']:.2f} ({row['paper_params_m']:.2f})",
    "FLOPs (paper's), G": lambda row: f"{row['gflops']:.2f} ({row['paper_gflops']:.2f})",
    "ms": lambda row: f"{row['latency_ms']:.1f}",
    "FPS (paper's, GTX 1080 Ti)": lambda row: f"{row['fps']:.0f} ({row['paper_fps']})",
}


def table3(args: argparse.Namespace, stem: str) -> int:
    import torch

    from scripts.bench.common import describe

    tables.known("--archs", args.archs, TABLE3, 0)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: this machine has no CUDA GPU; --device cpu measures here")
    from_checkpoints = evaluated(args)
    found = both(finished(args, say), from_checkpoints)
    if args.run:
        missing = [key for key in TABLE3 if key[0] in args.archs and key not in found]
        code = train_missing(args, missing)
        if code:
            return code
        found = both(finished(args, report=lambda line: None), from_checkpoints)
    rows = [row for arch in args.archs for row in network_rows(arch, found, device)]
    about = {"table": "3", "unit": "top-1 % of the best epoch", "speed on": describe(device)}
    print("speed, batch 1: " + ", ".join(f"{k} {v}" for k, v in about["speed on"].items()))
    panels = {"ImageNet, top-1": (rows, "arch", "attention")}
    tables.conclude(stem, rows, COLUMNS, about, panels)
    return 0
