"""Made files, given to what reads them: each is read, or refused in one line, and nothing else.

    python tests/fuzz.py checkpoints|images|archives --seed S --seconds N [--first N] [--files N]

File number N is made of small real ones by (seed, N) alone, in a process that may take 60 seconds
and 2 GB more than at its start. Nothing in it is run, nothing is written but what the command is
for, and no escape sequence reaches the terminal. The first file that breaks a rule ends it all,
with exit code 1 and words on how it was made.
"""

import argparse
import contextlib
import io
import mmap
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Protocol

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ["OMP_NUM_THREADS"] = "1"

from fuzzed.archives import Archives
from fuzzed.checkpoints import Checkpoints
from fuzzed.images import Images

AT_ONCE = 50  # files that a process reads
MEMORY, SECONDS = 2**31, 60


class Kind(Protocol):
    """Small real files, made once, and what becomes of them."""

    def make(self, draw: Random, place: Path) -> str:
        """Make a file in the folder `place`; returns how."""

    def read(self, draw: Random, place: Path) -> int:
        """Read it by a command, writing to `place`/out alone; returns the exit code.

        Raises AssertionError where a rule of its own is broken.
        """


KINDS = {"checkpoints": Checkpoints, "images": Images, "archives": Archives}


def files_in(folder: Path) -> set[tuple[Path, int]]:
    return {(each, each.lstat().st_size) for each in folder.rglob("*") if "out" not in each.parts}


def text(said: io.TextIOWrapper) -> str:
    said.flush()
    return said.buffer.getvalue().decode()


def one(kind: Kind, folder: Path, draw: Random) -> None:
    """Make a file and read it; raises what breaks a rule, with a note of how it was made."""
    place = folder / "place"
    shutil.rmtree(place, ignore_errors=True)
    (place / "out").mkdir(parents=True)
    how, said = kind.make(draw, place), io.TextIOWrapper(io.BytesIO(), "utf-8")
    before = files_in(folder)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = kind.read(draw, place)
        lines = text(said).splitlines()
        assert code in (0, 1) or (code == 2 and sum(li.startswith("error: ") for li in lines) == 1)
        assert not any("\x1b" in line or "Traceback" in line or len(line) > 5000 for line in lines)
        assert files_in(folder) == before
    except BaseException as error:
        error.args = (*error.args, how, text(said)[-3000:])
        raise


def read_all(kind: Kind, folder: Path, seed: int, numbers: Iterable[int], at: mmap.mmap) -> int:
    """What the process does; returns its exit code. at: where it says which file it is at."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # for what libtiff says
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    for number in numbers:
        at[:8] = number.to_bytes(8, "big")
        signal.alarm(SECONDS)
        try:
            one(kind, folder, Random(f"{seed} {number}"))
        except BaseException:
            traceback.print_exc(file=sys.stdout)
            sys.stdout.flush()
            return 1
    return 0


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--files", type=int, default=10**9)
    return parser.parse_args(argv)


def main() -> int:
    args = parse_args()
    at = mmap.mmap(-1, 8)
    with tempfile.TemporaryDirectory() as name:
        kind, end, done = KINDS[args.kind](Path(name, "real")), time.monotonic() + args.seconds, 0
        while done < args.files and time.monotonic() < end:
            first = args.first + done
            count = min(AT_ONCE, args.files - done)
            child = os.fork()
            if not child:
                numbers = range(first, first + count)
                os._exit(read_all(kind, Path(name), args.seed, numbers, at))
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if code:
                number = int.from_bytes(at[:8], "big")
                print(f"{args.kind}, seed {args.seed}, file {number}: exit code {code}")
                return 1
            done += count
    print(f"{done} {args.kind} with seed {args.seed}: each read, or refused in one line")
    return 0


if __name__ == "__main__":
    sys.exit(main())
