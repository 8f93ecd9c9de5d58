import resource

import pytest
import torch

from networks import create_model
from utils.checkpoint import (
    CheckpointError,
    check_identity,
    load_start_weights,
    load_weights,
    read_file,
    save_atomically,
)


class Evil:
    """Unpickling it would create the file `path`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def same(one, other) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one | other)


def test_round_trip(tmp_path):
    model, other = (create_model("resnet18", "se", num_classes=3) for _ in range(2))
    save_atomically({"state_dict": model.state_dict()}, str(tmp_path / "w.pth"))
    load_weights(other, str(tmp_path / "w.pth"))
    assert same(model.state_dict(), other.state_dict())


def test_a_save_that_fails_leaves_the_previous_file_whole(tmp_path):
    path = tmp_path / "w.pth"
    save_atomically({"weights": torch.arange(10)}, str(path))
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_atomically({"weights": torch.randn(100_000)}, str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = tmp_path / "w.pth"
    save_atomically({"state_dict": create_model("resnet18").state_dict()}, str(path))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="w.pth"):
        read_file(str(path))


def test_nothing_in_a_file_is_run(tmp_path):
    torch.save({"state_dict": Evil(tmp_path / "made")}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="evil.pth"):
        read_file(str(tmp_path / "evil.pth"))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}, {"state_dict": {"a": "text"}}])
def test_files_without_weights_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="holds no network weights"):
        load_weights(create_model("resnet18"), str(tmp_path / "w.pth"))


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


def test_a_checkpoint_of_another_network_says_how_to_name_it():
    ours = {"arch": "resnet18", "attention": "none", "attention_param": None}
    theirs = {"arch": "resnet18", "attention": "simam", "attention_param": 0.1}
    check_identity(theirs, theirs, "w.pth")
    check_identity({"state_dict": {}}, ours, "w.pth")
    with pytest.raises(CheckpointError, match="-a resnet18 --attention-type simam .*-param 0.1"):
        check_identity(theirs, ours, "w.pth")
