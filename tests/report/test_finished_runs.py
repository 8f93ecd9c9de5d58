import json

import pytest

from utils.report.finished_runs import CURVES, read_detector, read_run

NAMES = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")


def test_a_run_counts_when_all_its_epochs_are_there(tmp_path):
    assert read_run(str(tmp_path)) is None
    (tmp_path / "args.json").write_text(json.dumps({"epochs": 2, "arch": "x"}))
    names = ("lr", "train_loss", "train_acc1", "val_loss", "val_acc1", "val_acc5")
    lines = [
        json.dumps({"epoch": epoch, **dict.fromkeys(names, epoch + 0.25), "seconds": 2})
        for epoch in range(2)
    ]
    (tmp_path / "metrics.jsonl").write_text(lines[0] + "\n")
    assert read_run(str(tmp_path)) is None
    (tmp_path / "metrics.jsonl").write_text("\n".join([lines[0], lines[1][:20], lines[1]]))
    run = read_run(str(tmp_path))
    assert (run.settings["arch"], run.seconds()) == ("x", 4)
    assert run.curves() == dict.fromkeys(names, [0.25, 1.25])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("args.json", "[2]"),
        ("args.json", '{"epochs": "2"}'),
        ("metrics.jsonl", "1\n2"),
        ("metrics.jsonl", '{"epoch": 0}\n{"epoch": 1}'),
    ],
)
def test_files_of_another_kind_are_no_run(tmp_path, name, text):
    epoch = dict.fromkeys([*CURVES, "seconds"], 1)
    (tmp_path / "args.json").write_text('{"epochs": 2}')
    (tmp_path / "metrics.jsonl").write_text(f"{json.dumps(epoch)}\n{json.dumps(epoch)}")
    assert read_run(str(tmp_path)) is not None
    (tmp_path / name).write_text(text)
    assert read_run(str(tmp_path)) is None


def evaluation(metric: str, first: float, prefix: str = "coco/") -> dict:
    return {f"{prefix}{metric}_{name}": first + 0.01 * i for i, name in enumerate(NAMES)}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("faster-rcnn_r50-simam_fpn_1x_coco", ("faster-rcnn_r50", "simam")),
        ("mask-rcnn_r101_fpn_1x_coco", ("mask-rcnn_r101", "none")),
    ],
)
@pytest.mark.parametrize("version", [2, 3])
def test_a_detectors_last_epoch_is_read(tmp_path, name, key, version):
    folder, prefix, counter = tmp_path / name, "", "epoch"
    log = folder / "20260101_000000.log.json"
    if version == 3:
        prefix, counter = "coco/", "step"
        log = folder / "20260101_000000" / "vis_data" / "scalars.json"
    log.parent.mkdir(parents=True)
    lines = [{"loss": 0.5, counter: 12}]
    for epoch, ap in ((11, 0.1), (12, 0.4)):
        metrics = evaluation("bbox", ap, prefix) | evaluation("segm", ap - 0.1, prefix)
        lines.append(metrics | {counter: epoch})
    log.write_text("\n".join(map(json.dumps, lines)) + '\n{"cut o')
    found = read_detector(str(folder))
    detector, attention = key
    assert found.keys() == {(detector, metric, attention) for metric in ("bbox", "segm")}
    assert found[detector, "bbox", attention] == pytest.approx([40, 41, 42, 43, 44, 45])
    assert found[detector, "segm", attention] == pytest.approx([30, 31, 32, 33, 34, 35])


def test_an_unfinished_detector_and_other_folders_hold_nothing(tmp_path):
    folder = tmp_path / "faster-rcnn_r50_fpn_1x_coco" / "1" / "vis_data"
    folder.mkdir(parents=True)
    (folder / "1.json").write_text(json.dumps(evaluation("bbox", 0.3) | {"step": 11}))
    assert read_detector(str(folder.parent.parent)) == {}
    assert read_detector(str(tmp_path)) == {}
