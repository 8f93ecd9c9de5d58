"""The run whose files lie here, see README.md; and how they were made."""

import json
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from runs import SignalAtForward
from tiny import Tiny

import main_imagenet
from networks import MODELS

HERE = Path(__file__).parent
FOLDER = "imagenet-tiny-simam-param0.1-seed1"
OPTIONS = (
    "--gpu -1 -j 0 --image-backend pil --image-size 32 -b 6 -p 2 --epochs 3 --seed 1 --lr 0.05 "
    "-a tiny --attention-type simam --attention-param 0.1 --ema 0.5"
)
# one counts FLOPs, four train, two evaluate; then the second of the second epoch
STOP_AT = 9


def write_images(folder: Path) -> None:
    """Three classes, 24 training and 6 validation images, always the same: a tint in noise."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for channel, name in enumerate(("red", "green", "blue")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 230, (40, 48, 3), dtype=np.uint8)
                pixels[:, :, channel] += 25
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")


def run(data: Path, root: Path, *more: str) -> int:
    return main_imagenet.main([str(data), *OPTIONS.split(), "--ckpt", str(root), *more])


def metrics(root: Path) -> list[dict]:
    """What the run in `root` logged of each epoch, but for its speed."""
    lines = (root / FOLDER / "metrics.jsonl").read_text().splitlines()
    timing = {"images_per_s", "seconds"}
    return [{k: v for k, v in json.loads(line).items() if k not in timing} for line in lines]


def make() -> None:
    MODELS["tiny"] = Tiny
    with tempfile.TemporaryDirectory() as name:
        data, whole, stopped = (Path(name, part) for part in ("data", "whole", "stopped"))
        write_images(data)
        assert run(data, whole) == 0
        final = torch.load(whole / FOLDER / "checkpoint.pth.tar", weights_only=True)
        kept = {key: final[key] for key in ("state_dict", "state_dict_ema", "best_acc1")}
        torch.save({**kept, "metrics": metrics(whole)}, HERE / "final.pth.tar")
        with SignalAtForward(Tiny, STOP_AT, signal.SIGTERM):
            assert run(data, stopped) == 128 + signal.SIGTERM
        shutil.copy(stopped / FOLDER / "checkpoint.pth.tar", HERE)


if __name__ == "__main__":
    make()
