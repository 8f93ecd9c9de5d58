"""Table 4: COCO, average precision from mmdetection's logs."""

import argparse
import glob
import importlib.util
import operator
import os
import sys
from pathlib import Path

from scripts.paper import of_checkout, run_in_turn
from utils.errors import UsageError
from utils.report import tables
from utils.report.paper import TABLE4, AveragePrecision
from utils.report.finished_runs import read_detector

GPUS = 4

Key = tuple[str, str, str]  # of TABLE4


def collect(args: argparse.Namespace) -> dict[Key, list[list[float]]]:
    """The six figures of every finished run in ROOT and in the folders given."""
    found: dict[Key, list[list[float]]] = {}
    in_root = sorted(glob.glob(f"{glob.escape(args.ckpt)}/*_fpn_1x_coco"))
    for path in {os.path.realpath(path): path for path in [*in_root, *args.paths]}.values():
        values = read_detector(path)
        if path in args.paths and not values:
            raise UsageError(
                f"{path} holds no mmdetection log of a whole training; it must be named after its "
                "config, such as faster-rcnn_r50-simam_fpn_1x_coco"
            )
        for key, each in values.items():
            found.setdefault(key, []).append(each)
    return found


def train_missing(args: argparse.Namespace, found: dict[Key, list[list[float]]]) -> int:
    """Train the detectors with SimAM that have no finished run, and no others; returns the first
    exit code that is not 0. Raises UsageError without mmdetection."""
    spec = importlib.util.find_spec("mmdet")
    if not spec:
        raise UsageError(
            f"--run needs mmdetection, which {sys.executable} does not have; "
            "bash scripts/setup_mmdet.sh makes an environment with it, see mmdetection/README.md"
        )
    configs = of_checkout("mmdetection/configs")
    tool = Path(spec.origin).parent / ".mim" / "tools" / "train.py"
    commands = []
    for detector in dict.fromkeys(key[0] for key in TABLE4):
        if (detector, "bbox", "simam") in found:
            continue
        (config,) = configs.glob(f"*/{detector}-simam_fpn_1x_coco.py")
        work_dir = os.path.join(args.ckpt, config.stem)
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={GPUS}"]
        command += [str(tool), str(config), "--launcher", "pytorch"]
        commands.append([*command, "--work-dir", work_dir, "--resume"])
    print(f"--run trains the rows with SimAM; {len(commands)} missing", flush=True)
    path = os.pathsep.join(filter(None, [str(configs.parents[1]), os.environ.get("PYTHONPATH")]))
    return run_in_turn(commands, {**os.environ, "PYTHONPATH": path})


def figures(values: tuple[float, ...] | list[float] | None) -> str:
    return tables.NOT_RUN if values is None else " ".join(f"{value:.1f}" for value in values)


def table4(args: argparse.Namespace, stem: str) -> int:
    found = collect(args)
    if args.run:
        code = train_missing(args, found)
        if code:
            return code
        found = collect(args)
    rows = []
    for key, paper in TABLE4.items():
        runs = found.get(key, [])
        means = [sum(values) / len(runs) for values in zip(*runs, strict=True)] or None
        rows.append(
            {
                "detector": key[0],
                "metric": key[1],
                "attention": key[2],
                **tables.compare([values[0] for values in runs], paper.ap),
                "means": dict(zip(AveragePrecision._fields, means, strict=True)) if means else None,
                "paper_means": paper._asdict(),
            }
        )
    columns = {
        **{name: operator.itemgetter(name) for name in ("detector", "metric", "attention")},
        "AP": tables.COMPARISON["ours"],
        **{name: tables.COMPARISON[name] for name in ("runs", "paper", "difference")},
        "AP, 50, 75, S, M, L": lambda row: figures(row["means"] and list(row["means"].values())),
        "paper's": lambda row: figures(list(row["paper_means"].values())),
    }
    panels = {
        f"COCO, AP of {metric}": (
            [row for row in rows if row["metric"] == metric],
            "detector",
            "attention",
        )
        for metric in ("bbox", "segm")
    }
    tables.conclude(stem, rows, columns, {"table": "4", "unit": "AP, %"}, panels)
    return 0
