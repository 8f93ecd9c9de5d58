"""Which output of a network a class folder means: by its name, never by its place."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError, some

LABELS = Path(__file__).with_name("labels")
# by the number of outputs, what each may be called: ImageNet's by WordNet's number or usual name
KNOWN = {
    len(lines): [tuple(line.split(maxsplit=1)) for line in lines]
    for lines in (path.read_text().splitlines() for path in sorted(LABELS.glob("*.txt")))
}
IMAGENET = KNOWN[1000]


def names_of(said: Sequence[str], num_classes: int) -> list[tuple[str, ...]]:
    """What each of `num_classes` outputs may be called.

    said: the class folders of the network's training, empty where they are not known: then the
    outputs have their numbers, and as many as ImageNet, CIFAR-10 or CIFAR-100 has their names, too.
    """
    if num_classes == len(IMAGENET) and list(said) == [wnid for wnid, _ in IMAGENET]:
        said = []
    if said:
        return [(name,) for name in said[:num_classes]] + [()] * (num_classes - len(said))
    known = KNOWN.get(num_classes, [()] * num_classes)
    return [(str(index), *names) for index, names in enumerate(known)]


def shown_names(said: Sequence[str], num_classes: int) -> list[str]:
    """What each of `num_classes` outputs is called for a person: as in its training, by ImageNet's
    usual names for 1,000 outputs that are not said or are WordNet's numbers, else by its number."""
    names = names_of(said, num_classes)
    if num_classes == len(IMAGENET) or said:
        return [own[-1] if own else str(index) for index, own in enumerate(names)]
    return [own[0] for own in names]


def outputs_of(folders: Sequence[str], names: Sequence[Sequence[str]], of: str) -> list[int]:
    """The output that each class folder means, by the outputs' `names`.

    Letters' case and "_" for a space make no difference. of: whose outputs they are, for the
    message. Raises UsageError that names the folders which mean none.
    """
    places = {_plain(name): index for index, own in enumerate(names) for name in own}
    strange = [folder for folder in folders if _plain(folder) not in places]
    if strange:
        raise UsageError(
            f"{len(strange)} of {len(folders)} class folders mean no output of {of}: "
            f"{some(map(repr, strange), 5)}; its {len(names)} outputs are called "
            f"{some((own[-1] for own in names if own), 5)}; "
            "--class-names FILE says their names, one a line"
        )
    return [places[_plain(folder)] for folder in folders]


def said_names(path: str | None) -> list[str]:
    """The lines of the file `path`, of None none; raises UsageError where it can't be read."""
    try:
        return Path(path).read_text().splitlines() if path else []
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read --class-names {path}: {error}") from None


def _plain(name: str) -> str:
    return name.replace("_", " ").casefold()
