"""What is said of an evaluation, against scikit-learn and the formulas written out."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from runs import path, run
from sklearn.metrics import confusion_matrix, top_k_accuracy_score

from utils.errors import UsageError
from utils.report.outcomes import Flipped, Outcomes, Recorder, read_labels

CLASSES = 7
PATHS = [f"val/x/ILSVRC2012_val_{number:08}.JPEG" for number in range(1, 201)]


@pytest.fixture(scope="module")
def logits() -> torch.Tensor:
    return torch.randn(200, CLASSES, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def outcomes(logits) -> Outcomes:
    recorder = Recorder(torch.nn.Identity(), 5)
    for batch in logits.split(64):
        assert recorder(batch) is batch
    rows = torch.cat(recorder.kept).numpy()
    targets = np.random.default_rng(0).integers(CLASSES - 1, size=200)  # none of the last
    names = [f"class {index}" for index in range(CLASSES)]
    return Outcomes(PATHS, targets, rows[:, :-1].astype(int), rows[:, -1], names)


def test_accuracies_and_confusions_are_scikit_learns(outcomes, logits):
    labels = np.arange(CLASSES)
    for k in (1, 3, 5):
        expected = top_k_accuracy_score(outcomes.targets, logits.numpy(), k=k, labels=labels)
        assert outcomes.top(k) == pytest.approx(100 * expected)
    expected = confusion_matrix(outcomes.targets, logits.argmax(1).numpy(), labels=labels)
    assert np.array_equal(outcomes.confusion(), expected)
    for row in outcomes.classes():
        counts = expected[outcomes.names.index(row.name)]
        right = counts[outcomes.names.index(row.name)]
        assert (row.images, row.acc1) == (counts.sum(), pytest.approx(100 * right / counts.sum()))
        assert row.times == counts[outcomes.names.index(row.taken_for)]
        assert row.times == np.delete(counts, outcomes.names.index(row.name)).max()
    assert len(outcomes.classes()) == CLASSES - 1


def test_calibration_is_guos(outcomes, logits):
    confidence, found = logits.double().softmax(1).max(1)
    error = 0.0
    for low in range(15):
        inside = (confidence >= low / 15) & (confidence < (low + 1) / 15)
        if inside.any():
            right = (found[inside].numpy() == outcomes.targets[inside.numpy()]).mean()
            error += inside.double().mean() * abs(right - confidence[inside].mean())
    assert outcomes.calibration_error() == pytest.approx(100 * float(error))


def test_the_surest_mistakes_come_first(outcomes):
    places = outcomes.wrong(10)
    assert len(places) == 10
    assert not outcomes.right[places].any()
    assert outcomes.confidence[places[0]] == outcomes.confidence[~outcomes.right].max()
    assert list(outcomes.confidence[places]) == sorted(outcomes.confidence[places], reverse=True)


def test_any_of_several_labels_is_right_and_none_does_not_count(outcomes):
    found = outcomes.answers[:, 0]
    labels = [[], *([int(answer), 0] for answer in found[1:100]), *([-1] for _ in range(101))]
    assert outcomes.real(labels) == (pytest.approx(100 * 99 / 199), 199)
    with pytest.raises(UsageError, match="--real-labels are of images called ILSVRC2012_val_0"):
        outcomes.real(labels[:-100])


def test_the_mirror_images_count_as_much():
    model = Flipped(lambda images: images.flatten(1))
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(model(x), ((x + x.flip(-1)) / 2).flatten(1))


def test_a_file_without_lists_is_refused(tmp_path):
    for text in ("{", "[1]", "5"):
        (tmp_path / "real.json").write_text(text)
        with pytest.raises(UsageError, match="can't read --real-labels"):
            read_labels(str(tmp_path / "real.json"))


def test_the_command_writes_what_is_asked(undisturbed, digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shown = {}
    for name, more in {
        **{"plain": (), "a.csv": ("--top", 2), "a.json": ("--worst", 3), "a.png": ("-b", 5)}
    }.items():
        report = ("--report", name) if "." in name else ()
        assert run(digits, tmp_path, "-e", "--resume", path(undisturbed), *report, *more) == 0
        shown[name] = capsys.readouterr().out.splitlines()
    assert len({lines[-1] for lines in shown.values()}) == 1
    acc1 = float(shown["plain"][-1].split()[2])
    assert "calibration error" not in " ".join(shown["plain"])
    assert any(line.startswith("Acc@2 ") for line in shown["a.csv"])
    with open("a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["name"] for row in rows) == ["0", "1", "2"]
    assert np.mean([float(row["acc1"]) for row in rows]) == pytest.approx(acc1, abs=1e-3)
    said = json.loads((tmp_path / "a.json").read_text())
    assert said["acc1"] == pytest.approx(acc1, abs=1e-3)
    wrong = sum(each["times"] for each in said["confusions"])
    assert wrong == round(12 * (1 - acc1 / 100))
    for name, width in (("a.png", 800), ("worst.png", 4 * 160)):
        with Image.open(name) as picture:
            assert picture.width == width


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-e --report a.txt", "the ending of a.txt says no format; use .csv or .json or .png"),
        ("-e --real-labels none.json", "can't read --real-labels none.json"),
    ],
)
def test_mistakes_are_said_before_any_work(undisturbed, digits, tmp_path, words, message, capsys):
    assert run(digits, tmp_path, "--resume", path(undisturbed), *words.split()) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert message in error


def test_reports_are_of_evaluations(capsys):
    with pytest.raises(SystemExit):
        run("DATA", "ckpts", "--top", 3)
    assert "need -e, and real images" in capsys.readouterr().err
