"""torchvision's detectors around our networks, which have the attributes that it asks for."""

from argparse import Namespace
from functools import partial

from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import (
    BackboneWithFPN,
    _mobilenet_extractor,
    _resnet_fpn_extractor,
)
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from networks.mobilenetv2 import MobileNetV2

from ..checkpoints import Checkpoint
from ..checkpoints.checkpoint import load_state
from ..config import Network
from ..errors import UsageError
from ..options import read_fields
from .options import Detector

WIDTH = 256  # channels of a pyramid
DETECTORS = {
    "faster_rcnn": FasterRCNN,
    "mask_rcnn": MaskRCNN,
    "retinanet": RetinaNet,
    "fcos": FCOS,
}


def network_of(args: Namespace) -> Network:
    """The network that the options name; raises UsageError for one without a pyramid."""
    if args.arch.startswith("cifar_"):
        raise UsageError(f"-a {args.arch}: a network for images of 32 pixels has no pyramid")
    return Network(
        arch=args.arch, attention=args.attention_type, attention_param=args.attention_param
    )


def make_detector(
    args: Namespace, num_classes: int, checkpoint: Checkpoint | None
) -> tuple[nn.Module, list[str]]:
    """The detector that the options name, and lines on it.

    Its weights are those of `checkpoint`, which may be torchvision's own detector; else its network
    has those of --weights, and frozen norms. Raises UsageError where they don't fit.
    """
    network = network_of(args)
    body, notes = network.build(), [f"network     {network.label}"]
    frozen = bool(args.weights)
    if checkpoint:
        notes += [f"weights     {checkpoint.path}"]
        frozen = not any(key.endswith("num_batches_tracked") for key in checkpoint.raw_weights)
    elif args.weights:
        notes += Checkpoint(args.weights).start(body)
    model = build_detector(read_fields(Detector, args), body, num_classes, frozen)
    if checkpoint:
        load_state(model, checkpoint.raw_weights, checkpoint.path)
    return model, notes


def build_detector(
    options: Detector, network: nn.Module, num_classes: int, frozen_norms: bool = False
) -> nn.Module:
    """The detector around `network`, a ResNet or MobileNetV2 of ours.

    num_classes: with the background, which is 0. frozen_norms: the network's norms keep their
    statistics and weights, as behind pretrained ones in torchvision.
    """
    if frozen_norms:
        freeze_norms(network)
    layers = options.trainable_layers
    if layers is None:
        layers = 3 if frozen_norms else 5
    pyramid = make_pyramid(network, layers, options.detector)
    kind = DETECTORS[options.detector]
    return kind(pyramid, num_classes, min_size=options.min_size, max_size=options.max_size)


def make_pyramid(network: nn.Module, trainable_layers: int, detector: str) -> BackboneWithFPN:
    """Maps at strides 4 to 64 for the R-CNNs, 8 to 128 for the others, as torchvision has them."""
    if isinstance(network, MobileNetV2):
        extract, levels = partial(_mobilenet_extractor, network, True), [1, 2, 3, 5]
    else:
        extract, levels = partial(_resnet_fpn_extractor, network), [1, 2, 3, 4]
    if detector in ("faster_rcnn", "mask_rcnn"):
        return extract(trainable_layers, levels)
    return extract(trainable_layers, levels[1:], LastLevelP6P7(WIDTH, WIDTH))


def freeze_norms(network: nn.Module) -> None:
    """Put norms that never change in the place of the batch norms, with their values."""
    norms = [each for each in network.named_modules() if isinstance(each[1], nn.BatchNorm2d)]
    for name, norm in norms:
        frozen = FrozenBatchNorm2d(norm.num_features, norm.eps)
        frozen.load_state_dict(norm.state_dict())
        network.set_submodule(name, frozen)
