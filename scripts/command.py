"""The command `simam` of an installed package: the scripts by one word each.

simam train DATA -a resnet18 ...          as python main_imagenet.py DATA -a resnet18 ...
simam predict IMAGE --checkpoint FILE     as python scripts/predict.py IMAGE ...
"""

import importlib
import sys

# word -> the module whose main() it runs, and what for
COMMANDS = {
    "train": ("main_imagenet", "train a network, or evaluate it with -e"),
    "predict": ("scripts.predict", "the likeliest classes of images"),
    "gradcam": ("scripts.gradcam", "a picture of where networks look"),
    "show-attention": ("scripts.show_attention", "a picture of what SimAM does in a network"),
    "plot-curves": ("scripts.plot_curves", "a picture of runs' losses and accuracies"),
}


def main(argv: list[str] | None = None) -> int:
    """Run what the first word asks for with the other words; returns its exit code."""
    word, *others = (sys.argv[1:] if argv is None else argv) or [""]
    if word in ("-h", "--help"):
        print("usage: simam COMMAND ...   (simam COMMAND --help: its options)\n")
        for name, (_, words) in COMMANDS.items():
            print(f"  {name:14}  {words}")
        return 0
    if word not in COMMANDS:
        what = f"unknown command {word}" if word else "a command is missing"
        print(f"error: {what}; one of {', '.join(COMMANDS)} (see --help)", file=sys.stderr)
        return 2
    sys.argv[0] = f"simam {word}"  # what its usage line begins with
    return importlib.import_module(COMMANDS[word][0]).main(others)
