"""Where several networks look in the same images: Grad-CAM, as in the SimAM paper's Figure 1.

    python scripts/gradcam.py IMAGE... --checkpoint A --checkpoint B [-o gradcam.png]

One picture: a row per image, with what the first network sees of it first, and a column per
checkpoint, with its likeliest class and confidence. Red is what speaks for that class. Grad-CAM
(Selvaraju et al., ICCV 2017) is taken at the last feature map and comes from the package grad-cam.
A panel is 180 pixels wide and 200 high; the titles take 50 pixels more. The networks are recognised
as by evaluate_all.py, and images are cut as in the evaluations of their training.
"""

import argparse
import os
import sys
import textwrap
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.cli import Parser, add_gpu, add_recognition


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
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
    add_recognition(parser)
    add_gpu(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help and mistakes are answered before torch is imported

import numpy as np
import torch
from torch import nn

from utils.checkpoints.trained import Trained, load_and_tell
from utils.data.images import load_image
from utils.data.places import file
from utils.errors import needed, one_line
from utils.processes.dist import choose_device
from utils.processes.ending import exit_code
from utils.report.pictures import check_output, new_figure, save_figure, short_path

# inches, of 100 pixels each
PANEL, TITLES = (1.8, 2.0), 0.5
NAME = 28  # characters of a path


class Panel(NamedTuple):
    """What a network makes of an image.

    name, confidence: its likeliest class and the probability. image: as the network sees it, uint8
    (H, W, 3). heat: Grad-CAM's map (H, W), from 0 to 1.
    """

    name: str
    confidence: float
    image: np.ndarray
    heat: np.ndarray


def last_feature_map(model: nn.Module) -> nn.Module:
    """The part of `model` whose output is averaged over space for the classifier."""
    names, parts = zip(*model.named_children(), strict=True)
    return parts[names.index("avgpool") - 1]


def explain(trained: Trained, images: torch.Tensor) -> list[Panel]:
    """Grad-CAM of each image's likeliest class.

    images: uint8 (N, 3, H, W), on the model's device. Raises UsageError for a network whose outputs
    are not finite.
    """
    from pytorch_grad_cam import GradCAM

    panels = []
    inputs = trained.normalise(images.device)(images)
    with GradCAM(trained.model, [last_feature_map(trained.model)]) as cam:
        for image, pixels in zip(inputs, images.permute(0, 2, 3, 1).cpu().numpy(), strict=True):
            (heat,) = cam(image[None], targets=None)
            trained.checkpoint.check_finite(cam.outputs)
            confidence, index = cam.outputs[0].detach().softmax(0).max(0)
            panels.append(Panel(trained.classes[index], confidence.item(), pixels, heat))
        height, width = cam.activations_and_grads.activations[0].shape[2:]
    if height == width == 1:
        print(
            f"note: {trained.path}: the last feature map is 1x1, too small to show a place; "
            "a larger --image-size helps",
            file=sys.stderr,
        )
    return panels


def draw(names: list[str], heads: list[str], columns: list[list[Panel]]):
    """The figure. names: of the images; columns: a panel for each of them, per network."""
    from pytorch_grad_cam.utils.image import show_cam_on_image

    rows, width = len(names), 1 + len(columns)
    figure = new_figure(PANEL[0] * width, PANEL[1] * rows + TITLES)
    axes = figure.subplots(rows, width, squeeze=False, subplot_kw={"xticks": [], "yticks": []})
    for axis, head in zip(axes[0], ["image", *heads], strict=True):
        axis.set_title(head, fontsize=8)
    for (first, *others), name, *panels in zip(axes, names, *columns, strict=True):
        first.imshow(panels[0].image)
        first.set_xlabel(name, fontsize=8)
        for axis, panel in zip(others, panels, strict=True):
            axis.imshow(show_cam_on_image(panel.image / 255, panel.heat, use_rgb=True))
            text = textwrap.shorten(panel.name, 22, placeholder="...")
            axis.set_xlabel(f"{text}  {100 * panel.confidence:.1f} %", fontsize=8)
    return figure


def compare(args: argparse.Namespace) -> None:
    needed("pytorch_grad_cam", "grad-cam")  # before any work
    device = choose_device(args.gpu)
    output = check_output(args.output, "gradcam.png", [*args.images, *args.checkpoint])
    heads, columns = [], []
    for path in args.checkpoint:
        trained = load_and_tell(path, args)
        images = torch.stack([load_image(file(each), trained.preparation) for each in args.images])
        trained.model.to(device)
        heads.append(f"{trained.network.label}\n{short_path(path, NAME)}")
        columns.append(explain(trained, images.to(device)))
        for image, panel in zip(args.images, columns[-1], strict=True):
            print(one_line(f"{image}  {path}  {panel.name}  {100 * panel.confidence:.2f} %"))
    names = [short_path(path, NAME) for path in args.images]
    save_figure(draw(names, heads, columns), output)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: compare(args))


if __name__ == "__main__":
    sys.exit(main())
