"""Reading mmengine's own checkpoints with torch's safe unpickler."""

import pickle

import detectors
import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub

LOAD = "import sys, torch; torch.load(sys.argv[1], weights_only=True)"
IMPORT = "import mmdetection.mmdet.models.backbones.resnet_simam"

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries older than this torch


@pytest.fixture
def log(tmp_path):
    """A file with the log that mmengine's runner puts into its checkpoints."""
    hub = MessageHub("log")
    for loss in (2.5, 1.25):
        hub.update_scalar("train/loss", loss)
    hub.update_info("best_score", np.float64(0.5))
    torch.save(dict(message_hub=hub.state_dict()), tmp_path / "log.pth")
    return tmp_path / "log.pth"


def test_the_log_of_a_run_is_read_back(log):
    hub = torch.load(log, weights_only=True)["message_hub"]
    history = hub["log_scalars"]["train/loss"]
    assert isinstance(history, HistoryBuffer)
    assert history.mean() == 1.875
    assert history.current() == 1.25
    assert hub["runtime_info"]["best_score"] == 0.5


def test_torch_refuses_it_until_the_backbone_is_imported(log):
    with pytest.raises(AssertionError, match="HistoryBuffer|getattr|_reconstruct"):
        detectors.run_python("-c", LOAD, log)
    detectors.run_python("-c", f"{IMPORT}; {LOAD}", log)


class Reach:
    """Pickles as `getattr(owner, name)`."""

    def __init__(self, owner, name):
        self.owner, self.name = owner, name

    def __reduce__(self):
        return getattr, (self.owner, self.name)


class Run:
    def __reduce__(self):
        return exec, ("raise SystemExit",)


@pytest.mark.parametrize(
    "attack",
    [Reach(HistoryBuffer, "__init__"), Reach(Reach(HistoryBuffer, "mean"), "__globals__"), Run()],
)
def test_a_file_still_gets_at_nothing_else(attack, tmp_path):
    torch.save(attack, tmp_path / "attack.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "attack.pth", weights_only=True)
