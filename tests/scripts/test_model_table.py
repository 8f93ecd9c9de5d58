"""The table of networks; that its figures are the papers', tests of the networks and of the counts
say."""

from networks import list_models
from scripts import model_table


def test_every_network_has_two_rows_of_its_own_size(monkeypatch, capsys):
    """He et al. 2016 and Zagoruyko and Komodakis 2016 give 41 M and 5.2 G multiply-adds for the two
    CIFAR networks, at 32 pixels; ImageNet's have the paper's at 224."""
    lines = {
        "cifar_resnet20": "10 | 272,474 | - | 0.04 | -",
        "cifar_wideresnet28_10": "10 | 36,479,194 | - | 5.25 | -",
        "mobilenet_v2": "1,000 | 3,504,872 | 3.50 | 0.31 | 0.31",
        "resnet18": "1,000 | 11,689,512 | 11.69 | 1.82 | 1.82",
        "resnet50d": "1,000 | 25,576,264 | - | 4.35 | -",
    }
    assert lines.keys() <= set(list_models())
    monkeypatch.setattr(model_table, "list_models", lambda: list(lines))
    assert model_table.main([]) == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    names = ["classes", "parameters", "the paper's, M", "FLOPs, G", "the paper's, G"]
    assert head == f"| network | attention | {' | '.join(names)} |"
    attentions = ("none", "simam")
    assert rows == [f"| {name} | {a} | {row} |" for name, row in lines.items() for a in attentions]
