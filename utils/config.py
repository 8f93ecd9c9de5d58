"""What a run is: plain frozen values, made of the command line once and handed on whole."""

import os
from argparse import Namespace
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import nn

from networks import create_model, default_param

from .errors import UsageError
from .options import Data, Machine, Optim, Report, read_fields


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
        return self.arch if self.attention == "none" else f"{self.arch} + {self._module(' ')}"

    @property
    def options(self) -> str:
        """As the command line names it."""
        return f"-a {self.arch} --attention-type {self._module(' --attention-param ')}"

    @property
    def slug(self) -> str:
        """As run folders name it: ARCH[-ATTENTION[-paramPARAM]]."""
        return self.arch if self.attention == "none" else f"{self.arch}-{self._module('-param')}"

    def _module(self, before_param: str) -> str:
        """The attention module, and its parameter where it has one."""
        param = self.attention_param
        return self.attention + ("" if param is None else f"{before_param}{param:g}")


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
    report: Report = Report()
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
            data=read_fields(Data, args, root=args.data),
            optim=read_fields(Optim, args),
            machine=read_fields(Machine, args),
            report=read_fields(Report, args),
            folder=os.path.join(args.ckpt, args.name or name),
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
