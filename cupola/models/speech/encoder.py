"""Tacotron 2's encoder: symbols as what they mean beside their neighbours.

Source: Shen et al. 2017, arXiv 1712.05884, section 2.2.
"""

from jaxtyping import Array, Float, Int

from cupola.config.value import bound
from cupola.core.context import Aside, Context
from cupola.core.errors import ConfigError
from cupola.core.module import Module, Tree
from cupola.core.param import Normal
from cupola.layers.convolution import within
from cupola.layers.dropout import Dropout
from cupola.layers.embedding import Embedding
from cupola.layers.recurrent import LSTM, BiLSTM, Zoneout
from cupola.models.speech.assembled import Assembled
from cupola.models.speech.conv_net import ConvNet


class Encoder(Assembled):
    """Embedded symbols through convolutions, then an LSTM from each end.

    Args:
        vocabulary: number of symbols, padding included.
        width: of everything in it: of a symbol, of a convolution, of both LSTMs together.
        layers: convolutions.
        taps: symbols that a convolution sees.
        dropout: after each convolution.
        norm_rate: how far running statistics move to each batch's.
        norm_epsilon: added to variances.
        zoneout: of the LSTMs; None has none.
    """

    vocabulary: int = bound("number of symbols")
    width: int = 512
    layers: int = 3
    taps: int = 5
    dropout: Dropout = Dropout(rate=0.5)
    norm_rate: float = 0.1
    norm_epsilon: float = 1e-5
    zoneout: Zoneout | None = Zoneout(rate=0.1)

    def check(self) -> None:
        if self.width < 2 or self.width % 2:
            raise ConfigError(
                f"{self.width} numbers do not divide over two directions",
                where="width",
                remedy=f"Use {self.width + self.width % 2 or 2}.",
            )

    def parts(self) -> dict[str, Module]:
        way = LSTM(width=self.width, hidden=self.width // 2, zoneout=self.zoneout)
        return {
            "embedding": Embedding(
                precision=self.precision, vocabulary=self.vocabulary, width=self.width, init_table=Normal(std=0.3)
            ),
            "convolutions": ConvNet(
                precision=self.precision,
                width=self.width,
                hidden=self.width,
                outputs=self.width,
                layers=self.layers,
                taps=self.taps,
                dropout=self.dropout,
                norm_rate=self.norm_rate,
                norm_epsilon=self.norm_epsilon,
            ),
            "recurrent": BiLSTM(precision=self.precision, forward=way, backward=way),
        }

    def __call__(
        self, p: Tree, symbols: Int[Array, "B S"], lengths: Int[Array, " B"], *, context: Context = Context()
    ) -> tuple[Float[Array, "B S D"], Aside]:
        """Returns what each symbol means, 0 beyond a row's length; statistics aside."""
        parts = self.parts()
        x, said = parts["convolutions"](
            p["convolutions"],
            parts["embedding"](p["embedding"], symbols),
            within(lengths, symbols.shape[1]),
            context=context.at("convolutions"),
        )
        x = parts["recurrent"](p["recurrent"], x, lengths, context=context.at("recurrent"))
        return x, said.under("convolutions")
