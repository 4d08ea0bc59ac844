"""Whisper: an encoder of log-mel frames and a decoder of text that listens to it.

Not here: the front end (`data/audio/features.py`), tokens and their rules (`whisper_tokens.py`), the
search for a text (`search.py`), long recordings (`transcribe.py`), files (`interop/whisper.py`).
Invariant: one forward for training, prefill and search; the encoder and the keys and values that the
decoder takes from it are computed once for each window of sound.
Source: Radford et al., arXiv 2212.04356, section 2.2 and table 1.
"""

import enum
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cupola.config.value import bound
from cupola.core.context import Context
from cupola.core.dtype import FLOAT32, Precision
from cupola.core.errors import ShapeError
from cupola.core.module import Module, Tree
from cupola.core.param import Initializer, Normal, Param, Role
from cupola.kernels.attention import CAUSAL, Mask
from cupola.kernels.cross_entropy import PLAIN, Objective, linear_cross_entropy
from cupola.kernels.gated import Activation
from cupola.kernels.matmul import Packed, Turned, dot
from cupola.layers.attention import Attention, Bias
from cupola.layers.block import Block
from cupola.layers.cross_attention import CrossAttention, Memory
from cupola.layers.cross_block import CrossBlock, CrossView
from cupola.layers.embedding import Embedding
from cupola.layers.feed_forward import MLP
from cupola.layers.linear import bias_of, biased
from cupola.layers.norm import LayerNorm
from cupola.layers.repeat import Repeat, unstack
from cupola.models.decoder import Hidden

_LONGEST_WAVE = 10_000.0


class Sinusoids(Initializer):
    """Sines, then cosines, of wavelengths from 2 pi to 10,000 times that."""

    def draw(self, key: Key[Array, ""], param: Param) -> Array:
        length, width = param.shape
        rates = np.exp(-math.log(_LONGEST_WAVE) * np.arange(width // 2) / (width // 2 - 1))
        angles = np.arange(length)[:, None] * rates[None]
        return jnp.asarray(np.concatenate([np.sin(angles), np.cos(angles)], axis=1), param.dtype)


class AudioEncoder(Module):
    """Two convolutions of width 3, the second of which halves the frames, then blocks that see both ways.

    Args:
        width: of the residual stream.
        mels: bins of a frame.
        positions: most positions that it gives: half of the frames.
        stack: the blocks.
        norm: applied after the stack.
    """

    width: int = bound("residual width")
    mels: int = bound("mel bins")
    positions: int = 1500
    stack: Repeat
    norm: LayerNorm = LayerNorm()

    def params(self) -> dict[str, Param]:
        first = Param((3, self.mels, self.width), "T M D", inputs=2)
        second = Param((3, self.width, self.width), "T D F", inputs=2)
        return {
            "first": first,
            "first_bias": bias_of(first),
            "second": second,
            "second_bias": bias_of(second),
            "positions": Param((self.positions, self.width), "S D", init=Sinusoids(), role=Role.INPUT),
        }

    def __call__(self, p: Tree, mels: Float[Array, "B T M"], context: Context = Context()) -> Float[Array, "B S D"]:
        """Returns a state for each two frames.

        Raises:
            ShapeError: there are more frames than it has positions for, or an odd number.
        """
        frames = mels.shape[1]
        if frames % 2 or frames > 2 * self.positions:
            raise ShapeError(
                f"{frames} frames, where it takes an even number up to {2 * self.positions}",
                where="encoder",
                remedy=f"Cut or pad them to {2 * self.positions}, which is what it was trained on.",
            )
        x = self._convolved(p, "first", mels, stride=1)
        x = self._convolved(p, "second", x, stride=2)
        # A parameter, for files hold them rounded; but one that is not learned.
        where = jax.lax.stop_gradient(p["positions"])[: x.shape[1]]
        x = x + where[None].astype(x.dtype)
        positions = jnp.arange(x.shape[1])[None]
        x, _ = self.stack(p["stack"], x, positions=positions, context=context.at("stack"))
        return self.norm(p["norm"], x)

    def _convolved(self, p: Tree, name: str, x: Float[Array, "B T M"], *, stride: int) -> Float[Array, "B S D"]:
        """A convolution as one product: each frame beside the one before and the one after."""
        around = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        beside = jnp.stack([around[:, k : k + x.shape[1] : stride] for k in range(3)], axis=2)
        return Activation.GELU(biased(p, name, dot(beside, p[name], self.precision, contract=2)))


class TextDecoder(Module):
    """Tokens with learned positions, through blocks that listen to the encoder.

    Args:
        vocabulary: number of tokens.
        width: of the residual stream.
        max_length: longest sequence, in tokens.
        stack: the blocks.
        embedding: of the tokens, and the head.
        norm: applied after the stack.
    """

    vocabulary: int = bound("number of tokens")
    width: int = bound("residual width")
    max_length: int = 448
    stack: Repeat
    embedding: Embedding = Embedding()
    norm: LayerNorm = LayerNorm()

    def params(self) -> dict[str, Param]:
        shape = (self.max_length, self.width)
        return {"positions": Param(shape, "T D", init=Normal(std=0.01), role=Role.INPUT)}

    def __call__(
        self,
        p: Tree,
        tokens: Int[Array, "N T"],
        *,
        encoded: Float[Array, "B S D"] | None = None,
        positions: Int[Array, "#N T"] | None = None,
        view: Any = None,
        context: Context = Context(),
    ) -> Hidden:
        """Returns the hidden state of each token; arguments as in `Whisper`.

        Raises:
            ShapeError: more tokens than positions.
        """
        length = tokens.shape[1]
        if length > self.max_length:
            raise ShapeError(
                f"{length} tokens are more than max_length={self.max_length}",
                where="decoder",
                remedy=f"Pass at most {self.max_length}.",
            )
        positions = jnp.arange(length)[None] if positions is None else positions
        x = self.embedding(p["embedding"], tokens) + p["positions"][positions].astype(self.precision.output)
        x, said = self.stack(
            p["stack"], x, positions=positions, encoded=encoded, view=view, context=context.at("stack")
        )
        return Hidden(states=self.norm(p["norm"], x), aside=said.under("stack"))


class Whisper(Module):
    """Sound to text.

    Args:
        vocabulary: number of tokens.
        width: of the residual stream.
        mels: bins of a frame.
        encoder: of sound.
        decoder: of text.

    Example:
        model = whisper(Size.BASE)
        hidden = model(params, mels, tokens)        # mels [B, 3000, 80]
        logits = model.logits(params, hidden.states)
    """

    vocabulary: int
    width: int
    mels: int = 80
    encoder: AudioEncoder
    decoder: TextDecoder

    def __call__(
        self,
        p: Tree,
        mels: Float[Array, "B T M"],
        tokens: Int[Array, "B N"],
        *,
        context: Context = Context(),
    ) -> Hidden:
        """Returns the hidden state of each token of a text, given the sound: what training calls.

        Args:
            mels: log-mel frames.
            tokens: of the text, the special ones at its beginning among them.
        """
        encoded = self.encoder(p["encoder"], mels, context.at("encoder"))
        return self.decoder(p["decoder"], tokens, encoded=encoded, context=context.at("decoder"))

    def listen(self, p: Tree, mels: Float[Array, "B T M"]) -> tuple[Memory, ...]:
        """Returns what each layer of the decoder takes from windows of sound: computed once for each window."""
        encoded = self.encoder(p["encoder"], mels)
        repeat = self.decoder.stack
        held = p["decoder"]["stack"]["block"]
        layers = held if isinstance(held, tuple) else unstack(held, repeat.layers)
        return tuple(
            block.cross_attention.remember(layer["cross_attention"], encoded)  # type: ignore[attr-defined]
            for block, layer in zip(repeat.blocks, layers, strict=True)
        )

    def read(
        self, p: Tree, tokens: Int[Array, "N T"], *, positions: Int[Array, "#N T"], view: tuple[CrossView, ...]
    ) -> Hidden:
        """Returns the hidden states of tokens that continue what a view holds.

        Args:
            tokens: as many rows to each window of sound, those of one window next to each other.
            positions: where they stand in their texts.
            view: one a layer, as `empty_view` and earlier calls give it.
        """
        return self.decoder(p["decoder"], tokens, positions=positions, view=view)

    def empty_view(self, batch: int, capacity: int, memories: tuple[Memory, ...] = ()) -> tuple[CrossView, ...]:
        """Returns views for `batch` texts of up to `capacity` tokens that hold nothing but the sound."""
        return tuple(
            CrossView(own=block.attention.empty_view(batch, capacity), memory=memory)  # type: ignore[attr-defined]
            for block, memory in zip(self.decoder.stack.blocks, memories, strict=True)
        )

    def logits(self, p: Tree, states: Float[Array, "N T D"]) -> Float[Array, "N T V"]:
        """Returns the logits of hidden states; for a batch's loss use `loss`, which never holds them all."""
        table = p["decoder"]["embedding"]["table"]
        packed = isinstance(table, Packed)
        weight = table if packed else Turned(values=table, shape=(self.width, self.vocabulary))
        return dot(states, weight, self.precision)

    def loss(
        self,
        p: Tree,
        states: Float[Array, "B T D"],
        targets: Int[Array, "B T"],
        weights: Float[Array, "B T"],
        objective: Objective = PLAIN,
    ) -> Float[Array, ""]:
        """Returns the weighted sum of the objective's losses; by default of the negative log-probabilities, in nats."""
        table = p["decoder"]["embedding"]["table"]
        return linear_cross_entropy(states, table, targets, weights, precision=self.precision, objective=objective)

    def flops(self, batch: int, length: int) -> int:
        """Returns the FLOPs of one forward pass over windows of full length with texts of `length` tokens."""
        seen, width = self.encoder.positions, self.width
        heard = self.encoder.stack.flops(batch, seen) + 2 * batch * seen * 3 * width * (2 * self.mels + width)
        # Keys and values of the sound, and scores and mixtures over it.
        across = self.decoder.stack.layers * batch * (4 * seen * width * width + 4 * length * seen * width)
        return heard + across + self.decoder.stack.flops(batch, length) + 2 * batch * length * width * self.vocabulary


class Size(enum.Enum):
    """The published sizes: width, layers of the encoder, layers of the decoder, mel bins, vocabulary."""

    TINY = (384, 4, 4, 80, 51_865)
    TINY_EN = (384, 4, 4, 80, 51_864)
    BASE = (512, 6, 6, 80, 51_865)
    BASE_EN = (512, 6, 6, 80, 51_864)
    SMALL = (768, 12, 12, 80, 51_865)
    SMALL_EN = (768, 12, 12, 80, 51_864)
    MEDIUM = (1024, 24, 24, 80, 51_865)
    MEDIUM_EN = (1024, 24, 24, 80, 51_864)
    LARGE_V2 = (1280, 32, 32, 80, 51_865)
    LARGE_V3 = (1280, 32, 32, 128, 51_866)
    LARGE_V3_TURBO = (1280, 32, 4, 128, 51_866)


def whisper(size: Size, *, precision: Precision = FLOAT32) -> Whisper:
    """Returns a model of one of the published sizes."""
    width, above, below, mels, vocabulary = size.value
    return whisper_of(
        width=width,
        encoder_layers=above,
        decoder_layers=below,
        heads=width // 64,
        mels=mels,
        vocabulary=vocabulary,
        precision=precision,
    )


def whisper_of(
    *,
    width: int,
    encoder_layers: int,
    decoder_layers: int,
    heads: int,
    vocabulary: int,
    mels: int = 80,
    hidden: int | None = None,
    positions: int = 1500,
    max_length: int = 448,
    precision: Precision = FLOAT32,
) -> Whisper:
    """Returns a model of any size.

    Args:
        width: of both residual streams.
        heads: of every attention.
        hidden: of the feed-forward networks; None means 4 * width.
        positions: of the encoder, half of the frames of a window.
        max_length: of a text, in tokens.
    """
    own = Attention(heads=heads, rope=None, bias=Bias.NO_KEY)
    network = MLP(hidden=hidden or 4 * width)
    hearing = Block(
        attention=own.replace("mask", Mask()),
        feed_forward=network,
        attention_norm=LayerNorm(),
        feed_forward_norm=LayerNorm(),
    )
    writing = CrossBlock(
        attention=own.replace("mask", CAUSAL),
        cross_attention=CrossAttention(heads=heads, bias=Bias.NO_KEY),
        feed_forward=network,
        attention_norm=LayerNorm(),
        cross_attention_norm=LayerNorm(),
        feed_forward_norm=LayerNorm(),
    )
    return Whisper(
        vocabulary=vocabulary,
        width=width,
        mels=mels,
        encoder=AudioEncoder(positions=positions, stack=Repeat(layers=encoder_layers, block=hearing)),
        decoder=TextDecoder(max_length=max_length, stack=Repeat(layers=decoder_layers, block=writing)),
        precision=precision,
    )
