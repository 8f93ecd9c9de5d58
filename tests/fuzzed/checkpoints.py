"""Checkpoints of a small run, changed as bytes, as archives and as content."""

import contextlib
import io
import os
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import safetensors.torch
import torch
from runs import SignalAtForward, path
from tiny import Tiny

import main_imagenet
from networks import MODELS
from scripts import convert_checkpoint, evaluate_all, predict
from scripts.make_digits import write_digits
from utils.checkpoints.recognition import identify

OPTIONS = (
    "--gpu -1 -j 0 --image-size 32 -b 6 -p 1 --epochs 2 --seed 1 --lr 0.02 --ema 0.5 "
    "-a tiny --attention-type simam --attention-param 0.1"
)
LONG = "\x1b[31m\n" * 10**5


class Runs:
    """Unpickling this would write the file `witness`."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self):
        return Path.write_text, (self.witness, "ran")


def odd_values(witness: Path) -> list[Callable[[], Any]]:
    small = torch.arange(6.0).reshape(2, 3)
    values = [None, True, -1, 0, 2**31, 2**70, -(10**400), 0.5, -1e308, float("nan"), float("inf")]
    values += ["", "x", LONG, b"", [], {}, set(), (1, 2), [None], {"a": 1}, {LONG: small}, {1: 2}]
    values += [Namespace(a=1), Runs(witness), os.getcwd, Path(witness), torch.Size([3])]
    values += [torch.zeros(0), torch.zeros(1), torch.tensor(2), small, small.long(), small > 2]
    values += [small.half(), small.to(torch.complex64), small.to("meta"), small.to_sparse()]
    values += [torch.zeros(1).expand(10**9, 256), small * float("nan"), small.t(), -small]
    values += [small.to(torch.float8_e5m2), torch.nn.Parameter(small), torch.zeros(5056).byte()]
    return [
        *((lambda value=value: value) for value in values),
        lambda: torch.quantize_per_tensor(small, 0.1, 0, torch.qint8),
        lambda: torch.nested.nested_tensor([small, small[:1]]),
    ]


class Checkpoints:
    """See `fuzz.Kind`."""

    def __init__(self, folder: Path):
        MODELS["tiny"] = Tiny
        torch.set_num_threads(1)
        self.data, self.witness = folder / "data", folder / "witness"
        write_digits(self.data, val=4, train=8, classes=3)
        words = [str(self.data), *OPTIONS.split()]
        quiet = io.TextIOWrapper(io.BytesIO())
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            with SignalAtForward(Tiny, 1 + 4 + 4 + 2, 15):  # within the second epoch
                assert main_imagenet.main([*words, "--ckpt", str(folder / "run")]) == 143
            self.real = path(folder / "run").read_bytes()
            again = ["--ckpt", str(folder / "again"), "--resume", str(path(folder / "run"))]
            assert main_imagenet.main([*words, *again]) == 0
        self.end = self.weights(folder / "again")
        self.image = next((self.data / "val").rglob("*.png"))
        self.odd = odd_values(self.witness)
        identify(self.end)  # remembers all networks, for the processes to come

    def weights(self, root: Path) -> dict[str, torch.Tensor]:
        return torch.load(path(root))["state_dict"]

    def make(self, draw: Random, place: Path) -> str:
        change = draw.choice([self.bytes_of, self.entries_of, self.content_of, self.content_of])
        data, how = change(draw)
        self.exact = change != self.content_of and "other" not in how
        (place / "a.pth.tar").write_bytes(data)
        return how

    def bytes_of(self, draw: Random) -> tuple[bytes, str]:
        """The file cut off, or with some bits, bytes or pages of it changed."""
        data = bytearray(self.real)
        at = draw.choice([draw.randrange(len(data)), len(data) - 1 - draw.randrange(8000)])
        kind = draw.choice(["cut", "bit", "bytes", "page", "doubled"])
        if kind == "cut":
            del data[at:]
        elif kind == "bit":
            data[at] ^= 1 << draw.randrange(8)
        elif kind == "doubled":
            data[at:at] = data[at : at + draw.randrange(5000)]
        else:
            length = draw.randint(1, 8) if kind == "bytes" else 4096
            data[at : at + length] = draw.randbytes(length) if kind == "bytes" else bytes(length)
        return bytes(data), f"{kind} at {at} of {len(self.real)}"

    def entries_of(self, draw: Random) -> tuple[bytes, str]:
        """The archive with an entry left out, doubled, renamed, compressed or exchanged."""
        target, how = (
            io.BytesIO(),
            draw.choice(["without", "twice", "renamed", "deflated", "other"]),
        )
        with zipfile.ZipFile(io.BytesIO(self.real)) as source, zipfile.ZipFile(target, "w") as made:
            names = source.namelist()
            name, other = draw.sample(names, 2)
            for each in names:
                chosen = how if each == name else ""
                content = source.read(other if chosen == "other" else each)
                form = zipfile.ZIP_DEFLATED if chosen == "deflated" else zipfile.ZIP_STORED
                for _ in range({"without": 0, "twice": 2}.get(chosen, 1)):
                    with contextlib.suppress(UserWarning):
                        made.writestr("../x" if chosen == "renamed" else each, content, form)
        return target.getvalue(), f"{name} {how}"

    def content_of(self, draw: Random) -> tuple[bytes, str]:
        """One or two entries, anywhere in the content, left out or with odd values; any format."""
        content, how = torch.load(io.BytesIO(self.real)), []
        for _ in range(draw.randint(1, 2)):
            inner = content
            while True:
                key = draw.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
                deeper = isinstance(inner[key], dict | list) and len(inner[key])
                how.append(str(key)[:40])
                if not deeper or draw.random() < 0.2:
                    break
                inner = inner[key]
            if draw.random() < 0.15:
                del inner[key]
                how.append("gone")
            else:
                at = draw.randrange(len(self.odd))
                inner[key] = self.odd[at]()
                how.append(f"odd value {at}")
        data, form = io.BytesIO(), draw.choice(["new", "new", "old", "safetensors"])
        state = content.get("state_dict")
        if form == "safetensors" and isinstance(state, dict):
            with contextlib.suppress(Exception):  # it takes no odd ones
                return safetensors.torch.save(state), f"safetensors of {how}"
        torch.save(content, data, _use_new_zipfile_serialization=form != "old")
        return data.getvalue(), f"{form} format, {how}"

    def read(self, draw: Random, place: Path) -> int:
        file, out = str(place / "a.pth.tar"), str(place / "out")
        run = [str(self.data), *OPTIONS.split(), "--ckpt", out]
        command = draw.choice(["train", "train", "begin", "evaluate", "save", "others"])
        if command == "train":
            code = main_imagenet.main([*run, "--resume", file])
            if code == 0 and self.exact:
                found = self.weights(Path(out))
                assert all(torch.equal(found[key], self.end[key]) for key in self.end)
        elif command == "begin":
            code = main_imagenet.main([*run, "--weights", file])
        elif command == "evaluate":
            word = draw.choice(["--resume", "--weights"])
            code = main_imagenet.main([*run, "-e", word, file])
        elif command == "save":
            code = main_imagenet.main([*run, "--resume", file, "--save-weights", f"{out}/b.pth"])
        else:
            rest = ["--gpu", "-1", "-j", "0"]
            main, words = draw.choice(
                [
                    (convert_checkpoint.main, [file, f"{out}/b.pth", "--to", "torchvision"]),
                    (predict.main, [str(self.image), "--checkpoint", file, *rest]),
                    (evaluate_all.main, [str(self.data), file, *rest]),
                ]
            )
            code = main(words)
        return code
