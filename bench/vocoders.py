"""Two small WaveNets, one taught with recordings' own frames, one with predicted frames, each given both.

    .venv/bin/python bench/vocoders.py runs/tacotron2-small [--steps 1500]

The run's voice predicts the frames with the true ones before each at hand; its recordings are those of the run. Both
vocoders have the same sizes, seed, segments and number of steps. It is passed when the one that was taught with
predictions is told more by predictions (the ordering of table 2 of Shen et al. 2017, arXiv 1712.05884, where people
listened; here bits of held-out samples are counted, and how far the sound that is drawn is from the recordings').
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import harness

from cupola.data.sources import Split
from cupola.models.speech.vocoders import WaveNetVocoder
from cupola.observe.machine import processor
from cupola.train.folder import RunFolder
from cupola.train.speech.training import TextToSpeech
from cupola.train.speech.vocoder import PreparedSound, WaveNetTraining, load_vocoder
from cupola.train.speech.vocoder_score import VocoderScore, WaveNetEvaluation, WaveNetEvaluator
from cupola.train.task import prepare

NAME = "vocoders"
FRAMES = {"recordings": "None", "predictions": "{run}"}
"""What a vocoder is taught with, and what it is given: `data.predictions`."""
EVALUATION = WaveNetEvaluation(times=0, clips_at_end=64, heard=6, heard_seconds=1.5)


def train(taught: str, run: RunFolder, steps: int, runs: Path) -> RunFolder:
    """Trains one of the two as the command line does."""
    data = run.experiment_of(TextToSpeech).data
    preparation = data.preparation
    changes = {
        "name": taught,
        "data": data.path,
        "data.predictions": FRAMES[taught].format(run=run.path),
        "data.preparation.trim_below_db": preparation.trim_below_db,
        "data.preparation.peak": preparation.peak,
        "budget.steps": steps,
        # The recipe's average is over more steps than there are here.
        "learner.average.decay": 0.998,
        "evaluation.times": 0,
    }
    given = [f"{path}={value}" for path, value in changes.items()]
    subprocess.run([sys.executable, "-m", "cupola", "train", "wavenet-small", "--runs", str(runs), *given], check=True)
    return RunFolder.open(runs / taught)


def sides(runs: dict[str, RunFolder]) -> dict[str, PreparedSound]:
    """Returns what each run was taught with."""
    return {taught: prepare(run.experiment_of(WaveNetTraining), run, print) for taught, run in runs.items()}


def score(run: RunFolder, given: PreparedSound) -> tuple[float, VocoderScore]:
    """Returns how a run's vocoder does on held-out recordings, given frames of one kind; bits a sample first."""
    vocoder, params = load_vocoder(run)
    names = [each.name for each in given.corpora[Split.HELD_OUT].utterances]
    sounds = dict(zip(names, given.sounds(Split.HELD_OUT), strict=True))
    assert isinstance(vocoder, WaveNetVocoder)
    found = WaveNetEvaluator(vocoder, EVALUATION, sounds, lambda params: params, vocoder.model).all(params)
    assert found.bits is not None
    return found.bits, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a run whose model speaks, of 16 kHz")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--runs", type=Path, help="where the two are kept; nowhere, if not given")
    asked = parser.parse_args()
    voice = RunFolder.open(asked.run.resolve())
    with tempfile.TemporaryDirectory() as passing:
        runs = {taught: train(taught, voice, asked.steps, asked.runs or Path(passing)) for taught in FRAMES}
        given = sides(runs)
        found = {(taught, fed): score(runs[taught], given[fed]) for taught in FRAMES for fed in FRAMES}
    harness.table(
        ("taught with", "given", "bits a sample", "log-mel apart", "spectra apart"),
        [
            (taught, fed, f"{bits:.3f}", f"{x.means['mel']:.3f}", f"{x.means['spectra']:.3f}")
            for (taught, fed), (bits, x) in found.items()
        ],
    )
    rows = [
        harness.Row(
            f"given {fed}",
            1000 * found["predictions", fed][0],
            1000 * found["recordings", fed][0],
            "taught with recordings",
            "bits of 1,000 samples",
        )
        for fed in FRAMES
    ]
    (fed_predictions,) = [row for row in rows if row.case == "given predictions"]
    facts = {"machine": processor(), "voice": asked.run.name, "steps": f"{asked.steps:,}"}
    return harness.finish(NAME, rows, passed=fed_predictions.ours < fed_predictions.peer, facts=facts)


if __name__ == "__main__":
    sys.exit(main())
