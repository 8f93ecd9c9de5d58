import pytest
import torch
import torch.nn.functional as F
from torch import nn

from networks import create_model
from utils.processes.dist import Dist
from utils.training.engine import Precision, evaluate, train_one_epoch
from utils.training.metrics import Totals

ALONE = Dist(0, 1, torch.device("cpu"))


def batches(count, size, classes=4):
    return [(torch.randn(size, 3, 8, 8), torch.randint(classes, (size,))) for _ in range(count)]


def small_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)
    )


def train(model, data, precision, lr=0.1):
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=1e-4)
    totals = Totals.zero(ALONE.device)
    return train_one_epoch(
        model, data, optimizer, lambda _step: lr, totals, ALONE, precision, precision.scaler()
    )


def test_training_is_the_plain_loop():
    torch.manual_seed(1)
    model, reference, data = small_network(), small_network(), batches(5, 6)
    reference.load_state_dict(model.state_dict())
    means = train(model, data, Precision("cpu"))
    optimizer = torch.optim.SGD(reference.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    losses, correct = [], 0
    for images, targets in data:
        logits = reference(images)
        loss = F.cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        correct += (logits.argmax(1) == targets).sum().item()
    for key, value in reference.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)
    assert means["loss"] == pytest.approx(sum(losses) / 5)
    assert means["acc1"] == pytest.approx(100 * correct / 30)
    assert means["acc5"] == 100
    assert means["images"] == 30


def test_learning_rate_is_set_before_each_step():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    seen = []
    optimizer.register_step_pre_hook(lambda o, *_: seen.append(o.param_groups[0]["lr"]))
    precision = Precision("cpu")
    train_one_epoch(
        model,
        batches(3, 2),
        optimizer,
        lambda step: 10.0**-step,
        Totals.zero(ALONE.device),
        ALONE,
        precision,
        precision.scaler(),
        first_step=2,
    )
    assert seen == [1e-2, 1e-3, 1e-4]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_runs_the_network_in_that_type(dtype):
    model = small_network()
    seen = []
    model[0].register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
    means = train(model, batches(2, 6), Precision("cpu", dtype))
    assert seen == [dtype, dtype]
    assert means["loss"] > 0
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_fp16_overflow_skips_the_step():
    model, precision = small_network(), Precision("cpu", torch.float16)
    before = {key: value.clone() for key, value in model.named_parameters()}
    model[4].weight.register_hook(lambda gradient: gradient * float("inf"))
    train(model, batches(1, 6), precision)
    assert all(torch.equal(value, before[key]) for key, value in model.named_parameters())


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2"])
def test_evaluation_is_independent_of_the_batch_size(arch):
    model = create_model(arch, "simam", num_classes=7)
    images, targets = torch.randn(13, 3, 40, 40), torch.randint(7, (13,))
    results = [
        evaluate(
            model,
            list(zip(images.split(size), targets.split(size), strict=True)),
            ALONE,
            Precision("cpu"),
        )
        for size in (1, 4, 13)
    ]
    with torch.no_grad():
        logits = model.eval()(images)
    assert results[0]["loss"] == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-5)
    for result in results:
        assert result["images"] == 13
        assert result == pytest.approx(results[0], rel=1e-5)


def test_evaluation_changes_nothing():
    model = small_network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    evaluate(model, batches(2, 3), ALONE, Precision("cpu"))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
