"""Metrics reach their files, survive a kill, and never end a run."""

import json
import logging
import math

import pytest
from tensorboardX.record_writer import RecordWriter

from cupola.observe.errors import ObserveError
from cupola.observe.sinks import JSONL, Sinks, TensorBoard, read


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "metrics.jsonl"


def strict(path):
    refuse = lambda name: pytest.fail(f"{name} is not JSON")  # noqa: E731
    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_each_line_is_on_disk_at_once_and_legal(path):
    sink = JSONL(path)
    sink.write(1, {"loss": 2.5})
    assert strict(path) == [{"step": 1, "loss": 2.5}]
    sink.write(2, {"loss": math.nan, "norm": -math.inf, "rate": 0.1})
    assert strict(path)[1] == {
        "step": 2, "loss": None, "norm": None, "rate": 0.1, "nonfinite": {"loss": "nan", "norm": "-inf"}
    }  # fmt: skip
    back = read(path)[1]
    assert math.isnan(back["loss"])
    assert (back["norm"], back["rate"]) == (-math.inf, 0.1)
    assert "nonfinite" not in back
    sink.close()


def test_a_resumed_run_writes_each_step_once(path):
    sink = JSONL(path)
    for step in range(5):
        sink.write(step, {"loss": float(step)})
    sink.close()
    with path.open("a") as file:
        file.write('{"step": 5, "lo')
    sink = JSONL(path)
    sink.truncate_after(2)
    sink.write(3, {"loss": 9.0})
    sink.close()
    assert [(told["step"], told["loss"]) for told in strict(path)] == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 9.0)]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_half_a_line_never_spoils_the_next(path):
    path.parent.mkdir()
    path.write_text('{"step": 1}\n{"ste')
    assert read(path) == [{"step": 1}]
    sink = JSONL(path)
    sink.write(2, {})
    sink.close()
    assert strict(path) == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize("line", ["{", '{"loss": 1}', '{"step": "one"}', "3", ""])
def test_a_foreign_line_is_named(path, line):
    path.parent.mkdir()
    path.write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(ObserveError, match="line 2"):
        read(path)


def test_a_metric_cannot_take_the_place_of_the_step(path):
    sink = JSONL(path)
    with pytest.raises(ObserveError, match="'step'"):
        sink.write(1, {"step": 2.0})
    sink.close()


def test_tensorboard_writes_events(tmp_path):
    sink = TensorBoard(tmp_path)
    sink.write(3, {"loss": 2.5, "odd": math.nan})
    sink.close()
    (events,) = tmp_path.iterdir()
    assert b"loss" in events.read_bytes()


def test_a_full_disk_drops_tensorboard_and_does_not_hang(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("cupola.observe.sinks.RecordWriter", lambda path: RecordWriter("/dev/full"))
    sinks = Sinks(TensorBoard(tmp_path))
    for step in range(2000):
        sinks.write(step, {"loss": 2.5})
    sinks.close()
    assert [record.message for record in caplog.records] == [
        "TensorBoard failed and is left out from here on: [Errno 28] No space left on device"
    ]


class Broken:
    def __init__(self):
        self.calls = 0

    def write(self, step, metrics):
        self.calls += 1
        raise OSError("the server is gone")

    def close(self):
        self.calls += 1


def test_a_failing_sink_is_one_warning_and_left_out(path, caplog):
    broken, good = Broken(), JSONL(path)
    sinks = Sinks(broken, good)
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            sinks.write(step, {"loss": 1.0})
        sinks.close()
    assert broken.calls == 2  # a write and a close
    assert [told["step"] for told in read(path)] == [0, 1, 2]
    assert [r.getMessage() for r in caplog.records] == [
        "Broken failed and is left out from here on: the server is gone"
    ]


def test_ctrl_c_is_not_swallowed():
    class Interrupted(Broken):
        def write(self, step, metrics):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Sinks(Interrupted()).write(1, {})
