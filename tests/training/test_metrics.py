import numpy as np
import pytest
import torch
import torch.nn.functional as F

from utils.training.metrics import Totals, correct_at


@pytest.mark.parametrize("k", [1, 3, 5])
def test_correct_at_k_against_numpy(device, k):
    logits, targets = torch.randn(50, 7), torch.randint(7, (50,))
    ranks = np.argsort(-logits.numpy(), axis=1)[:, :k]
    expected = (ranks == targets.numpy()[:, None]).any(1).sum()
    assert correct_at(logits.to(device), targets.to(device), k) == expected


def test_totals_do_not_depend_on_the_batches(device):
    logits, targets = torch.randn(23, 9, device=device), torch.randint(9, (23,), device=device)
    losses = F.cross_entropy(logits, targets, reduction="none")
    for size in (1, 4, 23):
        totals = Totals.zero(device)
        for part in range(0, 23, size):
            batch = slice(part, part + size)
            totals.add(losses[batch].double().sum(), logits[batch], targets[batch])
        means = totals.means()
        assert means["images"] == 23
        assert means["loss"] == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-6)
        for k in (1, 5):
            right = (logits.topk(k).indices == targets[:, None]).any(1).double().mean().item()
            assert means[f"acc{k}"] == pytest.approx(100 * right)
        assert totals.first_bad_batch() is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_first_loss_that_is_not_finite_is_found(bad):
    totals = Totals.zero(torch.device("cpu"))
    logits, targets = torch.randn(2, 3), torch.tensor([0, 1])
    for loss in (1.0, 2.0, bad, 3.0, bad):
        totals.add(torch.tensor(loss), logits, targets)
    assert totals.first_bad_batch() == 2
