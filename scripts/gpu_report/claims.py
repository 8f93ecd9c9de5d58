"""The page: what the READMEs claim of CUDA, what was measured, and whether it holds."""

import re
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from utils.report.tables import table

Row = dict[str, Any]
Steps = Mapping[str, Mapping[str, Any]]  # outcomes by name, see runner.Outcome
NOT_MEASURED = "not measured"
# at most so many times the step of the network without SimAM
NO_COST = 1.1


class Claim(NamedTuple):
    """holds: None where there is nothing to hold, or nothing was measured."""

    text: str
    measured: str
    holds: bool | None


def rows(steps: Steps, table: str, /, of: str | None = None, **wanted: Any) -> list[Row]:
    """The rows that the steps, or `of` one of them, wrote to a table and that have the values
    wanted."""
    outcomes = [outcome for name, outcome in steps.items() if of in (None, name)]
    found = [row for outcome in outcomes for row in outcome["rows"].get(table, [])]
    return [row for row in found if row.items() >= wanted.items()]


def tests(steps: Steps, step: str, text: str) -> Claim:
    """Of pytest: all that ran passed, and some did."""
    said = steps.get(step, {}).get("said", "")
    counts = {kind: int(count) for count, kind in re.findall(r"(\d+) (\w+)", said[-300:])}
    passed, bad = counts.get("passed", 0), counts.get("failed", 0) + counts.get("errors", 0)
    if not passed + bad:
        return Claim(text, NOT_MEASURED, None)
    stopped = ", stopped in the middle" * steps[step]["stopped"]
    return Claim(text, f"{passed} passed, {bad} failed{stopped}", not bad and not stopped)


def checked(steps: Steps) -> Iterator[Claim]:
    """What `checks` tried; what a step did not come to is there as not measured."""
    for row in rows(steps, "checks"):
        yield Claim(row["claim"], row["measured"], row["passed"])


def least(text: str, found: list[Row], value: Callable[[Row], float | None], good: float) -> Claim:
    """A claim that a ratio is at least `good` in all rows, with the row where it is least."""
    ratios = [(value(row), row) for row in found if value(row) is not None]
    if not ratios:
        return Claim(text, NOT_MEASURED, None)
    ratio, row = min(ratios, key=lambda each: each[0])
    names = ("maps", "layout", "network", "batch", "dtype", "pass")
    where = ", ".join(str(row[name]) for name in names if name in row)
    return Claim(text, f"{ratio:.3g} at the least ({where}), {len(ratios)} measured", ratio >= good)


def beside(found: list[Row], rivals: list[Row]) -> list[Row]:
    """What was found, with the ratio of the rivals' time for the same maps to its own."""
    same = itemgetter("maps", "layout", "dtype", "pass")
    theirs = {same(row): row["ms"] for row in rivals}
    return [row | {"ratio": theirs[same(row)] / row["ms"]} for row in found if same(row) in theirs]


def speeds(steps: Steps) -> Iterator[Claim]:
    layers = rows(steps, "layers", SimAM="operator")
    yield least("the operator is faster than SimAM's formula", layers, itemgetter("speed"), 1)
    compiled = beside(layers, rows(steps, "layers", SimAM="compiled"))
    yield least("... and than torch.compile's", compiled, itemgetter("ratio"), 1)
    one = rows(steps, "blocks", SimAM="one operator")
    for name in ("operator", "compiled"):
        text = f"SimAM, norm and ReLU6 in one are faster than one by one: {name}"
        pairs = beside(one, rows(steps, "blocks", SimAM=name))
        yield least(text, pairs, itemgetter("ratio"), 1)
    kept = [row | {"maps to one": 1 / row["maps kept"]} for row in layers]
    yield least("it keeps one map, of 1.05", kept, itemgetter("maps to one"), 1 / 1.05)
    copy = "GB/s as a share of a copy's"
    yield least(copy, layers, lambda row: row["GB/s"] / row["copy GB/s"], 0.5)
    for name in ("operator", "one operator"):
        found = rows(steps, "networks", attention=name, step="training")
        text = f"SimAM at no cost: {name}, the plain network's training step to its own"
        yield least(text, found, itemgetter("speed"), 1 / NO_COST)
    for row in rows(steps, "costs", attention="operator"):
        text = f"{row['network']}, batch {row['batch']}: host time and memory of a training step"
        measured = f"{row['host ms']} ms, {row['kept GB']} GB kept, {row['peak GB']} GB at most"
        yield Claim(text, measured, None)
    ours = rows(steps, "rows", of="training", contender="ours", task="training")
    yield least("training is faster than the published loop", ours, itemgetter("speed"), 1)
    timm = rows(steps, "rows", of="training", contender="timm", task="training")
    ratios = [row | {"ratio": one["images/s"] / row["images/s"]} for one in ours for row in timm]
    yield least("... than timm's network without SimAM", ratios, itemgetter("ratio"), 1)
    compiled = rows(steps, "rows", of="compiled_training", contender="ours", task="training")
    text = "--compile: faster than the published loop"
    yield least(text, compiled, itemgetter("speed"), 1)


def loading(steps: Steps) -> Iterator[Claim]:
    text = "a batch is copied while the one before is in use"
    found = rows(steps, "copies")
    yield least(text, found, lambda row: row["overlapped"] if row["copies"] else None, 0.5)
    for row in rows(steps, "loader"):
        yield Claim(
            "images/s of the loader", f"{row['images/s']:g}, {row['workers']} workers", None
        )
    for row in rows(steps, "shares"):
        parts = ", ".join(f"{kind} {100 * row[kind]:.0f} %" for kind in list(row)[1:])
        yield Claim(f"a training step of {row['network']}", parts, None)


def cifar(steps: Steps) -> Iterator[Claim]:
    texts = {
        1: "CIFAR's step is faster recorded than eager",
        5: "... and for five seeds in turn than for one, each",
    }
    for seeds, text in texts.items():
        found = rows(steps, "cifar", recorded=True, seeds=seeds)
        yield least(text, found, itemgetter("speed"), 1)
    for row in rows(steps, "cifar"):
        how = "recorded" if row["recorded"] else "eager"
        yield Claim(f"CIFAR's step, {how}, seeds: {row['seeds']}", f"{row['ms']:g} ms", None)


def table2(steps: Steps) -> Iterator[Claim]:
    for row in rows(steps, "rows", of="table2_so_far"):
        if row["runs"]:
            spread = "" if row["std"] is None else f" +- {row['std']:.2f}"
            measured = f"{row['mean']:.2f}{spread} of {row['runs']}; paper {row['paper']:.2f}"
            text = f"Table 2, CIFAR-10 saved as JPEG: {row['arch']}, {row['attention']}"
            yield Claim(text, measured, None)


def traffic(steps: Steps) -> Iterator[Claim]:
    for row in rows(steps, "kernels"):
        measured = f"{row['maps']} maps, {row['L2 hits %']} % of the second-level cache's"
        yield Claim(f"memory traffic of {row['kernel']}", measured, None)


def claims(steps: Steps) -> list[Claim]:
    return [
        tests(steps, "kernel_tests", "the kernels compute SimAM: its tests on CUDA"),
        tests(steps, "other_tests", "the other tests on CUDA; no step waits for the GPU"),
        *checked(steps),
        *speeds(steps),
        *loading(steps),
        *cifar(steps),
        *table2(steps),
        *traffic(steps),
    ]


COLUMNS = {
    "claim": attrgetter("text"),
    "measured": lambda claim: claim.measured.replace("|", "/"),
    "holds": lambda claim: {True: "yes", False: "NO", None: "–"}[claim.holds],
}


def page(content: Mapping[str, Any]) -> tuple[str, bool]:
    """The page for what `Findings` holds, and whether no claim failed."""
    steps, found = content["steps"], claims(content["steps"])
    about = ", ".join(f"{key} {value}" for key, value in content["about"].items())
    ran = ", ".join(
        f"{name} {each['seconds']:.0f} s{' (stopped)' * each['stopped']}"
        for name, each in steps.items()
    )
    text = f"{about}\n\n{table(found, COLUMNS)}\n\nSteps: {ran}\n"
    return text, all(claim.holds is not False for claim in found)
