"""An experiment's text rebuilds an equal experiment, which trains bit for bit the same in a fresh process."""

from cupola.config import text


def test_rebuilt_from_text_in_a_fresh_process_trains_bit_equal(begin, experiment, run_in_process, losses):
    made = experiment()
    assert text.parse(text.show(made)) == made
    first, second = begin("first", made), begin("second", text.parse(text.show(made)))
    assert run_in_process(first) == run_in_process(second) == 0
    assert losses(first) == losses(second)


def test_another_leaf_gives_other_losses(begin, experiment, run_in_process, losses):
    first = begin("first", experiment(budget__steps=2))
    second = begin("second", experiment(budget__steps=2, learner__optimizer__rate=2e-2))
    assert run_in_process(first) == run_in_process(second) == 0
    assert losses(first)[1] == losses(second)[1]  # the first loss is before any step
    assert losses(first)[2] != losses(second)[2]
