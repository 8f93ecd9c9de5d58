"""What SimAM does to an image's feature maps: before, the attention, and after.

    python scripts/show_attention.py IMAGE --checkpoint FILE [--layers NAME...] [-o attention.png]

One picture with a row per SimAM module: a channel's feature map before it, the channel's
energy-based attention, the map after it, and over all channels of the module the histogram of the
attention and those of the features before and after. Of the channels, the one whose attention
varies most is shown. --layers takes the modules' names or their beginnings, such as layer1 or
layer3.1; four modules, evenly over the depth, where not given. A row is 220 pixels high, the
picture 1250 wide. The network is recognised as by evaluate_all.py.
"""

import os
import sys
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.cli import Parser, add_shared, exit_code
from utils.errors import UsageError

# inches, of 100 pixels each
WIDTH, ROW = 12.5, 2.2
HEADS = (
    *("feature map before", "attention", "feature map after"),
    *("attention of all neurons", "features of all neurons"),
)


def parse_args(argv: list[str] | None = None):
    parser = Parser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("image", metavar="IMAGE")
    add("--checkpoint", metavar="FILE", required=True, help="the network's weights")
    add("--layers", metavar="NAME", nargs="+", help="SimAM modules, or how their names begin")
    add("-o", "--output", metavar="FILE.png", help="the picture; attention.png where not given")
    add_shared(parser, "--attention-type", "--attention-param", "--image-size", "--gpu")
    return parser.parse_args(argv)


class Seen(NamedTuple):
    """A SimAM module's maps for one image, each (C, H, W) on the CPU: after = before attention."""

    before: object
    attention: object
    after: object


def choose_layers(model, wanted: list[str] | None) -> dict:
    """name -> SimAM module, for names that are or begin with one of `wanted`.

    None: four, evenly over the depth, with the last. Raises UsageError for a model without SimAM,
    and for a name that none has.
    """
    from networks.attentions import SimAM

    modules = {name: each for name, each in model.named_modules() if isinstance(each, SimAM)}
    if not modules:
        raise UsageError("it has no SimAM module; --attention-type simam says that it had one")
    names = list(modules)
    if wanted is None:
        count = min(4, len(names))
        return {
            name: modules[name]
            for name in (names[len(names) * (i + 1) // count - 1] for i in range(count))
        }
    for each in wanted:
        if not any(f"{name}.".startswith(f"{each}.") for name in names):
            raise UsageError(f"--layers {each}: SimAM stands at {', '.join(names)}")
    return {
        name: modules[name]
        for name in names
        if any(f"{name}.".startswith(f"{each}.") for each in wanted)
    }


def look(model, layers: dict, image) -> tuple[object, dict[str, Seen]]:
    """The logits of the normalised image (3, H, W), and what the SimAM modules `layers` of `model`
    do for it."""
    import torch

    from networks.attentions.simam import simam_weights

    seen = {}

    def hook(name: str):
        def keep(module, inputs, output) -> None:
            (x,) = inputs
            # copies, because the layers behind may work in place
            maps = (x, simam_weights(x, module.e_lambda), output)
            seen[name] = Seen(*(each[0].detach().cpu().clone() for each in maps))

        return keep

    handles = [module.register_forward_hook(hook(name)) for name, module in layers.items()]
    try:
        with torch.no_grad():
            logits = model(image[None])[0]
    finally:
        for handle in handles:
            handle.remove()
    return logits, seen


def draw_row(axes, name: str, seen: Seen) -> None:
    """Fill the five `axes` of the module `name`."""
    channel = seen.attention.flatten(1).var(1, correction=0).argmax().item()
    before, attention, after = (each[channel].numpy() for each in seen)
    low, high = before.min(), before.max()
    for axis, pixels, limits in (
        (axes[0], before, (low, high)),
        (axes[1], attention, (0.6, 1)),
        (axes[2], after, (low, high)),
    ):
        colours = axis.imshow(
            pixels, vmin=limits[0], vmax=limits[1], cmap="viridis" if axis is axes[1] else "gray"
        )
        axis.set(xticks=[], yticks=[])
        axis.figure.colorbar(colours, ax=axis, shrink=0.8).ax.tick_params(labelsize=6)
    channels, height, width = seen.before.shape
    axes[0].set_ylabel(name, fontsize=8)
    axes[0].set_xlabel(f"{height}x{width}, channel {channel} of {channels}", fontsize=7)
    axes[3].hist(seen.attention.flatten().numpy(), 50, range=(0.6, 1), color="tab:blue")
    limits = (seen.before.min().item(), seen.before.max().item())
    for maps, label in ((seen.before, "before"), (seen.after, "after")):
        axes[4].hist(maps.flatten().numpy(), 50, range=limits, histtype="step", label=label)
    axes[4].legend(fontsize=6)
    for axis in axes[3:]:
        axis.set_yscale("log")
        axis.tick_params(labelsize=6)


def draw(title: str, image, maps: dict[str, Seen]):
    """The figure. image: uint8 (3, H, W); maps: what `look` returned, a row each."""
    from utils.report.pictures import new_figure

    rows = len(maps)
    figure = new_figure(WIDTH, ROW * rows + 0.4)
    figure.suptitle(title, fontsize=9)
    grid = figure.add_gridspec(rows, 6)
    whole = figure.add_subplot(grid[:, 0])
    whole.imshow(image.permute(1, 2, 0).numpy())
    whole.set(xticks=[], yticks=[])
    whole.set_title("image", fontsize=8)
    for row, (name, seen) in enumerate(maps.items()):
        axes = [figure.add_subplot(grid[row, column]) for column in range(1, 6)]
        draw_row(axes, name, seen)
        if row == 0:
            for axis, head in zip(axes, HEADS, strict=True):
                axis.set_title(head, fontsize=8)
    return figure


def run(args) -> None:
    from utils.checkpoints.loading import load_network

    from utils.data.images import load_image
    from utils.processes.dist import choose_device
    from utils.report.pictures import check_output, save_figure, short_path

    device = choose_device(args.gpu)
    output = check_output(args.output, "attention.png", [args.image, args.checkpoint])
    words = args.attention_type, args.attention_param, args.image_size
    loaded = load_network(args.checkpoint, *words)
    loaded.tell_assumed()
    image = load_image(args.image, loaded.preparation)
    try:
        layers = choose_layers(loaded.model, args.layers)
    except UsageError as error:
        raise UsageError(f"checkpoint {args.checkpoint} ({loaded.label}): {error}") from None
    normalised = loaded.normalise(device)(image[None].to(device))[0]
    logits, maps = look(loaded.model.to(device), layers, normalised)
    loaded.check_finite(logits)
    save_figure(draw(f"{loaded.label}, {short_path(args.image, 60)}", image, maps), output)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
