"""A small decoder."""

import jax
import pytest

from cupola.core.dtype import FLOAT32
from cupola.layers.attention import Attention
from cupola.layers.block import Block
from cupola.layers.embedding import Head
from cupola.layers.feed_forward import GatedMLP
from cupola.layers.repeat import Repeat
from cupola.models.decoder import Decoder


@pytest.fixture(scope="session")
def model():
    block = Block(attention=Attention(heads=4, key_heads=2), feed_forward=GatedMLP(hidden=12))
    return Decoder(
        precision=FLOAT32, vocabulary=11, width=8, max_length=16, stack=Repeat(layers=2, block=block), head=Head()
    )


@pytest.fixture(scope="session")
def p(model):
    return model.init(jax.random.key(0))
