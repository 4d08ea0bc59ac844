import logging

import jax
import numpy as np
import pytest

from cupola.checkpoint.store import Checkpoints
from cupola.core.errors import CheckpointError
from cupola.train.load import load
from cupola.train.state import abstract


def damage(folder, step):
    """Flips one bit in the largest file of a checkpoint."""
    files = [path for path in (folder.checkpoints / f"step-{step:08}").rglob("*") if path.is_file()]
    path = max(files, key=lambda file: file.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_model_comes_with_its_tokenizer_and_step(finished, experiment):
    folder, _, _ = finished
    trained = load(folder)
    assert trained.step == 6
    assert trained.model == experiment().model
    assert trained.tokenizer.vocabulary == trained.model.vocabulary
    state, _, _ = Checkpoints(folder.checkpoints).restore(abstract(trained.experiment))
    jax.tree.map(np.testing.assert_array_equal, trained.params, state.params)


def test_an_older_step_can_be_asked_for(finished):
    assert load(finished[0], 4).step == 4
    with pytest.raises(CheckpointError, match=r"no complete checkpoint of step 5\nThere are steps 4, 6"):
        load(finished[0], 5)


def test_a_damaged_latest_checkpoint_is_passed_over_and_named(copied, caplog):
    damage(copied, 6)
    with caplog.at_level(logging.WARNING):
        assert load(copied).step == 4
    assert "step-00000006" in caplog.text
    assert "reading step 4 instead" in caplog.text
    with pytest.raises(CheckpointError, match=r"checksum\n.*step=4"):
        load(copied, 6)


def test_nothing_whole_is_an_error(copied):
    damage(copied, 4)
    damage(copied, 6)
    with pytest.raises(CheckpointError, match="start the run anew"):
        load(copied)


def test_a_run_without_a_checkpoint_is_an_error(experiment, folder, finished):
    begun = folder(experiment())
    begun.tokenizer.write_text(finished[0].tokenizer.read_text())
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        load(begun)
