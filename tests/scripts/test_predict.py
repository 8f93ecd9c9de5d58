"""Predictions are those of torchvision's own pipeline, in every format, and bad images are said."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from conftest import STATELESS
from PIL import Image
from torchvision import transforms

from networks import create_model
from scripts.predict import main


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


def network_of(folder):
    """The network that the run in `folder` trained."""
    content = torch.load(folder / "model_best.pth.tar", weights_only=True)
    model = create_model("resnet18", "simam", 0.1, num_classes=3)
    model.load_state_dict(content["state_dict"])
    return model


def test_torchvision_network_and_imagenet_names(photos, digits, tmp_path, capsys):
    model = torchvision.models.resnet18()
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    images = [*photos, *sorted((digits / "val" / "1").iterdir())]
    code, out, errors = run(
        *(capsys, *images, "--checkpoint", tmp_path / "bare.pth", "--image-size", "96"),
        *("--format", "csv", "--gpu", "-1", "-b", "4", "-j", "1"),
    )
    assert code == 0
    (note,) = errors
    assert f"{' and '.join(STATELESS)} have the same keys, taken for none" in note
    rows = list(csv.DictReader(io.StringIO(out)))
    names = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]
    assert len(rows) == 5 * len(images)
    for number, path in enumerate(images):
        best = probabilities(model, path, 96).topk(5)
        for rank, row in enumerate(rows[5 * number : 5 * number + 5]):
            index = best.indices[rank].item()
            assert (row["image"], row["rank"]) == (str(path), str(rank + 1))
            assert (row["class"], row["index"]) == (names[index], str(index))
            assert float(row["confidence"]) == pytest.approx(best.values[rank].item(), rel=1e-4)


def test_formats_hold_the_same(trained, digits, capsys):
    checkpoint = trained / "model_best.pth.tar"
    options = ("--checkpoint", checkpoint, "--image-size", "32", "--gpu", "-1")
    printed = {
        kind: run(capsys, digits / "val", *options, "-b", batch, "-j", "2", "--format", kind)
        for kind, batch in (("jsonl", 5), ("csv", 12), ("table", 1))
    }
    assert all((code, errors) == (0, []) for code, _, errors in printed.values())
    objects = [json.loads(line) for line in printed["jsonl"][1].splitlines()]
    paths = sorted((digits / "val").glob("*/*.png"))
    assert [each["image"] for each in objects] == list(map(str, paths))
    model = network_of(trained)
    for each, path in zip(objects, paths, strict=True):
        expected = probabilities(model, path, 32)
        guesses = each["predictions"]
        assert [guess["index"] for guess in guesses] == expected.argsort(descending=True).tolist()
        assert [guess["class"] for guess in guesses] == [str(guess["index"]) for guess in guesses]
        for guess in guesses:
            likely = expected[guess["index"]].item()
            assert guess["confidence"] == pytest.approx(likely, rel=1e-3, abs=1e-6)

    rows = list(csv.DictReader(io.StringIO(printed["csv"][1])))
    lines = printed["table"][1].splitlines()[1:]
    flat = [(each["image"], guess) for each in objects for guess in each["predictions"]]
    assert len(rows) == len(lines) == len(flat) == 3 * len(paths)
    for row, line, (image, guess) in zip(rows, lines, flat, strict=True):
        assert (row["image"], row["class"]) == (image, guess["class"])
        assert float(row["confidence"]) == pytest.approx(guess["confidence"], rel=1e-3, abs=1e-6)
        place, _, percent, _, name = line.split()
        assert (place, name) == (image, guess["class"])
        assert float(percent) == pytest.approx(100 * guess["confidence"], rel=1e-3, abs=6e-3)


def test_bad_images_are_said_and_passed_over(trained, digits, photos, tmp_path, capsys):
    good = sorted((digits / "val" / "2").iterdir())
    bad = [tmp_path / name for name in ("cut.jpg", "text.png", "empty.png", "missing.png")]
    bad[0].write_bytes(photos[0].read_bytes()[:20_000])
    bad[1].write_text("no image")
    bad[2].touch()
    options = ("--checkpoint", trained / "checkpoint.pth.tar", "--image-size", "32", "--gpu", "-1")
    mixed = [bad[0], good[0], bad[1], bad[2], good[1], bad[3], good[2]]
    code, out, errors = run(capsys, *mixed, *options, "-b", "2", "-j", "0", "--format", "jsonl")
    assert code == 2
    objects = [json.loads(line) for line in out.splitlines()]
    assert [each["image"] for each in objects] == [str(path) for path in good[:3]]
    _, alone, _ = run(capsys, *good[:3], *options, "--format", "jsonl")
    for each, line in zip(objects, alone.splitlines(), strict=True):
        (first, *_), (expected, *_) = each["predictions"], json.loads(line)["predictions"]
        assert first["class"] == expected["class"]
    assert len(errors) == 4
    for error, path in zip(errors, bad, strict=True):
        assert error.startswith(f"error: can't read image {path} (")


def test_broken_weights_are_said(not_a_number, photos, capsys):
    code, out, errors = run(
        *(capsys, photos[0], "--checkpoint", not_a_number, "--gpu", "-1"),
        *("--image-size", "32", "--format", "jsonl"),
    )
    assert (code, out, len(errors)) == (2, "", 1)
    assert "nan.pth: the network's outputs are not finite" in errors[0]


def test_ends_quietly_when_its_reader_has_seen_enough(trained, photos):
    # 48 KB of output, more than stays in buffers once the reader is gone
    script = str(Path(__file__).parents[2] / "scripts" / "predict.py")
    words = ["--checkpoint", str(trained / "model_best.pth.tar"), "--image-size", "32"]
    command = [sys.executable, script, *[str(photos[0])] * 200, *words, "--gpu", "-1", "-b", "8"]
    with subprocess.Popen(
        [*command, "-j", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{empty}", "--checkpoint", "{file}"], "holds no image"),
        (["{photo}", "--checkpoint", "{empty}/none.pth"], "none.pth does not exist"),
        (["{photo}", "--checkpoint", "{photo}"], "china.jpg can't be read"),
        (["{photo}", "--checkpoint", "{file}", "--gpu", "99"], "--gpu 99"),
        (["{photo}", "--checkpoint", "{file}", "--attention-type", "simm"], "known: simam"),
        (["{photo}", "--checkpoint", "{file}", "--attention-type", "se"], "no weights of se"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_are_one_line(trained, photos, tmp_path, capsys, arguments, words):
    places = {
        "empty": tmp_path,
        "photo": photos[0],
        "file": trained / "checkpoint.pth.tar",
    }
    code, out, errors = run(capsys, *(each.format(**places) for each in arguments))
    assert (code, out, len(errors)) == (2, "", 1)
    assert words in errors[0]
