"""Exported networks give the network's logits, for any number of images."""

import json
from pathlib import Path

import pytest
import torch
from published import E_LAMBDA, published_network, real

from networks import create_model, list_models
from networks.init import zero_init_residual
from scripts import export_onnx
from scripts.export_onnx import main
from utils.checkpoints.formats import save_atomically, write_weights

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

QUICK = ("resnet18", "mobilenet_v2", "cifar_resnet20")
# left out for their time, minutes on one thread: each has the blocks of others here, more often
# (those of resnet101, cifar_wideresnet28_10, cifar_resnet56 and cifar_preresnet164)
REPEATED = ("resnet152", "cifar_wideresnet40_10", "cifar_resnet110", "cifar_resnet164")
REPEATED += ("cifar_preresnet110",)


def written(folder: Path, arch: str, attention: str, size: int) -> tuple[str, torch.nn.Module]:
    """A checkpoint as main_imagenet.py writes it, and its network in float64.

    As in a trained network, the batch norms know the statistics of images, and residual branches
    add little: else float32 loses more than 1e-4 in the deepest networks, in PyTorch too.
    """
    network = {"arch": arch, "attention": attention, "num_classes": 3}
    network["attention_param"] = E_LAMBDA if attention == "simam" else None
    model = create_model(**network)
    zero_init_residual(model)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches so far
            if not module.weight.any():
                torch.nn.init.constant_(module.weight, 0.2)
    with torch.no_grad():
        model(torch.randn(8, 3, size, size))
    path = str(folder / "model_best.pth.tar")
    content = {**network, "classes": ["a", "b", "c"], "state_dict": model.state_dict()}
    save_atomically(content, path)
    return path, model.double().eval()


def difference(logits: torch.Tensor, expected: torch.Tensor) -> float:
    return ((logits - expected).abs().max() / expected.abs().max().clamp(min=1)).item()


# the larger networks with SimAM alone: all that is in them without it is there, too
@pytest.mark.parametrize(
    ("arch", "attention"),
    [(arch, attention) for arch in QUICK for attention in ("none", "simam")]
    + [
        pytest.param(arch, "simam", marks=pytest.mark.slow)
        for arch in list_models()
        if arch not in QUICK + REPEATED
    ],
)
def test_onnxruntime_gives_the_same_logits(tmp_path, capsys, arch, attention):
    size = 32 if arch.startswith("cifar") or "101" in arch else 64
    path, model = written(tmp_path, arch, attention, size)
    target = str(tmp_path / "network.onnx")
    assert main([path, target, "--image-size", str(size)]) == 0
    assert "largest difference" in capsys.readouterr().out

    graph = onnx.load(target)
    onnx.checker.check_model(graph, full_check=True)
    assert {entry.domain for entry in graph.opset_import} == {""}
    assert {node.domain for node in graph.graph.node} == {""}
    assert not graph.functions
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    for batch in (1, 2, 5):
        images = torch.randn(batch, 3, size, size)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        with torch.no_grad():
            assert difference(torch.from_numpy(logits), model(images.double())) < 1e-4
    notes = {entry.key: json.loads(entry.value) for entry in graph.metadata_props}
    assert notes["arch"] == arch
    assert notes["attention"] == attention
    assert notes["classes"] == ["a", "b", "c"]
    # as papers and torchvision print them; shorter side of CIFAR's images: their own
    mean = [0.4914, 0.4822, 0.4465] if arch.startswith("cifar") else [0.485, 0.456, 0.406]
    assert notes["preparation"]["mean"] == mean
    sides = notes["preparation"]["shorter_side"], notes["preparation"]["centre_crop"]
    assert sides == ((32, 32) if arch.startswith("cifar") else (size * 256 // 224, size))


def test_published_weights(tmp_path, capsys):
    """Bare weights under the published names, against torchvision's network with SimAM."""
    theirs = real(published_network("resnet18", "simam"))
    path, target = str(tmp_path / "published.pth"), str(tmp_path / "network.onnx")
    write_weights({k: v.float() for k, v in theirs.state_dict().items()}, path)
    assert main([path, target, "--image-size", "64"]) == 0
    said = capsys.readouterr()
    assert f"resnet18 + simam {E_LAMBDA}\n" in said.out
    assert "lambda 0.1 as published" in said.err
    images = torch.randn(2, 3, 64, 64)
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        assert difference(torch.from_numpy(logits), theirs(images.double())) < 1e-4


def test_torch_export(tmp_path):
    path, model = written(tmp_path, "resnet18", "simam", 64)
    target = str(tmp_path / "network.pt2")
    assert main([path, target, "--image-size", "64"]) == 0
    extra = {"network.json": ""}
    program = torch.export.load(target, extra_files=extra)
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {name.partition(".")[0] for name in targets} == {"aten"}
    images = torch.randn(5, 3, 64, 64)
    with torch.no_grad():
        assert difference(program.module()(images), model(images.double())) < 1e-4
    assert json.loads(extra["network.json"])["arch"] == "resnet18"


def test_other_attention(tmp_path):
    path, model = written(tmp_path, "cifar_resnet20", "none", 32)
    target = str(tmp_path / "network.pt2")
    option = ["--attention-type", "simam", "--attention-param", str(E_LAMBDA)]
    assert main([path, target, "--image-size", "32", *option]) == 0
    with_simam = create_model("cifar_resnet20", "simam", E_LAMBDA, num_classes=3)
    with_simam.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        logits = torch.export.load(target).module()(images)
        assert difference(logits, with_simam.double().eval()(images.double())) < 1e-4
        assert difference(logits, model(images.double())) > 1e-3


@pytest.mark.parametrize(("lost", "code"), [(5e-5, 0), (5e-4, 2)])
def test_a_wrong_file_is_refused(lost, code, tmp_path, capsys, monkeypatch):
    """With a runner that puts so much on each logit; the logits here are below 1."""
    path, _ = written(tmp_path, "cifar_resnet20", "simam", 32)
    write, run = export_onnx.FORMATS[".pt2"]

    def off(target):
        program = run(target)
        return lambda images: program(images) + lost

    monkeypatch.setitem(export_onnx.FORMATS, ".pt2", (write, off))
    assert main([path, str(tmp_path / "network.pt2")]) == code
    assert ("is wrong: its logits are" in capsys.readouterr().err) == bool(code)


def test_mistakes_are_one_line(tmp_path, capsys):
    def refused(source, target: str, *options: str) -> str:
        assert main([str(source), str(tmp_path / target), *options]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    missing = tmp_path / "none.pth"
    (tmp_path / "here.onnx").write_text("kept")
    assert "here.onnx already exists" in refused(missing, "here.onnx")
    assert (tmp_path / "here.onnx").read_text() == "kept"
    assert "use .onnx or .pt2" in refused(missing, "out.pt")
    assert "there is no folder" in refused(missing, "no/out.onnx")
    assert "none.pth does not exist" in refused(missing, "out.onnx")
    path, _ = written(tmp_path, "cifar_resnet20", "none", 32)
    assert "has no weights of se" in refused(path, "out.onnx", "--attention-type", "se")
    assert not list(tmp_path.glob("out*"))
