"""Grad-CAM's maps are those of its definition; the picture shows them."""

import os
import sys

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from networks import create_model, list_models
from scripts.gradcam import explain, last_feature_map, main
from utils.checkpoints.formats import write_weights
from utils.checkpoints.trained import load_trained
from utils.data.images import load_image
from utils.data.normalise import Normalise
from utils.data.places import file
from utils.data.preparation import IMAGENET


def scaled(heat):
    return (heat - heat.min()) / (heat.max() - heat.min())


def by_hand(features, classify, size):
    """Selvaraju et al., equations 1 and 2, for the likeliest class of one image's `features`."""
    features = features.detach().requires_grad_()
    logits = classify(features)
    (gradient,) = torch.autograd.grad(logits.max(), features)
    weights = gradient.mean((2, 3), keepdim=True)
    heat = scaled((weights * features).sum(1, keepdim=True).relu().detach())
    return scaled(F.interpolate(heat, (size, size), mode="bilinear").clamp(min=0))[0, 0]


def test_maps_against_the_definition(trained, photos):
    network = load_trained(str(trained / "model_best.pth.tar"))
    model = network.model
    images = torch.stack([load_image(file(path), IMAGENET.at(160)) for path in photos])
    inputs = Normalise(torch.device("cpu"))(images)
    for image, panel in zip(inputs, explain(network, images), strict=True):
        with torch.no_grad():
            x = model.maxpool(model.relu(model.bn1(model.conv1(image[None]))))
            x = model.layer4(model.layer3(model.layer2(model.layer1(x))))
            likely = model(image[None])[0].softmax(0)
        heat = by_hand(x, lambda maps: model.fc(maps.mean((2, 3)))[0], 160)
        torch.testing.assert_close(torch.from_numpy(panel.heat), heat, atol=1e-4, rtol=0)
        assert 0.1 < heat.mean() < 0.9
        assert panel.name == str(likely.argmax().item())
        assert panel.confidence == pytest.approx(likely.max().item(), rel=1e-5)


@pytest.mark.parametrize("arch", list_models())
def test_last_feature_map_feeds_the_pooling(arch):
    with torch.device("meta"):
        model = create_model(arch, num_classes=2).eval()
        seen = []
        last_feature_map(model).register_forward_hook(lambda *call: seen.append(call[2]))
        model.avgpool.register_forward_hook(lambda *call: seen.append(call[1][0]))
        model(torch.empty(1, 3, 64, 64))
    assert len(seen) == 2
    assert seen[0] is seen[1]


def test_picture_of_three_networks_and_two_images(trained, photos, tmp_path, monkeypatch, capsys):
    """The trained network, one with SE and one for 1,000 classes, whose files say little."""
    monkeypatch.chdir(tmp_path)
    write_weights(create_model("resnet18", "se", num_classes=3).state_dict(), "s.pth")
    torch.save(create_model("mobilenet_v2").state_dict(), "m.pth")
    checkpoints = [str(trained / "model_best.pth.tar"), "s.pth", "m.pth"]
    options = [word for path in checkpoints for word in ("--checkpoint", path)]
    assert main([*map(str, photos), *options, "--image-size", "96", "--gpu", "-1"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == "wrote gradcam.png"
    assert [line.split("  ")[:2] for line in lines] == [
        [str(photo), checkpoint] for checkpoint in checkpoints for photo in photos
    ]
    assert sorted(os.listdir()) == ["gradcam.png", "m.pth", "s.pth"]
    with Image.open("gradcam.png") as picture:
        assert picture.size == (4 * 180, 2 * 200 + 50)
        pixels = picture.convert("RGB")
    # a panel of each network and image, and no two are the same
    panels = [
        pixels.crop((180 * x + 40, 200 * y + 100, 180 * x + 140, 200 * y + 180))
        for x in range(4)
        for y in range(2)
    ]
    assert all(len(panel.getcolors(10_000)) > 30 for panel in panels)
    assert len({panel.tobytes() for panel in panels}) == 8


def test_too_small_maps_are_said(trained, photos, tmp_path, capsys):
    words = ["--checkpoint", str(trained / "model_best.pth.tar"), "--gpu", "-1"]
    out = ["--image-size", "32", "-o", str(tmp_path / "a.png")]
    assert main([str(photos[0]), *words, *out]) == 0
    assert "the last feature map is 1x1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("{photo} gone.jpg --checkpoint {good}", "can't read image gone.jpg"),
        ("mine.png --checkpoint {good} -o mine.png", "is one of the inputs"),
        ("{photo} --checkpoint {nan}", "nan.pth makes outputs that are not finite"),
    ],
)
def test_mistakes_are_one_line(
    trained, not_a_number, photos, tmp_path, monkeypatch, capsys, arguments, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.png").write_bytes(b"mine")
    here = set(os.listdir())
    places = {"photo": photos[0], "good": trained / "model_best.pth.tar", "nan": not_a_number}
    assert main(arguments.format(**places).split()) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert words in said.err
    assert not said.out
    assert set(os.listdir()) == here
    assert (tmp_path / "mine.png").read_bytes() == b"mine"


def test_a_missing_package_is_said_before_any_work(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    assert main(["gone.jpg", "--checkpoint", "gone.pth"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "pip install grad-cam" in said
