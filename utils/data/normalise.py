"""Pixels as a network's input."""

import torch

from .preparation import IMAGENET, Preparation


class Normalise:
    """uint8 images -> `dtype` on `device`: less the mean, by the deviation of `preparation`.

    One pass over the images: computed in float32, as pixel * scale + shift, written in `dtype`.
    """

    def __init__(
        self,
        device: torch.device,
        preparation: Preparation = IMAGENET,
        dtype: torch.dtype = torch.float32,
    ):
        self.device, self.dtype = device, dtype
        exact = torch.tensor([preparation.mean, preparation.std], dtype=torch.float64)
        mean, std = exact[..., None, None]
        self.scale, self.shift = (
            each.to(device, torch.float32) for each in (1 / (255 * std), -mean / std)
        )

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        normalised = torch.empty_like(images, dtype=self.dtype)
        return torch.addcmul(self.shift, images, self.scale, out=normalised)

    def undo(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images -> uint8, as they were."""
        return ((images - self.shift) / self.scale).round().clamp(0, 255).to(torch.uint8)
