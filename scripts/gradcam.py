"""Where several networks look in the same images: Grad-CAM, as in the SimAM paper's Figure 1.

    python scripts/gradcam.py IMAGE... --checkpoint A --checkpoint B [-o gradcam.png]

One picture: a row per image, with what the first network sees of it first, and a column per
checkpoint, with its likeliest class and confidence. Red is what speaks for that class. Grad-CAM
(Selvaraju et al., ICCV 2017) is taken at the last feature map and comes from the package grad-cam.
A panel is 180 pixels wide and 200 high; the titles take 50 pixels more. The networks are recognised
as by evaluate_all.py, and images are cut as in the evaluations of their training.
"""

import os
import sys
import textwrap
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.cli import Parser, add_shared, exit_code

# inches, of 100 pixels each
PANEL, TITLES = (1.8, 2.0), 0.5


def parse_args(argv: list[str] | None = None):
    parser = Parser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("images", metavar="IMAGE", nargs="+", help="a row of the picture each")
    add(
        "--checkpoint",
        metavar="FILE",
        action="append",
        required=True,
        help="a column of the picture each; give it several times",
    )
    add("-o", "--output", metavar="FILE.png", help="the picture; gradcam.png where not given")
    add_shared(parser, "--attention-type", "--attention-param", "--image-size", "--gpu")
    return parser.parse_args(argv)


class Panel(NamedTuple):
    """What a network makes of an image: its likeliest class, the probability, the image as it sees
    it, uint8 (3, H, W), and the map (H, W), from 0 to 1, as a numpy array."""

    name: str
    confidence: float
    image: object
    heat: object


def last_feature_map(model):
    """The part of `model` whose output is averaged over space for the classifier."""
    names, parts = zip(*model.named_children(), strict=True)
    return parts[names.index("avgpool") - 1]


def explain(loaded, images) -> list[Panel]:
    """Grad-CAM of each image's likeliest class.

    loaded: what `load_network` returned. images: uint8 (N, 3, H, W), on the model's device. Raises
    UsageError for a network whose outputs are not finite.
    """
    from pytorch_grad_cam import GradCAM

    panels = []
    inputs = loaded.normalise(images.device)(images)
    with GradCAM(loaded.model, [last_feature_map(loaded.model)]) as cam:
        for image, pixels in zip(inputs, images.cpu(), strict=True):
            heat = cam(image[None], targets=None)[0]
            loaded.check_finite(cam.outputs)
            confidence, index = cam.outputs[0].detach().softmax(0).max(0)
            panels.append(Panel(loaded.classes[index], confidence.item(), pixels, heat))
        height, width = cam.activations_and_grads.activations[0].shape[2:]
        if height == width == 1:
            print(
                f"note: {loaded.path}: the last feature map is {height}x{width}, too small to "
                "show a place; a larger --image-size helps",
                file=sys.stderr,
            )
    return panels


def titles(networks: list) -> list[str]:
    """What is written above the columns: the network's label, and its file where that is shared."""
    from utils.report.pictures import short_path

    labels = [loaded.label for loaded in networks]
    return [
        label if labels.count(label) == 1 else f"{label}\n{short_path(each.path, 28)}"
        for label, each in zip(labels, networks, strict=True)
    ]


def draw(names: list[str], heads: list[str], columns: list[list[Panel]]):
    """The figure. names: of the images; columns: a panel for each of them, per network."""
    from pytorch_grad_cam.utils.image import show_cam_on_image

    from utils.report.pictures import new_figure

    rows, width = len(names), 1 + len(columns)
    figure = new_figure(PANEL[0] * width, PANEL[1] * rows + TITLES)
    axes = figure.subplots(rows, width, squeeze=False)
    for axis, head in zip(axes[0], ["image", *heads], strict=True):
        axis.set_title(head, fontsize=8)
    for row, name in enumerate(names):
        axes[row, 0].imshow(columns[0][row].image.permute(1, 2, 0).numpy())
        axes[row, 0].set_xlabel(name, fontsize=8)
        for axis, column in zip(axes[row, 1:], columns, strict=True):
            panel = column[row]
            pixels = panel.image.permute(1, 2, 0).numpy() / 255
            axis.imshow(show_cam_on_image(pixels, panel.heat, use_rgb=True))
            text = textwrap.shorten(panel.name, 22, placeholder="...")
            axis.set_xlabel(f"{text}  {100 * panel.confidence:.1f} %", fontsize=8)
        for axis in axes[row]:
            axis.set(xticks=[], yticks=[])
    return figure


def run(args) -> None:
    import torch
    from utils.checkpoints.loading import load_network

    from utils.data.images import load_image
    from utils.processes.dist import choose_device
    from utils.report.pictures import check_output, missing, save_figure, short_path

    try:
        import pytorch_grad_cam  # noqa: F401 (before any work)
    except ImportError as error:
        raise missing("grad-cam", error) from None
    device = choose_device(args.gpu)
    output = check_output(args.output, "gradcam.png", args.images + args.checkpoint)
    networks, columns = [], []
    for path in args.checkpoint:
        words = args.attention_type, args.attention_param, args.image_size
        loaded = load_network(path, *words)
        images = torch.stack([load_image(each, loaded.preparation) for each in args.images])
        loaded.tell_assumed()
        loaded.model.to(device)
        columns.append(explain(loaded, images.to(device)))
        networks.append(loaded._replace(model=None))  # one network in memory at a time
        for image, panel in zip(args.images, columns[-1], strict=True):
            print(f"{image}  {path}  {panel.name}  {100 * panel.confidence:.2f} %")
    names = [short_path(path, 28) for path in args.images]
    save_figure(draw(names, titles(networks), columns), output)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
