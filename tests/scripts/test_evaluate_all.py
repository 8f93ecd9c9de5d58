"""Many checkpoints of many origins are recognised, and measured as one alone would be."""

import copy
import csv
import json

import pytest
import torch
from conftest import STATELESS
from published import prefixed, published_network
from torchvision import datasets, transforms

from networks import create_model
from scripts.evaluate_all import main
from utils.checkpoints.formats import save_atomically, write_weights

ARCH = "mobilenet_v2"
NAMES = ["2", "0", "1"]  # of the outputs 0, 1 and 2
OPTIONS = ("--gpu", "-1", "-j", "0", "--image-size", "64", "-b", "5")


def network(attention: str, num_classes: int = 3, param: float | None = None):
    torch.manual_seed(len(attention))
    return create_model(ARCH, attention, param, num_classes=num_classes)


def in_order(model):
    """The network with the outputs called `NAMES` where "0", "1" and "2" are looked for."""
    model = copy.deepcopy(model)
    for value in model.classifier[-1].parameters():
        value.data[:3] = value.data[[1, 2, 0]]
    return model


def top1_and_loss(model, data) -> tuple[float, float]:
    """Percent and mean cross-entropy by torchvision's own pipeline, one image at a time."""
    transform = transforms.Compose(
        [
            transforms.Resize(73),
            transforms.CenterCrop(64),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    images = datasets.ImageFolder(data / "val", transform)
    model.eval()
    with torch.no_grad():
        scores = [(model(image[None])[0].log_softmax(0), target) for image, target in images]
    right = [s.argmax().item() == target for s, target in scores]
    losses = [-s[target].item() for s, target in scores]
    return 100 * sum(right) / len(right), sum(losses) / len(losses)


@pytest.fixture
def checkpoints(tmp_path):
    """A folder; name -> (network, attention, its parameter, what is assumed)"""
    folder = tmp_path / "files"
    (folder / "run").mkdir(parents=True)
    ours, published = network("simam", param=0.01), network("simam", param=0.1)
    said = {"arch": ARCH, "attention": "simam", "attention_param": 0.01, "num_classes": 3}
    content = {**said, "classes": NAMES, "state_dict": ours.state_dict()}
    save_atomically(content, str(folder / "run/best.pth.tar"))
    keys = published_network(ARCH, "simam").state_dict()
    state = dict(zip(keys, published.state_dict().values(), strict=True))
    torch.save({"state_dict": prefixed("module.", state)}, folder / "published.pth")
    se, plain = network("se"), network("none", num_classes=1000)
    write_weights(se.state_dict(), str(folder / "se.safetensors"))
    torch.save(plain.state_dict(), folder / "torchvision.pth")
    (folder / "notes.txt").write_text("not a checkpoint, and not looked at")
    alike = f"{' and '.join(STATELESS)} have the same keys, taken for none"
    return folder, {
        "run/best.pth.tar": (in_order(ours), "simam", 0.01, ""),
        "published.pth": (published, "simam", 0.1, "lambda 0.1 as published"),
        "se.safetensors": (se, "se", 16, ""),
        "torchvision.pth": (plain, "none", None, alike),
    }


def test_folder_is_recognised_and_measured(checkpoints, digits, tmp_path, capsys):
    folder, expected = checkpoints
    tables = ["--csv", str(tmp_path / "a.csv"), "--json", str(tmp_path / "a.json")]
    assert main([str(digits), str(folder), *OPTIONS, *tables]) == 0
    rows = {row["file"]: row for row in json.loads((tmp_path / "a.json").read_text())}
    assert rows.keys() == {str(folder / name) for name in expected}
    for name, (model, *found) in expected.items():
        row = rows[str(folder / name)]
        assert (row["arch"], row["images"], row["image_size"]) == (ARCH, 12, 64)
        assert [row["attention"], row["attention_param"], row["assumed"]] == found
        assert (row["acc1"], row["loss"]) == pytest.approx(top1_and_loss(model, digits), rel=1e-4)
    # the paper's figures are those of 1,000 classes
    papers = [rows[str(folder / name)]["paper_acc1"] for name in expected]
    assert papers == [None, None, None, 71.90]
    with open(tmp_path / "a.csv", newline="") as file:
        as_text = [{k: "" if v is None else str(v) for k, v in r.items()} for r in rows.values()]
        assert list(csv.DictReader(file)) == as_text
    printed = capsys.readouterr().out
    line = next(li for li in printed.split("\n") if li.startswith(f"| {folder}/torchvision.pth"))
    assert "| 71.90 / 90.51 |" in line


def test_the_users_word_overrides(checkpoints, digits, tmp_path):
    folder, expected = checkpoints
    model = create_model(ARCH, "simam", 0.5)
    model.load_state_dict(expected["torchvision.pth"][0].state_dict())
    names = tmp_path / "names.txt"
    names.write_text("\n".join(NAMES))
    words = f"--attention-type simam --attention-param 0.5 --class-names {names} --json"
    command = [str(digits), str(folder / "torchvision.pth"), *OPTIONS, *words.split()]
    assert main([*command, str(tmp_path / "a.json")]) == 0
    (row,) = json.loads((tmp_path / "a.json").read_text())
    assert (row["attention"], row["attention_param"], row["assumed"]) == ("simam", 0.5, "")
    expected = top1_and_loss(in_order(model), digits)
    assert (row["acc1"], row["loss"]) == pytest.approx(expected, rel=1e-4)


def test_bad_files_are_reported_and_passed_over(digits, tmp_path, capsys):
    """What an earlier table has stays until there is a row for a new one."""
    (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04")
    write_weights(network("se", num_classes=2).state_dict(), str(tmp_path / "two.pth"))
    write_weights({"w": torch.zeros(3)}, str(tmp_path / "foreign.pth"))
    state = network("se").state_dict()
    state["classifier.1.bias"][0] = -torch.inf
    write_weights(state, str(tmp_path / "inf.pth"))
    whys = {
        "broken.pth": "is damaged",
        "two.pth": "1 of 3 class folders mean no output",
        "foreign.pth": "fits no network here",
        "inf.pth": "makes outputs that are not finite",
        "missing.pth": "does not exist",
    }
    before = tmp_path / "before.csv"
    before.write_text("earlier\n")
    words = ["--csv", str(before), "--json", str(tmp_path / "a.json")]
    command = [str(digits), *(str(tmp_path / name) for name in whys)]
    assert main([*command, *OPTIONS, *words]) == 2
    errors = capsys.readouterr().err.splitlines()
    for error, (name, why) in zip(errors, whys.items(), strict=True):
        assert str(tmp_path / name) in error
        assert why in error
    assert before.read_text() == "earlier\n"
    assert not (tmp_path / "a.json").exists()
    write_weights(network("se").state_dict(), str(tmp_path / "good.pth"))
    assert main([*command, str(tmp_path / "good.pth"), *OPTIONS, *words]) == 2
    assert f"\n| {tmp_path}/good.pth | {ARCH} | se 16 |" in capsys.readouterr().out
    for table in (before.read_text().splitlines()[1], (tmp_path / "a.json").read_text()):
        assert str(tmp_path / "good.pth") in table


def test_of_a_run_the_best_is_evaluated_unless_others_are_named(trained, digits, tmp_path):
    table = tmp_path / "a.json"
    best, latest = (str(trained / name) for name in ("model_best.pth.tar", "checkpoint.pth.tar"))
    for paths, expected in (([trained], [best]), ([trained, latest], [best, latest])):
        assert main([str(digits), *map(str, paths), *OPTIONS, "--json", str(table)]) == 0
        assert sorted(row["file"] for row in json.loads(table.read_text())) == sorted(expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("{digits} {empty}", "holds no checkpoint"),
        ("{empty} {file}", "has no folder val/"),
        ("{digits} {file} --attention-type simm", "known: simam"),
        ("{digits} {file} --class-names {empty}", "can't read --class-names"),
        ("{digits} {file} --csv {empty}/none/a.csv", "can't write"),
        ("{digits} {file} --json {empty}", "it is a folder"),
        ("{digits} {file} --gpu 99", "--gpu 99"),
    ],
)
def test_mistakes_are_said_before_any_work(tmp_path, digits, capsys, arguments, words):
    (tmp_path / "empty").mkdir()
    write_weights(network("se").state_dict(), str(tmp_path / "w.pth"))
    places = {"digits": digits, "empty": tmp_path / "empty", "file": tmp_path / "w.pth"}
    assert main(arguments.format(**places).split()) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert words in said.err
    assert not said.out
