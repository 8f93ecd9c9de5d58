"""Who made a run: in its log and, of every start, in its args.json."""

import json
import os
import re
import socket
import subprocess
import sys

import torch
from conftest import ROOT
from runs import load, path, run

import main_imagenet


def test_every_start_is_kept_with_what_it_changed(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["main_imagenet.py", "a folder", "--lr", "0.006"])
    assert run(digits, tmp_path, "--epochs", 1) == 0
    said = path(tmp_path, "log.txt").read_text().splitlines()
    assert said[0] == "command     python main_imagenet.py 'a folder' --lr 0.006"
    versions = rf"Python {sys.version.split()[0]}, torch {re.escape(torch.__version__)}, CUDA "
    assert re.match(
        rf"started     \S+ on {socket.gethostname()}, revision \S+, {versions}", said[1]
    )

    more = ("--epochs", 2, "--resume", "auto", "--lr", 0.001)
    assert run(digits, tmp_path, *more) == 0
    settings = json.loads(path(tmp_path, "args.json").read_text())
    assert (settings["lr"], settings["epochs"], settings["seed"]) == (0.001, 2, 3)
    first, second = settings["starts"]
    assert first["command"] == second["command"] == "python main_imagenet.py 'a folder' --lr 0.006"
    assert first["changed"] == {}
    assert second["changed"] == {"lr": [0.006, 0.001], "epochs": [1, 2]}
    assert first["date"] <= second["date"]
    assert (first["torch"], first["cuda"]) == (torch.__version__, torch.version.cuda)
    log = path(tmp_path, "log.txt").read_text()
    assert "\nresumed     " in log
    assert "checkpoint.pth.tar, after epoch 1\n" in log
    assert "\nchanged     --lr 0.001 (was 0.006), --epochs 2 (was 1)\n" in log
    if os.path.isdir(ROOT / ".git"):
        head = subprocess.check_output(["git", "-C", ROOT, "rev-parse", "HEAD"], text=True)
        assert head.startswith(first["revision"].removesuffix("-dirty"))


def test_a_drawn_seed_is_said_and_kept(digits, tmp_path):
    words = f"{digits} --ckpt {tmp_path} -a cifar_resnet20 --gpu=-1 --image-size 32 -b 24 -j 0"
    seeds = []
    for more in ("--epochs 1", "--epochs 2 --resume auto"):
        assert main_imagenet.main([*words.split(), *more.split()]) == 0
        seeds.append(load(tmp_path)["seed"])
    settings = json.loads(path(tmp_path, "args.json").read_text())
    assert [settings["seed"]] * 2 == seeds
    assert settings["starts"][1]["changed"] == {"epochs": [1, 2]}
