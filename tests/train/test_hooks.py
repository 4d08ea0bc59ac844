import dataclasses
import io
import json

import pytest
from rich.console import Console

from cupola.observe.account import Account
from cupola.observe.progress import Progress
from cupola.observe.sinks import JSONL, Sinks
from cupola.train.evaluate import Score
from cupola.train.hooks import SPAN_STEPS, Display, Record, Speed
from cupola.train.loop import Done

KNOWN = Account(parameter_bytes=1000, optimizer_bytes=2000, temporary_bytes=3000, peak_bytes=6000, flops=10**9)


def done(step, seconds, tokens=100):
    return Done(step, step / 100, seconds, tokens, {"loss": 2.5, "skipped": 1.0})


def test_speed_is_taken_over_the_last_steps(machine):
    speed = Speed(machine)
    speed.before_first(KNOWN)
    assert speed.rates(done(1, 5.0)) == {}
    rates = [speed.rates(done(2 + i, 5.0 + 0.1 * (i + 1))) for i in range(SPAN_STEPS)]
    assert rates[0] == pytest.approx({"tokens_per_second": 1000, "matmul_share": 1e10 / 2e11})
    assert rates[-1] == pytest.approx(rates[0])
    slower = speed.rates(done(99, 5.0 + 0.1 * SPAN_STEPS + 2.1))
    assert slower["tokens_per_second"] == pytest.approx(100 * SPAN_STEPS / (0.1 * (SPAN_STEPS - 1) + 2.1))


def test_the_display_tells_what_a_step_needs_and_every_score(machine):
    console = Console(file=io.StringIO(), width=200)
    with Progress("tiny", console=console, clock=lambda: 0.0) as progress:
        display = Display(progress, Speed(machine))
        display.before_first(KNOWN)
        display.after_step(done(1, 1.0))
        display.after_evaluation(1, Score(nats=693.147, tokens=100, bytes=500.0))
    shown = console.file.getvalue()
    assert "a step needs 6 kB (parameters 1 kB, optimizer 2 kB, temporaries 3 kB)" in shown.replace(".00", "")
    assert "step 1: held out (sample) 2.000 bits per byte" in shown
    assert "loss 2.500" in shown
    assert "1 skipped" in shown


def test_the_record_holds_every_metric(machine, tmp_path):
    sinks = Sinks(JSONL(tmp_path / "m.jsonl"))
    record = Record(sinks, Speed(machine))
    record.before_first(KNOWN)
    record.after_step(done(1, 1.0))
    record.after_step(done(2, 1.5))
    record.after_evaluation(2, Score(nats=693.147, tokens=100, bytes=500.0))
    sinks.close()
    one, two, score = map(json.loads, (tmp_path / "m.jsonl").read_text().splitlines())
    assert one == {"step": 1, "loss": 2.5, "skipped": 1.0, "progress": 0.01, "seconds": 1.0, "tokens": 100}
    assert two == one | {
        "step": 2, "progress": 0.02, "seconds": 1.5, "tokens_per_second": 200.0, "matmul_share": 0.01
    }  # fmt: skip
    assert score == pytest.approx({"step": 2, "held_out_loss": 6.93147, "held_out_bits_per_byte": 2.0}, rel=1e-4)


def test_steps_that_tell_their_own_work_are_counted_by_it(machine):
    speed = Speed(machine, "frames")
    speed.before_first(KNOWN)
    assert speed.rates(done(1, 1.0)) == {}
    speed.rates(dataclasses.replace(done(2, 2.0), flops=10**10))
    rates = speed.rates(dataclasses.replace(done(3, 3.0), flops=3 * 10**10))
    assert rates == pytest.approx({"frames_per_second": 100, "matmul_share": 2e10 / 2e11})


def test_where_nobody_knows_the_work_nothing_is_said_of_it(machine):
    known = dataclasses.replace(KNOWN, flops=None)
    speed = Speed(machine)
    speed.before_first(known)
    speed.rates(done(1, 1.0))
    assert speed.rates(done(2, 2.0)) == {"tokens_per_second": 100}
    console = Console(file=io.StringIO(), width=200)
    with Progress("tiny", console=console, clock=lambda: 0.0) as progress:
        Display(progress, Speed(machine)).before_first(known)
    assert "FLOP" not in console.file.getvalue()
