"""A file as a network that is ready to use, and what is known of it."""

from argparse import Namespace

import pytest
import torch

from networks import create_model
from utils.checkpoints import CheckpointError
from utils.checkpoints.formats import save_atomically, write_weights
from utils.checkpoints.trained import load_and_tell, load_trained
from utils.config import Network
from utils.data.preparation import CIFAR, IMAGENET
from utils.errors import UsageError

NETWORK = {"arch": "cifar_resnet20", "attention": "simam", "attention_param": 0.1, "num_classes": 2}

NO_WORD = Namespace(attention_type=None, attention_param=None, image_size=None)


@pytest.fixture
def model():
    return create_model(*NETWORK.values())


def test_a_file_that_says_all_needs_no_word(tmp_path, model, capsys):
    path, images = str(tmp_path / "a.pth.tar"), {"preparation": IMAGENET.at(96)._asdict()}
    content = {**NETWORK, **images, "classes": ["a", "b"], "state_dict": model.state_dict()}
    save_atomically(content, path)
    trained = load_and_tell(path, NO_WORD)
    assert (trained.path, trained.network) == (path, Network(**NETWORK))
    assert (trained.classes, trained.preparation) == (["a", "b"], IMAGENET.at(96))
    assert capsys.readouterr().err == ""
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(trained.model(x), model.eval()(x))
    assert load_trained(path, size=64).preparation == IMAGENET.at(64)


def test_what_is_assumed_is_told(tmp_path, model, capsys):
    path = str(tmp_path / "bare.pth")
    write_weights(model.state_dict(), path)
    trained = load_and_tell(path, NO_WORD)
    assert (trained.network.label, trained.preparation) == ("cifar_resnet20", CIFAR)
    assert capsys.readouterr().err == f"note: {path}: {trained.assumed['attention']}\n"
    assert load_trained(path, "simam", 0.1).network == Network(**NETWORK)
    with pytest.raises(UsageError, match="must be positive"):
        load_trained(path, "simam", -1)
    with pytest.raises(UsageError, match="unknown attention 'sima'"):
        load_trained(str(tmp_path / "none.pth"), "sima")


def test_images_are_normalised_as_they_were(tmp_path, model):
    write_weights(model.state_dict(), str(tmp_path / "bare.pth"))
    normalise = load_trained(str(tmp_path / "bare.pth")).normalise(torch.device("cpu"))
    mean, std = (torch.tensor(each)[:, None, None] for each in (CIFAR.mean, CIFAR.std))
    pixels = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(normalise(pixels), (pixels / 255 - mean) / std)


def test_outputs_that_are_not_finite_are_refused(tmp_path, model):
    path = str(tmp_path / "bare.pth")
    write_weights(model.state_dict(), path)
    trained = load_trained(path)
    trained.checkpoint.check_finite(torch.zeros(3))
    for bad in (float("nan"), float("inf")):
        with pytest.raises(CheckpointError, match=f"^checkpoint {path} makes outputs that are not"):
            trained.checkpoint.check_finite(torch.tensor([0, bad]))
