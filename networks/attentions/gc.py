"""Global Context block (Cao et al., ICCV Workshops 2019)."""

import torch
from torch import nn

from .arguments import setting
from .se import reduced


class GC(nn.Module):
    """Add to every position one vector computed from an attention-weighted mean of all (Eq. 5).

    x: (N, C, H, W) -> same shape. reduction: the bottleneck's divisor;
    GC(C, reduction) and GC(C, C, reduction) are understood too, and what could mean something
    else is a ValueError.
    """

    def __init__(self, *channels: float, reduction: float | str = 16, device=None, dtype=None):
        channels, reduction = setting("GC", "reduction", channels, reduction)
        super().__init__()
        place = {"device": device, "dtype": dtype}
        hidden = reduced(channels, reduction)
        # 1x1 convolutions, as a Conv1d and as Linear: the networks' initialisation of Conv2d
        # would give this single output channel logits that saturate the softmax
        self.mask = nn.Conv1d(channels, 1, 1, **place)
        self.transform = nn.Sequential(
            nn.Linear(channels, hidden, **place),
            nn.LayerNorm(hidden, **place),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels, **place),
        )
        # zero as in the authors' code: training starts from the plain block
        nn.init.zeros_(self.transform[-1].weight)
        nn.init.zeros_(self.transform[-1].bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(2)  # (N, C, H * W)
        weights = self.mask(flat).softmax(2)
        context = (flat @ weights.transpose(1, 2)).squeeze(2)
        return x + self.transform(context)[:, :, None, None]
