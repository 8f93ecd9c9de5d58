"""Everything that only a CUDA GPU can show, in one command that ends in time.

    bash scripts/gpu_report.sh FOLDER [--cifar FOLDER_OR_ARCHIVE] [--seconds 540]

Tests and commands, then speed, then the paper's Table 2 on CIFAR for the rest of the time, then the
kernels' traffic where ncu is there. FOLDER gets report.json and report.txt, which are whole after
every step, and last page.md: each claim of the READMEs, what was measured, and whether it holds.
Runs of Table 2 that FOLDER holds (*.tar) go on. It needs torch, torchvision, triton, and for the
tests pytest with xdist; it installs nothing and uses no network. Exit code: 0 where every claim
holds, 1 where one does not, 2 where it could not start.
"""

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

from scripts.bench.common import describe
from scripts.gpu_report.claims import page
from scripts.gpu_report.runner import Findings, run_together
from scripts.gpu_report.runs import keep_runs, take_up_runs
from scripts.gpu_report.steps import Place, longest, plan
from utils.cli import Parser, number
from utils.errors import UsageError
from utils.processes.ending import exit_code

NEEDED = ("torchvision", "triton", "tensorboard", "tqdm", "safetensors")
# the limits are those of a machine with a GPU and 16 free cores
PATIENCE = {"cuda": 1, "cpu": 10}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="where the report is written")
    add("--cifar", metavar="FOLDER_OR_ARCHIVE", help="CIFAR-10 as train/<class>/, val/<class>/")
    add("--seconds", type=number(int, 60), default=540, help="when it ends, at the latest")
    # the same in its smallest form, for the tests
    add("--device", choices=("cuda", "cpu"), default="cuda", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> None:
    """Raise UsageError where the report can't be made."""
    missing = [name for name in NEEDED if not importlib.util.find_spec(name)]
    if missing:
        raise UsageError(f"{', '.join(missing)} not installed for {sys.executable}")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"torch {torch.__version__} sees no CUDA device; run this on a machine with a GPU"
        )
    if args.cifar and not os.path.exists(args.cifar):
        raise UsageError(f"--cifar {args.cifar} does not exist")


def report(args: argparse.Namespace) -> int:
    end = time.monotonic() + args.seconds
    check(args)
    folder = Path(args.folder)
    folder.mkdir(parents=True, exist_ok=True)
    findings = Findings(folder, describe(args.device))
    with tempfile.TemporaryDirectory() as work:
        place = Place(args.device, Path(work), args.cifar)
        take_up_runs(folder, place.runs)
        patience = PATIENCE[args.device]
        groups = [
            [step._replace(seconds=patience * step.seconds) for step in group]
            for group in plan(place)
        ]
        for done, group in enumerate(groups, 1):
            later = sum(map(longest, groups[done:]))
            findings.take(run_together(group, Path(work), end - later))
        keep_runs(place.runs, folder)
    text, passed = page(findings.content)
    (folder / "page.md").write_text(text)
    print(text)
    return 0 if passed else 1


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: report(args))


if __name__ == "__main__":
    sys.exit(main())
