"""Tacotron 2: symbols in, log-mel frames out.

Full and reduced sizes are one definition: `Tacotron2(vocabulary=40)` has the paper's, and each width is
a number in it. Not here: speaking (`generate.py`), sound (`voice.py`), the loss (`loss.py`).
Source: Shen et al. 2017, arXiv 1712.05884.
"""

from jaxtyping import Array, Bool, Float, Int

from cupola.config.value import bound
from cupola.core.context import Aside, Context
from cupola.core.errors import ConfigError
from cupola.core.module import Module, Tree
from cupola.core.record import record
from cupola.layers.convolution import within
from cupola.layers.dropout import Dropout
from cupola.layers.location_attention import Sees
from cupola.models.speech.assembled import Assembled
from cupola.models.speech.conv_net import ConvNet, Curve
from cupola.models.speech.decoder import FrameDecoder
from cupola.models.speech.encoder import Encoder


class PostNet(Assembled):
    """What a frame lacks, found from its neighbours on both sides.

    Args:
        bins: numbers in a frame.
        width: of a convolution but the last.
        layers: convolutions.
        taps: frames that a convolution sees.
        dropout: after each convolution.
        norm_rate: how far running statistics move to each batch's.
        norm_epsilon: added to variances.
    """

    bins: int = bound("numbers in a frame")
    width: int = 512
    layers: int = 5
    taps: int = 5
    dropout: Dropout = Dropout(rate=0.5)
    norm_rate: float = 0.1
    norm_epsilon: float = 1e-5

    @property
    def net(self) -> ConvNet:
        """The convolutions."""
        return ConvNet(
            precision=self.precision,
            width=self.bins,
            hidden=self.width,
            outputs=self.bins,
            layers=self.layers,
            taps=self.taps,
            curve=Curve.TANH,
            last=Curve.NONE,
            dropout=self.dropout,
            norm_rate=self.norm_rate,
            norm_epsilon=self.norm_epsilon,
        )

    def parts(self) -> dict[str, Module]:
        return {"net": self.net}

    def __call__(
        self, p: Tree, frames: Float[Array, "B T M"], mask: Bool[Array, "B T"], *, context: Context = Context()
    ) -> tuple[Float[Array, "B T M"], Aside]:
        """Returns the frames with what they lacked, and the statistics aside."""
        lacking, said = self.net(p["net"], frames, mask, context=context.at("net"))
        return frames + lacking, said.under("net")


@record
class Spoken:
    """What a model makes of symbols, the true frames at hand.

    Args:
        before: [B, T, M] log-mel frames, before the post-net.
        after: [B, T, M] after it.
        stops: [B, T] logits that a frame is the last.
        weights: [B, T, S] of each frame over symbols.
        aside: the statistics of the batch.
    """

    before: Float[Array, "B T M"]
    after: Float[Array, "B T M"]
    stops: Float[Array, "B T"]
    weights: Float[Array, "B T S"]
    aside: Aside


class Tacotron2(Module):
    """An encoder of symbols, a decoder of frames, and a post-net that mends them.

    Args:
        vocabulary: number of symbols, padding included.
        bins: numbers in a log-mel frame.
        encoder: of symbols.
        decoder: of frames.
        post_net: mends them.

    Example:
        Tacotron2(vocabulary=40)                                        # the paper's
        Tacotron2(vocabulary=40, encoder=Encoder(width=128), decoder=FrameDecoder(pre_net=64, hidden=256),
                  post_net=PostNet(width=128))                          # a quarter of its widths
    """

    vocabulary: int = bound("number of symbols")
    bins: int = 80
    encoder: Encoder = Encoder()
    decoder: FrameDecoder = FrameDecoder()
    post_net: PostNet = PostNet()

    def shares(self) -> dict[str, object]:
        """Returns its fields, and how wide what the decoder looks at is."""
        return super().shares() | {"memory_width": self.encoder.width}

    def check(self) -> None:
        for name in ("vocabulary", "bins"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{getattr(self, name)}", where=name, remedy="Use 1 or more.")

    def __call__(
        self,
        p: Tree,
        symbols: Int[Array, "B S"],
        symbol_lengths: Int[Array, " B"],
        features: Float[Array, "B T M"],
        feature_lengths: Int[Array, " B"],
        *,
        context: Context,
    ) -> Spoken:
        """Returns what is made of the symbols when each frame is made with the true ones before it at hand.

        Args:
            context: with a key, in every mode: the pre-net draws in evaluation too.

        Raises:
            ConfigError: the context has no key.
        """
        encoded, said = self.encoder(p["encoder"], symbols, symbol_lengths, context=context.at("encoder"))
        memory = self.decoder.memory(p["decoder"], encoded, symbol_lengths)
        made = self.decoder(p["decoder"], features, memory, context=context.at("decoder"))
        mask = within(feature_lengths, features.shape[1])
        after, also = self.post_net(p["post_net"], made.frames, mask, context=context.at("post_net"))
        return Spoken(
            before=made.frames,
            after=after,
            stops=made.stops,
            weights=made.weights,
            aside=said.under("encoder") | also.under("post_net"),
        )

    def flops(self, batch: int, length: int, symbols: int | None = None) -> int:
        """Returns the FLOPs of one forward pass over batch x length frames.

        Args:
            symbols: of each row; None means as many as frames.
        """
        read = self.encoder.flops(batch, length if symbols is None else symbols)
        return read + self.decoder.flops(batch, length, symbols) + self.post_net.flops(batch, length)


def as_ported(vocabulary: int = 148) -> Tacotron2:
    """Returns the model in the form of the common ports, of 28.2 million numbers; the paper's widths.

    The pre-net and the attention have no biases, the attention also sees where it looked last, and there is
    no zoneout (in training the ports drop out a tenth of the decoder's states instead, which this does not).
    """
    return Tacotron2(
        vocabulary=vocabulary,
        encoder=Encoder(zoneout=None),
        decoder=FrameDecoder(pre_net_bias=False, attention_bias=False, sees=Sees.LAST_AND_CUMULATIVE, zoneout=None),
    )
