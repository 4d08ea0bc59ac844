"""A model that hears, with all that belongs to it: what files give and what `transcribe` takes."""

import dataclasses

from cupola.core.module import Tree
from cupola.data.audio.features import WHISPER, LogMel
from cupola.layers.forms import formed, formed_head
from cupola.models.speech.whisper import Whisper
from cupola.models.speech.whisper_tokens import WhisperTokens


@dataclasses.dataclass(frozen=True, eq=False)
class Recognizer:
    """A Whisper with its weights and tokens.

    Args:
        name: under which it was asked for.
        model: what computes.
        params: its parameters, stacked or cut into layers.
        tokens: of its texts.
    """

    name: str
    model: Whisper
    params: Tree
    tokens: WhisperTokens

    def ready(self) -> "Recognizer":
        """Returns it with its matrices in the forms that are multiplied fastest; it can no longer be trained."""
        params = formed(self.model, self.params)
        table = formed_head(params["decoder"]["embedding"]["table"], self.model.precision)
        decoder = params["decoder"] | {"embedding": {"table": table}}
        return dataclasses.replace(self, params=params | {"decoder": decoder})

    @property
    def front(self) -> LogMel:
        """What makes frames of sound."""
        return WHISPER.replace("mel.bins", self.model.mels)
