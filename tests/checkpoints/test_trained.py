"""What a checkpoint says of its classes becomes their names."""

import pytest
from torchvision.models import MobileNet_V2_Weights
from utils.checkpoints.files import save_atomically
from utils.checkpoints.loading import class_names, load_network

from networks import create_model

IMAGENET = MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]
WORDNET = [f"n{number:08}" for number in range(1000)]


@pytest.mark.parametrize(
    ("content", "count", "names"),
    [
        ({"classes": ["cat", "dog"]}, 2, ["cat", "dog"]),
        ({"classes": ["cat", "dog"]}, 4, ["cat", "dog", "2", "3"]),  # --num-classes 4
        ({"classes": ["n01440764", "n01443537"]}, 2, ["n01440764", "n01443537"]),
        ({"classes": WORDNET}, 1000, IMAGENET),
        ({"classes": [f"bird {i}" for i in range(1000)]}, 1000, [f"bird {i}" for i in range(1000)]),
        ({}, 1000, IMAGENET),
        ({}, 3, ["0", "1", "2"]),
        ({"classes": 7}, 2, ["0", "1"]),
        ({"classes": [1, 2]}, 2, ["0", "1"]),
        (["no mapping"], 2, ["0", "1"]),
    ],
)
def test_class_names(content, count, names):
    assert class_names(content, count) == names


@pytest.mark.parametrize(
    ("network", "label"),
    [
        (("resnet18", "simam", 0.1), "resnet18 + simam 0.1"),
        (("resnet18", "srm", None), "resnet18 + srm"),
        (("mobilenet_v2", "none", None), "mobilenet_v2"),
    ],
)
def test_loads_what_the_file_says(tmp_path, network, label):
    arch, attention, param = network
    model = create_model(arch, attention, param, num_classes=2)
    said = {"arch": arch, "attention": attention, "attention_param": param, "num_classes": 2}
    path = str(tmp_path / "a.pth.tar")
    save_atomically({**said, "classes": ["a", "b"], "state_dict": model.state_dict()}, path)
    loaded = load_network(path)
    assert (loaded.network, loaded.classes, loaded.assumed) == (said, ["a", "b"], {})
    assert loaded.label == label
    assert not loaded.model.training
    expected, state = model.state_dict(), loaded.model.state_dict()
    assert state.keys() == expected.keys()
    assert all(state[key].equal(expected[key]) for key in state)
