"""Train torchvision's detectors with our networks, on images in COCO's format.

    python scripts/train_detection.py COCO -a resnet50 --attention-type simam \\
        --attention-param 0.1 --weights simam-resnet50.pth --detector mask_rcnn --gpu 0,1,2,3
    python scripts/train_detection.py COCO -a resnet50 --attention-type simam \\
        --attention-param 0.1 --detector mask_rcnn -e --resume CHECKPOINT --show-dir FOLDER

COCO holds train2017/, val2017/ and annotations/instances_{train,val}2017.json. The recipe is that
of torchvision's references: SGD with momentum 0.9 and weight decay 1e-4, 26 epochs, a tenth of the
learning rate from epochs 16 and 22 on, a warm-up of 1,000 steps, random flips; with --weights the
network's norms are frozen. After every epoch the validation images are evaluated. A signal ends it
after the step, saved; the same command with --resume auto goes on, on the CPU to the same weights
bit for bit.
"""

import argparse
import math
import os
import sys
import time
from dataclasses import asdict

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.cli import WORKERS, Parser, number
from utils.detection.options import Detector, Recipe
from utils.options import COUNT, add_fields, read_fields
from utils.processes.signals import end_when_asked

NEEDS_LESS = "a smaller -b or --min-size needs less"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("data", metavar="COCO", help="folder in COCO's format")
    add("-e", "--evaluate", action="store_true", help="evaluate --resume, train nothing")
    add("--resume", metavar="FILE", help="checkpoint to go on from; auto: the run folder's, if any")
    add("--show-dir", metavar="FOLDER", help="draw what is found on the validation images")
    add("-a", "--arch", default="resnet50", help="a ResNet or mobilenet_v2")
    add("--attention-type", default="none", help="a wrong name lists all")
    add("--attention-param", type=float, help="its setting; SimAM's lambda is 0.1 in the paper")
    add("--weights", metavar="FILE", help="the network's, trained on ImageNet")
    for kind in (Detector, Recipe):
        add_fields(parser.add_argument_group(kind.__name__.lower()), kind)
    add = parser.add_argument_group("machine").add_argument
    add("--gpu", help="such as 0,1,2,3; -1: the CPU; GPU 0, or else the CPU, by default")
    add("-j", "--workers", type=number(int, 0), default=WORKERS, help="that load images, on a node")
    add("--seed", type=number(int, 0), help="make the run reproducible")
    add("-p", "--print-freq", type=COUNT, default=10, help="steps between lines")
    add("--ckpt", metavar="ROOT", default="ckpts", help="where the run folder is made")
    add("--name", help="of the run folder; data, detector, network and seed, where not given")
    args = parser.parse_args(argv)
    if args.evaluate and not args.resume:
        parser.error("-e needs the checkpoint to evaluate: --resume FILE")
    return args


if __name__ == "__main__":
    end_when_asked()
    parse_args()  # --help and mistakes are answered before torch is imported

import torch

from utils.checkpoints import Checkpoint
from utils.checkpoints.formats import save_atomically
from utils.config import Machine, Optim, run_name
from utils.data.batches import TrainBatches
from utils.data.seed import choose_seed, mix_seed, seed_all
from utils.detection.average_precision import in_words
from utils.detection.detectors import make_detector, network_of
from utils.detection.evaluation import evaluate
from utils.detection.images import CocoImages
from utils.errors import UsageError
from utils.processes import dist as processes
from utils.processes.dist import Dist, devices_in_words
from utils.processes.ending import exit_code
from utils.processes.launch import launch, processes_to_start
from utils.processes.signals import Stopped, StopRequest
from utils.training.folder import LATEST, PREVIOUS, find_checkpoint
from utils.training.log import RunLog
from utils.training.optim import load_optimizer, make_optimizer


class Run:
    """A training of a detector, begun or gone on with, and all that its checkpoints hold.

    epoch, step: done, of the epoch. loss: the sum over its steps in this process.
    """

    def __init__(self, args: argparse.Namespace, dist: Dist, folder: str):
        self.args, self.dist, self.folder = args, dist, folder
        self.recipe, self.workers = read_fields(Recipe, args), dist.workers(args.workers)
        found = find_checkpoint(args.resume, folder, dist)
        said = found.checkpoint.content if found.checkpoint else {}
        self.seed = dist.from_main(lambda: choose_seed(args.seed, said))
        seed_all(self.seed, deterministic=args.seed is not None)
        has_masks = args.detector == "mask_rcnn"
        self.train_images = CocoImages(args.data, "train", has_masks, self.seed)
        self.val_images = CocoImages(args.data, "val", has_masks)
        batch_size = dist.batch_size(args.batch_size)
        self.batches = TrainBatches(
            len(self.train_images), batch_size, self.seed, dist.rank, dist.world
        )
        classes = self.train_images.num_classes
        self.model, notes = make_detector(args, classes, found.checkpoint)
        self.wrapped = dist.wrap(self.model)
        self.optimizer = make_optimizer(self.model, Optim(momentum=0.9, weight_decay=1e-4))
        self.epoch, self.step, self.loss = 0, 0, 0.0
        dist.check_same(self.facts)
        if found.checkpoint:
            self._go_on(found.checkpoint)
        self.log = RunLog(folder, not dist.is_main, self.epoch, vars(args), self.seen)
        self.log.lines([f"device      {devices_in_words(dist)}", *notes, *found.notes])
        self.log.line(
            f"data        {len(self.train_images)} training and {len(self.val_images)} validation "
            f"images, {len(self.train_images.categories)} categories, seed {self.seed}"
        )
        self.log.line(f"run folder  {folder}, epoch {self.epoch + 1}, step {self.step + 1}")

    @property
    def seen(self) -> int:
        """Training images until now."""
        return self.epoch * self.batches.used + self.batches.images_until(self.step)

    @property
    def facts(self) -> dict[str, int | float | str | None]:
        """What must be the same for a run to go on."""
        names = ("detector", "arch", "attention_type", "attention_param", "min_size", "max_size")
        return {name: getattr(self.args, name) for name in names} | {
            "seed": self.seed,
            "batch_size": self.batches.batch_size,
            "processes": self.dist.world,
            "images": len(self.train_images),
        }

    def _go_on(self, checkpoint: Checkpoint) -> None:
        said, kinds = checkpoint.content, {"epoch": int, "step": int, "loss": float}
        whole = said.keys() >= {*self.facts, *kinds, "optimizer"}
        if not whole or any(type(said[name]) is not kind for name, kind in kinds.items()):
            raise checkpoint.refusal("holds no training of a detector; -e evaluates it")
        for name, value in self.facts.items():
            if said[name] != value:
                raise checkpoint.refusal(f"was trained with {name} {said[name]}, not {value}")
        load_optimizer(self.optimizer, said["optimizer"], checkpoint.path)
        self.epoch, self.step = said["epoch"], said["step"]
        self.loss = said["loss"] if self.dist.is_main else 0.0

    def save(self) -> None:
        """Write all that the training goes on with; every process must call it."""
        total = self._summed_loss()
        if not self.dist.is_main:
            return
        content = {
            **self.facts,
            "categories": self.train_images.categories,
            "epoch": self.epoch,
            "step": self.step,
            "loss": total,
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        latest, previous = (os.path.join(self.folder, name) for name in (LATEST, PREVIOUS))
        try:
            save_atomically(content, latest, previous)
        except OSError as error:
            raise UsageError(f"can't save {latest}: {error}; the previous one stays") from None

    def train(self) -> None:
        """Train up to the last epoch, evaluating and saving after each; raises Stopped after a
        signal, saved, and UsageError for a loss that is not finite."""
        try:
            with StopRequest(torch.distributed.is_torchelastic_launched()) as self.stop:
                while self.epoch < self.recipe.epochs:
                    self._one_epoch()
        finally:
            self.log.close()

    def _one_epoch(self) -> None:
        started, steps, title = time.perf_counter(), len(self.batches), f"Epoch {self.epoch + 1}"
        self.batches.start(self.epoch, self.step)
        self.model.train()
        for images, targets in self.train_images.load(self.batches, self.workers):
            lr = self.recipe.lr_at(self.epoch, self.step, steps)
            loss = self._learn(images, targets, lr)
            self.step, self.loss = self.step + 1, self.loss + loss
            if not math.isfinite(loss):
                raise UsageError(
                    f"the loss is NaN or infinite in epoch {self.epoch + 1}, step {self.step} "
                    f"(learning rate {lr:g}); a smaller --lr may help"
                )
            if self.step % self.args.print_freq == 0 or self.step == steps:
                self.log.line(f"{title} [{self.step}/{steps}]  loss {loss:.4f}  lr {lr:.6g}")
            (signum,) = self.dist.largest(self.stop.signum)
            if signum:
                self.save()
                self.dist.wait()
                where = f"stopped after epoch {self.epoch + 1}, step {self.step} of {steps}"
                raise Stopped(signum, f"{where}; the same command with --resume auto goes on")
        self.save()  # the evaluation takes a while
        loss = self._summed_loss() / steps / self.dist.world
        lr = self.recipe.lr_at(self.epoch, steps - 1, steps)
        model = self.dist.for_evaluation(self.wrapped)
        found = evaluate(model, self.val_images, self.dist, self.workers, self.args.show_dir)
        metrics = {"epoch": self.epoch, "lr": lr, "train_loss": loss}
        for kind, figures in found.items():
            metrics |= {f"val_{kind}_{name}": value for name, value in asdict(figures).items()}
        self.log.metrics(metrics | {"seconds": time.perf_counter() - started}, self.seen)
        self.log.line(f"{title}/{self.recipe.epochs}  train loss {loss:.4f}")
        self.log.lines(map(in_words, found, found.values()))
        self.epoch, self.step, self.loss = self.epoch + 1, 0, 0.0
        self.save()

    def _learn(self, images, targets, lr: float) -> float:
        """One step; returns the loss."""
        device = self.dist.device
        # the detectors draw which of their proposals they learn from
        torch.manual_seed(mix_seed(self.seed, self.epoch, self.step, self.dist.rank))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        losses = self.wrapped(
            [image.to(device) / 255 for image in images],
            [{name: value.to(device) for name, value in each.items()} for each in targets],
        )
        loss = sum(losses.values())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def _summed_loss(self) -> float:
        return self.dist.sum(torch.tensor(self.loss, dtype=torch.float64)).item()


def evaluate_alone(args: argparse.Namespace, dist: Dist, folder: str) -> None:
    """Evaluate --resume on the validation images; writes no files but pictures."""
    path = os.path.join(folder, LATEST) if args.resume == "auto" else args.resume
    images = CocoImages(args.data, "val", args.detector == "mask_rcnn")
    model, notes = make_detector(args, images.num_classes, Checkpoint(path))
    found = evaluate(dist.place(model), images, dist, dist.workers(args.workers), args.show_dir)
    if dist.is_main:
        print(*notes, *map(in_words, found, found.values()), sep="\n")


def command(args: argparse.Namespace, argv: list[str]) -> int | None:
    """Do what `args`, which came from `argv`, ask for: in this process, or in several."""
    machine = Machine(gpu=args.gpu, seed=args.seed)
    count = processes_to_start(machine)
    if count:
        return launch([__file__, *argv], count)
    dist = processes.start(machine)
    if args.show_dir:
        os.makedirs(args.show_dir, exist_ok=True)
    dataset = f"{os.path.basename(os.path.abspath(args.data))}-{args.detector}"
    name = run_name(dataset, network_of(args), args.seed)
    folder = os.path.join(args.ckpt, args.name or name)
    if args.evaluate:
        return evaluate_alone(args, dist, folder)
    return Run(args, dist, folder).train()


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 2 for a mistake, 128 + signal when stopped."""
    args = parse_args(argv)
    return exit_code(lambda: command(args, sys.argv[1:] if argv is None else argv), NEEDS_LESS)


if __name__ == "__main__":
    sys.exit(main())
