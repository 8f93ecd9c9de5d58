"""The table of networks against the figures that the paper and its code have."""

import pytest

from networks import list_models
from scripts import model_table

# parameters (1,000 classes), and the paper's printed parameters and FLOPs
IMAGENET = {
    "resnet18": ("11,689,512", "11.69 M", "1.82 G"),
    "resnet34": ("21,797,672", "21.80 M", "3.67 G"),
    "resnet50": ("25,557,032", "25.56 M", "4.11 G"),
    "resnet101": ("44,549,160", "44.55 M", "7.83 G"),
    "resnext50_32x4d": ("25,028,904", "25.03 M", "4.26 G"),
    "mobilenet_v2": ("3,504,872", "3.50 M", "0.31 G"),
}
# parameters of the published networks with 10 classes
CIFAR = {
    "cifar_resnet20": "272,474",
    "cifar_resnet32": "466,906",
    "cifar_resnet56": "855,770",
    "cifar_resnet110": "1,730,714",
    "cifar_preresnet20": "272,282",
    "cifar_preresnet56": "855,578",
    "cifar_preresnet110": "1,730,522",
    "cifar_wideresnet28_10": "36,479,194",
    "cifar_mobilenet_v2": "2,296,922",
}


@pytest.mark.parametrize("attention", ["none", "simam"])
@pytest.mark.parametrize("arch", IMAGENET)
def test_imagenet_networks_have_the_papers_figures(arch, attention):
    shown = model_table.row(arch, attention)
    parameters, printed, flops = IMAGENET[arch]
    assert (shown["network"], shown["attention"], shown["classes"]) == (arch, attention, "1,000")
    assert (shown["parameters"], shown["paper's parameters"]) == (parameters, printed)
    assert shown["FLOPs"] == shown["paper's FLOPs"] == flops


@pytest.mark.parametrize("attention", ["none", "simam"])
@pytest.mark.parametrize("arch", CIFAR)
def test_cifar_networks_have_the_published_parameters(arch, attention):
    shown = model_table.row(arch, attention)
    assert (shown["parameters"], shown["classes"]) == (CIFAR[arch], "10")
    assert shown["paper's FLOPs"] == "-"


def test_cifar_networks_are_counted_at_their_size():
    """He et al. 2016 and Zagoruyko and Komodakis 2016 give 41 M and 5.2 G multiply-adds."""
    assert model_table.row("cifar_resnet20", "none")["FLOPs"] == "0.04 G"
    assert float(model_table.row("cifar_wideresnet28_10", "none")["FLOPs"].split()[0]) == (
        pytest.approx(5.2, abs=0.1)
    )


def test_every_network_has_two_rows(monkeypatch, capsys):
    monkeypatch.setattr(model_table, "list_models", lambda: ["resnet18", "cifar_resnet20"])
    model_table.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 2 * 2
    assert "| resnet18 | simam | 1,000 | 11,689,512 | 11.69 M | 1.82 G | 1.82 G |" in lines
    assert "| cifar_resnet20 | none | 10 | 272,474 | - | 0.04 G | - |" in lines
    assert {*IMAGENET, *CIFAR} <= set(list_models())
