"""An experiment's text rebuilds an equal experiment, which trains bit for bit the same in a fresh process."""

import pytest

from cupola.config import text


@pytest.fixture(scope="module")
def trained(begin, run_in_process, losses):
    """Trains an experiment in a process of its own; returns its losses."""

    def train(made):
        folder = begin("run", made)
        assert run_in_process(folder) == 0
        return losses(folder)

    return train


@pytest.fixture(scope="module")
def first(trained, experiment):
    return trained(experiment())


def test_rebuilt_from_text_in_a_fresh_process_trains_bit_equal(first, experiment, trained):
    made = experiment()
    rebuilt = text.parse(text.show(made))
    assert rebuilt == made
    assert trained(rebuilt) == first


def test_another_leaf_gives_other_losses(first, experiment, trained):
    second = trained(experiment(learner__optimizer__rate=2e-2))
    assert first[1] == second[1]  # the first loss is before any step
    assert first[2] != second[2]
