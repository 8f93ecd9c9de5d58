"""What trackers of experiments hold of a run, read back, beside what TensorBoard holds."""

import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import run_command
from runs import command, path, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TOOLS = ("wandb", "mlflow", "trackio")
TAGS = ("step/loss", "step/grad_norm", "train/loss", "val/acc1")
Points = dict[str, list[tuple[int, float]]]  # (images seen, value) by tag


@pytest.mark.parametrize("tool", TOOLS)
def test_a_package_that_is_not_there_is_told_before_anything_is_lost(
    digits, tmp_path, tool, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, tool, None)
    assert run(digits, tmp_path, "--epochs", 1, "--logger", tool) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --logger {tool}: ")
    assert line.endswith(f"; python -m pip install {tool}")
    assert run(digits, tmp_path, "--epochs", 1) == 0


def told_wandb(root: Path) -> Iterator[tuple[str, Points, dict]]:
    """Of each file of an offline run: its name, points, settings."""
    from wandb.proto.wandb_internal_pb2 import Record

    for file in sorted(root.rglob("*.wandb")):
        content, at, part = file.read_bytes(), 7, b""
        records = []
        while at < len(content):  # LevelDB's log: (checksum, size, kind), then so many bytes
            size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
            part += content[at + 7 : at + 7 + size]
            at += 7 + size
            if kind in (1, 4):  # whole, or a last part
                records.append(Record.FromString(part))
                part = b""
            at += 32768 - at % 32768 if 32768 - at % 32768 < 7 else 0
        points = {tag: [] for tag in TAGS}
        for record in records:
            values = {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
            for tag in points.keys() & values.keys():
                points[tag].append((int(values["_step"]), float(values[tag])))
        (begun,) = (each.run for each in records if each.HasField("run"))
        settings = {each.key: each.value_json for each in begun.config.update}
        yield begun.run_id, points, settings


def told_mlflow(root: Path) -> Iterator[tuple[str, Points, dict]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'simam'")
    for tracked in client.search_runs([experiment.experiment_id]):
        name = tracked.info.run_id
        yield (
            name,
            {
                tag: [(m.step, m.value) for m in client.get_metric_history(name, tag)]
                for tag in TAGS
            },
            tracked.data.params,
        )


def told_trackio(root: Path) -> Iterator[tuple[str, Points, dict]]:
    import orjson

    with sqlite3.connect(root / "trackio" / "simam.db") as database:
        for name, settings in database.execute("select run_name, config from configs"):
            points = {tag: [] for tag in TAGS}
            for step, text in database.execute("select step, metrics from metrics order by id"):
                values = orjson.loads(text)
                for tag in points.keys() & values.keys():
                    points[tag].append((step, values[tag]))
            yield name, points, orjson.loads(settings)


TOLD = {"wandb": told_wandb, "mlflow": told_mlflow, "trackio": told_trackio}


@pytest.mark.slow  # processes of their own, each with a tool that is slow to import
@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("tool", TOOLS)
def test_it_has_what_tensorboard_has(digits, tmp_path, tool):
    """Of a run that went on, in two processes, as one run."""
    pytest.importorskip(tool)
    root = tmp_path / "ckpts"
    asked = ["--gpu=-1,-1", "--logger", tool]
    places = {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    places["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path}/mlflow.db"
    for more in (["--epochs", 2], ["--epochs", 3, "--resume", "auto"]):
        done = run_command(*command(digits, root, *asked, *more), cwd=tmp_path, **places)
        assert done.returncode == 0, done.stderr
    names, points, settings = zip(*TOLD[tool](tmp_path), strict=True)
    board = EventAccumulator(str(path(root, ".")))
    board.Reload()
    for tag in TAGS:
        found = [point for each in points for point in each[tag]]
        shown = [(each.step, each.value) for each in board.Scalars(tag)]
        assert len(found) == (12 if tag.startswith("step/") else 3)
        assert [step for step, _ in found] == [step for step, _ in shown]
        assert [value for _, value in found] == pytest.approx([value for _, value in shown])
    assert set(names) == {path(root, f"{tool}_run.txt").read_text()}
    assert str(settings[0]["arch"]).strip('"') == "cifar_resnet20"
