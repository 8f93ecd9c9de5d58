"""The recipes of `networks/README.md`: SimAM in detectors, segmenters, parsers of networks, signals
and volumes. Those for packages of the extra `recipes` are skipped where it is not installed."""

import copy

import onnxruntime
import pytest
import torch
import yaml
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import FeaturePyramidNetwork

from networks import SimAM, create_model, insert, simam

# of a detector that is quick to run
SMALL = {"min_size": 64, "max_size": 64, "num_classes": 3}
SMALL |= {"rpn_post_nms_top_n_train": 20, "rpn_post_nms_top_n_test": 20}


def our_backbone(trainable_layers=3):
    return _resnet_fpn_extractor(create_model("resnet50", "simam", 0.1), trainable_layers)


@pytest.mark.parametrize("make", [detection.FasterRCNN, detection.MaskRCNN])
def test_torchvisions_detectors_take_our_backbone(make):
    detector = make(our_backbone(trainable_layers=2), **SMALL)
    assert sum(isinstance(module, SimAM) for module in detector.modules()) == 16
    masks = torch.zeros(1, 64, 64, dtype=torch.uint8)
    masks[:, 8:40, 8:48] = 1
    box = torch.tensor([[8.0, 8, 48, 40]])
    target = {"boxes": box, "labels": torch.tensor([1]), "masks": masks}
    losses = detector(list(torch.rand(2, 3, 64, 64)), [target, target])
    assert ("loss_mask" in losses) == (make is detection.MaskRCNN)
    sum(losses.values()).backward()
    for name, weight in detector.backbone.body.named_parameters():
        assert (weight.grad is not None) == name.startswith(("layer3", "layer4")), name
    found = detector.eval()([torch.rand(3, 64, 64)])[0]
    assert found["boxes"].shape == (len(found["scores"]), 4)
    assert ("masks" in found) == (make is detection.MaskRCNN)


def test_insert_makes_a_detector_the_same():
    theirs = detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, **SMALL).eval()
    places = insert(theirs, "simam", 0.1)
    assert len(places) == 16
    assert all(place.startswith("backbone.body.layer") for place in places)
    ours = detection.FasterRCNN(our_backbone(), **SMALL).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(1, 3, 64, 64)
    for level, features in ours.backbone(x).items():
        assert torch.equal(features, theirs.backbone(x)[level])


@pytest.mark.parametrize(
    ("arch", "layers"),
    [
        ("resnet50", {"layer2": 512, "layer3": 1024, "layer4": 2048}),
        ("mobilenet_v2", {"features.6": 32, "features.13": 96, "features.17": 320}),
    ],
)
def test_a_feature_pyramid(arch, layers):
    body = create_feature_extractor(create_model(arch, "simam").eval(), list(layers))
    features = body(torch.randn(1, 3, 64, 96))
    assert {name: each.shape[1] for name, each in features.items()} == layers
    levels = FeaturePyramidNetwork(list(layers.values()), 16)(features)
    assert [tuple(level.shape[1:]) for level in levels.values()] == [
        (16, 8, 12),
        (16, 4, 6),
        (16, 2, 3),
    ]


def assert_near(found, expected, share):
    """Apart by a small share of the largest value."""
    assert (found - expected).abs().max() <= share * expected.abs().max()


SEGMENTERS = {
    "resnet34": (16, "encoder.layer1.0.conv2"),
    "mobilenet_v2": (17, "encoder.features.1.conv.0.0"),
    "efficientnet-b0": (16, "encoder._blocks.0._depthwise_conv"),
    "tu-convnext_atto": (12, "encoder.model.stages_0.blocks.0.conv_dw"),
}


@pytest.mark.filterwarnings("ignore")  # the package's own
@pytest.mark.parametrize("encoder", SEGMENTERS)
def test_segmentation_models_pytorch(encoder):
    smp = pytest.importorskip("segmentation_models_pytorch")
    net = smp.Unet(encoder, encoder_weights=None, classes=2)
    keys = list(net.state_dict())
    places = insert(net, "simam", 0.1)
    assert (len(places), places[0]) == SEGMENTERS[encoder]
    assert list(net.state_dict()) == keys
    y = net(torch.randn(2, 3, 64, 64))
    assert y.shape == (2, 2, 64, 64)
    y.square().mean().backward()
    assert all(net.get_submodule(place).weight.grad.isfinite().all() for place in places)


DETECTOR = """
nc: 3
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, SimAM, []]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, SimAM, [0.1]]
  - [-1, 1, Conv, [64, 3, 2]]
head:
  - [[3, 4], 1, Detect, [nc]]
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """Where ultralytics looks up the names in its yaml files; SimAM is one of them."""
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    monkeypatch.chdir(tmp_path)  # where it exports to
    pytest.importorskip("ultralytics")
    import ultralytics.nn.tasks as tasks

    monkeypatch.setattr(tasks, "SimAM", SimAM, raising=False)
    return tasks


@pytest.mark.filterwarnings("ignore")  # the package's own
def test_ultralytics(tasks, tmp_path):
    """Builds, trains a step, runs in half precision and, folded and exported, as ONNX."""
    from ultralytics import YOLO
    from ultralytics.utils import IterableSimpleNamespace

    file = tmp_path / "yolo-simam.yaml"
    file.write_text(DETECTOR)
    yolo = YOLO(file)
    net = yolo.model
    assert [m.e_lambda for m in net.modules() if isinstance(m, SimAM)] == [1e-4, 0.1]
    x = torch.rand(2, 3, 64, 64)
    options = net.args
    net.args = IterableSimpleNamespace(**options)  # as its trainer has it
    batch = {"img": x, "bboxes": torch.full((2, 4), 0.5), "cls": torch.ones(2, 1)}
    losses, _ = net.train().loss({**batch, "batch_idx": torch.arange(2.0)})
    losses.sum().backward()
    assert all(w.grad.isfinite().all() for w in net.parameters() if w.requires_grad)
    net.args = options
    expected = net.eval()(x)[0]
    assert_near(copy.deepcopy(net).half()(x.half())[0], expected, 1e-2)
    file = yolo.export(format="onnx", imgsz=64, simplify=False, dynamic=True)
    found = onnxruntime.InferenceSession(file).run(None, {"images": x.numpy()})[0]
    assert_near(torch.from_numpy(found), expected, 1e-3)


@pytest.mark.filterwarnings("ignore")
def test_ultralytics_folds_no_norm_past_an_attention(tasks):
    net = tasks.DetectionModel(yaml.safe_load(DETECTOR), verbose=False)
    insert(net, after="model.0.conv")
    with pytest.raises(RuntimeError, match="no norm can be folded"):
        net.fuse()


def parse(text):
    """A network of rows [module, arguments], as YOLOv5 and its kin read them: the channels that
    come in are put first for every module that the parser knows."""
    layers, channels = [], 3
    for name, arguments in yaml.safe_load(text):
        made = {"Conv": nn.Conv2d, "SimAM": SimAM}[name](channels, *arguments)
        channels = getattr(made, "out_channels", channels)
        layers.append(made)
    return nn.Sequential(*layers)


def test_parsers_of_networks():
    """YAML 1.1 reads 1e-2 as text."""
    net = parse("[[Conv, [8, 3]], [SimAM, []], [SimAM, [8]], [SimAM, [8, 1e-2]], [SimAM, [0.1]]]")
    x = torch.randn(1, 3, 9, 9)
    y = simam(simam(net[0](x)))
    assert torch.equal(net(x), simam(simam(y, 0.01), 0.1))


def test_signals():
    """A speaker-verification network's blocks: 1-D convolutions that go through all moments."""

    def block(width):
        return nn.Sequential(nn.Conv1d(width, 32, 5, padding=2), nn.BatchNorm1d(32), nn.ReLU())

    net = nn.Sequential(block(40), block(32), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    x = torch.randn(4, 40, 50)
    plain = copy.deepcopy(net)
    assert insert(net, after="*.0") == ["0.0", "1.0"]
    for place in (plain[0], plain[1]):
        place.insert(1, SimAM())
    assert torch.equal(net(x), plain(x))
    net(x).square().mean().backward()
    assert all(weight.grad.isfinite().all() for weight in net.parameters())


def test_volumes_and_each_of_their_frames():
    """C3D's blocks, with statistics over the volume, and over each frame alone."""

    def block(*between):
        conv = nn.Conv3d(3, 8, 3, padding=1)
        return nn.Sequential(conv, *between, nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2))

    x = torch.randn(2, 3, 4, 10, 12)
    for module in (SimAM(), SimAM(dims=(-2, -1))):
        net = block(module)
        y = net[0](x)
        frames = torch.stack([simam(frame) for frame in y.unbind(2)], 2)
        torch.testing.assert_close(module(y), simam(y) if module.dims is None else frames)
        net(x).square().mean().backward()
        assert net[0].weight.grad.isfinite().all()
    assert str(module) == "SimAM(e_lambda=0.0001, dims=(-2, -1))"


@pytest.mark.parametrize("dims", [(1,), (2, 3), -1, "all"], ids=str)
def test_other_dims_are_refused(dims):
    with pytest.raises(ValueError, match=r"dims are None, all, or \(-2, -1\), not "):
        SimAM(dims=dims)
