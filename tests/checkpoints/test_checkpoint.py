"""Whatever people have is loaded, exactly and strictly, or refused with what would fit."""

import collections
import os

import pytest
import torch
import torchvision
from conftest import STATELESS, run_command
from published import PUBLISHED, our_network, prefixed, published_network, real
from torch import nn
from utils.checkpoints.files import read_file, save_atomically, write_weights

from networks import create_model
from utils.checkpoints.checkpoint import (
    CheckpointError,
    check_identity,
    load_start_weights,
    load_weights,
    num_classes_of,
    recognise,
)


def same(one, other) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one | other)


def test_round_trip(tmp_path):
    model, other = (create_model("resnet18", "se", num_classes=3) for _ in range(2))
    save_atomically({"state_dict": model.state_dict()}, str(tmp_path / "w.pth"))
    load_weights(other, str(tmp_path / "w.pth"))
    assert same(model.state_dict(), other.state_dict())


def test_keys_that_do_not_fit_are_counted_and_named(tmp_path):
    state = create_model("resnet18", num_classes=10).state_dict()
    del state["conv1.weight"], state["bn1.weight"]
    state["surplus"] = torch.zeros(1)
    torch.save(state, tmp_path / "w.pth")
    model = create_model("resnet18", num_classes=4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    message = (
        r"2 missing \(conv1.weight, bn1.weight\); 1 unexpected \(surplus\); 2 mis-shaped "
        r"\(fc.weight \(10, 512\) for \(4, 512\), fc.bias \(10,\) for \(4,\)\)"
    )
    with pytest.raises(CheckpointError, match=message):
        load_weights(model, str(tmp_path / "w.pth"))
    assert same(before, model.state_dict())


def test_start_weights_keep_a_new_classifier_of_another_size(tmp_path):
    source, model = (
        create_model("resnet18", num_classes=10),
        create_model("resnet18", num_classes=4),
    )
    torch.save(source.state_dict(), tmp_path / "w.pth")
    fresh = model.fc.weight.clone()
    notes = load_start_weights(model, str(tmp_path / "w.pth"))
    assert "classifier of 10 classes" in notes[-1]
    assert torch.equal(model.fc.weight, fresh)
    assert torch.equal(model.layer4[1].conv2.weight, source.layer4[1].conv2.weight)


def test_start_weights_of_the_same_size_come_whole(tmp_path):
    source, model = (create_model("mobilenet_v2", num_classes=4) for _ in range(2))
    torch.save(source.state_dict(), tmp_path / "w.pth")
    load_start_weights(model, str(tmp_path / "w.pth"))
    assert same(source.state_dict(), model.state_dict())


def test_start_weights_without_a_classifier_keep_the_new_one(tmp_path):
    """A detector's backbone, as mmdetection names it."""
    source = real(our_network("resnet18", "simam")).float()
    state = {k: v for k, v in source.state_dict().items() if not k.startswith("fc.")}
    torch.save({"meta": {}, "state_dict": prefixed("backbone.", state)}, tmp_path / "w.pth")
    model = create_model("resnet18", "simam", num_classes=4)
    fresh = model.fc.weight.clone()
    assert "no classifier" in load_start_weights(model, str(tmp_path / "w.pth"))[-1]
    assert torch.equal(model.fc.weight, fresh)
    assert torch.equal(model.layer4[1].conv2.weight, source.layer4[1].conv2.weight)


def test_a_checkpoint_of_another_network_says_how_to_name_it():
    ours = {"arch": "resnet18", "attention": "none", "attention_param": None, "num_classes": 3}
    theirs = {**ours, "attention": "simam", "attention_param": 0.1}
    weights = {"state_dict": {"conv1.weight": torch.zeros(1)}}
    check_identity(theirs | weights, theirs, "w.pth")
    check_identity(weights, ours, "w.pth")
    with pytest.raises(CheckpointError, match="-a resnet18 --attention-type simam .*-param 0.1"):
        check_identity(theirs | weights, ours, "w.pth")


def test_published_simam_weights_are_not_taken_for_a_plain_network():
    """All keys would fit, and the accuracy would be silently wrong."""
    content = {"state_dict": real(published_network("resnet18", "simam")).state_dict()}
    network = {"arch": "resnet18", "attention": "simam", "attention_param": 0.1}
    check_identity(content, network, "w.pth")
    with pytest.raises(CheckpointError, match="--attention-type simam --attention-param 0.1"):
        check_identity(content, network | {"attention": "none"}, "w.pth")


@pytest.fixture(scope="module")
def source() -> nn.Module:
    return real(our_network("resnet18", "cbam")).float()


def data_parallel(model):
    return nn.DataParallel(model).state_dict()


def compiled(model):
    return torch.compile(model).state_dict()


def compiled_data_parallel(model):
    return torch.compile(nn.DataParallel(model)).state_dict()


WRAPPERS = {
    "bare": lambda model: model.state_dict(),
    "state_dict": lambda model: {"epoch": 3, "state_dict": model.state_dict()},
    "model": lambda model: {"model": collections.OrderedDict(model.state_dict())},
    "state_dict_ema": lambda model: {"state_dict_ema": model.state_dict(), "version": 2},
    "DataParallel": lambda model: {"state_dict": data_parallel(model)},
    "torch.compile": compiled,
    "torch.compile of DataParallel": compiled_data_parallel,
    "backbone": lambda model: {"meta": {}, "state_dict": prefixed("backbone.", model.state_dict())},
    "parameters": lambda model: {**model.state_dict(), **dict(model.named_parameters())},
    "half": lambda model: {k: v.half().float() for k, v in model.state_dict().items()},
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_every_wrapping_loads(tmp_path, source, wrap):
    torch.save(wrap(source), tmp_path / "w.pth")
    model = create_model("resnet18", "cbam")
    load_weights(model, str(tmp_path / "w.pth"))
    expected = source.state_dict()
    if wrap is WRAPPERS["half"]:
        expected = {k: v.half().to(v.dtype) for k, v in expected.items()}
    assert same(model.state_dict(), expected)


def test_safetensors_load_whatever_their_order(tmp_path, source):
    path = str(tmp_path / "w.safetensors")
    write_weights(source.state_dict(), path)
    model = create_model("resnet18", "cbam")
    load_weights(model, path)
    assert same(model.state_dict(), source.state_dict())
    assert num_classes_of(read_file(path)["state_dict"], path) == 1000


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2"])
def test_torchvisions_files_load(tmp_path, arch):
    theirs = torchvision.models.get_model(arch)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    model = create_model(arch, "simam")
    load_weights(model, str(tmp_path / "w.pth"))
    assert same(model.state_dict(), theirs.state_dict())


def test_a_published_file_of_another_attention_is_refused_with_what_fits(tmp_path):
    theirs = real(published_network("resnet18", "se")).state_dict()
    torch.save({"state_dict": prefixed("module.", theirs)}, tmp_path / "se.pth")
    model = create_model("resnet18", "simam")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    message = "16 unexpected .*; it fits -a resnet18 --attention-type se with 1000 classes"
    with pytest.raises(CheckpointError, match=message):
        load_weights(model, str(tmp_path / "se.pth"))
    assert same(before, model.state_dict())
    torch.save(create_model("resnet18").state_dict(), tmp_path / "plain.pth")
    with pytest.raises(
        CheckpointError, match=f"--attention-type {' or '.join(STATELESS)} with 1000"
    ):
        load_weights(create_model("resnet34"), str(tmp_path / "plain.pth"))


def test_a_file_without_batch_counters_loads(tmp_path, source):
    state = source.state_dict()
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    model = create_model("resnet18", "cbam")
    load_weights(model, str(tmp_path / "old.pth"))
    assert same({key: model.state_dict()[key] for key in old}, old)


def test_two_weights_of_one_name_are_refused(tmp_path):
    torch.save({"fc.bias": torch.zeros(2), "module.fc.bias": torch.ones(2)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="is ambiguous: both fc.bias and module.fc.bias"):
        load_weights(create_model("resnet18"), str(tmp_path / "w.pth"))


@pytest.mark.parametrize("attention", PUBLISHED)
def test_published_networks_are_recognised(attention):
    content = {"state_dict": published_state(attention)}
    network, assumed = recognise(content, "w.pth")
    assert (network["arch"], network["attention"]) == ("resnet50d", attention)
    assert network["attention_param"] == {"none": None, "simam": 0.1}.get(attention, 16)
    assert assumed.keys() == {"none": {"attention"}, "simam": {"attention_param"}}.get(
        attention, set()
    )


def published_state(attention: str) -> dict:
    net = published_network("resnet50d", attention)
    return {key: torch.empty(v.shape, dtype=v.dtype) for key, v in net.state_dict().items()}


def test_what_our_file_says_of_its_network_comes_first():
    weights = {"state_dict": create_model("resnet18", num_classes=5).state_dict()}
    said = {"arch": "resnet18", "attention": "simam", "attention_param": 0.01, "num_classes": 5}
    assert recognise(said | weights, "w.pth") == (said, {})
    bare, assumed = recognise(weights, "w.pth")
    assert bare == said | {"attention": "none", "attention_param": None}
    assert f"{' and '.join(STATELESS)} have the same keys" in assumed["attention"]


def test_the_users_word_overrides():
    weights = {"state_dict": create_model("resnet18", num_classes=5).state_dict()}
    network, assumed = recognise(weights, "w.pth", "simam", 0.01)
    assert network["attention"] == "simam"
    assert network["attention_param"] == 0.01
    assert not assumed
    with pytest.raises(CheckpointError, match="has no weights of se; it fits -a resnet18"):
        recognise(weights, "w.pth", "se")


@pytest.mark.parametrize(("arch", "e_lambda"), [("resnet18", 0.1), ("cifar_resnet20", 1e-4)])
def test_lambda_is_the_papers_where_nobody_says_it(arch, e_lambda):
    weights = {"state_dict": create_model(arch, num_classes=5).state_dict()}
    network, assumed = recognise(weights, "w.pth", "simam")
    assert network["attention_param"] == e_lambda
    assert assumed == {"attention_param": f"lambda {e_lambda:g} as published"}


@pytest.mark.parametrize(
    "said",
    [
        {"arch": 5},
        {"arch": "resnet34"},
        {"arch": "unheard of"},
        {"attention": None},
        {"attention": "se", "attention_param": 16},
        {"attention_param": "0.1"},
        {"attention_param": -1},
        {"num_classes": 1.5},
        {"num_classes": 10**12},
    ],
)
def test_false_words_of_a_file_are_ignored(said):
    network = {"arch": "resnet18", "attention": "simam", "attention_param": 0.1, "num_classes": 5}
    weights = {"state_dict": create_model("resnet18", num_classes=5).state_dict()}
    assert recognise(network | said | weights, "w.pth")[0]["attention"] == "none"


def small(attention: str) -> nn.Module:
    """ResNet-18 for the three classes of the digits, random and not degenerate."""
    torch.manual_seed(3)
    return create_model("resnet18", attention, 0.1 if attention == "simam" else None, num_classes=3)


def published_file(model: nn.Module, attention: str, path) -> None:
    """Position renames: both networks register their layers in the same order."""
    keys = published_network("resnet18", attention).state_dict()
    state = dict(zip(keys, model.state_dict().values(), strict=True))
    torch.save({"epoch": 99, "arch": "resnet18", "state_dict": prefixed("module.", state)}, path)


EVALUATE = ("-a", "resnet18", "-e", "--gpu", -1, "-j", 0, "--image-size", 64)


@pytest.mark.parametrize("attention", ["simam", "se"])
def test_command_evaluates_a_published_file(tmp_path, digits, attention):
    model, options = small(attention), ["--attention_type", attention]
    if attention == "simam":
        options += ["--attention_param", "0.1"]
    published_file(model, attention, tmp_path / "published.pth")
    save_atomically(model.state_dict(), str(tmp_path / "ours.pth"))
    lines = []
    for name in ("published.pth", "ours.pth"):
        done = run_command(digits, *EVALUATE, *options, "--resume", tmp_path / name)
        assert done.returncode == 0, done.stderr
        lines.append([line for line in done.stdout.split("\n") if "loss" in line or "Acc" in line])
    assert lines[0][-1].startswith(" * Acc@1 ")
    without_time = [[line.split("  ")[:4] for line in each] for each in lines]
    assert without_time[0] == without_time[1]


def refused(digits, *options) -> str:
    done = run_command(digits, *EVALUATE, *options)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_command_refuses_in_one_line(tmp_path, digits):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"state_dict": {}, "epoch": Evil()}, tmp_path / "evil.pth")
    assert "holds objects of class posix.mkdir" in refused(
        digits, "--resume", tmp_path / "evil.pth"
    )
    assert not (tmp_path / "made").exists()
    published_file(small("simam"), "simam", tmp_path / "simam.pth")
    assert "--attention-type simam" in refused(digits, "--resume", tmp_path / "simam.pth")


def test_command_writes_safetensors_that_name_their_network(tmp_path, digits):
    model, out = small("simam"), str(tmp_path / "out.safetensors")
    published_file(model, "simam", tmp_path / "published.pth")
    options = ("-a", "resnet18", "--attention-type", "simam", "--attention-param", "0.1")
    done = run_command(
        digits, *options, "--resume", tmp_path / "published.pth", "--save-weights", out
    )
    assert done.returncode == 0, done.stderr
    content = read_file(out)
    assert same(content["state_dict"], model.state_dict())
    network, assumed = recognise(content, out)
    assert network == {
        "arch": "resnet18",
        "attention": "simam",
        "attention_param": 0.1,
        "num_classes": 3,
    }
    assert not assumed
