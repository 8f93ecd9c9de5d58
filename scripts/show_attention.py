"""What SimAM does to an image's feature maps: before, the attention, and after.

    python scripts/show_attention.py IMAGE --checkpoint FILE [--layers NAME...] [-o attention.png]

One picture with a row per SimAM module: a channel's feature map before it, the channel's
energy-based attention, the map after it, and over all channels of the module the histogram of the
attention and those of the features before and after. Of the channels, the one whose attention
varies most is shown. --layers takes the modules' names or their beginnings, such as layer1 or
layer3.1; four modules, evenly over the depth, where not given. A row is 220 pixels high, the
picture 1250 wide. The network is recognised as by evaluate_all.py.
"""

import argparse
import os
import sys
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.cli import Parser, add_gpu, add_recognition


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("image", metavar="IMAGE")
    add("--checkpoint", metavar="FILE", required=True, help="the network's weights")
    add("--layers", metavar="NAME", nargs="+", help="SimAM modules, or how their names begin")
    add("-o", "--output", metavar="FILE.png", help="the picture; attention.png where not given")
    add_recognition(parser)
    add_gpu(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help and mistakes are answered before torch is imported

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from networks.attentions.simam import SimAM, simam_weights
from utils.checkpoints.trained import load_and_tell
from utils.data.images import load_image
from utils.data.places import file
from utils.errors import UsageError
from utils.processes.dist import choose_device
from utils.processes.ending import exit_code
from utils.report.pictures import check_output, new_figure, save_figure, short_path

# inches, of 100 pixels each
WIDTH, ROW = 12.5, 2.2
HEADS = (
    *("feature map before", "attention", "feature map after"),
    *("attention of all neurons", "features of all neurons"),
)
ATTENTION = (0.6, 1)  # its values: SimAM's least is sigmoid(1/2)


class Seen(NamedTuple):
    """A SimAM module's maps for one image, each (C, H, W) on the CPU: after = before attention."""

    before: torch.Tensor
    attention: torch.Tensor
    after: torch.Tensor


def choose_layers(names: list[str], wanted: list[str] | None) -> list[str]:
    """Those of `names` that are or begin with one of `wanted`, in their order.

    None: four, evenly over the depth, with the last. Raises UsageError for a word that none has.
    """
    if wanted is None:
        count = min(4, len(names))
        return [names[len(names) * (i + 1) // count - 1] for i in range(count)]
    chosen = set()
    for word in wanted:
        found = {name for name in names if f"{name}.".startswith(f"{word}.")}
        if not found:
            raise UsageError(f"--layers {word}: SimAM stands at {', '.join(names)}")
        chosen |= found
    return [name for name in names if name in chosen]


def look(
    model: nn.Module, layers: list[str], image: torch.Tensor
) -> tuple[torch.Tensor, dict[str, Seen]]:
    """The logits of the normalised image (3, H, W), and what the SimAM modules that `model` has at
    `layers` do for it."""
    names = {model.get_submodule(name): name for name in layers}
    seen = {}

    def keep(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        if module in names:
            (x,) = inputs
            maps = x, simam_weights(x, module.e_lambda), output
            # copies, because the layers behind may work in place
            seen[names[module]] = Seen(*(each[0].cpu().clone() for each in maps))

    with register_module_forward_hook(keep), torch.no_grad():
        return model(image[None])[0], seen


def draw_row(axes, name: str, seen: Seen) -> None:
    """Fill the five `axes` of the module `name`."""
    *maps, weights, features = axes
    channel = seen.attention.flatten(1).var(1, correction=0).argmax().item()
    before, attention, after = (each[channel].numpy() for each in seen)
    own = before.min(), before.max()
    panels = (before, own, "gray"), (attention, ATTENTION, "viridis"), (after, own, "gray")
    for axis, (pixels, (low, high), colours) in zip(maps, panels, strict=True):
        shown = axis.imshow(pixels, vmin=low, vmax=high, cmap=colours)
        axis.set(xticks=[], yticks=[])
        axis.figure.colorbar(shown, ax=axis, shrink=0.8).ax.tick_params(labelsize=6)
    channels, height, width = seen.before.shape
    maps[0].set_ylabel(name, fontsize=8)
    maps[0].set_xlabel(f"{height}x{width}, channel {channel} of {channels}", fontsize=7)
    weights.hist(seen.attention.flatten().numpy(), 50, range=ATTENTION, color="tab:blue")
    whole = seen.before.min().item(), seen.before.max().item()
    for label, values in (("before", seen.before), ("after", seen.after)):
        features.hist(values.flatten().numpy(), 50, range=whole, histtype="step", label=label)
    features.legend(fontsize=6)
    for axis in (weights, features):
        axis.set_yscale("log")
        axis.tick_params(which="both", labelsize=6)


def draw(title: str, image: torch.Tensor, maps: dict[str, Seen]):
    """The figure. image: uint8 (3, H, W); maps: what `look` returned, a row each."""
    figure = new_figure(WIDTH, ROW * len(maps) + 0.4)
    figure.suptitle(title, fontsize=9)
    grid = figure.add_gridspec(len(maps), 6)
    whole = figure.add_subplot(grid[:, 0], xticks=[], yticks=[])
    whole.imshow(image.permute(1, 2, 0).numpy())
    whole.set_title("image", fontsize=8)
    for row, (name, seen) in enumerate(maps.items()):
        axes = [figure.add_subplot(grid[row, column]) for column in range(1, 6)]
        draw_row(axes, name, seen)
        if row == 0:
            for axis, head in zip(axes, HEADS, strict=True):
                axis.set_title(head, fontsize=8)
    return figure


def show(args: argparse.Namespace) -> None:
    device = choose_device(args.gpu)
    output = check_output(args.output, "attention.png", [args.image, args.checkpoint])
    trained = load_and_tell(args.checkpoint, args)
    image = load_image(file(args.image), trained.preparation)
    label, parts = trained.network.label, trained.model.named_modules()
    names = [name for name, part in parts if isinstance(part, SimAM)]
    if not names:
        raise trained.checkpoint.refusal(
            f"is of {label}, without SimAM; --attention-type simam says that it had one"
        )
    normalised = trained.normalise(device)(image.to(device))
    layers = choose_layers(names, args.layers)
    logits, maps = look(trained.model.to(device), layers, normalised)
    trained.checkpoint.check_finite(logits)
    save_figure(draw(f"{label}, {short_path(args.image, 60)}", image, maps), output)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: show(args))


if __name__ == "__main__":
    sys.exit(main())
