"""Tacotron 2 on a folder of recordings in the form of LJSpeech: the paper's sizes, and sizes for a CPU."""

from cupola.data.audio.features import CHECKPOINTS_22K, TACOTRON2_16K
from cupola.data.audio.prepared import Preparation
from cupola.data.spoken.symbols import Arpabet
from cupola.layers.dropout import Dropout
from cupola.models.speech.decoder import FrameDecoder
from cupola.models.speech.encoder import Encoder
from cupola.models.speech.loss import Objective
from cupola.models.speech.tacotron import PostNet, Tacotron2
from cupola.optim.learner import Learner
from cupola.optim.optimizer import Adam
from cupola.optim.schedule import WSD, Shape
from cupola.train.experiment import Saving, Steps
from cupola.train.speech.data import SpeechData
from cupola.train.speech.evaluate import SpeechEvaluation
from cupola.train.speech.training import TextToSpeech


def tacotron2() -> TextToSpeech:
    """Trains Tacotron 2 at the paper's widths, batch and rates: `cupola train tacotron2 data=path/to/ljspeech`.

    The front end is that of LJSpeech's rate, 22,050 Hz; the paper's own, at 24 kHz, is
    data.preparation.front=cupola.data.audio.features:TACOTRON2, and :TACOTRON2_16K is that of 16 kHz.
    The rate falls exponentially to a hundredth from step 50,000 on; the paper does not say how long, here
    it is 150,000 steps. objective.guided=1 draws attention to the diagonal, which small data need.

    Not verified by a whole run: 200,000 steps of 64 utterances are days of a GPU.
    """
    return TextToSpeech(
        name="tacotron2",
        model=Tacotron2(),
        data=SpeechData(preparation=Preparation(front=CHECKPOINTS_22K), batch=64),
        learner=_learner(decay=0.75),
        budget=Steps(steps=200_000),
        evaluation=SpeechEvaluation(times=100),
        saving=Saving(every_seconds=600.0),
    )


def tacotron2_small() -> TextToSpeech:
    """Trains a quarter of the paper's widths on a CPU: `cupola train tacotron2-small data=path/to/ljspeech`.

    It reads phonemes, of which an hour of speech has enough; each step of its decoder makes four frames, so attention
    is learned in about a thousand steps. Nothing but the pre-net draws in the decoder: so few numbers do not learn by
    heart. The voice that the package is shipped with is such a one (`docs/speech.md`). The widths are numbers in the
    model: model.decoder.hidden=512, model.encoder.width=256, model.post_net.width=256.
    """
    return TextToSpeech(
        name="tacotron2-small",
        model=Tacotron2(
            encoder=Encoder(width=192, dropout=Dropout(rate=0.1), zoneout=None),
            decoder=FrameDecoder(frames_per_step=4, pre_net=128, hidden=256, attention=64, filters=16, zoneout=None),
            post_net=PostNet(width=128, dropout=Dropout(rate=0.0)),
        ),
        data=SpeechData(
            preparation=Preparation(front=TACOTRON2_16K),
            held_out=0.03,
            symbols=Arpabet(),
            most_seconds=10.0,
            batch=16,
            buckets=4,
        ),
        objective=Objective(guided=1.0, last=5.0),
        learner=_learner(decay=0.5),
        budget=Steps(steps=8_000),
        evaluation=SpeechEvaluation(times=20),
        saving=Saving(every_seconds=300.0),
    )


def _learner(decay: float) -> Learner:
    schedule = WSD(decay=decay, final=0.01, shape=Shape.EXPONENTIAL)
    return Learner(optimizer=Adam(rate=1e-3, schedule=schedule, epsilon=1e-6, decay=1e-6), clip_norm=1.0)
