import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.errors import ConfigError
from cupola.kernels.attention import CAUSAL, Mask


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (Mask(), ["###", "###", "###"]),
        (CAUSAL, ["#..", "##.", "###"]),
        (Mask(causal=True, window=1), ["#..", ".#.", "..#"]),
        (Mask(causal=True, window=2), ["#..", "##.", ".##"]),
        (CAUSAL.starting(jnp.asarray([1])), ["##.", "###", "###"]),
        (CAUSAL.within(jnp.asarray([[1, 2, 0]]), jnp.asarray([[1, 2, 0]])), ["#..", ".#.", "..."]),
        (Mask().within(jnp.asarray([[2, 1, 2]]), jnp.asarray([[2, 2, 1]])), ["##.", "..#", "##."]),
        (Mask(causal=True, prefix=jnp.asarray([2])), ["##.", "##.", "###"]),
        (Mask(causal=True, window=1, prefix=jnp.asarray([1])), ["#..", "##.", "#.#"]),
        (
            Mask(causal=True, prefix=jnp.asarray([3])).within(jnp.asarray([[1, 2, 2]]), jnp.asarray([[1, 2, 2]])),
            ["#..", ".##", ".##"],
        ),
        (Mask().within(None, None), ["###", "###", "###"]),
    ],
)
def test_what_is_visible(mask, expected):
    seen = np.broadcast_to(mask.visible(3, 3), (1, 3, 3))[0]
    assert ["".join(".#"[int(x)] for x in row) for row in seen] == expected


@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize("mask", [Mask(), CAUSAL, Mask(causal=True, window=1), Mask(causal=True, window=3)])
def test_the_visible_pairs_are_counted(mask, length):
    assert mask.count(length) == np.broadcast_to(mask.visible(length, length), (1, length, length)).sum()


def test_the_fixed_part_is_static_and_the_rest_is_traced():
    mask = Mask(causal=True, window=2, start=jnp.asarray([0]))
    assert len(jax.tree.leaves(mask)) == 1
    assert jax.jit(lambda m: m)(mask).window == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"window": 3}, "^mask: window=3 with causal=False\n.*Mask\\(causal=True, window=128\\)"),
        ({"window": 0, "causal": True}, "^mask: window=0 with causal=True\nA window counts keys from 1"),
        ({"prefix": jnp.asarray([2])}, "^mask: a prefix with causal=False\nEvery key is seen already"),
        ({"query_segments": jnp.ones((1, 2), int)}, "^mask: only one of query_segments and key_segments"),
    ],
)
def test_masks_that_mean_nothing_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        Mask(**fields)
