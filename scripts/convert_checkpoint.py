"""Write the weights of a checkpoint under the names that another program reads.

    python scripts/convert_checkpoint.py IN OUT --to ours|published|torchvision|mmdet
    python scripts/convert_checkpoint.py IN OUT --from-detector

IN is whatever `main_imagenet.py --weights` takes. The ending of OUT says its format: .pth for
torch.save, .safetensors (which mmdetection can't load). `mmdet` drops the classifier: the file is
for mmdetection's `init_cfg=dict(type="Pretrained", checkpoint="OUT")`. With --from-detector, IN is
a whole detector, of mmdetection 2 as published or of mmdetection 3 as trained, and OUT is what can
be published: weights, classes and config, which mmdetection 3 tests or starts from.
"""

import argparse
import os
import sys
from dataclasses import asdict

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.cli import Parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("source", metavar="IN", help="checkpoint to read")
    parser.add_argument("target", metavar="OUT", help="file to write, .pth or .safetensors")
    kind = parser.add_mutually_exclusive_group(required=True)
    names = ("ours", "published", "torchvision", "mmdet")
    kind.add_argument("--to", choices=names, help="whose names to use")
    kind.add_argument(
        "--from-detector",
        action="store_true",
        help="IN is a whole detector of mmdetection 2 or 3; write it for mmdetection 3, to publish",
    )
    parser.add_argument(
        "--attention-type",
        help="the network's attention, where the weights do not tell it (none or simam)",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help and mistakes are answered before torch is imported

from utils.checkpoints import Checkpoint
from utils.checkpoints.detector import detector_of
from utils.checkpoints.formats import to_bytes, write_weights
from utils.checkpoints.names import StateDict, published_keys
from utils.checkpoints.recognition import classifier_of
from utils.config import Network
from utils.disk import check_target, write_bytes
from utils.errors import UsageError
from utils.processes.ending import exit_code


def renamed(state: StateDict, network: Network, to: str) -> StateDict:
    """The weights `state` of the `network`, from our names to those of `to`.

    Raises UsageError where the other program has no names for them.
    """
    if to == "published":
        return published_keys(state, network.attention)
    if to == "torchvision":
        check_torchvision_has(network, state)
    elif to == "mmdet":
        if "conv1.weight" not in state:
            raise UsageError(f"mmdetection's ResNet has no {network.arch}")
        classifier = classifier_of(state)
        return {key: value for key, value in state.items() if not key.startswith(classifier)}
    return state  # torchvision's names are ours


def check_torchvision_has(network: Network, state: StateDict) -> None:
    """Raise UsageError where torchvision has no network with these keys."""
    # not at the top: mmdetection's environment has no torchvision
    from torchvision.models import list_models

    if network.arch not in list_models():
        raise UsageError(f"torchvision has no {network.arch}")
    if any(".attn_" in key for key in state):
        raise UsageError(f"torchvision has no {network.arch} with {network.attention}")


def convert(source: str, target: str, to: str, attention: str | None = None) -> str:
    """Write the weights in `source` to `target` under the names `to`; returns a line about it.

    Raises UsageError for a source that is no network of ours, a target that exists or has no known
    ending, or one that the other program can't load, and names that do not exist for the network.
    """
    if to == "mmdet" and target.lower().endswith(".safetensors"):
        raise UsageError(f"mmdetection can't load {target}; name a .pth file")  # by torch.load
    check_target(target, (".pth", ".safetensors"))
    checkpoint = Checkpoint(source)
    network, assumed = checkpoint.recognise(attention)
    if to == "published" and "attention" in assumed:
        raise UsageError(
            "the published names depend on the attention, which the weights do not tell: "
            f"{assumed['attention']}; say which with --attention-type"
        )
    state = renamed(checkpoint.weights, network, to)
    if to == "published" and target.lower().endswith(".pth"):
        write_bytes(to_bytes({"arch": network.arch, "state_dict": state}), target)
    else:
        write_weights(state, target, None if "attention" in assumed else asdict(network))
    words = f"{network.arch}, attention {network.attention}, {len(state)} tensors"
    return "; ".join([f"wrote {target}: {words}", *assumed.values()])


def convert_detector(source: str, target: str) -> str:
    """Write the detector in `source` for mmdetection 3; returns a line about it.

    A .safetensors file, which others read, holds weights and classes. Raises UsageError for a
    source that is no detector with a ResNet of ours, and a target that exists or has no known
    ending.
    """
    check_target(target, (".pth", ".safetensors"))
    detector = detector_of(Checkpoint(source))
    if target.lower().endswith(".safetensors"):
        write_weights(detector["state_dict"], target, detector["meta"].get("dataset_meta"))
    else:
        write_bytes(to_bytes(detector), target)
    return f"wrote {target}: a detector, {len(detector['state_dict'])} tensors"


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.from_detector:
        return exit_code(lambda: print(convert_detector(args.source, args.target)))
    return exit_code(lambda: print(convert(args.source, args.target, args.to, args.attention_type)))


if __name__ == "__main__":
    sys.exit(main())
