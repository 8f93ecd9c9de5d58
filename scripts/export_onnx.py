"""Write a checkpoint's network for deployment: ONNX, or a torch.export program.

    python scripts/export_onnx.py CHECKPOINT OUT.onnx
    python scripts/export_onnx.py CHECKPOINT OUT.pt2

CHECKPOINT is whatever `main_imagenet.py --weights` takes; its network is recognised as by
evaluate_all.py. The program takes "images" (N, 3, SIZE, SIZE), float32, normalised, any N, and
returns "logits" (N, classes). SimAM is in it as plain operators. The file also says what the
network is, what its classes are called, and how its images are prepared: ONNX in its metadata, a
.pt2 in its extra file `network.json`. The written file is then run on random images and compared
with the network in float64: ONNX by onnxruntime, .pt2 by torch.export.
"""

import argparse
import copy
import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.cli import Parser, add_recognition


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="file with the weights")
    add("target", metavar="OUT", help="file to write, .onnx or .pt2")
    add_recognition(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help and mistakes are answered before torch is imported

import torch
from torch import nn

from utils.checkpoints.trained import load_and_tell
from utils.disk import check_target, write_bytes
from utils.errors import UsageError, needed
from utils.processes.ending import exit_code

# Above it something else was exported. Relative to the largest logit where that is above 1. Deep
# networks with random weights lose more by float32 itself: four times PyTorch's own loss may be.
TOLERANCE = 1e-4
ROUNDING = 4
BATCHES = 1, 3
ONNX_NEEDS = "onnx", "onnxscript", "onnxruntime"

Notes = dict[str, Any]  # plain values, by name
Runner = Callable[[torch.Tensor], torch.Tensor]  # images -> logits


def captured(model: nn.Module, image_size: int) -> torch.export.ExportedProgram:
    """The network as torch.export captures it, for any number of images."""
    # the first number of images must be none that torch.export takes for a constant: 0 or 1
    example = torch.zeros(2, 3, image_size, image_size)
    return torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def to_onnx(program: torch.export.ExportedProgram, notes: Notes) -> bytes:
    names = {"input_names": ["images"], "output_names": ["logits"]}
    exported = torch.onnx.export(program, dynamo=True, verbose=False, **names)
    exported.model.metadata_props.update({k: json.dumps(value) for k, value in notes.items()})
    return exported.model_proto.SerializeToString()


def to_pt2(program: torch.export.ExportedProgram, notes: Notes) -> bytes:
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={"network.json": json.dumps(notes)})
    return file.getvalue()


def run_onnx(path: str) -> Runner:
    """The file's program by onnxruntime on the CPU."""
    onnxruntime = needed("onnxruntime", "onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def run_pt2(path: str) -> Runner:
    """The file's program by PyTorch."""
    return torch.export.load(path).module()


FORMATS = {".onnx": (to_onnx, run_onnx), ".pt2": (to_pt2, run_pt2)}


def largest_difference(model: nn.Module, run: Runner, image_size: int) -> tuple[float, float]:
    """Between the logits of `run` and those of `model` in float64, for random images, relative to
    the largest logit where that is above 1; and how much is allowed."""
    batches = [torch.randn(batch, 3, image_size, image_size) for batch in BATCHES]
    exact = copy.deepcopy(model).double()
    with torch.no_grad():
        expected = torch.cat([exact(images.double()) for images in batches])
        theirs, ours = (torch.cat([each(images) for images in batches]) for each in (run, model))
    scale = expected.abs().max().clamp(min=1)
    gap, rounding = (((each - expected).abs().max() / scale).item() for each in (theirs, ours))
    return gap, max(ROUNDING * rounding, TOLERANCE)


def export(args: argparse.Namespace) -> None:
    check_target(args.target, tuple(FORMATS))
    ending = os.path.splitext(args.target)[1].lower()
    for package in ONNX_NEEDS if ending == ".onnx" else ():
        needed(package, package)
    write, runner = FORMATS[ending]
    trained = load_and_tell(args.checkpoint, args)
    image_size = trained.preparation.centre_crop
    prepared = {"classes": trained.classes, "preparation": trained.preparation._asdict()}
    program = captured(trained.model, image_size)
    write_bytes(write(program, asdict(trained.network) | prepared), args.target)
    print(f"wrote {args.target}: {trained.network.label}")
    worst, allowed = largest_difference(trained.model, runner(args.target), image_size)
    if not worst <= allowed:
        raise UsageError(f"{args.target} is wrong: its logits are {worst:.1e} off; don't use it")
    batches = " and ".join(map(str, BATCHES))
    print(f"checked with {batches} random images: largest difference of a logit {worst:.1e}")


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: export(args))


if __name__ == "__main__":
    sys.exit(main())
