"""The command, with a SimAM that fails in the second of several processes."""

import os
import sys

import torch

import main_imagenet
from networks.attentions import ATTENTIONS, SimAM


class Failing(SimAM):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and os.environ["RANK"] == "1":
            raise LookupError("nobody foresaw it")
        return super().forward(x)


ATTENTIONS["simam"] = ATTENTIONS["simam"]._replace(module=Failing)
sys.exit(main_imagenet.main())
