"""The commands themselves, on a small made folder of JPEGs: a row for each claim.

python -m scripts.gpu_report.checks DEVICE FOLDER JSON [NAME...]
"""

import copy
import io
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import main_imagenet
from scripts.bench.common import Report
from scripts.gpu_report.runner import ROOT
from utils.config import Network
from utils.errors import reason
from utils.processes.dist import Dist

IMAGES = {"train": 24, "val": 4}  # of each of two classes
SMALL = {
    "cuda": "--gpu 0 -a resnet18 --image-size 64 -j 2",
    "cpu": "--gpu -1 -a cifar_resnet20 --image-size 32 -j 0",
}
LEFT = 300 * 2**20  # bytes of a GPU that is full but for them


def make_images(folder: Path, count: int, size: tuple[int, int]) -> None:
    """`count` JPEGs of smooth noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(count)
    for number in range(count):
        noise = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        noise.resize(size, Image.Resampling.BICUBIC).save(folder / f"{number:04}.jpg")


@dataclass
class Trial:
    """Where the checks run: on `device`, in `folder`."""

    device: str
    folder: Path

    @cached_property
    def data(self) -> Path:
        data = self.folder / "data"
        for split, count in IMAGES.items():
            for name in ("cat", "dog"):
                make_images(data / split / name, count, (90, 70))
        return data

    def words(self, name: str, *more: str) -> list[str]:
        """Of a training in a run folder under `name`; of options given twice the last counts."""
        words = f"{self.data} --ckpt {self.folder / name} -b 8 --epochs 2 --lr 0.01 -p 1 "
        words += f"--attention-type simam --attention-param 0.1 {SMALL[self.device]}"
        return [*words.split(), *more]

    def run(self, name: str, *more: str) -> tuple[int, str, str]:
        """Exit code, output and errors of the command, in this process."""
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            try:
                code = main_imagenet.main(self.words(name, *more))
            except SystemExit as end:  # of options that it does not know
                code = end.code
        return code, out.getvalue(), err.getvalue()

    def start(self, name: str, *more: str, errors: int = subprocess.PIPE) -> subprocess.Popen:
        """The command in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "main_imagenet.py", *self.words(name, *more)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
        )

    def file(self, name: str, file: str) -> Path:
        (folder,) = (self.folder / name).iterdir()
        return folder / file

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        path = self.file(name, "checkpoint.pth.tar")
        return torch.load(path, weights_only=True, map_location="cpu")["state_dict"]

    @cached_property
    def whole(self) -> str:
        """The output of a training from beginning to end; it is called so."""
        code, out, err = self.run("whole", "--seed", "3")
        expect(code == 0, err)
        return out


def expect(true: bool, otherwise: str) -> None:
    """Raise an AssertionError that says what was found `otherwise`."""
    if not true:
        raise AssertionError(" ".join(otherwise.split())[-500:] or "nothing was said")


def accuracies(said: str) -> list[str]:
    return re.findall(r"^ \* Acc@1 .*$", said, re.MULTILINE)


def resume(trial: Trial) -> str:
    """--seed, SIGTERM, --resume auto: the weights of a run that nobody stopped, bit for bit"""
    trial.whole  # noqa: B018
    with trial.start("stopped", "--seed", "3") as process:
        for line in process.stdout:
            if re.match(r"Epoch 1/2 \[ *2/", line):
                process.terminate()
        expect(process.wait() == 128 + signal.SIGTERM, process.stderr.read())
    code, _, err = trial.run("stopped", "--seed", "3", "--resume", "auto")
    expect(code == 0, err)
    one, other = trial.weights("whole"), trial.weights("stopped")
    differ = [key for key in one if not torch.equal(one[key], other[key])]
    expect(not differ, f"{len(differ)} of {len(one)} tensors differ, {differ[:1]}")
    return f"{len(one)} tensors equal"


def evaluate(trial: Trial) -> str:
    """-e ends with the accuracy that the training's last epoch ended with"""
    expected = accuracies(trial.whole)[-1]
    checkpoint = str(trial.file("whole", "checkpoint.pth.tar"))
    code, out, err = trial.run("whole", "-e", "--resume", checkpoint)
    expect(code == 0 and accuracies(out) == [expected], f"{out} {err}")
    return expected.strip(" *")


def precision(trial: Trial) -> str:
    """--amp bf16 and fp16 train"""
    found = []
    for amp in ("bf16", "fp16"):
        code, _, err = trial.run(amp, "--amp", amp, "--epochs", "1")
        expect(code == 0, err)
        (line,) = trial.file(amp, "metrics.jsonl").read_text().splitlines()
        found.append(f"{amp}: loss {json.loads(line)['train_loss']:.3f}")
    return ", ".join(found)


def memory(trial: Trial) -> str:
    """too little memory is one line, exit code 2"""
    code, _, err = trial.run("large", "--synthetic", "--image-size", "10000000")
    expect(code == 2 and err.count("\n") == 1 and "out of memory on the" in err, err)
    return err.strip()


def group(trial: Trial) -> str:
    """DistributedDataParallel with NCCL (of one rank) makes the network's own gradients"""
    cuda = trial.device == "cuda"
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        store=torch.distributed.HashStore(),
        rank=0,
        world_size=1,
    )
    try:
        # as of two processes, of which the group is one
        dist = Dist(0, 2, torch.device(trial.device))
        alone = dist.place(Network(arch="cifar_resnet20", attention="simam").build())
        wrapped = dist.wrap(copy.deepcopy(alone))
        images = torch.randn(8, 3, 32, 32, device=trial.device)
        for model in (alone, wrapped):
            for _ in range(2):  # the second with the buckets in the order of the first
                model.zero_grad()
                model(images).square().mean().backward()
        pairs = zip(alone.parameters(), wrapped.parameters(), strict=True)
        apart = max((one.grad - other.grad).abs().max().item() for one, other in pairs)
    finally:
        torch.distributed.destroy_process_group()
    expect(apart < 1e-3, f"gradients differ by {apart:g}")
    return f"gradients differ by {apart:.1g}"


def processes(trial: Trial) -> str:
    """two processes train, with DistributedDataParallel over gloo (on a GPU: and --sync-bn)"""
    two = "--gpu 0,0 --dist-backend gloo --sync-bn" if trial.device == "cuda" else "--gpu=-1,-1"
    with trial.start("two", *two.split(), "--epochs", "1") as process:
        out, err = process.communicate()
    expect(process.returncode == 0 and "2 processes" in out, f"{out} {err}")
    return accuracies(out)[-1].strip(" *")


def compiled(trial: Trial) -> str:
    """--compile compiles ahead of the first step, and never again"""
    os.environ["TORCH_LOGS"] = "recompiles"
    with trial.start("compiled", "--compile", errors=subprocess.STDOUT) as process:
        said, _ = process.communicate()
    expect(process.returncode == 0, said)
    _, line, after = re.split(r"^(compiled +in .*)$", said, maxsplit=1, flags=re.MULTILINE)
    again = after.count("Recompiling function")
    expect(not again, f"{again} recompilations after it was {line}")
    return f"{line}; none after"


def full(trial: Trial) -> str:
    """a start on a GPU that is full is one line, exit code 2"""
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(max(free - LEFT, 0), dtype=torch.uint8, device="cuda")
    with trial.start("full", "-b", "16") as process:
        _, err = process.communicate()
    del held
    expect(process.returncode == 2 and err.count("\n") == 1 and "out of memory" in err, err)
    return err.strip()


CHECKS = {
    check.__name__: check
    for check in (resume, evaluate, precision, memory, group, processes, compiled, full)
}


def main(device: str, folder: str, path: str, *names: str) -> int:
    Path(folder).mkdir(parents=True)
    trial, report = Trial(device, Path(folder)), Report({"device": device}, path)
    for name in names:
        check = CHECKS[name]
        row = {"claim": check.__doc__, "passed": True}
        try:
            measured = check(trial)
        except Exception as error:
            row["passed"], measured = False, reason(error)
        report.add("checks", [row | {"measured": measured}])
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
