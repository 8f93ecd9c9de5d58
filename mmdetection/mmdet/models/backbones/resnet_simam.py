"""ResNet with SimAM in every block, for mmdetection 3.

Works where it stands (this repository's root on the path) and alone, copied into an mmdetection
tree. Importing it registers `ResNetSimAM`, also under the name `ResNetAM`, and lets torch read
mmengine's checkpoints without giving up `weights_only`.
"""

import math
import pickle
import re
from functools import partial

import numpy as np
import torch
from mmdet.models.backbones.resnet import Bottleneck, ResNet
from mmdet.registry import MODELS
from mmengine.logging import HistoryBuffer
from torch import nn

try:
    from networks.attentions import create_attention, list_attentions
except ImportError:  # copied without this repository: the same formula, without its fast operator

    class SimAM(nn.Module):
        """x (N, C, H, W) -> x * sigmoid(d^2 / (4 (v + e_lambda)) + 1/2), with d = x - mean and
        v = sum(d^2) / (HW - 1) per channel (Eq. 5 and 6 of Yang et al., ICML 2021).
        """

        def __init__(self, e_lambda):
            super().__init__()
            self.e_lambda = e_lambda

        def forward(self, x):
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            d2 = (wide - wide.mean((2, 3), keepdim=True)).square()
            v = d2.sum((2, 3), keepdim=True) / max(math.prod(x.shape[2:]) - 1, 1)
            return (wide * torch.sigmoid(d2 / (4 * (v + self.e_lambda)) + 0.5)).to(x.dtype)

    def list_attentions():
        return ["none", "simam"]

    def create_attention(name, channels, param, slot):
        return SimAM(param) if (name, slot) == ("simam", "conv") else nn.Identity()


# [layerX.Y.]module.parameter, and attention's: what an ImageNet network has too. Plugins and the
# offsets of deformable convolutions lie deeper or have longer names, and start from their own
# initialisation.
PRETRAINED = re.compile(
    r"(layer\d+\.\d+\.)?((stem\.\d+|downsample\.\d+|[a-z]+\d)\.[a-z_]+|attn_.+)"
)
# Counters that files may lack, or hold without need (the last two: a FLOP counter's leftovers).
OPTIONAL = ("num_batches_tracked", "total_ops", "total_params")


@MODELS.register_module(name=["ResNetSimAM", "ResNetAM"])
class ResNetSimAM(ResNet):
    """mmdetection's ResNet with SimAM between each block's 3x3 convolution and its norm.

    x: (N, 3, H, W) -> one map per entry of `out_indices`, at strides 4, 8, 16 and 32.
    depth: 18, 34, 50, 101 or 152. attention_type: "simam", "none" for the plain ResNet, or, beside
    this repository, another of its modules, in the place that it has in the ImageNet networks.
    attention_param: the module's setting; None is its default, of SimAM 0.1 as in the paper's
    detectors. Every other argument is ResNet's, and so are the keys of the state dict, but for a
    module that has weights: those of the ImageNet networks.

    Loading weights, by `init_cfg` or as part of a detector, strictly or not, raises RuntimeError
    unless every parameter and statistic of ResNet and modules is there in its shape and no block is
    left over; a classifier is ignored. The published `conv2.0` is read as `conv2`.
    Raises ValueError for an unknown attention_type, an attention_param that the module refuses, and
    below 50 layers for a module that stands after the last norm.
    """

    def __init__(self, depth, attention_type="simam", attention_param=None, **kwargs):
        if attention_type not in list_attentions():
            known = ", ".join(list_attentions())
            raise ValueError(f"unknown attention_type {attention_type!r}; known: {known}")
        if attention_type == "simam":
            attention_param = 0.1 if attention_param is None else attention_param
            if not attention_param > 0:
                raise ValueError(
                    f"attention_param (e_lambda) must be positive, not {attention_param}"
                )
        self.attention_type = attention_type
        self.attention_param = attention_param
        super().__init__(depth, **kwargs)

    def make_res_layer(self, **kwargs):
        layer = super().make_res_layer(**kwargs)
        for block in layer:
            self._add_attention(block)
        return layer

    def _add_attention(self, block):
        make = partial(create_attention, self.attention_type, param=self.attention_param)
        conv = make(block.conv2.out_channels, slot="conv")
        behind = make(getattr(block, "conv3", block.conv2).out_channels, slot="block")
        if not isinstance(conv, nn.Identity):
            # A hook, because the block's forward has no room here: its plugins run after the norm
            # and the ReLU. On the convolution, because norms get replaced (SyncBN).
            block.attn_conv = conv
            block.conv2.register_forward_hook(partial(_attend, block))
        if not isinstance(behind, nn.Identity):
            _add_plugin(block, behind)

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


def _attend(block, conv, args, y):
    if isinstance(block.norm2, nn.Identity):
        name = type(block.attn_conv).__name__
        raise RuntimeError(f"{name} stands between conv2 and its norm: do not fuse the two")
    return block.attn_conv(y)


def _add_plugin(block, attention):
    """Let the block's forward run `attention` after its last norm, before its other plugins."""
    if not isinstance(block, Bottleneck):
        name = type(attention).__name__
        raise ValueError(f"{name} stands after the last norm: mmdetection has room at depth >= 50")
    if not block.with_plugins:
        block.with_plugins = True
        block.after_conv1_plugin_names = block.after_conv2_plugin_names = []
        block.after_conv3_plugin_names = []
    block.attn_block = attention
    block.after_conv3_plugin_names = ["attn_block", *block.after_conv3_plugin_names]


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
