import logging

import pytest
from tensorboardX.proto.event_pb2 import Event

from cupola.checkpoint.store import Checkpoints
from cupola.core.errors import CheckpointError, MeshError, TrainingError
from cupola.observe import sinks
from cupola.train import run as running


def events(folder):
    """The (step, name) of every number in a folder of TensorBoard events."""
    found = []
    for path in folder.iterdir():
        data = path.read_bytes()
        while data:  # length, its checksum, the event, its checksum
            size = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + size])
            found += [(event.step, value.tag) for value in event.summary.value]
            data = data[16 + size :]
    return found


def test_a_finished_run_leaves_everything(finished):
    folder, summary, printed = finished
    held = {path.name for path in folder.path.iterdir()} - {".lock"}
    assert held == {
        "card.md", "checkpoints", "config.txt", "data", "loss.png", "metrics.jsonl", "summary.json", "tensorboard",
        "tokenizer.json",
    }  # fmt: skip
    assert Checkpoints(folder.checkpoints).latest() == 6
    told = sinks.read(folder.metrics)
    assert [m["step"] for m in told if "loss" in m] == [1, 2, 3, 4, 5, 6]
    assert sum(m.get("tokens", 0) for m in told) == summary["tokens"]
    assert {(step, "loss") for step in range(1, 7)} <= set(events(folder.tensorboard))
    assert "tokenizer: " in printed
    assert "wall clock" in printed


def test_called_again_it_scores_again_and_trains_no_more(finished, copied, whole_run):
    copied.summary.unlink()
    again, printed = whole_run(copied.experiment(), copied)
    assert "going on from step 6" in printed
    changing = {"written": None, "matmul_share": None}
    assert again | changing == finished[1] | changing
    assert copied.summary.exists()
    assert [m["step"] for m in sinks.read(copied.metrics) if "loss" in m] == [1, 2, 3, 4, 5, 6]


def test_a_longer_budget_goes_on_and_stands_in_the_runs_text(copied, whole_run):
    longer = copied.experiment().replace("budget.steps", 8)
    summary, _ = whole_run(longer, copied)
    assert summary["steps"] == 8
    assert [m["step"] for m in sinks.read(copied.metrics) if "loss" in m] == list(range(1, 9))
    assert copied.experiment() == longer


def test_a_change_that_does_not_fit_leaves_the_run_as_it_was(copied, whole_run):
    before = copied.config.read_text()
    with pytest.raises(CheckpointError, match="embedding"):
        whole_run(copied.experiment().replace("model.width", 32), copied)
    assert copied.config.read_text() == before
    assert whole_run(copied.experiment(), copied)[0]["steps"] == 6


def test_a_mesh_larger_than_the_machine_is_known_before_anything_is_read(experiment, folder, whole_run):
    made = experiment(mesh__tensor=16)
    with pytest.raises(MeshError, match="needs 16 devices, but there are 8"):
        whole_run(made, folder(made))
    assert not folder(made).tokenizer.exists()


@pytest.mark.parametrize("sink", ["JSONL", "TensorBoard"])
def test_a_sink_that_fails_is_a_warning_and_loses_no_number(experiment, folder, whole_run, sink, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    made = experiment(budget__steps=3)
    monkeypatch.setattr(getattr(sinks, sink), "write", full)
    with caplog.at_level(logging.WARNING):
        summary, _ = whole_run(made, folder(made))
    assert f"{sink} failed and is left out" in caplog.text
    assert summary["tokens"] > 0


@pytest.mark.parametrize("name", ["prepare", "_train", "_finish"])
def test_stopped_at_once_it_says_how_to_go_on(copied, whole_run, name, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running, name, stop)
        summary, printed = whole_run(copied.experiment(), copied)
    assert summary is None
    assert f"go on with: cupola train --resume {copied.path}" in printed
    with copied:  # and the folder is free
        pass


def test_a_disk_that_fills_at_the_end_is_named_and_nothing_is_lost(copied, whole_run, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "loss.png")

    with monkeypatch.context() as patch:
        patch.setattr(running.report.curve, "plot", full)
        with pytest.raises(TrainingError, match="loss.png: could not be written .No space left on device."):
            whole_run(copied.experiment(), copied)
    assert whole_run(copied.experiment(), copied)[0]["steps"] == 6
