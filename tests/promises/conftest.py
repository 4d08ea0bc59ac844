"""What the promises share: a whole run in a process of its own, and its losses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cupola.config import text
from cupola.train.experiment import Experiment

CACHE = Path(__file__).parents[2] / ".cache" / "jax"
RUN = """
import os, signal, sys
from pathlib import Path
from cupola.core import host
from cupola.observe.goodput import Ledger
from cupola.observe.sinks import JSONL
from cupola.train.corpus import prepare
from cupola.train.folder import RunFolder
from cupola.train.interrupt import Interrupt
from cupola.train.loop import Hook, Trainer

place, kill_after, fault, cache = sys.argv[1:]

class Watch(Hook):
    def after_step(self, done):
        lines.write(done.step, done.metrics)
        if done.step == int(kill_after): os.kill(os.getpid(), signal.SIGKILL)

host.cache_compilations(Path(cache))
folder = RunFolder.open(place)
lines = JSONL(folder.metrics)
with folder, Interrupt() as interrupt:
    trainer = Trainer(prepare(folder.experiment(), folder, print), folder, (Watch(),), Ledger())
    if fault == "forget the data position": trainer.loader.restore = lambda position: None
    trainer.resume()
    lines.truncate_after(trainer.step)
    trainer.run(interrupt)
    trainer.close()
"""


@pytest.fixture(scope="session")
def run_in_process():
    """Runs an experiment's folder to its end, or kills it -9 after a step; returns the exit status."""

    def run(folder: Path, kill_after: int = -1, fault: str = "") -> int:
        command = [sys.executable, "-c", RUN, str(folder), str(kill_after), fault, str(CACHE)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode in (0, -9), done.stderr
        return done.returncode

    return run


@pytest.fixture(scope="session")
def begin(tmp_path_factory):
    """Makes a run's folder that holds nothing but the experiment's text."""

    def make(name: str, experiment: Experiment) -> Path:
        folder = tmp_path_factory.mktemp(name)
        (folder / "config.txt").write_text(text.show(experiment))
        return folder

    return make


@pytest.fixture(scope="session")
def losses():
    """Returns {step: loss} of a run, each as the exact number that was computed."""

    def read(folder: Path) -> dict[int, float]:
        told = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return {m["step"]: m["loss"] for m in told if "loss" in m}

    return read
