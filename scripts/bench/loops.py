"""The loops that are timed side by side: each trains, evaluates, and answers single images."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from scripts.bench.common import with_formula
from scripts.bench.costs import kept_for_backward
from scripts.bench.training import begin
from utils.config import Config, Network
from utils.data.listing import synthetic_listing
from utils.data.loader import eval_loader
from utils.data.preparation import IMAGENET
from utils.data.seed import seed_all
from utils.processes.dist import alone, choose_device
from utils.training.engine import evaluate, train_steps
from utils.training.metrics import Totals, correct_at

try:
    import timm
except ImportError:
    timm = None

# evaluation first: it is timed as in a process that only evaluates, with no training's memory
TASKS = {"evaluate": "evaluation", "answer": "one image", "train": "training"}
# what fills the device without taking minutes
BATCH = {"cpu": 16, "cuda": 256}
ANSWERS = 5  # images of a turn that are answered one after another
RENAMED = {"mobilenet_v2": "mobilenetv2_100"}  # by timm


class Published:
    """The published loops: float32, contiguous, and a wait for the device in every step."""

    def __init__(self, config: Config, steps: int = 1):
        seed_all(0, deterministic=False)
        device, data, optim = choose_device(config.machine.gpu), config.data, config.optim
        self.net = self.build(config.network).to(device)
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), optim.lr, optim.momentum, weight_decay=optim.weight_decay
        )
        shape = data.batch_size, 3, data.image_size, data.image_size
        images = torch.randn(shape, device=device)
        targets = torch.randint(config.network.num_classes, shape[:1], device=device)
        self.batches, self.image = [(images, targets)] * steps, images[:1]

    def build(self, network: Network) -> nn.Module:
        return with_formula(network.build())

    def train(self) -> None:
        self.net.train()
        for images, targets in self.batches:
            logits = self.net(images)
            loss = F.cross_entropy(logits, targets)
            show(loss, logits, targets)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    @torch.no_grad()
    def evaluate(self) -> None:
        self.net.eval()
        for images, targets in self.batches:
            logits = self.net(images)
            show(F.cross_entropy(logits, targets), logits, targets)

    def answer(self) -> None:
        answer(self.net, self.image)


class Timm(Published):
    """timm's network, which has no attention, in the published loops."""

    @staticmethod
    def name_of(arch: str) -> str | None:
        """What timm calls the network; None where it has none, or is not installed."""
        name = RENAMED.get(arch, arch)
        return name if timm and timm.is_model(name) else None

    def build(self, network: Network) -> nn.Module:
        return timm.create_model(self.name_of(network.arch), num_classes=network.num_classes)


class Ours:
    """What main_imagenet.py runs."""

    def __init__(self, config: Config, steps: int = 1):
        images = range(steps * config.data.batch_size)
        listing = synthetic_listing("train", config.network.num_classes)._replace(images=images)
        self.dist = alone(config.machine.gpu)
        self.learner, self.batches = begin(config, listing, self.dist)
        self.net, self.precision = self.learner.model, self.learner.precision
        prepared = IMAGENET.at(config.data.image_size), self.dist, self.precision.input_dtype
        self.val = eval_loader(listing, config.data, *prepared)
        self.image = next(iter(self.val))[0][:1]

    def train(self, after_step: Callable[[int], None] = lambda done: None) -> None:
        totals, lr = Totals.zero(self.dist.device), self.learner.optim.lr
        for done in train_steps(self.learner, self.batches, totals, lambda _step: lr):
            after_step(done)
        totals.means()  # as at the end of an epoch; it waits for the device

    def evaluate(self) -> None:
        evaluate(self.net, self.val, self.dist, self.precision)

    def answer(self) -> None:
        with self.precision.autocast():
            answer(self.net, self.image)

    def kept(self) -> int:
        """Bytes that autograd keeps of a training step of a batch, beside the weights."""
        images = next(iter(self.val))[0]
        with self.precision.autocast():
            return kept_for_backward(self.net.train(), images, self.net.parameters())


def show(loss: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor) -> None:
    """Read from the device what the published loops show of every step."""
    loss.item(), correct_at(logits, targets, 1).item(), correct_at(logits, targets, 5).item()


@torch.no_grad()
def answer(net: nn.Module, image: torch.Tensor) -> None:
    """The classes of ANSWERS images, one after another."""
    net.eval()
    for _ in range(ANSWERS):
        net(image).argmax().item()
