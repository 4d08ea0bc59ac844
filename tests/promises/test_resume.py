"""Promise 2: the same loss after every resume, bit for bit."""

import pytest

from cupola.checkpoint.store import Checkpoints


@pytest.fixture(scope="module")
def whole(begin, experiment, run_in_process, losses):
    """The losses of a run that nobody interrupts."""
    folder = begin("whole", experiment())
    assert run_in_process(folder) == 0
    return losses(folder)


def test_killed_at_any_step_and_resumed_is_bit_equal(whole, begin, experiment, run_in_process, losses):
    folder = begin("killed", experiment())
    for kill_after in (3, 7, 11):  # before the first periodic save, after it, and near the end
        assert run_in_process(folder, kill_after) == -9
    assert run_in_process(folder) == 0
    assert losses(folder) == whole
    assert len(whole) == 12


def test_a_resume_that_forgets_the_data_position_is_noticed(whole, begin, experiment, run_in_process, losses):
    folder = begin("forgetful", experiment())
    assert run_in_process(folder, kill_after=11) == -9
    resumed_at = Checkpoints(folder / "checkpoints").latest()
    assert run_in_process(folder, fault="forget the data position") == 0
    forgetful = losses(folder)
    assert resumed_at in (4, 8)
    assert [step for step in whole if forgetful[step] != whole[step]] == list(range(resumed_at + 1, 13))
