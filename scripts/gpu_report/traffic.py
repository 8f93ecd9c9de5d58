"""What SimAM's kernels read and write of the GPU's memory, by NVIDIA's ncu where it is there.

    python -m scripts.gpu_report.traffic JSON

A row for each kernel: megabytes, the same in multiples of the map, and how often the second-level
cache had what was asked for.
"""

import csv
import shutil
import subprocess
import sys

import torch

from networks.attentions import FUSED, SimAM, simam, simam_norm_act
from scripts.bench.common import Report, describe, rounded
from utils.errors import reason

MAPS = (256, 64, 56, 56)
KERNELS = ("forward", "backward", "measure", "apply", "sums", "slopes")
METRICS = {
    "dram__bytes_read.sum": "read",
    "dram__bytes_write.sum": "written",
    "lts__t_sector_hit_rate.pct": "L2 hits %",
}
UNITS = {"byte": 1, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9, "%": 1}
COUNTED = [
    *("ncu", "--csv", "--clock-control", "none", "--metrics", ",".join(METRICS)),
    *("-k", f"regex:^({'|'.join(KERNELS)})_kernel"),
]


def launch() -> None:
    """A training step of SimAM, and of SimAM, norm and ReLU in one."""
    FUSED.add("cuda")
    x = torch.randn(MAPS, device="cuda", dtype=torch.bfloat16)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    norm, act = torch.nn.BatchNorm2d(MAPS[1], device="cuda"), torch.nn.ReLU()
    for y in (simam(x, 0.1), simam_norm_act(x, SimAM(e_lambda=0.1), norm, act)):
        y.backward(torch.randn_like(y))
    torch.cuda.synchronize()


def read(said: str) -> dict[str, dict[str, float]]:
    """The numbers of each kernel, the first launch of each, from ncu's CSV."""
    lines = said.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith('"ID"'))
    found: dict[str, dict[str, float]] = {}
    for line in csv.DictReader(lines[head:]):
        name = METRICS[line["Metric Name"]]
        value = float(line["Metric Value"].replace(",", "")) * UNITS[line["Metric Unit"]]
        found.setdefault(line["Kernel Name"], {}).setdefault(name, value)
    return found


def main(path: str) -> int:
    if shutil.which("ncu") is None:
        print("ncu is not there: the kernels' traffic was not measured")
        return 0
    report = Report(describe("cuda"), path)
    command = [*COUNTED, sys.executable, "-m", "scripts.gpu_report.traffic", "--launch"]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        found = read(done.stdout)
    except (StopIteration, KeyError, ValueError) as error:
        print(f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}\n{reason(error)}")
        return 1
    size = 2 * torch.Size(MAPS).numel()
    rows = [
        {"kernel": name, "MB": rounded((each["read"] + each["written"]) / 1e6)}
        | {"maps": rounded((each["read"] + each["written"]) / size)}
        | {"L2 hits %": rounded(each["L2 hits %"])}
        for name, each in found.items()
    ]
    report.add("kernels", rows)
    return 0


if __name__ == "__main__":
    sys.exit(launch() if sys.argv[1:] == ["--launch"] else main(*sys.argv[1:]))
