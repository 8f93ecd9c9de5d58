"""The paper's tables against a transcript of the paper, cell by cell, where there is one."""

import re
from collections.abc import Iterator
from dataclasses import astuple

import pytest
from conftest import ROOT

from utils.report.paper import RELEASED, TABLE2, TABLE3, TABLE4

TRANSCRIPT = ROOT.parent / "shared" / "paper.md"

# the transcript's names -> ours
ATTENTION = {"baseline": "none"}
CIFAR = {
    "MobileNetV2": "cifar_mobilenet_v2",
    'WideResNet-28-10 (printed "20x10")': "cifar_wideresnet28_10",
    **{f"{p}ResNet-{d}": f"cifar_{p.lower()}resnet{d}" for p in ("", "Pre") for d in (20, 56, 110)},
}
IMAGENET = {
    **{f"R{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101)},
    **{"RX50-32x4d": "resnext50_32x4d", "MV2": "mobilenet_v2"},
}
DETECTORS = {
    f"{kind} R{depth}{suffix}": (f"{kind.lower()}-rcnn_r{depth}", metric)
    for kind, suffix, metric in (
        *(("Faster", "", "bbox"), ("Mask", " box", "bbox"), ("Mask", " mask", "segm")),
    )
    for depth in (50, 101)
}


def cells_of(heading: str) -> Iterator[tuple[str, str, list[float]]]:
    """Row, column and numbers of every cell in the tables under a heading."""
    if not TRANSCRIPT.exists():
        pytest.skip(f"there is no {TRANSCRIPT}")
    sections = re.split(r"^## ", TRANSCRIPT.read_text(), flags=re.MULTILINE)
    (section,) = [each for each in sections if each.startswith(heading)]
    for block in re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE):
        head, _, *rows = ([c.strip() for c in line.split("|")[1:-1]] for line in block.splitlines())
        for name, *cells in rows:
            for column, cell in zip(head[1:], cells, strict=True):
                yield name, column, [float(each) for each in re.findall(r"\d+\.?\d*", cell)]


def attention(name: str) -> str:
    return ATTENTION.get(name, name.lower())


def as_tuples(table: dict) -> dict[tuple, tuple]:
    return {key: astuple(row) for key, row in table.items()}


def test_table2_cell_by_cell():
    found = {}
    for module, net, (mean10, std10, mean100, std100) in cells_of("CIFAR (Table 2)"):
        found["cifar10", CIFAR[net], attention(module)] = (mean10, std10)
        found["cifar100", CIFAR[net], attention(module)] = (mean100, std100)
    assert as_tuples(TABLE2) == found


def test_table3_cell_by_cell():
    cells = cells_of("ImageNet (Table 3)")
    found = {(IMAGENET[net], attention(module)): tuple(row) for net, module, row in cells}
    assert as_tuples(TABLE3) == found


def test_table4_cell_by_cell():
    cells = cells_of("COCO (Table 4)")
    found = {(*DETECTORS[name], attention(module)): tuple(row) for name, module, row in cells}
    assert as_tuples(TABLE4) == found


def test_numbers_stand_where_the_paper_has_them():
    """Without the transcript, too."""
    assert [len(table) for table in (TABLE2, TABLE3, TABLE4)] == [96, 36, 18]
    assert astuple(TABLE2["cifar100", "cifar_wideresnet28_10", "none"]) == (81.31, 0.39)
    assert astuple(TABLE2["cifar10", "cifar_preresnet110", "gc"]) == (94.85, 0.19)
    assert astuple(TABLE3["resnet34", "srm"]) == (74.49, 92.01, 21.81, 3.67, 59)
    segm = (37.2, 59.4, 39.7, 20.2, 41.2, 50.4)
    assert astuple(TABLE4["mask-rcnn_r101", "segm", "se"]) == segm


def test_the_readmes_rows_are_the_papers():
    text = (ROOT / "README.md").read_text()
    names = {"ResNeXt-50 32x4d": "resnext50_32x4d", "MobileNetV2": "mobilenet_v2"}
    rows = re.findall(r"^\| ([\w -]+) \| [\d.]+ M \| [\d.]+ G \| ([\d.]+) / ([\d.]+)", text, re.M)
    assert len(rows) == 6
    for name, *printed in rows:
        arch = names.get(name) or name.replace("ResNet-", "resnet")
        assert tuple(map(float, printed)) == astuple(TABLE3[arch, "simam"])[:2], name


def test_the_released_files_numbers_are_the_authors_logs():
    """By the names of the files; of CIFAR-100 there is a sentence."""
    found = {}
    for file, column, (percent,) in cells_of("What the authors' repository also held"):
        arch, _, rest = file.partition("-")
        key = ("imagenet", arch, "simam" if rest.startswith("simam") else "none")
        found.setdefault(key, []).append((column, percent))
    ours = {
        key: [("exact top-1", row.acc1), ("exact top-5", row.acc5)]
        for key, row in RELEASED.items()
        if key[0] == "imagenet"
    }
    assert found == ours
    (sentence,) = re.findall(r"best top-1 (\S+) \(", TRANSCRIPT.read_text())
    assert RELEASED["cifar100", "cifar_resnet20", "simam"].acc1 == float(sentence)
