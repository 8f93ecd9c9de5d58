"""What main_imagenet.py trains with, for the benchmarks to time."""

from utils.config import Config, Data, Machine, Network, Optim
from utils.data.listing import Listing
from utils.data.loader import Loader, train_loader
from utils.data.preparation import IMAGENET
from utils.processes.dist import Dist
from utils.training.engine import Learner
from utils.training.run import Run
from utils.training.state import DataFacts

GPU = {"cpu": "-1", "cuda": "0"}  # --device as --gpu says it


def machine_for(device: str) -> Machine:
    """What trains: a GPU in bfloat16, or the CPU in float32; device: "cpu" or "cuda"."""
    return Machine(gpu=GPU[device], amp="bf16" if device == "cuda" else "none")


def made_up(network: Network, image_size: int, batch_size: int, machine: Machine) -> Config:
    """A run on random images, whose steps are too small to lead anywhere."""
    data = Data(image_size=image_size, batch_size=batch_size, synthetic=True)
    return Config(network=network, data=data, optim=Optim(lr=1e-4), machine=machine)


def begin(config: Config, listing: Listing, dist: Dist) -> tuple[Learner, Loader]:
    """What a `Run` without a folder trains, and the batches that it would train on."""
    facts = DataFacts(
        classes=listing.classes,
        images=len(listing.images),
        val_images=0,
        preparation=IMAGENET.at(config.data.image_size),
    )
    run = Run(config, dist, facts)
    if config.machine.compile:
        run.model.compile(dynamic=False)
    dtype = run.learner.precision.input_dtype
    return run.learner, train_loader(listing, config, dist, run.seed, dtype)
