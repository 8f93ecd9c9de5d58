"""Class folders mean the outputs of a network by name."""

import pytest
from torchvision.models import ResNet18_Weights

from utils.data.classes import KNOWN, names_of, outputs_of, said_names, shown_names
from utils.errors import UsageError

IMAGENET = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]


def test_imagenets_names_are_torchvisions_and_its_numbers_are_in_order():
    wnids, names = zip(*KNOWN[1000], strict=True)
    assert list(names) == IMAGENET
    assert list(wnids) == sorted(set(wnids))


@pytest.mark.parametrize("folder", ["n01491361", "tiger shark", "Tiger_Shark", "3"])
def test_a_folder_is_called_by_number_name_or_place(folder):
    assert outputs_of([folder], names_of([], 1000), "x") == [3]


def test_the_trainings_own_names_come_first():
    # its folder "1" was the first of the training's
    assert outputs_of(["1", "0"], names_of(["1", "0"], 2), "x") == [0, 1]
    cifar = names_of([], 10)
    assert outputs_of(["truck", "airplane", "4"], cifar, "x") == [9, 0, 4]


@pytest.mark.parametrize("outputs", [2, 4])  # as with --num-classes 4
def test_a_strange_folder_is_no_output(outputs):
    with pytest.raises(
        UsageError, match=r"1 of 2 class folders .* of file x: 'zebra'; .* cat, dog;"
    ):
        outputs_of(["dog", "zebra"], names_of(["cat", "dog"], outputs), "file x")


@pytest.mark.parametrize(
    ("said", "count", "names"),
    [
        (["cat", "dog"], 2, ["cat", "dog"]),
        (["cat", "dog"], 4, ["cat", "dog", "2", "3"]),  # --num-classes 4
        (["n01440764", "n01443537"], 2, ["n01440764", "n01443537"]),
        ([wnid for wnid, _ in KNOWN[1000]], 1000, IMAGENET),
        ([f"bird {i}" for i in range(1000)], 1000, [f"bird {i}" for i in range(1000)]),
        ([], 1000, IMAGENET),
        ([], 10, list("0123456789")),  # ten outputs need not be CIFAR-10's
    ],
)
def test_names_for_a_person(said, count, names):
    assert shown_names(said, count) == names


def test_a_file_says_the_names(tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    assert said_names(str(tmp_path / "names.txt")) == ["cat", "dog"]
    assert said_names(None) == []
    with pytest.raises(UsageError, match="can't read --class-names"):
        said_names(str(tmp_path / "none.txt"))
