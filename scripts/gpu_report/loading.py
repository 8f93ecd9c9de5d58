"""Training on real JPEGs: how fast they come, whether copies overlap, where a step's time goes.

python -m scripts.gpu_report.loading DEVICE FOLDER JSON
"""

import os
import re
import shutil
import sys
import time
from pathlib import Path

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from scripts.bench.common import Report, describe, rounded
from scripts.bench.training import begin, machine_for
from scripts.gpu_report.checks import make_images
from utils.config import Config, Data, Network, Optim
from utils.data.listing import Listing, list_images
from utils.data.loader import Loader
from utils.processes.dist import alone
from utils.training.engine import Learner, train_steps
from utils.training.metrics import Totals

# images, batch size, pixels a side, network, workers
SIZES = {
    "cuda": (2048, 128, 224, "resnet50", os.cpu_count()),
    "cpu": (8, 4, 32, "cifar_resnet20", 1),
}
# of kernels, and of the CPU's operations; the first that is found counts
KINDS = {
    "SimAM": "simam|^(forward|backward|measure|apply|sums|slopes)_kernel",
    "norm": "batch_?norm|bn_|batchnorm",
    "convolution": "conv|gemm|xmma|cutlass|wgrad|dgrad|fprop",
}


def images_in(folder: Path, count: int) -> Listing:
    """So many JPEGs of ImageNet's usual size; few are made, the others are copies."""
    made = min(count, 64)
    make_images(folder / "train" / "all", made, (500, 375))
    for number in range(made, count):
        source = folder / "train" / "all" / f"{number % made:04}.jpg"
        shutil.copy(source, source.with_name(f"{number:04}.jpg"))
    return list_images(str(folder), "train")


def images_per_second(batches: Loader) -> float:
    """Of the loader alone, in its second epoch."""
    for epoch in range(2):
        batches.batches.start(epoch)
        started, seen = time.perf_counter(), 0
        for images, _ in batches:
            seen += len(images)
        images.sum().item()
    return seen / (time.perf_counter() - started)


def profiled(learner: Learner, batches: Loader) -> profile:
    """An epoch, after one that is not looked at."""
    activities = [ProfilerActivity.CPU]
    if learner.dist.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)

    def epoch() -> None:
        totals = Totals.zero(learner.dist.device)
        for _ in train_steps(learner, batches, totals, lambda _step: 1e-4):
            pass
        totals.means()  # waits for the device

    epoch()
    with profile(activities=activities) as profiler:
        epoch()
    return profiler


def overlap(profiler: profile) -> dict[str, float]:
    """Copies to the GPU, their ms, and the share of that in which a kernel ran as well."""
    events = [each for each in profiler.events() if each.device_type == DeviceType.CUDA]
    copies = [each.time_range for each in events if "HtoD" in each.name]
    others = sorted(
        (each.time_range.start, each.time_range.end) for each in events if "Mem" not in each.name
    )
    whole = covered = 0.0
    for copy in copies:
        whole += copy.end - copy.start
        at = copy.start
        for start, end in others:
            covered += max(min(end, copy.end) - max(start, at), 0)
            at = max(at, end)
    return {
        "copies": len(copies),
        "ms": rounded(whole / 1e3),
        "overlapped": rounded(covered / whole) if whole else 0.0,
    }


def shares(profiler: profile, device: str) -> dict[str, float]:
    """Of a step's time on the device, by `KINDS`."""
    times = dict.fromkeys((*KINDS, "other"), 0.0)
    for each in profiler.key_averages():
        if (each.device_type == DeviceType.CUDA) == (device == "cuda"):
            kinds = (kind for kind, words in KINDS.items() if re.search(words, each.key, re.I))
            used = each.self_device_time_total if device == "cuda" else each.self_cpu_time_total
            times[next(kinds, "other")] += used
    whole = max(sum(times.values()), 1e-9)
    return {kind: rounded(used / whole) for kind, used in times.items()}


def main(device: str, folder: str, path: str) -> int:
    count, batch_size, side, arch, workers = SIZES[device]
    report = Report(describe(device), path)
    config = Config(
        network=Network(arch=arch, attention="simam", attention_param=0.1, num_classes=1),
        data=Data(batch_size=batch_size, image_size=side, workers=workers),
        optim=Optim(lr=1e-4),
        machine=machine_for(device),
    )
    listing, dist = images_in(Path(folder), count), alone(config.machine.gpu)
    learner, batches = begin(config, listing, dist)
    rate = rounded(images_per_second(batches))
    report.add("loader", [{"workers": workers, "images/s": rate}])
    profiler = profiled(learner, batches)
    report.add("copies", [overlap(profiler)])
    report.add("shares", [{"network": arch} | shares(profiler, device)])
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
