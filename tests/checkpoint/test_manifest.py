"""The manifest is legal JSON that a person can read."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from cupola.checkpoint.store import Checkpoints


@pytest.fixture
def checkpoints(tmp_path):
    with Checkpoints(tmp_path) as opened:
        yield opened


def test_the_manifest_can_be_read_by_a_person(checkpoints):
    checkpoints.save(12, {"layer": {"up": jnp.zeros((2, 3), jnp.bfloat16)}}, metrics={"loss": float("nan")})
    checkpoints.wait()
    text = (checkpoints.folder / "step-00000012" / "manifest.json").read_text()
    told = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert told["leaves"] == [{"path": "layer.up", "shape": [2, 3], "dtype": "bfloat16"}]
    assert told["metrics"] == {"loss": "nan"}
    assert text.count("\n") > 20
    assert list(told)[:4] == ["step", "time", "versions", "metrics"]
    held = checkpoints.manifest()
    assert np.isnan(held.metrics["loss"])
    assert held.bytes == sum(p.stat().st_size for p in (checkpoints.folder / "step-00000012").rglob("*")
                             if p.is_file() and p.name != "manifest.json")  # fmt: skip
