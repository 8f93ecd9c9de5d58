"""Exported networks give the network's logits, for any number of images."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from tiny import Tiny

from networks import MODELS
from networks.init import zero_init_residual
from scripts import export_onnx
from scripts.export_onnx import main
from utils.config import Network

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

E_LAMBDA = 0.1
# one of each kind of block, besides cifar_resnet20's: the others have them more often or wider
SLOW = ("mobilenet_v2", "cifar_preresnet20")
SMALL = ("--image-size", "32")


def written(folder: Path, network: Network, size: int) -> tuple[str, torch.nn.Module]:
    """A checkpoint as main_imagenet.py writes it, and its network in float64.

    As in a trained network, the batch norms know the statistics of images, and residual branches
    add little: else float32 loses more than 1e-4 in the deepest networks, in PyTorch too.
    """
    model = network.build()
    zero_init_residual(model)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches so far
            if not module.weight.any():
                torch.nn.init.constant_(module.weight, 0.2)
    with torch.no_grad():
        model(torch.randn(8, 3, size, size))
    path = str(folder / "model_best.pth.tar")
    content = {"classes": ["a", "b", "c"], "state_dict": model.state_dict()}
    torch.save(asdict(network) | content, path)
    return path, model.double().eval()


@pytest.fixture
def tiny(monkeypatch) -> Network:
    """A network whose export takes a moment, with SimAM."""
    monkeypatch.setitem(MODELS, "tiny", Tiny)
    return with_simam("tiny")


def with_simam(arch: str) -> Network:
    return Network(arch=arch, attention="simam", attention_param=E_LAMBDA, num_classes=3)


def difference(run, model: torch.nn.Module, size: int) -> float:
    """Between the logits of `run` and of `model`, in float64; for several numbers of images."""
    gaps = []
    for batch in (1, 2, 5):
        images = torch.randn(batch, 3, size, size)
        with torch.no_grad():
            expected = model(images.double())
            gaps.append((run(images) - expected).abs().max() / expected.abs().max().clamp(min=1))
    return torch.stack(gaps).max().item()


def onnx_runner(path: str):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(["logits"], {"images": x.numpy()})[0])


# with SimAM alone: all that is in the networks without it is there, too
@pytest.mark.parametrize(
    "arch",
    [
        "cifar_resnet20",
        *(pytest.param(arch, marks=pytest.mark.slow) for arch in SLOW),
    ],
)
def test_onnxruntime_gives_the_same_logits(tmp_path, capsys, arch):
    size = 32 if arch.startswith("cifar") else 64
    path, model = written(tmp_path, with_simam(arch), size)
    target = str(tmp_path / "network.onnx")
    assert main([path, target, "--image-size", str(size)]) == 0
    assert "largest difference" in capsys.readouterr().out
    assert difference(onnx_runner(target), model, size) < 1e-4

    graph = onnx.load(target)
    onnx.checker.check_model(graph, full_check=True)
    assert {entry.domain for entry in graph.opset_import} == {""}
    assert {node.domain for node in graph.graph.node} == {""}
    assert not graph.functions
    notes = {entry.key: json.loads(entry.value) for entry in graph.metadata_props}
    assert notes["arch"] == arch
    assert notes["attention"] == "simam"
    assert notes["classes"] == ["a", "b", "c"]
    # as papers and torchvision print them; shorter side of CIFAR's images: their own
    mean = [0.4914, 0.4822, 0.4465] if arch.startswith("cifar") else [0.485, 0.456, 0.406]
    assert notes["preparation"]["mean"] == mean
    sides = notes["preparation"]["shorter_side"], notes["preparation"]["centre_crop"]
    assert sides == ((32, 32) if arch.startswith("cifar") else (size * 256 // 224, size))


def test_torch_export(tiny, tmp_path):
    path, model = written(tmp_path, tiny, 32)
    target = str(tmp_path / "network.pt2")
    assert main([path, target, *SMALL]) == 0
    extra = {"network.json": ""}
    program = torch.export.load(target, extra_files=extra)
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {name.partition(".")[0] for name in targets} == {"aten"}
    assert difference(program.module(), model, 32) < 1e-4
    assert json.loads(extra["network.json"])["arch"] == "tiny"


def test_other_attention(tiny, tmp_path):
    path, model = written(tmp_path, Network(arch="tiny", num_classes=3), 32)
    target = str(tmp_path / "network.pt2")
    option = ["--attention-type", "simam", "--attention-param", str(E_LAMBDA)]
    assert main([path, target, *SMALL, *option]) == 0
    other = tiny.build().double().eval()
    other.load_state_dict(model.state_dict())
    program = torch.export.load(target).module()
    assert difference(program, other, 32) < 1e-4
    assert difference(program, model, 32) > 1e-3


@pytest.mark.parametrize(("lost", "code"), [(5e-5, 0), (5e-4, 2)])
def test_a_wrong_file_is_refused(lost, code, tiny, tmp_path, capsys, monkeypatch):
    """With a runner that puts so much on each logit; the logits here are below 1."""
    path, _ = written(tmp_path, tiny, 32)
    write, run = export_onnx.FORMATS[".pt2"]

    def off(target):
        program = run(target)
        return lambda images: program(images) + lost

    monkeypatch.setitem(export_onnx.FORMATS, ".pt2", (write, off))
    assert main([path, str(tmp_path / "network.pt2"), *SMALL]) == code
    assert ("is wrong: its logits are" in capsys.readouterr().err) == bool(code)


def test_mistakes_are_one_line(tiny, tmp_path, capsys, monkeypatch):
    def refused(source, target: str, *options: str) -> str:
        assert main([str(source), str(tmp_path / target), *options]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    path, _ = written(tmp_path, tiny, 32)
    (tmp_path / "here.onnx").write_text("kept")
    assert "here.onnx already exists" in refused(path, "here.onnx")
    assert (tmp_path / "here.onnx").read_text() == "kept"
    assert "use .onnx or .pt2" in refused(path, "out.pt")
    assert "has no weights of se" in refused(path, "out.onnx", "--attention-type", "se")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install onnxruntime" in refused(path, "out.onnx")
    assert not list(tmp_path.glob("out*"))
