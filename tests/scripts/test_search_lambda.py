"""The search for lambda: its runs, the images that they never see, and going on."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from scripts.search_lambda import main
from utils.data.cifar import hold_out, read_folder


@pytest.mark.slow
def test_lambdas_are_compared_on_held_out_images(digits32, tmp_path, capsys):
    words = f"--data-dir {digits32} --gpu -1 --iterations 1 --ckpt {tmp_path / 'runs'}"
    words += f" --lambdas 0.1,1e-6 --seeds 1,2 --out {tmp_path / 'figure'}"
    assert main(words.split()) == 0
    printed = capsys.readouterr().out
    said = json.loads((tmp_path / "figure.json").read_text())
    assert (said["images"], said["held_out"]) == (252, 28)
    train, val = hold_out(read_folder(str(digits32))[0])
    for row, e_lambda in zip(said["rows"], ("0.1", "1e-06"), strict=True):
        reached = []
        for seed in (1, 2):
            name = f"digits32-held-out-cifar_resnet20-simam-param{e_lambda}-seed{seed}"
            folder = tmp_path / "runs" / name
            (epoch,) = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
            reached.append(epoch["val_acc1"])
            state = torch.load(folder / "checkpoint.pth.tar", weights_only=True)
            assert (state["attention_param"], state["images"]) == (float(e_lambda), len(train))
            right = epoch["val_acc1"] * len(val) / 100
            assert right == pytest.approx(round(right))  # of the held-out images
        assert (row["e_lambda"], row["acc1"]) == (float(e_lambda), reached)
        assert row["mean"] == pytest.approx(np.mean(reached))
        assert row["std"] == pytest.approx(np.std(reached, ddof=1))
        assert f"| {e_lambda} | {row['mean']:.2f} ± {row['std']:.2f} | 2 |" in printed
    with Image.open(tmp_path / "figure.png") as image:
        assert image.format == "PNG"
        assert len(image.convert("RGB").getcolors(1_000_000)) > 10  # something is drawn

    (folder / "metrics.jsonl").unlink()
    assert main(words.split()) == 0  # again: nothing is trained twice
    printed = capsys.readouterr().out
    assert printed.count("finished    ") == 4
    assert "Epoch" not in printed
    assert f"| 1e-06 | {reached[0]:.2f} | 1 |" in printed  # what can't be read counts as not run
    assert json.loads((tmp_path / "figure.json").read_text())["rows"][0] == said["rows"][0]


def test_a_wrong_network_is_said_before_the_images_are_read(tmp_path, capsys):
    words = ["--ckpt", str(tmp_path), "--arch", "cifar_resnet21", "--data-dir", "nowhere"]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: unknown arch 'cifar_resnet21'; known: ")
