"""What the tests of the commands share: the command line in this process, one trained run, damage."""

import dataclasses
import io
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cupola.checkpoint.store import Checkpoints
from cupola.command.main import main
from cupola.config import text
from cupola.data.audio.clip import Clip
from cupola.data.audio.files import write
from cupola.data.audio.prepared import Preparation
from cupola.models.speech.generate import Speaking
from cupola.observe import machine
from cupola.optim.learner import Learner
from cupola.optim.optimizer import Adam
from cupola.train.experiment import Steps
from cupola.train.folder import RunFolder
from cupola.train.run import run
from cupola.train.speech.data import SpeechData
from cupola.train.speech.training import TextToSpeech, prepare_speech
from cupola.train.speech.vocoder import VocosTraining
from cupola.train.speech.vocoder_data import SoundData
from cupola.train.state import initial

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))

from spoken import FRONT, RATE, make_vocos, make_voice

WORDS = ("furnace", "bell", "mould", "ladle", "crane", "cope", "drag", "sprue")


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True, scope="module")
def measured():
    """A machine that need not be measured: bf16 products pay, so recipes are fitted."""
    made = machine.Machine(
        platform="Linux x86_64",
        processor="a processor",
        cores=2,
        memory_bytes=2**33,
        devices=(("cpu", 8),),
        device_memory_bytes=None,
        matmul_flops_per_second={"float32": 1e11, "bfloat16": 2e11},
        memory_bytes_per_second=1e10,
        versions={"python": "3"},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "measure", lambda: made)
        yield made


@pytest.fixture
def cupola(monkeypatch, capsys):
    """Types a command; gives its exit code and what it printed."""
    root = logging.getLogger()
    before = list(root.handlers)

    def call(*words) -> Ended:
        monkeypatch.setattr(sys, "argv", ["cupola", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return Ended(end.value.code or 0, *capsys.readouterr())

    yield call
    logging.captureWarnings(False)
    root.handlers[:] = before


@pytest.fixture(scope="session")
def trained(tmp_path_factory, experiment) -> Path:
    """The folder of a finished run; to be read only."""
    made = experiment(budget__steps=12)
    folder = RunFolder.create(tmp_path_factory.mktemp("runs"), made)
    run(made, folder, Console(file=io.StringIO()))
    return folder.path


@pytest.fixture(scope="session")
def speaker(tmp_path_factory) -> Path:
    """The folder of a run of a tiny speaking model at its first step: it never stops by itself; to be read only."""
    home = tmp_path_factory.mktemp("speaker")
    (home / "spoken" / "wavs").mkdir(parents=True)
    for number, word in enumerate(WORDS):
        times = np.arange(4000 + 500 * number) / RATE
        tone = 0.5 * np.sin(2 * np.pi * (200 + 100 * number) * times)
        write(Clip(tone.astype(np.float32), RATE), home / "spoken" / "wavs" / f"{word}.wav")
    (home / "spoken" / "metadata.csv").write_text("".join(f"{word}|The {word}.\n" for word in WORDS))
    made = TextToSpeech(
        name="speaker",
        model=make_voice().model,
        data=SpeechData(path=str(home / "spoken"), held_out=0.3, preparation=Preparation(front=FRONT), batch=2),
        learner=Learner(optimizer=Adam(rate=1e-3)),
        budget=Steps(steps=1),
        speaking=Speaking(most_frames=40, chunk_frames=40, threshold=0.999),
    )
    folder = RunFolder.create(home, made)
    prepare_speech(made, folder, lambda _: None)
    with Checkpoints(folder.checkpoints, retention=made.saving.retention) as checkpoints:
        checkpoints.save(1, initial(made, made.mesh.build()))
    return folder.path


@pytest.fixture(scope="session")
def hummer(speaker) -> Path:
    """The folder of a run of a tiny Vocos at its first step, on the recordings of `speaker`."""
    made = VocosTraining(
        name="hummer",
        model=make_vocos(),
        data=SoundData(
            path=str(speaker.parent / "spoken"), preparation=Preparation(front=FRONT), batch=2, segment_frames=8
        ),
        learner=Learner(optimizer=Adam(rate=1e-3)),
        budget=Steps(steps=1),
    )
    folder = RunFolder.create(speaker.parent, made)
    with Checkpoints(folder.checkpoints, retention=made.saving.retention) as checkpoints:
        checkpoints.save(1, initial(made, made.mesh.build()))
    return folder.path


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    """A copy of the finished run, to be changed."""
    return shutil.copytree(trained, tmp_path / "copied")


@pytest.fixture
def config(experiment, tmp_path):
    """Writes the text of an experiment into a file."""

    def write(**changes) -> Path:
        path = tmp_path / "tiny.txt"
        path.write_text(text.show(experiment(**changes)))
        return path

    return write


@pytest.fixture
def damage():
    """Changes the largest file of a run's checkpoint: one byte flipped, or the last half cut off."""

    def change(run: Path, step: int, how: str = "flip") -> None:
        files = [path for path in (run / "checkpoints" / f"step-{step:08}").rglob("*") if path.is_file()]
        path = max(files, key=lambda file: file.stat().st_size)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content if how == "flip" else content[: len(content) // 2])

    return change
