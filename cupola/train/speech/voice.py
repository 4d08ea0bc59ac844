"""The voice that a run trains, from its experiment or from its folder.

Not here: what a voice does (`models/speech/voice.py`), files of voices for others.
Invariant: a voice has the front end, the symbols and the language that its model was taught with.
"""

from cupola.core.module import Tree
from cupola.data.audio.griffin_lim import GriffinLim
from cupola.models.speech.voice import Voice
from cupola.train.folder import RunFolder
from cupola.train.load import load_params
from cupola.train.speech.training import TextToSpeech


def voice_of(experiment: TextToSpeech) -> Voice:
    """Returns the voice that an experiment trains; sound is made by Griffin-Lim."""
    data = experiment.data
    return Voice(
        model=experiment.model,
        vocoder=GriffinLim(front=data.front),
        symbols=data.symbols,
        language=data.language,
        speaking=experiment.speaking,
    )


def load_voice(folder: RunFolder, step: int | None = None) -> tuple[Voice, Tree]:
    """Returns the voice of a run, and its parameters, at a step or at the latest checkpoint.

    Example:
        voice, params = load_voice(RunFolder.open("runs/tacotron2"))
        said = voice.say(params, "The furnace is ready.")

    Raises:
        TrainingError: there is no run, or it trains another model.
        CheckpointError: there is no such checkpoint, it is damaged, or of other sizes.
    """
    experiment = folder.experiment_of(TextToSpeech)
    params, _ = load_params(folder, experiment, step)
    return voice_of(experiment), {"model": params, "vocoder": {}}
