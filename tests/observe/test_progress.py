"""The display: what it says, that it fits, and what stands in for it without a terminal."""

import io
import math

import pytest
from rich.console import Console

from cupola.observe.progress import SPARKS, Progress, spark


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def console(width=100, terminal=True, encoding="utf-8"):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    return Console(width=width, force_terminal=terminal, file=file, color_system=None)


def told(console):
    return console.file.buffer.getvalue().decode(console.file.encoding)


def drawn(progress, console):
    with console.capture() as capture:
        console.print(progress.render())
    return capture.get()


METRICS = {"loss": 2.5, "tokens_per_second": 10234.0, "matmul_share": 0.713, "skipped_steps": 2.0, "held_out": 2.125}


def run(progress, clock, *, steps=50, of=100):
    for step in range(steps + 1):
        progress.update(step, step / of, METRICS)
        clock.now += 1
    clock.now -= 1


@pytest.mark.parametrize("width", [40, 60, 80, 140])
def test_everything_is_said_at_any_width(width, clock):
    screen = console(width)
    progress = Progress("first [run]", console=screen, clock=clock)
    run(progress, clock)
    text = drawn(progress, screen)
    lines = text.splitlines()
    assert {len(line) for line in lines} == {min(width, 100)}
    for part in ("first [run]", "loss 2.500", "10.2k tokens/s", "71% of matmul rate", "2 skipped", "held_out 2.125"):
        assert part in text
    assert "step 50" in lines[1]
    assert "50%  50 s left" in lines[1]
    assert lines[-2].strip("│ ")[0] in SPARKS


def test_time_left_counts_from_where_a_run_resumed(clock):
    progress = Progress("x", console=console(), clock=clock)
    assert progress.left_seconds() is None
    progress.update(800, 0.8, {})
    assert progress.left_seconds() is None
    clock.now += 10
    progress.update(900, 0.9, {})
    assert progress.left_seconds() == pytest.approx(10)
    progress.update(1000, 1.0, {})
    assert "100%  done" in drawn(progress, console())


def test_nothing_known_is_drawn_too(clock):
    assert "step 0" in drawn(Progress("x", console=console(), clock=clock), console())


def test_loss_is_smoothed_and_deaf_to_nan(clock):
    screen = console()
    progress = Progress("x", console=screen, clock=clock)
    for loss in (4.0, math.nan, 2.0):
        progress.update(1, 0.1, {"loss": loss})
    assert 2.0 < float(drawn(progress, screen).split("loss ")[1].split()[0]) < 4.0
    progress.update(2, 0.1, {"skipped_steps": 0.0})
    assert "skipped" not in drawn(progress, screen)


def test_a_terminal_that_cannot_show_blocks_gets_none(clock):
    screen = console(encoding="ascii")
    progress = Progress("x", console=screen, clock=clock)
    run(progress, clock)
    assert drawn(progress, screen).isascii()
    progress.note("done · ▁")
    *_, line, note = told(screen).splitlines()
    assert line.startswith("step 50 | 50%")
    assert note == "done ? ?"


def test_live_display_draws_and_notes_stand_above(clock):
    screen = console(60)
    with Progress("x", console=screen, clock=clock) as progress:
        run(progress, clock)
        progress.note("held out: [2.1]")
    text = told(screen)
    assert "held out: [2.1]" in text
    assert text.rindex("held out: [2.1]") < text.rindex("step 50")


def test_without_a_terminal_a_line_every_few_seconds(clock):
    screen = console(30, terminal=False)
    with Progress("x", console=screen, clock=clock) as progress:
        run(progress, clock, steps=12, of=12)
        progress.note("held out: [2.1]")
    lines = told(screen).splitlines()
    assert [line.split(" · ")[0] for line in lines] == ["step 0", "step 5", "step 10", "held out: [2.1]", "step 12"]
    assert lines[1].startswith("step 5 · 42% · 7 s left · loss 2.500 · 10.2k tokens/s · 71% of matmul rate · ")
    assert "100% · done" in lines[-1]


def test_nothing_done_prints_nothing():
    screen = console(terminal=False)
    with Progress("x", console=screen):
        pass
    assert told(screen) == ""


@pytest.mark.parametrize(
    ("values", "width", "curve"),
    [([1.0], 5, "▁"), ([2.0, 2.0], 5, "▁▁"), ([1.0, 8.0], 5, "▁█"), ([8.0, 8.0, 1.0, 1.0], 2, "█▁")],
)
def test_spark(values, width, curve):
    assert spark(values, width) == curve


def test_a_long_run_keeps_a_short_history(clock):
    progress = Progress("x", console=console(), clock=clock)
    for step in range(5000):
        progress.update(step, step / 5000, {"loss": 5000.0 - step})
    curve = drawn(progress, console()).splitlines()[-2].strip("│ ")
    assert len(progress._history) <= 512
    assert (curve[0], curve[-1]) == ("█", "▁")
