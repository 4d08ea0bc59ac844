"""Vocoders on a folder of recordings: Vocos, by spectra alone and against discriminators, and WaveNet."""

from cupola.data.audio.features import CHECKPOINTS_22K, TACOTRON2, TACOTRON2_16K
from cupola.data.audio.prepared import Preparation
from cupola.models.speech.adversarial import AdversarialLoss, VocosGAN
from cupola.models.speech.discriminators import Discriminators
from cupola.models.speech.spectral_loss import SpectralLoss
from cupola.models.speech.vocos import Vocos
from cupola.models.speech.wavenet import WaveNet
from cupola.optim.average import EMA
from cupola.optim.learner import Learner
from cupola.optim.learners import Learners, Part
from cupola.optim.optimizer import AdamW
from cupola.optim.schedule import Cosine
from cupola.train.experiment import Saving, Steps
from cupola.train.speech.vocoder import VocosGANTraining, VocosTraining, WaveNetTraining
from cupola.train.speech.vocoder_data import SoundData
from cupola.train.speech.vocoder_score import VocoderEvaluation


def vocos() -> VocosGANTraining:
    """Trains Vocos at the paper's size against its discriminators: `cupola train vocos data=path/to/recordings`.

    The front end is that of 22,050 Hz; another is data.preparation.front=cupola.data.audio.features:TACOTRON2,
    or :TACOTRON2_16K. data.predictions=runs/tacotron2 teaches it the frames that a model that speaks
    predicts, start=runs/vocos begins with what another run has learned: together they fine-tune.

    Not verified by a whole run: a million steps of 16 segments are days of a GPU.
    """
    rates = AdamW(rate=5e-4, schedule=Cosine(), b2=0.999, decay=0.01)
    return VocosGANTraining(
        name="vocos",
        model=VocosGAN(generator=Vocos(), discriminators=Discriminators()),
        data=SoundData(preparation=Preparation(front=CHECKPOINTS_22K), batch=16),
        learner=_sides(rates, average=None),
        budget=Steps(steps=1_000_000),
        evaluation=VocoderEvaluation(times=100),
        saving=Saving(every_seconds=600.0),
    )


def vocos_small() -> VocosGANTraining:
    """Trains a Vocos of 3.6 million numbers against small discriminators: `cupola train vocos-small data=path`.

    Of 16 kHz, for a CPU. Begin with the spectra alone, which is some times as fast a step:

        cupola train vocos-spectral data=path
        cupola train vocos-small data=path start=runs/vocos-spectral
    """
    rates = AdamW(rate=2e-4, schedule=Cosine(warmup=0.02), b1=0.8, b2=0.99, decay=0.01)
    return VocosGANTraining(
        name="vocos-small",
        model=VocosGAN(generator=_reduced(), discriminators=Discriminators(widths=(16, 32, 64, 128, 128), width=16)),
        data=_small_data(batch=8, segment_frames=48),
        learner=_sides(rates, average=EMA(decay=0.999)),
        objective=AdversarialLoss(spectral=SpectralLoss(mel=15.0, magnitudes=5.0)),
        budget=Steps(steps=20_000),
        evaluation=VocoderEvaluation(times=20),
        saving=Saving(every_seconds=300.0),
    )


def vocos_spectral() -> VocosTraining:
    """Trains a Vocos of 3.6 million numbers by its spectra alone: `cupola train vocos-spectral data=path`.

    No discriminator hears what it makes: intelligible, and rough, for nothing in the loss hears phases.
    """
    schedule = Cosine(warmup=0.02)
    return VocosTraining(
        name="vocos-spectral",
        model=_reduced(),
        data=_small_data(batch=8, segment_frames=48),
        learner=Learner(optimizer=AdamW(rate=1e-3, schedule=schedule, b2=0.99, decay=0.01), average=EMA(decay=0.999)),
        budget=Steps(steps=5_000),
        evaluation=VocoderEvaluation(times=10),
        saving=Saving(every_seconds=300.0),
    )


def wavenet() -> WaveNetTraining:
    """Trains WaveNet as Tacotron 2's paper does: `cupola train wavenet data=path data.predictions=runs/tacotron2`.

    Without data.predictions it learns from the recordings' own frames, which costs quality where it is
    given predictions afterwards (the paper's table 2). 24 kHz, 30 layers in 3 cycles, a mixture of 10.
    Segments are of 7,500 samples: its receptive field, 6,139, and some more.

    Not verified by a whole run: the paper's is 32 GPUs for days.
    """
    return WaveNetTraining(
        name="wavenet",
        model=WaveNet(),
        data=SoundData(preparation=Preparation(front=TACOTRON2), batch=128, segment_frames=25),
        learner=_as_in_the_paper(1e-4),
        budget=Steps(steps=500_000),
        saving=Saving(every_seconds=600.0),
    )


def wavenet_small() -> WaveNetTraining:
    """Trains a WaveNet of 12 layers in 2 cycles at 16 kHz on a CPU: `cupola train wavenet-small data=path`."""
    return WaveNetTraining(
        name="wavenet-small",
        model=WaveNet(strides=(10, 20), layers=12, cycles=2, residual=48, skip=48),
        data=_small_data(batch=8, segment_frames=12),
        learner=_as_in_the_paper(1e-3),
        budget=Steps(steps=10_000),
        saving=Saving(every_seconds=300.0),
    )


def _reduced() -> Vocos:
    return Vocos(width=256, hidden=768)


def _small_data(batch: int, segment_frames: int) -> SoundData:
    return SoundData(
        preparation=Preparation(front=TACOTRON2_16K), held_out=0.03, batch=batch, segment_frames=segment_frames
    )


def _sides(rates: AdamW, average: EMA | None) -> Learners:
    """The generator's learner and the discriminators'; neither is clipped, as in the paper's code."""
    return Learners(
        parts=(
            Part(of="generator", learner=Learner(optimizer=rates, clip_norm=None, average=average)),
            Part(of="discriminators", learner=Learner(optimizer=rates, clip_norm=None)),
        )
    )


def _as_in_the_paper(rate: float) -> Learner:
    return Learner(optimizer=AdamW(rate=rate, b2=0.999, decay=0.0), clip_norm=None, average=EMA(decay=0.9999))
