"""An evaluation's classes: those that the folders' names mean."""

import re
import shutil

import numpy as np
import pytest
import torch
from runs import path, run
from torch import nn

from utils.data.listing import Listing
from utils.training.evaluation import matched


def test_each_class_is_found_by_its_name(undisturbed, digits, tmp_path, capsys):
    best = path(undisturbed, "model_best.pth.tar")

    def accuracy(classes: str, *more) -> float:
        """Of the images in the folders of these classes alone."""
        for name in classes:
            shutil.copytree(digits / "val" / name, tmp_path / classes / "val" / name)
        assert run(tmp_path / classes, tmp_path, "-e", "--resume", best, *more) == 0
        return float(re.search(r"^ \* Acc@1 ([\d.]+)", capsys.readouterr().out, re.MULTILINE)[1])

    zeros, ones, twos = map(accuracy, "012")
    assert len({zeros, ones, twos}) > 1
    assert accuracy("02") == pytest.approx((zeros + twos) / 2, abs=0.001)
    assert accuracy("012") == pytest.approx((zeros + ones + twos) / 3, abs=0.001)


def test_a_subset_is_judged_over_its_outputs_alone():
    model, images = nn.Linear(5, 4), torch.randn(7, 5)
    listing = Listing(["a", "b"], ["x", "y", "z"], np.array([1, 0, 1]))
    whole, targets = matched(model, listing, [3, 1], subset=False)
    assert whole is model
    assert targets.targets.tolist() == [1, 3, 1]
    subset, same = matched(model, listing, [3, 1], subset=True)
    assert same is listing
    assert torch.equal(subset(images), model(images)[:, [3, 1]])
