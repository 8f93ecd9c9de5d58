"""Pixels as a network's input."""

import torch

from .preparation import IMAGENET, Preparation


class Normalise:
    """uint8 images -> `dtype` on `device`: less the mean, by the deviation of `preparation`."""

    def __init__(
        self,
        device: torch.device,
        preparation: Preparation = IMAGENET,
        dtype: torch.dtype = torch.float32,
    ):
        self.device, self.dtype = device, dtype
        self.mean = 255 * torch.tensor(preparation.mean, device=device)[:, None, None]
        self.std = 255 * torch.tensor(preparation.std, device=device)[:, None, None]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean).div_(self.std).to(self.dtype)

    def undo(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images -> uint8, as they were."""
        return (images * self.std + self.mean).round().clamp(0, 255).to(torch.uint8)
