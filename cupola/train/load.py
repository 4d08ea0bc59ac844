"""A trained model from its run's folder: the parameters of any, and a decoder of text ready to use.

Not here: resuming (`loop.py`), formats of others (`interop/`).
"""

import dataclasses

import jax

from cupola.checkpoint.store import Checkpoints, Fallback
from cupola.core.module import Tree
from cupola.data.tokenizer import Tokenizer
from cupola.models.decoder import Decoder
from cupola.train.experiment import Experiment, Training
from cupola.train.folder import RunFolder
from cupola.train.state import abstract


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model that was trained, ready to use.

    Args:
        experiment: that made it.
        params: the averaged ones where the learner keeps an average.
        tokenizer: of the model.
        step: of the checkpoint.
    """

    experiment: Experiment
    params: Tree
    tokenizer: Tokenizer
    step: int

    @property
    def model(self) -> Decoder:
        """The model's definition."""
        return self.experiment.model


def load(folder: RunFolder, step: int | None = None) -> Trained:
    """Returns the decoder of text of a run at a step, or at its latest checkpoint.

    Raises:
        TrainingError: it is the run of another model.
        CheckpointError: there is no such checkpoint, or it is damaged; of a damaged latest one, the
            newest whole one takes the place, with a warning.
        TokenizerError: the tokenizer is missing, corrupt, or of another vocabulary.
    """
    experiment = folder.experiment_of(Experiment)
    tokenizer = folder.load_tokenizer()
    params, step = load_params(folder, experiment, step)
    return Trained(experiment, params, tokenizer, step)


def load_params(folder: RunFolder, experiment: Training, step: int | None = None) -> tuple[Tree, int]:
    """Returns the parameters of a run, averaged where the learner keeps an average, and their step.

    Args:
        experiment: of the run.
        step: None takes the latest checkpoint.

    Raises:
        CheckpointError: as `load`.
    """
    with Checkpoints(folder.checkpoints, retention=experiment.saving.retention) as checkpoints:
        fallback = Fallback.OLDER if step is None else Fallback.REFUSE
        state, _, held = checkpoints.restore(abstract(experiment), step, fallback=fallback)
    params = experiment.learner.averaged(state.learner, state.params)
    return jax.device_put(params, jax.devices()[0]), held.step
