"""The fused operator behind SyncBatchNorm: processes with unequal batches, over gloo on the CPU."""

import os
import subprocess
import sys

import torch
from conftest import ROOT
from torch import nn

from networks.attentions.simam import simam_formula

SYNCED = """
import sys, torch
from torch import distributed, nn
from networks.attentions import SimAM, simam_norm_act
rank, folder = int(sys.argv[1]), sys.argv[2]
store = f"file://{folder}/store"
distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
maps, grads, weight, bias = torch.load(f"{folder}/maps.pt")
part = [slice(0, 4), slice(4, 6)][rank]
norm = nn.SyncBatchNorm(3)
with torch.no_grad():
    norm.weight.copy_(weight), norm.bias.copy_(bias)
x = maps[part].requires_grad_()
out = simam_norm_act(x, SimAM(), norm, nn.ReLU())
out.backward(grads[part])
buffers = norm.running_mean, norm.running_var
found = (out.detach(), x.grad, norm.weight.grad, norm.bias.grad, *buffers)
torch.save(found, f"{folder}/{rank}.pt")
distributed.destroy_process_group()
"""


def test_sync_batch_norm_of_uneven_processes(tmp_path):
    """Two processes with 4 and 2 images do what the modules do with all."""
    maps, grads = torch.randn(2, 6, 3, 5, 7)
    norm = nn.BatchNorm2d(3)
    for weight in norm.parameters():
        nn.init.normal_(weight)
    torch.save((maps, grads, norm.weight, norm.bias), tmp_path / "maps.pt")
    maps.requires_grad_()
    out = nn.functional.relu(norm(simam_formula(maps)))
    out.backward(grads)
    buffers = norm.running_mean, norm.running_var
    whole = (out.detach(), maps.grad, norm.weight.grad, norm.bias.grad, *buffers)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [[sys.executable, "-c", SYNCED, str(rank), str(tmp_path)] for rank in range(2)]
    started = [subprocess.Popen(each, cwd=ROOT, env=environment) for each in words]
    assert [process.wait(300) for process in started] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    found = [torch.cat([first[k], second[k]]) for k in range(2)]
    found += [first[k] + second[k] for k in (2, 3)] + list(first[4:])
    for ours, theirs in zip(found, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
