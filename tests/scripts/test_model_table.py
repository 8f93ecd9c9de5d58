"""The table of networks against the figures that the paper and its code have."""

import pytest

from scripts import model_table
from utils.report.tables import table

# parameters (1,000 classes), and the paper's printed parameters and FLOPs
IMAGENET = {
    "resnet18": ("11,689,512", "11.69 M", "1.82 G"),
    "resnet34": ("21,797,672", "21.80 M", "3.67 G"),
    "resnet50": ("25,557,032", "25.56 M", "4.11 G"),
    "resnet101": ("44,549,160", "44.55 M", "7.83 G"),
    "resnext50_32x4d": ("25,028,904", "25.03 M", "4.26 G"),
    "mobilenet_v2": ("3,504,872", "3.50 M", "0.31 G"),
}
# parameters of the published networks with 10 classes; He et al. 2016 and Zagoruyko and Komodakis
# 2016 give 41 M and 5.2 G multiply-adds for two of them
CIFAR = {
    "cifar_resnet20": ("272,474", "0.04 G"),
    "cifar_resnet32": ("466,906", None),
    "cifar_resnet56": ("855,770", None),
    "cifar_resnet110": ("1,730,714", None),
    "cifar_preresnet20": ("272,282", None),
    "cifar_preresnet56": ("855,578", None),
    "cifar_preresnet110": ("1,730,522", None),
    "cifar_wideresnet28_10": ("36,479,194", "5.25 G"),
    "cifar_mobilenet_v2": ("2,296,922", None),
}


def cells(arch: str, attention: str) -> list[str]:
    """What the table shows of a network."""
    line = table([model_table.measure(arch, attention)], model_table.COLUMNS).splitlines()[-1]
    return line.strip("| ").split(" | ")


@pytest.mark.parametrize("attention", ["none", "simam"])
@pytest.mark.parametrize("arch", IMAGENET)
def test_imagenet_networks_have_the_papers_figures(arch, attention):
    parameters, printed, flops = IMAGENET[arch]
    shown = [arch, attention, "1,000", parameters, printed, flops, flops]
    assert cells(arch, attention) == shown


@pytest.mark.parametrize("attention", ["none", "simam"])
@pytest.mark.parametrize("arch", CIFAR)
def test_cifar_networks_have_the_published_parameters(arch, attention):
    parameters, flops = CIFAR[arch]
    found = cells(arch, attention)
    assert found == [arch, attention, "10", parameters, "-", flops or found[5], "-"]


def test_every_network_has_two_rows(monkeypatch, capsys):
    assert {*IMAGENET, *CIFAR} <= set(model_table.list_models())
    monkeypatch.setattr(model_table, "list_models", lambda: ["cifar_preresnet20", "cifar_resnet20"])
    assert model_table.main([]) == 0
    rows = [line.split(" | ")[:2] for line in capsys.readouterr().out.splitlines()[2:]]
    names = ["| cifar_preresnet20", "| cifar_resnet20"]
    assert rows == [[name, attention] for name in names for attention in ("none", "simam")]
