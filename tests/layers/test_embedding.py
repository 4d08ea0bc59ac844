import jax
import jax.numpy as jnp
import numpy as np

from cupola.core.dtype import FLOAT32, Precision
from cupola.core.param import Role
from cupola.layers.embedding import Embedding, Head


def test_gives_each_token_its_row(key):
    embedding = Embedding(precision=FLOAT32, vocabulary=5, width=3)
    p = embedding.init(key)
    tokens = jnp.asarray([[4, 0], [0, 0]])
    np.testing.assert_array_equal(embedding(p, tokens), np.asarray(p["table"])[np.asarray(tokens)])
    grads = jax.grad(lambda p: embedding(p, tokens).sum())(p)["table"]
    np.testing.assert_array_equal(grads[:, 0], [3, 0, 0, 0, 1])
    assert embedding.flops(2, 2) == 0


def test_rows_come_in_the_policys_output():
    policy = Precision(param=np.dtype("bfloat16"))
    embedding = Embedding(precision=policy, vocabulary=5, width=3)
    p = embedding.init(jax.random.key(0))
    assert (p["table"].dtype, embedding(p, jnp.zeros((1, 1), int)).dtype) == (jnp.bfloat16, jnp.float32)


def test_a_head_is_drawn_for_the_width_that_it_sums_over(key):
    head = Head(precision=FLOAT32, vocabulary=400, width=100)
    (param,) = head.params().values()
    assert (param.role, param.fan_in, param.fan_out) == (Role.OUTPUT, 100, 400)
    assert Embedding(precision=FLOAT32, vocabulary=400, width=100).params()["table"].role is Role.INPUT
    deviation = 0.1 / (2 * 40_000) ** 0.5  # of a standard deviation of 0.1 over that many draws
    assert abs(np.std(head.init(key)["table"]) - 0.1) < 5 * deviation
    assert head.flops(2, 3) == 2 * 2 * 3 * 400 * 100


def test_only_what_is_looked_up_is_scaled(key):
    embedding = Embedding(precision=FLOAT32, vocabulary=5, width=3, scale=4.0)
    p = embedding.init(key)
    np.testing.assert_array_equal(embedding(p, jnp.asarray([[4]]))[0, 0], 4 * np.asarray(p["table"])[4])
