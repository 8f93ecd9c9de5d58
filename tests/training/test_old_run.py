"""A run of the first format goes on: its files are in old_run, whose README says how they came."""

import torch
from old_run.make import FOLDER, HERE, metrics, run, write_images
from tiny import Tiny

from networks import MODELS


def test_a_run_of_the_first_format_goes_on_to_the_same_end(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "tiny", Tiny)
    write_images(tmp_path / "data")
    stopped = HERE / "checkpoint.pth.tar"
    assert torch.load(stopped)["step"] == 2
    assert run(tmp_path / "data", tmp_path, "--resume", str(stopped)) == 0
    final = torch.load(HERE / "final.pth.tar")
    latest = torch.load(tmp_path / FOLDER / "checkpoint.pth.tar")
    # an average's counter of batches was one, too; now it is the network's
    counter = latest["state_dict_ema"].pop("bn1.num_batches_tracked")
    assert counter == latest["state_dict"]["bn1.num_batches_tracked"]
    del final["state_dict_ema"]["bn1.num_batches_tracked"]
    for weights in ("state_dict", "state_dict_ema"):
        torch.testing.assert_close(latest[weights], final[weights], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(metrics(tmp_path), final["metrics"][1:], rtol=1e-6, atol=1e-6)
    assert latest["best_acc1"] == final["best_acc1"]
