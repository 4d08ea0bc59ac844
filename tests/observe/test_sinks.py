"""Metrics reach their files, survive a kill, and never end a run."""

import contextlib
import io
import json
import logging
import math
import wave

import numpy as np
import pytest
from matplotlib.image import imread
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import RecordWriter

from cupola.observe.errors import ObserveError
from cupola.observe.sinks import JSONL, MediaSink, Sinks, TensorBoard, read


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


def told(folder):
    """The values of a folder of TensorBoard events."""
    found = []
    for path in folder.iterdir():
        data = path.read_bytes()
        while data:  # length, its checksum, the event, its checksum
            size = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + size])
            found += [(event.step, value) for value in event.summary.value]
            data = data[16 + size :]
    return found


@pytest.mark.parametrize("colours", [3, 4])
def test_a_picture_comes_back_as_it_was(tmp_path, colours):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, colours), np.uint8)
    picture[..., 3:] = 255
    sink = TensorBoard(tmp_path)
    sink.image("alignment", picture, 3)
    sink.close()
    ((step, value),) = told(tmp_path)
    assert (step, value.tag, value.image.height, value.image.width) == (3, "alignment", 5, 7)
    back = np.round(255 * imread(io.BytesIO(value.image.encoded_image_string), format="png"))
    np.testing.assert_array_equal(back[..., :colours], picture)


def test_a_sound_comes_back_to_16_bits_and_is_clipped(tmp_path):
    samples = np.asarray([0.0, 0.5, -0.25, 1.5, -1.0], np.float32)
    sink = TensorBoard(tmp_path)
    sink.audio("spoken", samples, 22_050, 9)
    sink.close()
    ((step, value),) = told(tmp_path)
    assert (step, value.tag, value.audio.sample_rate, value.audio.length_frames) == (9, "spoken", 22_050, 5)
    with wave.open(io.BytesIO(value.audio.encoded_audio_string)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (22_050, 1, 2)
        back = np.frombuffer(file.readframes(5), "<i2")
    np.testing.assert_array_equal(back, [0, 16384, -8192, 32767, -32767])


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 2), np.uint8)],
    ids=["grey", "floats", "two colours"],
)
def test_what_is_no_picture_is_refused(tmp_path, array):
    with (
        contextlib.closing(TensorBoard(tmp_path)) as sink,
        pytest.raises(ObserveError, match=r"alignment: an array of .*\nGive uint8 .height, width, 3 or 4."),
    ):
        sink.image("alignment", array, 1)


@pytest.mark.parametrize(
    "samples",
    [np.zeros(4, np.int16), np.zeros((4, 1), np.float32), np.asarray([0.0, np.nan])],
    ids=["whole numbers", "channels", "nan"],
)
def test_what_is_no_sound_is_refused(tmp_path, samples):
    with (
        contextlib.closing(TensorBoard(tmp_path)) as sink,
        pytest.raises(ObserveError, match=r"spoken: an array of .*\nGive floating .time., finite"),
    ):
        sink.audio("spoken", samples, 8000, 1)


def test_pictures_and_sounds_go_where_they_are_taken(path, tmp_path, caplog):
    lines = JSONL(path)
    sinks = Sinks(lines, TensorBoard(tmp_path / "events"))
    assert isinstance(sinks, MediaSink)
    assert not isinstance(lines, MediaSink)
    sinks.image("alignment", np.zeros((2, 2, 3), np.uint8), 1)
    sinks.audio("diverged", np.full(4, np.nan), 8000, 1)
    sinks.audio("spoken", np.zeros(4, np.float32), 8000, 2)
    sinks.write(3, {"loss": 1.0})
    sinks.close()
    assert [value.tag for _, value in told(tmp_path / "events")] == ["alignment", "spoken", "loss"]
    assert read(path) == [{"step": 3, "loss": 1.0}]
    assert ["diverged" in record.getMessage() for record in caplog.records] == [True]


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
