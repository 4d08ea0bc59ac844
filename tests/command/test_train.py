"""Training, going on, and stopping from outside at any moment: what is left goes on with --resume."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cupola.checkpoint.store import Checkpoints
from cupola.config import text
from cupola.train.folder import RunFolder

CACHE = Path(__file__).parents[2] / ".cache" / "jax"
COMMAND = [sys.executable, "-c", "from cupola.command.main import main; main()"]

MOMENTS = {
    "preparation": ("run: ", 10**6),
    "compilation": ("held out: ", 10**6),
    "training": ("step 1 ", 10**6),
    "final evaluation": ("step 3 ", 3),
}
"""The line after which the signal is sent, and the budget in steps."""


def steps(run):
    return Checkpoints(run / "checkpoints").steps()


def test_a_file_is_trained_with_changes_and_goes_on_with_more(cupola, config, tmp_path):
    ended = cupola("train", config(), "budget.steps=3", "name=small", "--runs", tmp_path / "runs")
    run = tmp_path / "runs" / "small"
    assert ended.code == 0
    assert f"run: {run}\n" in ended.out
    assert f"see {run / 'card.md'}\n" in ended.out
    assert "fitted" not in ended.out  # what stands in a file is trained as it stands
    ended = cupola("train", "--resume", run, "budget.steps=5")
    assert ended.code == 0
    assert "~ budget.steps: 3 -> 5\n" in ended.out
    assert "going on from step 3" in ended.out
    assert steps(run) == [4, 5]
    assert json.loads((run / "summary.json").read_text())["steps"] == 5
    assert RunFolder.open(run).experiment().budget.steps == 5


def test_a_run_is_trained_anew_under_the_next_name(cupola, copied):
    ended = cupola("train", copied, "budget.steps=1", "saving.every_steps=None", "--runs", copied.parent)
    assert ended.code == 0
    assert steps(copied) == [8, 12]
    assert steps(copied.parent / "tiny") == [0, 1]


def test_a_recipe_is_fitted_to_the_machine_and_says_so(cupola, tmp_path, monkeypatch):
    monkeypatch.setattr("cupola.command.train.run", lambda made, folder, console: None)
    ended = cupola("train", "quickstart", "--runs", tmp_path)
    assert ended.code == 130
    assert "~ model.stack.form: cupola.layers.repeat:Form.SCAN -> cupola.layers.repeat:Form.UNROLL" in ended.out
    made = text.parse((tmp_path / "quickstart" / "config.txt").read_text())
    assert made.model.stack.form.value == "unroll"


def test_nothing_to_train_is_a_mistake(cupola):
    ended = cupola("train")
    assert ended.code == 2
    assert "Type `cupola train quickstart`, or --resume RUN." in ended.err


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


def was_over(moment: str, code: int) -> bool:
    """Whether the run ended well before the signal reached it: the last evaluation of a tiny run is short."""
    return moment == "final evaluation" and code == 0


@pytest.mark.parametrize("moment", [m if m == "training" else pytest.param(m, marks=pytest.mark.slow) for m in MOMENTS])
def test_ctrl_c_leaves_a_run_that_goes_on(stopped, cupola, moment):
    code, told, folder = stopped(*MOMENTS[moment], signal.SIGINT)
    assert "Traceback" not in told
    if not was_over(moment, code):
        assert code == 130, told
        assert f"go on with: cupola train --resume {folder}" in told
    if moment == "training":
        assert Checkpoints(folder / "checkpoints").latest() >= 1
    assert goes_on(cupola, folder)


@pytest.mark.parametrize("moment", [pytest.param(m, marks=pytest.mark.slow) for m in MOMENTS])
def test_sigterm_leaves_a_run_that_goes_on(stopped, cupola, moment):
    code, told, folder = stopped(*MOMENTS[moment], signal.SIGTERM)
    assert was_over(moment, code) or code in (130, -signal.SIGTERM), told
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
