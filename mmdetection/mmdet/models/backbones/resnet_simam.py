"""ResNet with SimAM, or another attention module, in every block, for mmdetection 3.

Works where it stands (this repository's root on the path) and alone, copied into an mmdetection
tree. Importing it registers `ResNetSimAM`, `ResNetAM` and `SimAMRunner`, and lets torch read
mmengine's checkpoints without giving up `weights_only`.
"""

import os
import pickle
import re
import sys
from functools import partial

import numpy as np
import torch
from mmdet.models.backbones import resnet, resnext
from mmdet.registry import MODELS
from mmengine.logging import HistoryBuffer
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn
from torch.utils.checkpoint import checkpoint

try:
    from networks.attentions import create_attention
except ImportError:
    try:
        from simam.attentions import create_attention  # the same, installed as a package
    except ImportError:  # this file alone
        create_attention = None

# Configs name both places: what was written with one of them is read with the other, and a file
# that is in both is one.
for place in ("mmdet", "mmdetection.mmdet"):
    sys.modules.setdefault(f"{place}.models.backbones.resnet_simam", sys.modules[__name__])

# [layerX.Y.]module.parameter, and attention modules: what an ImageNet network has too. Plugins and
# the offsets of deformable convolutions lie deeper or have longer names, and start from their own
# initialisation.
PRETRAINED = re.compile(
    r"(layer\d+\.\d+\.)?(stem\.\d+|downsample\.\d+|[a-z]+\d)\.[a-z_]+|layer\d+\.\d+\.attn_.+"
)
# Counters that files may lack, or hold without need (the last two: a FLOP counter's leftovers).
OPTIONAL = ("num_batches_tracked", "total_ops", "total_params")


class SimAM(nn.Module):
    """x (N, C, H, W) -> x * sigmoid(d^2 / (4 (v + e_lambda)) + 1/2), with d = x - mean and
    v = sum(d^2) / (HW - 1) per channel (Eq. 5 and 6 of Yang et al., ICML 2021).

    For this file alone: `networks.attentions` has the same as one operator, which keeps less.
    """

    def __init__(self, e_lambda):
        super().__init__()
        if not e_lambda > 0:
            raise ValueError(f"SimAM's e_lambda must be positive, not {e_lambda}")
        self.e_lambda = e_lambda

    def forward(self, x):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        d2 = (wide - wide.mean((2, 3), keepdim=True)).square()
        squares = d2.sum((2, 3), keepdim=True)
        # as a tensor: max(HW - 1, 1) would be a choice that a tracer could not follow
        n = (torch.ones_like(squares) * (x.shape[2] * x.shape[3] - 1)).clamp(min=1)
        return (wide * torch.sigmoid(d2 / (4 * (squares / n + self.e_lambda)) + 0.5)).to(x.dtype)


def make_attention(name, param, channels, slot):
    """The module `name` for a block's `slot`, "conv" or "block"; nn.Identity for the other one."""
    if create_attention:
        return create_attention(name, channels, param, slot)
    if name not in ("none", "simam"):
        raise ValueError(
            f"attention_type {name!r} needs the package simam: pip install this file's "
            "repository, or put its root on the path"
        )
    return SimAM(param) if (name, slot) == ("simam", "conv") else nn.Identity()


class Attended:
    """What is mixed into mmdetection's blocks, whose own forward has no room for attention.

    attention: called with (channels, slot=), makes the module behind the 3x3 convolution ("conv")
    and the one after the branch's last norm ("block").
    """

    def __init__(self, *args, attention, **kwargs):
        super().__init__(*args, **kwargs)
        self.attn_conv = attention(self.conv2.out_channels, slot="conv")
        last = getattr(self, "conv3", self.conv2)
        self.attn_block = attention(last.out_channels, slot="block")

    def forward(self, x):
        if self.with_cp and x.requires_grad:
            return self.relu(checkpoint(self.before_relu, x, use_reentrant=False))
        return self.relu(self.before_relu(x))

    def before_relu(self, x):
        y = self.branch(x)
        return y + (x if self.downsample is None else self.downsample(x))

    def attended(self, y):
        """The 3x3 convolution, its attention, its norm."""
        if isinstance(self.norm2, nn.Identity) and not isinstance(self.attn_conv, nn.Identity):
            raise RuntimeError("SimAM stands between conv2 and its norm: do not fuse the two")
        return self.norm2(self.attn_conv(self.conv2(y)))


class AttendedBasicBlock(Attended, resnet.BasicBlock):
    def branch(self, x):
        y = self.relu(self.norm1(self.conv1(x)))
        return self.attn_block(self.attended(y))


class AttendedBottleneck(Attended, resnet.Bottleneck):
    def branch(self, x):
        y = self.plugged("after_conv1", self.relu(self.norm1(self.conv1(x))))
        y = self.plugged("after_conv2", self.relu(self.attended(y)))
        return self.plugged("after_conv3", self.attn_block(self.norm3(self.conv3(y))))

    def plugged(self, position, y):
        return self.forward_plugin(y, getattr(self, f"{position}_plugin_names", ()))


class AttendedGroups(AttendedBottleneck, resnext.Bottleneck):
    """ResNeXt's."""


ATTENDED = {resnet.BasicBlock: AttendedBasicBlock, resnet.Bottleneck: AttendedBottleneck}


@MODELS.register_module()
class ResNetSimAM(resnet.ResNet):
    """mmdetection's ResNet with SimAM between each block's 3x3 convolution and its norm.

    x: (N, 3, H, W) -> one map per entry of `out_indices`, at strides 4, 8, 16 and 32.
    depth: 18, 34, 50, 101 or 152. attention_type: "simam", "none" for the plain ResNet, or another
    module of `networks.attentions`, such as "se", which most have after the block's last norm.
    attention_param: SimAM's e_lambda, SE's reduction, ...; None is 0.1 for SimAM, as in the paper's
    detectors, else the module's default. groups, width_per_group: of the 3x3 convolutions; 32 and
    4 make ResNeXt. Every other argument is ResNet's, and so are the keys of the state dict: SimAM
    has no state.

    Loading weights, by `init_cfg` or as part of a detector, strictly or not, raises RuntimeError
    unless every parameter and statistic of the ResNet is there in its shape and no block is left
    over; a classifier is ignored. The published `conv2.0` is read as `conv2`. A file of `init_cfg`
    that is not there is FileNotFoundError when the weights are needed.
    Raises ValueError for an unknown attention_type, a parameter that it does not take, and groups
    at depths without them.
    """

    def __init__(
        self,
        depth,
        attention_type="simam",
        attention_param=None,
        groups=1,
        width_per_group=64,
        **kwargs,
    ):
        if attention_param is None and attention_type == "simam":
            attention_param = 0.1
        if groups > 1 and depth < 50:
            raise ValueError(f"groups {groups}: blocks of ResNet-{depth} have no groups")
        self.attention_type, self.attention_param = attention_type, attention_param
        self.groups, self.width_per_group = groups, width_per_group
        super().__init__(depth, **kwargs)

    def make_res_layer(self, block, **kwargs):
        block = ATTENDED[block]
        if self.groups > 1:
            block = AttendedGroups
            kwargs |= dict(groups=self.groups, base_width=self.width_per_group)
            kwargs |= dict(base_channels=self.base_channels)
        attention = partial(make_attention, self.attention_type, self.attention_param)
        return super().make_res_layer(block=block, attention=attention, **kwargs)

    def check_weights(self):
        """Raise FileNotFoundError where the weights to start from are no file."""
        pretrained = isinstance(self.init_cfg, dict) and self.init_cfg["type"] == "Pretrained"
        path = self.init_cfg["checkpoint"] if pretrained else ""
        if path and ":" not in path and not os.path.exists(path):
            command = f"python scripts/convert_checkpoint.py CHECKPOINT {path} --to mmdet"
            raise FileNotFoundError(
                f"{path}, to train from, is not there; an ImageNet network's: {command}"
            )

    def init_weights(self):
        self.check_weights()
        super().init_weights()

    def _load_from_state_dict(self, state_dict, prefix, *args):
        for key in [k for k in state_dict if k.startswith(prefix) and ".conv2.0." in k]:
            state_dict[key.replace(".conv2.0.", ".conv2.")] = state_dict.pop(key)
        # Here, because mmengine loads with strict=False and only logs what does not fit.
        self._check_fit(
            {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
        )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _check_fit(self, found):
        own = self.state_dict()
        needed = [key for key in own if PRETRAINED.fullmatch(key) and not key.endswith(OPTIONAL)]
        extra = [key for key in found if key not in own and not key.endswith(OPTIONAL)]
        problems = {
            "missing": [key for key in needed if key not in found],
            # a classifier, or a stage that this backbone has not, is no part of it
            "unexpected": [key for key in extra if key.split(".")[0] in self._modules],
            "of another shape": [k for k in own if k in found and own[k].shape != found[k].shape],
        }
        lines = [
            f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' * (len(keys) > 3)})"
            for kind, keys in problems.items()
            if keys
        ]
        if lines:
            raise RuntimeError(
                f"the weights do not fit {type(self).__name__}-{self.depth}: {'; '.join(lines)}"
            )


@MODELS.register_module()
class ResNetAM(ResNetSimAM):
    """The published name, and its default: no attention unless one is named."""

    def __init__(self, depth, attention_type="none", **kwargs):
        super().__init__(depth, attention_type, **kwargs)


@RUNNERS.register_module()
class SimAMRunner(Runner):
    """mmengine's Runner, but that missing weights to train from end it before it loads COCO."""

    def train(self):
        for module in self.model.modules():
            if isinstance(module, ResNetSimAM):
                module.check_weights()
        return super().train()


def _history_method(owner, name):
    """`getattr` as far as mmengine's checkpoints use it: the statistics of HistoryBuffer.

    The real one would hand a file any attribute of anything, which is what `weights_only` prevents.
    """
    if owner is not HistoryBuffer or name not in ("current", "max", "mean", "min"):
        raise pickle.UnpicklingError(f"refused to read attribute {name!r} of {owner!r}")
    return getattr(owner, name)


def _allow_mmengine_checkpoints():
    """Let `torch.load(weights_only=True)` read the log history in mmengine's checkpoints.

    torch >= 2.6 loads that way unless told otherwise, and knows neither HistoryBuffer nor numpy.
    """
    array, scalar = np.zeros(1), np.float64(0)
    rebuild_array, rebuild_scalar = array.__reduce__()[0], scalar.__reduce__()[0]
    allowed = [HistoryBuffer, np.ndarray, np.dtype, (_history_method, "builtins.getattr")]
    allowed += [type(np.dtype(kind)) for kind in (float, int)]
    for package in ("numpy.core", "numpy._core"):  # numpy 1 and 2 name their module differently
        allowed += [
            (rebuild_array, f"{package}.multiarray._reconstruct"),
            (rebuild_scalar, f"{package}.multiarray.scalar"),
        ]
    torch.serialization.add_safe_globals(allowed)


if hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):  # torch >= 2.6
    _allow_mmengine_checkpoints()
