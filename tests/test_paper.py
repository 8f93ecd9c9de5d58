"""The paper's tables against a transcript of the paper, where there is one."""

import re

import pytest
from conftest import ROOT

from utils.paper import TABLE2, TABLE3, TABLE4

TRANSCRIPT = ROOT.parent / "shared" / "paper.md"


def numbers_of(heading: str) -> list[float]:
    """Every number in the cells of the tables under a heading, but for their first columns."""
    if not TRANSCRIPT.exists():
        pytest.skip(f"there is no {TRANSCRIPT}")
    sections = re.split(r"^## ", TRANSCRIPT.read_text(), flags=re.MULTILINE)
    (section,) = [each for each in sections if each.startswith(heading)]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    heads = {i + j for i, line in enumerate(lines) if line.startswith("|---") for j in (-1, 0)}
    cells = [line.split("|", 2)[2] for i, line in enumerate(lines) if i not in heads]
    return sorted(float(number) for row in cells for number in re.findall(r"\d+\.?\d*", row))


@pytest.mark.parametrize(
    ("heading", "table"),
    [("CIFAR (Table 2)", TABLE2), ("ImageNet (Table 3)", TABLE3), ("COCO (Table 4)", TABLE4)],
)
def test_every_number_is_the_papers(heading, table):
    assert sorted(number for row in table.values() for number in row) == numbers_of(heading)


@pytest.mark.parametrize(
    ("table", "key", "row"),
    [
        (TABLE2, ("cifar10", "cifar_resnet20", "simam"), (92.73, 0.18)),
        (TABLE2, ("cifar100", "cifar_wideresnet28_10", "none"), (81.31, 0.39)),
        (TABLE2, ("cifar10", "cifar_preresnet110", "gc"), (94.85, 0.19)),
        (TABLE4, ("mask-rcnn_r101", "segm", "se"), (37.2, 59.4, 39.7, 20.2, 41.2, 50.4)),
        (TABLE4, ("faster-rcnn_r50", "bbox", "none"), (37.8, 58.5, 40.8, 21.9, 41.7, 48.2)),
    ],
)
def test_numbers_stand_where_the_paper_has_them(table, key, row):
    assert tuple(table[key]) == row
