from cupola.data.sources import TextFiles
from cupola.recipes.quickstart import quickstart


def test_source_and_time_are_the_callers():
    made = quickstart(TextFiles(path="books"), minutes=0.5)
    assert made.data.mixture.parts[0].source == TextFiles(path="books")
    assert made.budget.minutes == 0.5
    same = quickstart()
    assert (made.model, made.learner) == (same.model, same.learner)


def test_it_is_small_enough_for_a_laptop():
    assert 2e6 < quickstart().model.count() < 10e6
