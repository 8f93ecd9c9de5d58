"""The runs of Table 2, carried from one call of the report to the next as a few small files.

python -m scripts.gpu_report.runs ARCHIVE FOLDER    # CIFAR's, as FOLDER/train and FOLDER/val
"""

import re
import sys
import tarfile
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

KEPT = ("checkpoint.pth.tar", "metrics.jsonl", "args.json")


def network_of(run: Path) -> str:
    """Its folder's name without the seed."""
    return re.sub(r"-seed\d+$", "", run.name)


def keep_runs(runs: Path, folder: Path) -> None:
    """Write what the runs go on from to `folder`/NETWORK.tar, one for each network."""
    found: Iterable[Path] = sorted(runs.glob("*-seed*"), key=network_of)
    for name, some in groupby(found, network_of):
        with tarfile.open(folder / f"{name}.tar", "w") as archive:
            for file in (run / each for run in some for each in KEPT):
                if file.exists():
                    archive.add(file, file.relative_to(runs))


def take_up_runs(folder: Path, runs: Path) -> None:
    """Bring the runs that an earlier call kept in `folder` back."""
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as archive:
            archive.extractall(runs, filter="data")


def unpack(archive: str, folder: str) -> None:
    """Write what lies in the archive's only folder to `folder`."""

    def without_root(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
        inside = member.name.removeprefix("./").partition("/")[2]
        return tarfile.data_filter(member.replace(name=inside), path) if inside else None

    with tarfile.open(archive) as file:
        file.extractall(folder, filter=without_root)


if __name__ == "__main__":
    unpack(*sys.argv[1:])
