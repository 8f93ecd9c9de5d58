"""The attention that is shown is the formula's, for the maps that the network really makes."""

import os

import pytest
import torch
from PIL import Image

from networks import create_model
from scripts.show_attention import choose_layers, look, main
from utils.checkpoints.formats import write_weights
from utils.checkpoints.trained import load_trained
from utils.data.images import load_image
from utils.data.normalise import Normalise
from utils.data.places import file
from utils.data.preparation import IMAGENET


def attention_of(x, e_lambda):
    """Equation 5 channel by channel, in float64; x: (C, H, W)."""
    result = torch.empty_like(x, dtype=torch.float64)
    for channel, out in zip(x.double(), result, strict=True):
        mean = channel.sum() / channel.numel()
        variance = ((channel - mean) ** 2).sum() / (channel.numel() - 1)
        inverse_energy = (channel - mean) ** 2 / (4 * (variance + e_lambda)) + 0.5
        out.copy_(1 / (1 + torch.exp(-inverse_energy)))
    return result


@pytest.fixture
def model(trained):
    return load_trained(str(trained / "model_best.pth.tar")).model


def test_maps_against_the_formula(model, photos):
    image = load_image(file(photos[0]), IMAGENET.at(128))
    x = Normalise(torch.device("cpu"))(image)
    names = [f"layer{stage}.{block}.attn_conv" for stage in (1, 2, 3, 4) for block in (0, 1)]
    logits, seen = look(model, names, x)
    assert list(seen) == names
    for maps in seen.values():
        expected = attention_of(maps.before, 0.1)
        torch.testing.assert_close(maps.attention.double(), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(
            maps.after.double(), maps.before.double() * expected, atol=1e-5, rtol=1e-4
        )
    # what arrives at the first of them, step by step
    block = model.layer1[0]
    with torch.no_grad():
        y = model.maxpool(model.relu(model.bn1(model.conv1(x[None]))))
        y = block.conv2(block.relu(block.bn1(block.conv1(y))))
    torch.testing.assert_close(seen["layer1.0.attn_conv"].before, y[0], atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        assert torch.equal(logits, model(x[None])[0])


def test_layers_are_chosen_by_name_or_evenly():
    names = [f"layer{stage}.{block}.attn_conv" for stage in (1, 2, 3, 4) for block in range(11)]
    assert choose_layers(names, None) == [names[10], names[21], names[32], names[43]]
    assert choose_layers(names[:2], None) == names[:2]
    # layer4.1 is not the beginning of layer4.10
    assert choose_layers(names, ["layer4.1", "layer2"]) == [*names[11:22], names[34]]


def test_picture(trained, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checkpoint = ["--checkpoint", str(trained / "model_best.pth.tar"), "--gpu", "-1"]
    assert main([str(photos[1]), *checkpoint, "--image-size", "128"]) == 0
    some = ["--layers", "layer1.0", "-o", "some.png", "--image-size", "64"]
    assert main([str(photos[1]), *checkpoint, *some]) == 0
    assert capsys.readouterr().out == "wrote attention.png\nwrote some.png\n"
    for name, rows in (("attention.png", 4), ("some.png", 1)):
        with Image.open(name) as picture:
            assert picture.size == (1250, 220 * rows + 40)
            pixels = picture.convert("RGB")
        # every row has colour in the attention's column, and grey maps beside it
        for row in range(rows):
            box = (480, 220 * row + 70, 560, 220 * row + 200)
            colours = {colour for _, colour in pixels.crop(box).getcolors(100_000)}
            assert sum(len(set(colour)) > 1 for colour in colours) > 5, (name, row)


def test_mistakes_are_one_line(trained, not_a_number, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_weights(create_model("resnet18", "se", num_classes=3).state_dict(), "se.pth")
    here = set(os.listdir())
    for image, checkpoint, layer, words in [
        (photos[0], "se.pth", "layer1", "se.pth is of resnet18 + se 16, without SimAM"),
        (photos[0], trained / "model_best.pth.tar", "layer9", "--layers layer9: SimAM stands at"),
        (photos[0], not_a_number, "layer1", "nan.pth makes outputs that are not finite"),
        ("gone.jpg", trained / "model_best.pth.tar", "layer1", "can't read image gone.jpg"),
    ]:
        assert main([str(image), "--checkpoint", str(checkpoint), "--layers", layer]) == 2
        said = capsys.readouterr()
        assert said.err.count("\n") == 1
        assert words in said.err
        assert not said.out
    assert set(os.listdir()) == here
