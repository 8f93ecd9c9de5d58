"""What a run is: plain frozen values, made of the command line once and handed on whole."""

import os
from argparse import Namespace
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from torch import nn

from networks import create_model, default_param

from .errors import UsageError


def default_of(attention: str) -> float | None:
    """The module's own parameter, see `default_param`; raises UsageError for an unknown name."""
    try:
        return default_param(attention)
    except ValueError as error:
        raise UsageError(str(error)) from None


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network as `create_model` takes it.

    attention_param: None becomes the module's own default. Raises UsageError for an unknown
    attention.
    """

    arch: str
    attention: str = "none"
    attention_param: float | None = None
    num_classes: int = 1000

    def __post_init__(self):
        default = default_of(self.attention)
        if self.attention_param is None:
            object.__setattr__(self, "attention_param", default)

    def build(self) -> nn.Module:
        """The network, freshly initialised; raises UsageError where there is no such."""
        try:
            return create_model(**asdict(self))
        except ValueError as error:
            raise UsageError(str(error)) from None

    @property
    def label(self) -> str:
        """In a few words, for a person: ARCH[ + ATTENTION[ PARAM]]."""
        if self.attention == "none":
            return self.arch
        param = "" if self.attention_param is None else f" {self.attention_param:g}"
        return f"{self.arch} + {self.attention}{param}"

    @property
    def options(self) -> str:
        """As the command line names it."""
        words = f"-a {self.arch} --attention-type {self.attention}"
        if self.attention_param is None:
            return words
        return f"{words} --attention-param {self.attention_param:g}"

    @property
    def slug(self) -> str:
        """As run folders name it: ARCH[-ATTENTION[-paramPARAM]]."""
        if self.attention == "none":
            return self.arch
        param = "" if self.attention_param is None else f"-param{self.attention_param:g}"
        return f"{self.arch}-{self.attention}{param}"


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which images, and how they become batches.

    root: folder with train/<class>/ and val/<class>/. image_size: in pixels a side; None, for an
    evaluation, as the checkpoint was trained. batch_size and workers count per node.
    image_backend: "turbo" or "pil"; None for turbo in training and pil in evaluation.
    auto_augment: see `TrainTransform`; mixup, cutmix: see `MixingLoader`. synthetic: random images.
    class_names: file with the names of a checkpoint's outputs. subset_outputs: evaluate over those
    outputs alone that there are class folders for.
    """

    root: str | None = None
    image_size: int | None = 224
    batch_size: int = 256
    workers: int = 4
    image_backend: str | None = None
    skip_bad_images: bool = False
    auto_augment: str | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    synthetic: bool = False
    class_names: str | None = None
    subset_outputs: bool = False


@dataclass(frozen=True, kw_only=True)
class Optim:
    """What a step does, and for how long; the defaults are the published ones.

    optimizer: "sgd" or "adamw". no_wd_norm_bias: no weight decay for norms and biases.
    accumulate: batches that make one update. clip_grad: largest norm of the gradient.
    label_smoothing: share of the target for all classes. ema: decay of a moving average of the
    weights. sched: "step", "cosine", or "iterations" for the paper's CIFAR schedule over so many,
    see `lr_at`.
    """

    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    no_wd_norm_bias: bool = False
    accumulate: int = 1
    clip_grad: float | None = None
    label_smoothing: float = 0.0
    ema: float | None = None
    epochs: int = 90
    sched: str = "step"
    warmup_epochs: int = 0
    iterations: int | None = None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a run computes and what it says; nothing here changes what is learnt, but rounding.

    gpu, parallel, dist_backend: see `utils.processes.dist.start`. amp: "none", "bf16" or "fp16".
    seed: None draws one. profile: steps to profile. print_freq: steps between lines.
    """

    gpu: str | None = None
    parallel: str = "ddp"
    dist_backend: str | None = None
    sync_bn: bool = False
    amp: str = "none"
    compile: bool = False
    seed: int | None = None
    profile: int | None = None
    print_freq: int = 10
    save_every_minutes: float | None = None


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run.

    dataset: what run folders call the data. folder: where it is kept; None keeps nothing.
    weights: a file to start from. resume: a checkpoint to go on from, "auto" for the folder's own.
    options: the command's own, for args.json.
    """

    network: Network
    dataset: str = "imagenet"
    data: Data = Data()
    optim: Optim = Optim()
    machine: Machine = Machine()
    folder: str | None = None
    weights: str | None = None
    resume: str | None = None
    zero_init_residual: bool = False
    options: dict[str, Any] = field(default_factory=dict, repr=False, hash=False)

    @classmethod
    def of(cls, args: Namespace) -> "Config":
        """What the options of main_imagenet.py ask for; 0 classes where they name no number."""
        network = Network(
            arch=args.arch,
            attention=args.attention_type,
            attention_param=args.attention_param,
            num_classes=args.num_classes or 0,
        )
        name = run_name("imagenet", network, args.seed) + "-synthetic" * args.synthetic
        return cls(
            network=network,
            data=_filled(Data, args, root=args.data),
            optim=_filled(Optim, args, weight_decay=args.wd),
            machine=_filled(Machine, args),
            folder=os.path.join(args.ckpt, name),
            weights=args.weights,
            resume=args.resume,
            zero_init_residual=args.zero_init_residual,
            options=vars(args),
        )

    def for_classes(self, count: int) -> "Config":
        """The same for data of so many classes; raises UsageError where --num-classes is less."""
        wanted = self.network.num_classes or count
        if wanted < count:
            raise UsageError(f"--num-classes {wanted}: {self.data.root} has {count} class folders")
        return replace(self, network=replace(self.network, num_classes=wanted))


def run_name(dataset: str, network: Network, seed: int | None) -> str:
    """What a run's folder is called: DATASET-ARCH[-ATTENTION[-paramPARAM]][-seedS]"""
    return f"{dataset}-{network.slug}" + ("" if seed is None else f"-seed{seed}")


def _filled(kind: type, args: Namespace, **others: Any) -> Any:
    """A `kind` whose fields are the options of the same name, and `others`."""
    options = {each.name: getattr(args, each.name) for each in fields(kind) if each.name in args}
    return kind(**options | others)
