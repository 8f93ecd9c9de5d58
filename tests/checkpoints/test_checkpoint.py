"""Whatever people have is loaded, exactly and strictly, or refused with what would fit."""

import collections
from dataclasses import asdict, replace

import pytest
import torch
import torchvision
from conftest import STATELESS, run_python
from published import PUBLISHED, prefixed, published_network, real
from torch import nn

import main_imagenet
from networks import create_model
from utils.checkpoints import Checkpoint, CheckpointError, load_weights
from utils.checkpoints.formats import write_weights
from utils.config import Network
from utils.errors import UsageError

SMALL = "cifar_resnet20"
ODD = r"no plain weights \(conv1.weight: torch"


def small(attention: str = "none", num_classes: int = 10) -> nn.Module:
    """With every tensor of its state random."""
    return real(create_model(SMALL, attention, num_classes=num_classes)).float()


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def copied(model: nn.Module) -> dict:
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def source() -> nn.Module:
    return small("cbam")


WRAPPINGS = {
    "bare": lambda model: model.state_dict(),
    "state_dict": lambda model: {"epoch": 3, "state_dict": model.state_dict()},
    "model": lambda model: {"model": collections.OrderedDict(model.state_dict())},
    **{
        place: lambda model, place=place: {place: model.state_dict(), "epoch": 3, "optimizer": {}}
        for place in ("model_state_dict", "net", "network", "weights", "params", "ema", "anything")
    },
    "an average beside": lambda model: {
        "ema": {key: 0 * value for key, value in model.state_dict().items()},
        "net": model.state_dict(),
    },
    **{
        prefix: lambda model, prefix=prefix: prefixed(prefix, model.state_dict())
        for prefix in ("model.", "net.", "encoder.", "module.encoder.", "_forward_module.model.")
    },
    "torchvision's average": lambda model: {
        "model_ema": {**nn.DataParallel(model).state_dict(), "n_averaged": torch.tensor(5)}
    },
    "MoCo": lambda model: {
        **prefixed("module.encoder_q.", model.state_dict()),
        **prefixed("module.encoder_k.", model.state_dict()),
        "module.queue": torch.zeros(4, 4),
        "module.queue_ptr": torch.zeros(1, dtype=torch.int64),
    },
    "state_dict_ema": lambda model: {"state_dict_ema": model.state_dict(), "version": 2},
    "DataParallel": lambda model: {"state_dict": nn.DataParallel(model).state_dict()},
    "torch.compile": lambda model: torch.compile(model).state_dict(),
    "both": lambda model: torch.compile(nn.DataParallel(model)).state_dict(),
    "backbone": lambda model: {"meta": {}, "state_dict": prefixed("backbone.", model.state_dict())},
    "parameters": lambda model: {**model.state_dict(), **dict(model.named_parameters())},
    "before PyTorch 0.4.1": lambda model: {
        key: value
        for key, value in model.state_dict().items()
        if not key.endswith("num_batches_tracked")
    },
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_every_wrapping_loads(tmp_path, source, wrap):
    torch.save(wrap(source), tmp_path / "w.pth")
    model = create_model(SMALL, "cbam", num_classes=10)
    load_weights(model, str(tmp_path / "w.pth"))
    expected, loaded = source.state_dict(), model.state_dict()
    if wrap is WRAPPINGS["before PyTorch 0.4.1"]:
        expected, loaded = (WRAPPINGS["before PyTorch 0.4.1"](each) for each in (source, model))
    assert same(loaded, expected)


def test_safetensors_load_whatever_their_order(tmp_path, source):
    path = str(tmp_path / "w.safetensors")
    write_weights(source.state_dict(), path)
    checkpoint = Checkpoint(path)
    model = checkpoint.build(Network(arch=SMALL, attention="cbam", num_classes=10))
    assert same(model.state_dict(), source.state_dict())
    assert checkpoint.num_classes == 10


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2"])
def test_torchvisions_weights_load(arch):
    theirs = torchvision.models.get_model(arch).state_dict()
    model = Checkpoint("w.pth", theirs).build(Network(arch=arch, attention="simam"))
    assert same(model.state_dict(), theirs)


def test_keys_that_do_not_fit_are_counted_and_named(source):
    state = create_model(SMALL, num_classes=10).state_dict()
    del state["conv1.weight"], state["bn1.weight"]
    model = create_model(SMALL, num_classes=4)
    before = copied(model)
    message = (
        r"checkpoint w.pth does not fit the network: 2 missing \(conv1.weight, bn1.weight\); "
        r"1 unexpected \(surplus\); 2 mis-shaped \(fc.weight \(10, 64\) for \(4, 64\), "
        r"fc.bias \(10,\) for \(4,\)\); it fits no network here"
    )
    with pytest.raises(CheckpointError, match=f"^{message}$"):
        Checkpoint("w.pth", state | {"surplus": torch.zeros(1)}).load_into(model)
    with pytest.raises(CheckpointError, match=r"90 unexpected \(\S+, \S+, \S+, \.\.\.\); 2 mis"):
        Checkpoint("w.pth", source.state_dict()).load_into(model)
    assert same(before, model.state_dict())


def test_what_would_fit_is_named():
    theirs = real(published_network("resnet18", "se")).state_dict()
    published = Checkpoint("se.pth", {"state_dict": prefixed("module.", theirs)})
    message = "16 unexpected .*; it fits -a resnet18 --attention-type se with 1000 classes"
    with pytest.raises(CheckpointError, match=message):
        published.load_into(create_model("resnet18", "simam"))
    plain = Checkpoint("plain.pth", small().state_dict())
    message = f"it fits -a {SMALL} --attention-type {' or '.join(STATELESS)} with 10 classes"
    with pytest.raises(CheckpointError, match=message):
        plain.load_into(create_model("cifar_resnet32"))


def test_of_several_networks_none_is_guessed():
    state = small().state_dict()
    with pytest.raises(CheckpointError, match="holds several networks, student, teacher; save one"):
        Checkpoint("w.pth", {"student": state, "teacher": state}).recognise()
    # what is said of a network does not fit it: not an average that does
    content = {"state_dict": {**state, "odd": None}, "ema": state}
    with pytest.raises(CheckpointError, match=r"no plain weights \(odd: NoneType\)"):
        Checkpoint("w.pth", content).recognise()
    with pytest.raises(CheckpointError, match=r"no plain weights \(0: torch.float32"):
        Checkpoint("w.pth", {0: torch.zeros(3)}).recognise()  # a tensor without a name


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda w: w.to(torch.int8),
            r"no plain floats \(conv1.weight: torch.int8\); save them as floats",
        ),
        (lambda w: w.to(torch.complex64), r"no plain floats \(conv1.weight: torch.complex64\)"),
        (lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), f"{ODD}.qint8, "),
        (lambda w: w.to("meta"), f"{ODD}.float32, torch.strided, meta"),
        (lambda w: w.to_sparse(), f"{ODD}.float32, torch.sparse_coo, cpu"),
        (lambda w: torch.zeros(1).expand(10**9, 256), f"{ODD}.float32, torch.strided, cpu"),
        (
            lambda w: w.index_fill(0, torch.tensor(3), torch.nan),
            "as its weights are .conv1.weight",
        ),
        (lambda w: w.double() * 1e300, "not finite, as its weights are .conv1.weight"),
    ],
    ids=["int8", "complex", "qint8", "meta", "sparse", "terabyte", "NaN", "huge"],
)
def test_weights_that_are_no_numbers_of_ours_are_refused(change, words):
    state = small().state_dict()
    state["conv1.weight"] = change(state["conv1.weight"])
    for use in (Checkpoint.recognise, lambda each: each.load_into(small())):
        with pytest.raises(CheckpointError, match=words):
            use(Checkpoint("w.pth", state))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_load_and_are_said(dtype):
    model, name = small(), str(dtype).removeprefix("torch.")
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    checkpoint = Checkpoint("w.pth", state)
    loaded = checkpoint.build(Network(arch=SMALL, num_classes=10)).state_dict()
    assert same(loaded, {key: value.to(loaded[key].dtype) for key, value in state.items()})
    assert checkpoint.recognise().assumed["weights"] == f"{name}, computed in float32"
    assert checkpoint.start(small()) == [f"weights     w.pth ({name})"]


def test_two_weights_of_one_name_are_refused():
    state = {"fc.bias": torch.zeros(2), "module.fc.bias": torch.ones(2)}
    with pytest.raises(CheckpointError, match="is ambiguous: both fc.bias and module.fc.bias"):
        Checkpoint("w.pth", state).load_into(create_model(SMALL))


def without_classifier(state: dict) -> dict:
    """A detector's backbone, as mmdetection names it."""
    return prefixed("backbone.", {k: v for k, v in state.items() if not k.startswith("fc.")})


@pytest.mark.parametrize(
    ("change", "classes", "note"),
    [
        (dict, 10, None),
        (dict, 4, "its classifier of 10 classes is made anew"),
        (without_classifier, 10, "it has no classifier; a new one is made"),
    ],
)
def test_a_start_keeps_the_classifier_that_the_file_can_not_give(change, classes, note):
    source, model = small(), small(num_classes=classes)
    before = copied(model)
    notes = Checkpoint("w.pth", change(source.state_dict())).start(model)
    assert [line.strip() for line in notes] == ["weights     w.pth", *([note] if note else [])]
    for key, value in model.state_dict().items():
        kept = note and key.startswith("fc.")
        assert torch.equal(value, (before if kept else source.state_dict())[key])


@pytest.mark.parametrize(("classes", "kept"), [("abc", True), ("abd", False), ("cab", False)])
def test_a_start_keeps_no_classifier_of_other_classes(classes, kept):
    source, model = small(num_classes=3), create_model(SMALL, num_classes=3)
    before = copied(model)
    content = {"classes": list("abc"), "state_dict": source.state_dict()}
    notes = Checkpoint("w.pth", content).start(model, list(classes))
    found, own = model.state_dict(), (source.state_dict() if kept else before)
    assert torch.equal(found["fc.weight"], own["fc.weight"])
    assert torch.equal(found["conv1.weight"], source.state_dict()["conv1.weight"])
    assert len(notes) == (1 if kept else 2)


def test_the_average_takes_the_weights_place():
    state, average = small().state_dict(), small("se").state_dict()
    content = {"arch": SMALL, "state_dict": state, "state_dict_ema": average}
    found = Checkpoint("w.pth", content).average
    assert same(found.weights, average)
    assert found.content["arch"] == SMALL
    with pytest.raises(CheckpointError, match="w.pth holds no average of weights; leave out --ema"):
        Checkpoint("w.pth", {"state_dict": state}).average  # noqa: B018 (a property)


def test_without_a_classifier_there_are_no_classes():
    with pytest.raises(CheckpointError, match="^checkpoint w.pth has no classifier$"):
        Checkpoint("w.pth", without_classifier(small().state_dict())).num_classes  # noqa: B018


SIMAM = Network(arch=SMALL, attention="simam", attention_param=0.01, num_classes=10)
WEIGHTS = {"state_dict": small().state_dict()}


def test_a_checkpoint_of_another_network_says_how_to_name_it():
    ours = Checkpoint("w.pth", asdict(SIMAM) | WEIGHTS)
    ours.check_is(SIMAM)
    ours.check_is(replace(SIMAM, num_classes=3))
    Checkpoint("w.pth", WEIGHTS).check_is(SIMAM)
    for change in ({"attention_param": 0.1}, {"arch": "resnet18"}):
        with pytest.raises(CheckpointError, match=f"was trained with {SIMAM.options}$"):
            ours.check_is(replace(SIMAM, **change))


def test_published_simam_weights_are_not_taken_for_a_plain_network():
    """All keys would fit, and the accuracy would be silently wrong."""
    state = real(published_network("resnet18", "simam")).state_dict()
    checkpoint = Checkpoint("w.pth", {"state_dict": state})
    checkpoint.check_is(Network(arch="resnet18", attention="simam", attention_param=0.1))
    with pytest.raises(CheckpointError, match=r"--attention-type simam --attention-param 0\.1"):
        checkpoint.check_is(Network(arch="resnet18"))


@pytest.mark.parametrize("attention", PUBLISHED)
def test_published_networks_are_recognised(attention):
    shapes = published_network("resnet50d", attention).state_dict()
    state = {key: torch.zeros(each.shape, dtype=each.dtype) for key, each in shapes.items()}
    network, assumed = Checkpoint("w.pth", {"state_dict": state}).recognise()
    param = {"none": None, "simam": 0.1}.get(attention, 16)
    assert network == Network(arch="resnet50d", attention=attention, attention_param=param)
    said = {"none": {"attention"}, "simam": {"attention_param"}}
    assert assumed.keys() == said.get(attention, set())


def test_what_our_file_says_of_its_network_comes_first():
    assert Checkpoint("w.pth", asdict(SIMAM) | WEIGHTS).recognise() == (SIMAM, {})
    bare = Checkpoint("w.pth", WEIGHTS)
    assert bare.network is None
    network, assumed = bare.recognise()
    assert network == Network(arch=SMALL, num_classes=10)
    assert f"{' and '.join(STATELESS)} have the same keys, taken for none" == assumed["attention"]


def test_the_users_word_overrides():
    bare, ours = (Checkpoint("w.pth", said | WEIGHTS) for said in ({}, asdict(SIMAM)))
    assert bare.recognise("simam", 0.01) == (SIMAM, {})
    assert ours.recognise(param=0.5) == (replace(SIMAM, attention_param=0.5), {})
    assert ours.recognise("none") == (Network(arch=SMALL, num_classes=10), {})
    with pytest.raises(CheckpointError, match=f"w.pth has no weights of se; it fits -a {SMALL}"):
        bare.recognise("se")
    with pytest.raises(CheckpointError, match="w.pth fits no network here; its weights are a, b$"):
        Checkpoint("w.pth", {"a": torch.zeros(2), "b": torch.zeros(2)}).recognise()


@pytest.mark.parametrize(("arch", "e_lambda"), [("resnet18", 0.1), (SMALL, 1e-4)])
def test_lambda_is_the_papers_where_nobody_says_it(arch, e_lambda):
    state = create_model(arch, num_classes=5).state_dict()
    network, assumed = Checkpoint("w.pth", state).recognise("simam")
    assert network.attention_param == e_lambda
    assert assumed == {"attention_param": f"lambda {e_lambda:g} as published"}


@pytest.mark.parametrize(
    "said",
    [
        *({"arch": 5}, {"arch": "cifar_resnet32"}, {"arch": "unheard of"}),
        *({"attention": None}, {"attention": "none such"}),
        {"attention": "se", "attention_param": 16},
        *({"attention_param": "0.1"}, {"attention_param": -1}),
        *({"num_classes": 1.5}, {"num_classes": -1}, {"num_classes": 10**12}),
    ],
    ids=str,
)
def test_false_words_of_a_file_are_ignored(said):
    assert (
        Checkpoint("w.pth", asdict(SIMAM) | said | WEIGHTS).recognise().network.attention == "none"
    )


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"classes": ["cat", "dog"]}, ["cat", "dog"]),
        ({}, ["0", "1", "2"]),
        *(({"classes": 7}, ["0", "1"]), ({"classes": [1, 2]}, ["0", "1"])),
        (["no mapping"], ["0", "1"]),
    ],
)
def test_classes_have_names(content, names):
    assert Checkpoint("w.pth", content).class_names(len(names)) == names


def test_class_folders_mean_outputs_by_name():
    said = Checkpoint("w.pth", WEIGHTS | {"classes": [f"bird {i}" for i in range(10)]})
    assert said.outputs_for(["bird_7", "BIRD 0"]) == [7, 0]
    assert said.outputs_for(["b", "a"], ["a", "b"]) == [1, 0]
    assert Checkpoint("w.pth", WEIGHTS).outputs_for(["9", "truck", "airplane"]) == [9, 9, 0]
    with pytest.raises(UsageError, match="1 of 2 class folders mean no output of checkpoint w.pth"):
        said.outputs_for(["bird 1", "fish"])


def test_weights_load_without_torchvision(tmp_path, source):
    """As in mmdetection's environment."""
    write_weights(source.state_dict(), str(tmp_path / "w.pth"))
    code = f"""
import sys
sys.modules |= dict.fromkeys(("torchvision", "torchvision.models", "PIL"))
from networks import create_model
from utils.checkpoints import load_weights
load_weights(create_model({SMALL!r}, "cbam", num_classes=10), {str(tmp_path / "w.pth")!r})
"""
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr


def command(data, *words) -> int:
    fixed = ("--gpu", "-1", "-j", "0", "--image-size", "32")
    return main_imagenet.main([str(data), *fixed, *map(str, words)])


def test_the_command_evaluates_a_published_file(tmp_path, digits, capsys):
    torch.manual_seed(3)
    ours = create_model("resnet18", "simam", 0.1, num_classes=3).state_dict()
    keys = published_network("resnet18", "simam").state_dict()  # in the same order
    theirs = prefixed("module.", dict(zip(keys, ours.values(), strict=True)))
    torch.save({"epoch": 99, "state_dict": theirs}, tmp_path / "published.pth")
    torch.save(ours, tmp_path / "ours.pth")
    said = []
    for name in ("published.pth", "ours.pth"):
        words = ("-e", "--attention_type", "simam", "--attention_param", "0.1")
        assert command(digits, *words, "--resume", tmp_path / name) == 0
        *_, progress, accuracy = capsys.readouterr().out.splitlines()
        assert accuracy.startswith(" * Acc@1 ")
        said.append((progress.split("  ")[:3], accuracy))
    assert said[0] == said[1]
    assert command(digits, "-e", "--resume", tmp_path / "published.pth") == 2
    assert "use it with --attention-type simam" in capsys.readouterr().err


def test_the_command_writes_safetensors_that_name_their_network(tmp_path):
    torch.save(WEIGHTS, tmp_path / "w.pth")
    files = ("--resume", tmp_path / "w.pth", "--save-weights", tmp_path / "out.safetensors")
    assert command(tmp_path, *SIMAM.options.split(), *files) == 0
    out = Checkpoint(str(tmp_path / "out.safetensors"))
    assert same(out.weights, WEIGHTS["state_dict"])
    assert out.recognise() == (SIMAM, {})
