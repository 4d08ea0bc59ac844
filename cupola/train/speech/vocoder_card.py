"""The model card of a vocoder: what it learned from, how near it comes, how to use it.

Invariant: every number in it stands in summary.json too, but for those of single recordings.
"""

from typing import Any

from cupola import __version__
from cupola.config import text
from cupola.train.experiment import Training
from cupola.train.folder import RunFolder
from cupola.train.speech.vocoder_score import KEPT, VocoderScore


def card(folder: RunFolder, experiment: Training, summary: dict[str, Any], score: VocoderScore) -> str:
    """Returns the text of the card."""
    s = summary
    learned, held = s["speech"], s["held_out_speech"]
    bits = "" if score.bits is None else f"| held-out bits a sample | {score.bits:.3f} |\n"
    rows = "\n".join(
        f"| {each.name} | {each.distances['mel']:.3f} | {each.distances['spectra']:.3f} |"
        for each in score.heard[:KEPT]
    )
    return f"""# {s["name"]}

A vocoder of {s["vocoder_parameters"]:,} parameters, trained with Cupola {__version__} ({type(experiment).__name__}).

| | |
|---|--:|
{bits}| held-out log-mel frames, mean absolute difference | {s["held_out_mel"]:.3f} |
| held-out spectra of three resolutions, distance | {s["held_out_spectra"]:.3f} |
| training time | {s["seconds"]:.0f} s, {s["steps"]:,} steps |
| training frames | {s["frames"]:,} ({s["frames_per_second"]:,.0f} a second) |

Distances do not hear phases: of two vocoders at the same distances, one may sound rough. Listen to samples/.

## Data

{learned["recordings"]:,} recordings of {learned["seconds"] / 60:.1f} minutes; {held["recordings"]:,} more, of {held["seconds"] / 60:.1f} minutes, chosen by a hash
of their names, were held out. The recordings' licence is that of the vocoder: say it here before it is passed on.

## Samples

In samples/: NAME.wav is made of the frames of NAME-recording.wav.

| recording | log-mel frames | spectra |
|---|--:|--:|
{rows}

## Use

    from cupola.train.folder import RunFolder
    from cupola.train.speech.vocoder import load_vocoder

    vocoder, params = load_vocoder(RunFolder.open("{folder.path}"))
    clip = vocoder.of(features, params=params)

## Machine

{chr(10).join(f"- {what}: {value}" for what, value in s["machine"].items())}

## Configuration

{chr(10).join("    " + line for line in text.show(experiment).splitlines())}
"""
