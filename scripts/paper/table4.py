"""Table 4: COCO, average precision from mmdetection's logs."""

import argparse
import importlib.util
import os
import re
import sys
from dataclasses import astuple, dataclass
from operator import attrgetter
from pathlib import Path
from statistics import mean

from scripts.paper.common import REPOSITORY, folders, run_in_turn
from utils.disk import read_entries
from utils.errors import UsageError
from utils.report import tables
from utils.report.paper import TABLE4, AveragePrecision

GPUS = 4
DETECTOR = re.compile(r"((?:faster|mask)-rcnn_r\d+)(?:-(\w+))?_fpn_1x_coco$")
SCHEDULE_1X = 12  # epochs
FIGURES = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")

Key = tuple[str, str, str]  # of TABLE4
Found = dict[Key, list[AveragePrecision]]


@dataclass(frozen=True, kw_only=True)
class Row(tables.Comparison):
    """A detector's AP, and all figures of ours, means over the runs, and theirs."""

    detector: str
    metric: str
    attention: str
    ours: AveragePrecision | None
    theirs: AveragePrecision


COLUMNS = {
    **{name: attrgetter(name) for name in ("detector", "metric", "attention")},
    "AP": tables.COMPARISON["ours"],
    **{name: tables.COMPARISON[name] for name in ("runs", "paper", "difference")},
    "AP, 50, 75, S, M, L": lambda row: figures(row.ours) if row.ours else tables.NOT_RUN,
    "paper's": lambda row: figures(row.theirs),
}


def figures(precision: AveragePrecision) -> str:
    return " ".join(f"{value:.1f}" for value in astuple(precision))


def read_work_dir(folder: str) -> dict[Key, AveragePrecision]:
    """What mmdetection 3 logged after the last epoch in a work folder.

    The work folder is named after its config, as mmdetection does it; empty for other folders,
    and where the 12 epochs are not complete.
    """
    named = DETECTOR.match(Path(folder).resolve().name)
    if not named:
        return {}
    detector, attention = named[1], named[2] or "none"
    found = {}
    for log in sorted(Path(folder).rglob("vis_data/*.json")):
        for entry in read_entries(log):
            for metric in ("bbox", "segm") if entry.get("step") == SCHEDULE_1X else ():
                values = [entry.get(f"coco/{metric}_{name}") for name in FIGURES]
                if None not in values:
                    percent = AveragePrecision(*(100 * value for value in values))
                    found[detector, metric, attention] = percent
    return found


def collect(args: argparse.Namespace) -> Found:
    """The figures of every finished run in ROOT and in the folders given."""
    found = {}
    for path in folders(args.ckpt, "*_fpn_1x_coco", args.paths):
        precisions = read_work_dir(path)
        if path in args.paths and not precisions:
            raise UsageError(
                f"{path} holds no mmdetection log of a whole training; it must be named after its "
                "config, such as faster-rcnn_r50-simam_fpn_1x_coco"
            )
        for key, precision in precisions.items():
            found.setdefault(key, []).append(precision)
    return found


def train_missing(args: argparse.Namespace) -> int:
    """Train the detectors that have no finished run; returns the first exit code that is not 0.

    Raises UsageError without mmdetection."""
    spec = importlib.util.find_spec("mmdet")
    if not spec:
        raise UsageError(
            f"--run needs mmdetection, which {sys.executable} does not have; "
            "bash scripts/setup_mmdet.sh makes an environment with it, see mmdetection/README.md"
        )
    found = collect(args)
    package = Path(spec.origin).parent
    inside = package / ".mim"  # where pip put a copy of what lies beside the package
    tool = (inside if inside.is_dir() else package.parent) / "tools" / "train.py"
    launch = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={GPUS}", str(tool)]
    commands = []
    for config in sorted((REPOSITORY / "mmdetection" / "configs").glob("*/*_fpn_1x_coco.py")):
        named = DETECTOR.match(config.stem)
        if named and (named[1], "bbox", named[2]) not in found:
            work_dir = os.path.join(args.ckpt, config.stem)
            options = ["--launcher", "pytorch", "--work-dir", work_dir, "--resume"]
            commands.append([*launch, str(config), *options])
    print(f"--run trains the missing rows: {len(commands)} detectors", flush=True)
    search = filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])
    return run_in_turn(commands, {**os.environ, "PYTHONPATH": os.pathsep.join(search)})


def row_of(key: Key, runs: list[AveragePrecision]) -> Row:
    detector, metric, attention = key
    return Row(
        detector=detector,
        metric=metric,
        attention=attention,
        **vars(tables.compare([run.ap for run in runs], TABLE4[key].ap)),
        ours=AveragePrecision(*map(mean, zip(*map(astuple, runs), strict=True))) if runs else None,
        theirs=TABLE4[key],
    )


def compared(args: argparse.Namespace) -> tuple[dict, list[Row]]:
    """What the table is about, and its rows, ours beside the paper's."""
    found = collect(args)
    rows = [row_of(key, found.get(key, [])) for key in TABLE4]
    return {"table": "4", "unit": "AP, %"}, rows
