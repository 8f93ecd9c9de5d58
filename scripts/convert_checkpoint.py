"""Write the weights of a checkpoint under the names that another program reads.

    python scripts/convert_checkpoint.py IN OUT --to ours|published|torchvision|mmdet
    python scripts/convert_checkpoint.py IN OUT --from-detector

IN is whatever `main_imagenet.py --weights` takes. The ending of OUT says its format: .pth for
torch.save, .safetensors (which mmdetection can't load). `mmdet` drops the classifier: the file is
for mmdetection's `init_cfg=dict(type="Pretrained", checkpoint="OUT")`. With --from-detector, IN is
a whole detector of mmdetection 2 as published, and OUT is what mmdetection 3 tests or starts from.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.cli import Parser, exit_code
from utils.errors import UsageError


def parse_args(argv: list[str] | None = None):
    parser = Parser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("source", metavar="IN", help="checkpoint to read")
    parser.add_argument("target", metavar="OUT", help="file to write, .pth or .safetensors")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--to", choices=RENAMERS, help="whose names to use")
    kind.add_argument(
        "--from-detector",
        "--from_detector",
        action="store_true",
        help="IN is a whole detector of mmdetection 2; write it for mmdetection 3",
    )
    parser.add_argument(
        "--attention-type",
        "--attention_type",
        help="the network's attention, where the weights do not tell it (none or simam)",
    )
    return parser.parse_args(argv)


def to_ours(state: dict, network: dict) -> dict:
    return state


def to_published(state: dict, network: dict) -> dict:
    from utils.checkpoints.names import published_keys

    try:
        return published_keys(state, network["attention"])
    except ValueError as error:
        raise UsageError(str(error)) from None


def to_torchvision(state: dict, network: dict) -> dict:
    """Our keys are torchvision's, for the networks that it has."""
    from torchvision.models import list_models

    if network["arch"] not in list_models():
        raise UsageError(f"torchvision has no {network['arch']}")
    if any(".attn_" in key for key in state):
        raise UsageError(f"torchvision has no {network['arch']} with {network['attention']}")
    return state


def to_mmdet(state: dict, network: dict) -> dict:
    """Our keys are those of mmdetection's ResNet, which has no classifier."""
    from utils.checkpoints.checkpoint import classifier_of

    if "conv1.weight" not in state:
        raise UsageError(f"mmdetection's ResNet has no {network['arch']}")
    return {key: value for key, value in state.items() if not key.startswith(classifier_of(state))}


RENAMERS = {
    "ours": to_ours,
    "published": to_published,
    "torchvision": to_torchvision,
    "mmdet": to_mmdet,
}


def check_mmdet_loads(target: str) -> None:
    """Raise UsageError for a format that mmdetection, which calls torch.load, does not know."""
    if target.endswith(".safetensors"):
        raise UsageError(f"mmdetection can't load {target}; name a .pth file")


def convert(source: str, target: str, to: str, attention: str | None = None) -> str:
    """Write the weights in `source` to `target` under the names `to`; returns a line about it.

    Raises UsageError for a source that is no network of ours, a target that exists or has no known
    ending, or one that the other program can't load, and names that do not exist for the network.
    """
    from utils.checkpoints.files import check_target, read_file, save_atomically, write_weights

    from utils.checkpoints.checkpoint import recognise, state_dict_of

    if to == "mmdet":
        check_mmdet_loads(target)
    check_target(target, (".pth", ".safetensors"))
    content = read_file(source)
    network, assumed = recognise(content, source, attention)
    if to == "published" and "attention" in assumed:
        raise UsageError(
            "the published names depend on the attention, which the weights do not tell: "
            f"{assumed['attention']}; say which with --attention-type"
        )
    state = RENAMERS[to](state_dict_of(content, source), network)
    try:
        if to == "published" and target.endswith(".pth"):
            save_atomically({"arch": network["arch"], "state_dict": state}, target)
        else:
            write_weights(state, target, None if "attention" in assumed else network)
    except OSError as error:
        raise UsageError(f"can't write {target}: {error.strerror}") from None
    words = f"{network['arch']}, attention {network['attention']}, {len(state)} tensors"
    notes = "".join(f"; {reason}" for reason in assumed.values())
    return f"wrote {target}: {words}{notes}"


def convert_detector(source: str, target: str) -> str:
    """Write the detector of mmdetection 2 in `source` for mmdetection 3; returns a line about it.

    Raises UsageError for a source that is no detector with a ResNet of ours, and a target that
    exists or does not end in .pth.
    """
    from utils.checkpoints.files import check_target, read_file, save_atomically

    from utils.checkpoints.detector import detector_of

    check_mmdet_loads(target)
    check_target(target, (".pth",))
    detector = detector_of(read_file(source), source)
    try:
        save_atomically(detector, target)
    except OSError as error:
        raise UsageError(f"can't write {target}: {error.strerror}") from None
    return f"wrote {target}: a detector, {len(detector['state_dict'])} tensors"


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.from_detector:
        return exit_code(lambda: print(convert_detector(args.source, args.target)))
    return exit_code(lambda: print(convert(args.source, args.target, args.to, args.attention_type)))


if __name__ == "__main__":
    sys.exit(main())
