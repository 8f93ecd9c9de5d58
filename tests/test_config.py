"""What a command line becomes: a network, its names, and a whole run."""

import pytest
import torch

from networks import create_model
from utils.config import Config, Data, Machine, Network, Optim
from utils.errors import UsageError
from utils.options import parse_args


def config(words: str) -> Config:
    return Config.of(parse_args(words.split()))


@pytest.mark.parametrize(
    ("attention", "param", "meant", "label", "options", "slug"),
    [
        ("none", None, None, "", "none", ""),
        ("simam", 0.1, 0.1, " + simam 0.1", "simam --attention-param 0.1", "-simam-param0.1"),
        ("simam", None, 1e-4, " + simam 0.0001", "simam", "-simam-param0.0001"),
        ("se", None, 16, " + se 16", "se --attention-param 16", "-se-param16"),
        ("srm", None, None, " + srm", "srm", "-srm"),
    ],
)
def test_a_network_is_called_by_its_settings(attention, param, meant, label, options, slug):
    network = Network(arch="resnet18", attention=attention, attention_param=param)
    assert network == Network(arch="resnet18", attention=attention, attention_param=meant)
    assert network.label == f"resnet18{label}"
    assert network.options.startswith(f"-a resnet18 --attention-type {options}")
    assert network.slug == f"resnet18{slug}"
    assert config(f"DATA --num-classes 1000 {network.options}").network == network


def test_a_network_is_built_as_asked():
    network = Network(arch="cifar_resnet20", attention="se", attention_param=4, num_classes=3)
    built, expected = network.build(), create_model("cifar_resnet20", "se", 4, 3)
    shapes = [{k: v.shape for k, v in each.state_dict().items()} for each in (built, expected)]
    assert shapes[0] == shapes[1]
    with torch.no_grad():
        assert built(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arch": "resnet81"}, "unknown arch 'resnet81'; known: resnet18,"),
        ({"arch": "resnet18", "attention": "sima"}, "unknown attention 'sima'; known: simam,"),
        ({"arch": "resnet18", "attention_param": 1}, "takes no attention parameter"),
        ({"arch": "resnet18", "attention": "simam", "attention_param": -1}, "must be positive"),
    ],
)
def test_a_network_that_can_not_be_is_a_mistake(settings, message):
    with pytest.raises(UsageError, match=message):
        Network(**settings).build()


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("DATA", "imagenet-resnet18"),
        ("DATA --seed 3", "imagenet-resnet18-seed3"),
        ("DATA --attention-type se --seed 0", "imagenet-resnet18-se-param16-seed0"),
        ("--synthetic -a resnet50", "imagenet-resnet50-synthetic"),
        ("DATA --seed 3 --lr 0.05 --name lr0.05", "lr0.05"),
    ],
)
def test_a_run_has_a_folder_of_its_own(words, name):
    assert config(words).folder == f"ckpts/{name}"
    assert config(f"{words} --ckpt some/where").folder == f"some/where/{name}"


def test_without_options_a_run_is_the_published_one():
    plain = config("DATA")
    assert plain.network == Network(arch="resnet18", num_classes=0)
    assert (plain.data, plain.optim, plain.machine) == (Data(root="DATA"), Optim(), Machine())
    assert (plain.optim.lr, plain.optim.weight_decay, plain.optim.epochs) == (0.1, 1e-4, 90)


def test_an_option_is_a_field():
    """Each kind of them; that every one has its effect, tests/training/test_options.py shows."""
    words = (
        "--image-size 64 -b 8 --image-backend pil --skip-bad-images --mixup 0.2 --wd 0.3 --cos-lr"
    )
    words += " --ema 0.9 --gpu 0,1 --amp bf16 --seed 7 -p 5 --save-every-minutes 2 --num-classes 12"
    found = config(f"DATA {words} --weights w --resume r --zero-init-residual")
    assert found.data == Data(
        root="DATA",
        image_size=64,
        batch_size=8,
        image_backend="pil",
        skip_bad_images=True,
        mixup=0.2,
    )
    assert found.optim == Optim(weight_decay=0.3, sched="cosine", ema=0.9)
    assert found.machine == Machine(
        gpu="0,1", amp="bf16", seed=7, print_freq=5, save_every_minutes=2.0
    )
    assert (found.weights, found.resume, found.zero_init_residual) == ("w", "r", True)
    assert (found.network.num_classes, found.options["weight_decay"]) == (12, 0.3)


def test_the_classes_are_the_datas_unless_more_are_asked_for():
    assert config("DATA").for_classes(7).network.num_classes == 7
    assert config("DATA --num-classes 9").for_classes(7).network.num_classes == 9
    with pytest.raises(UsageError, match=r"^--num-classes 6: DATA has 7 class folders$"):
        config("DATA --num-classes 6").for_classes(7)
