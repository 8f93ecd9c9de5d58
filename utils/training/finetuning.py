"""Fine-tuning: weights that stay as they are, and weights that learn more slowly."""

from torch import nn

from ..checkpoints.recognition import classifier_of
from ..errors import UsageError, some

BACKBONE = "backbone"  # all but the classifier


def freeze(model: nn.Module, names: str | None) -> list[nn.Module]:
    """Take the modules `names`, between commas, out of the training of `model`.

    Returns those whose batch norms are to stay in evaluation, so that their statistics stay, too.
    Raises UsageError for a name that there is not, and where nothing is left to train.
    """
    parts = dict(model.named_modules())
    chosen = backbone(model) if names == BACKBONE else names.split(",") if names else []
    for name in chosen:
        if name not in parts:
            known = some([each for each, _ in model.named_children()], 20)
            raise UsageError(f"--freeze {name}: there is {BACKBONE}, {known}, and their parts")
        parts[name].requires_grad_(False)
    if not any(each.requires_grad for each in model.parameters()):
        raise UsageError(f"--freeze {names} leaves nothing to train")
    return [parts[name] for name in chosen]


def backbone(model: nn.Module) -> list[str]:
    """The names of the parts of `model` that are not its classifier."""
    head = classifier_of(model.state_dict()).split(".")[0]
    return [name for name, _ in model.named_children() if name != head]
