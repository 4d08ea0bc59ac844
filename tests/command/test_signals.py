"""Stopping from outside, at any moment: what is left goes on with `cupola train --resume`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cupola.checkpoint.store import Checkpoints

CACHE = Path(__file__).parents[2] / ".cache" / "jax"
COMMAND = [sys.executable, "-c", "from cupola.command.main import main; main()"]

MOMENTS = {
    "preparation": ("run: ", 10**6),
    "compilation": ("held out: ", 10**6),
    "training": ("step 1 ", 10**6),
    "final evaluation": ("step 3 ", 3),
}
"""The line after which the signal is sent, and the budget in steps."""


@pytest.fixture
def stopped(config, tmp_path):
    """Trains in a process, sends it signals after a line that begins so; gives (exit code, output, folder)."""

    def run(line: str, steps: int, *signals: signal.Signals) -> tuple[int, str, Path]:
        words = ["train", str(config(budget__steps=steps)), "--runs", str(tmp_path / "runs")]
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(CACHE)}
        process = subprocess.Popen(
            COMMAND + words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        with process:
            seen = []
            for told in process.stdout:
                seen.append(told)
                if told.startswith(line):
                    break
            for number in signals:
                process.send_signal(number)
            rest = process.stdout.read()
        return process.returncode, "".join(seen) + rest, tmp_path / "runs" / "tiny"

    return run


def goes_on(cupola, folder):
    """Resumes for one more step than there is, to the end."""
    at = Checkpoints(folder / "checkpoints").latest() or 0
    ended = cupola("train", "--resume", folder, f"budget.steps={max(at, 2) + 1}")
    assert ended.code == 0, ended
    assert at == 0 or f"going on from step {at:,}" in ended.out
    assert (folder / "summary.json").exists()
    return True


@pytest.mark.parametrize("moment", [m if m == "training" else pytest.param(m, marks=pytest.mark.slow) for m in MOMENTS])
def test_ctrl_c_leaves_a_run_that_goes_on(stopped, cupola, moment):
    code, told, folder = stopped(*MOMENTS[moment], signal.SIGINT)
    assert code == 130, told
    assert "Traceback" not in told
    assert f"go on with: cupola train --resume {folder}" in told
    if moment == "training":
        assert Checkpoints(folder / "checkpoints").latest() >= 1
    assert goes_on(cupola, folder)


@pytest.mark.parametrize("moment", [pytest.param(m, marks=pytest.mark.slow) for m in MOMENTS])
def test_sigterm_leaves_a_run_that_goes_on(stopped, cupola, moment):
    code, told, folder = stopped(*MOMENTS[moment], signal.SIGTERM)
    assert code in (130, -signal.SIGTERM), told
    assert "Traceback" not in told
    if moment == "training":
        assert (code, "go on with" in told) == (130, True)
    assert goes_on(cupola, folder)


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once(stopped, cupola):
    code, told, folder = stopped(*MOMENTS["training"], signal.SIGINT, signal.SIGINT)
    assert code == 130, told
    assert "Traceback" not in told
    assert goes_on(cupola, folder)
