"""Predictions are those of torchvision's own pipeline, in every format, and bad images are said."""

import csv
import io
import json
import subprocess
import sys

import pytest
import torch
import torchvision
from conftest import ROOT, STATELESS
from PIL import Image
from torchvision import transforms

from scripts.predict import main

SMALL = ("--image-size", "32", "--gpu", "-1")


def run(capsys, *arguments):
    """Exit code, standard output, lines of standard error."""
    code = main([str(each) for each in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err.splitlines()


def probabilities(model, path, size):
    """By torchvision's transforms and a forward pass of one image."""
    transform = transforms.Compose(
        [
            transforms.Resize(size * 256 // 224),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    with torch.no_grad():
        return model.eval()(transform(Image.open(path).convert("RGB"))[None])[0].softmax(0)


def test_torchvisions_network_and_imagenets_names(photos, digits, tmp_path, capsys):
    model = torchvision.models.resnet18()
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    images = [*photos, *sorted((digits / "val" / "1").iterdir())]
    code, out, errors = run(
        *(capsys, *images, "--checkpoint", tmp_path / "bare.pth", "--image-size", "64"),
        *("--format", "csv", "--gpu", "-1", "-b", "4", "-j", "1"),
    )
    assert code == 0
    (note,) = errors
    assert f"{' and '.join(STATELESS)} have the same keys, taken for none" in note
    rows = list(csv.DictReader(io.StringIO(out)))
    names = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]
    assert len(rows) == 5 * len(images)
    for number, path in enumerate(images):
        best = probabilities(model, path, 64).topk(5)
        for rank, row in enumerate(rows[5 * number : 5 * number + 5]):
            index = best.indices[rank].item()
            assert (row["image"], row["rank"]) == (str(path), str(rank + 1))
            assert (row["class"], row["index"]) == (names[index], str(index))
            assert float(row["confidence"]) == pytest.approx(best.values[rank].item(), rel=1e-4)


def test_as_many_classes_are_said_as_asked(trained, digits, capsys):
    words = ("--checkpoint", trained / "model_best.pth.tar", *SMALL, "--format", "jsonl")
    for top, count in ((1, 1), (2, 2), (9, 3)):
        _, out, _ = run(capsys, digits / "val" / "1", *words, "--top", top)
        assert {len(json.loads(line)["predictions"]) for line in out.splitlines()} == {count}


def test_formats_hold_the_same(trained, digits, capsys):
    checkpoint = trained / "model_best.pth.tar"
    printed = {}
    for kind, sizes in (("jsonl", "-b5 -j2"), ("csv", "-b12 -j2"), ("table", "-b1 -j0")):
        words = ("--checkpoint", checkpoint, *SMALL, *sizes.split(), "--format", kind)
        code, printed[kind], errors = run(capsys, digits / "val", *words)
        assert (code, errors) == (0, [])
    objects = [json.loads(line) for line in printed["jsonl"].splitlines()]
    paths = list(map(str, sorted((digits / "val").glob("*/*.png"))))
    assert [each["image"] for each in objects] == paths
    guesses = [guess for each in objects for guess in each["predictions"]]
    assert all(guess["class"] == str(guess["index"]) for guess in guesses)
    near = {"rel": 1e-3, "abs": 1e-6}

    rows = list(csv.DictReader(io.StringIO(printed["csv"])))
    lines = [line.split() for line in printed["table"].splitlines()[1:]]
    assert [row["image"] for row in rows] == [image for image in paths for _ in range(3)]
    for row, line, guess in zip(rows, lines, guesses, strict=True):
        assert (row["class"], row["index"]) == (guess["class"], str(guess["index"]))
        assert float(row["confidence"]) == pytest.approx(guess["confidence"], **near)
        assert [line[0], line[1], line[4]] == [row["image"], row["rank"], row["class"]]
        assert float(line[2]) == pytest.approx(100 * guess["confidence"], rel=1e-3, abs=6e-3)


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_images_are_said_and_passed_over(trained, digits, photos, tmp_path, capsys, workers):
    good = sorted((digits / "val" / "2").iterdir())[:3]
    bad = [tmp_path / name for name in ("cut.jpg", "text.png", "empty.png", "missing.png")]
    bad[0].write_bytes(photos[0].read_bytes()[:20_000])
    bad[1].write_text("no image")
    bad[2].touch()
    words = ("--checkpoint", trained / "checkpoint.pth.tar", *SMALL, "--format", "jsonl")
    mixed = [bad[0], good[0], bad[1], bad[2], good[1], bad[3], good[2]]
    code, out, errors = run(capsys, *mixed, *words, "-b", "2", "-j", workers)
    assert code == 2
    _, alone, _ = run(capsys, *good, *words)
    for one, other in zip(out.splitlines(), alone.splitlines(), strict=True):
        one, other = json.loads(one), json.loads(other)
        assert one["image"] == other["image"]
        assert one["predictions"][0]["class"] == other["predictions"][0]["class"]
    for error, path in zip(errors, bad, strict=True):
        assert error.startswith(f"error: skipped image {path} (")


def test_ends_quietly_when_its_reader_has_seen_enough(trained, digits):
    # more output than stays in buffers once the reader is gone
    words = ["--checkpoint", str(trained / "model_best.pth.tar"), *SMALL, "-b", "8", "-j", "0"]
    command = [sys.executable, str(ROOT / "scripts" / "predict.py"), *[str(digits / "val")] * 20]
    with subprocess.Popen(
        [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("{empty} --checkpoint {file}", "holds no image"),
        ("{photo} --checkpoint {empty}/none.pth", "none.pth does not exist"),
        ("{photo} --checkpoint {photo}", "china.jpg can't be read"),
        ("{photo} --checkpoint {nan}", "nan.pth makes outputs that are not finite"),
        ("{photo} --checkpoint {file} --gpu 99", "--gpu 99"),
        ("{photo} --checkpoint {file} --attention-type simm", "known: simam"),
        ("{photo} --checkpoint {file} --attention-type se", "no weights of se"),
    ],
)
def test_mistakes_are_one_line(trained, not_a_number, photos, tmp_path, capsys, arguments, words):
    (tmp_path / "empty").mkdir()
    places = {"empty": tmp_path / "empty", "photo": photos[0], "nan": not_a_number}
    places["file"] = trained / "checkpoint.pth.tar"
    code, out, errors = run(capsys, *arguments.format(**places).split())
    assert (code, out, len(errors)) == (2, "", 1)
    assert words in errors[0]
