import pytest

from cupola.core.errors import ConfigError
from cupola.core.mesh import MeshShape
from cupola.kernels.cross_entropy import Objective
from cupola.train.experiment import Evaluation, Minutes, Saving, Steps

CASES = [
    ({"data__length_tokens": 65}, "longer than model.max_length=64", "data.length_tokens=64 or less"),
    ({"evaluation__length_tokens": 80}, "rows of 80 tokens", "model.max_length=80"),
    ({"micro_batches": 3}, "a batch of 4 rows does not divide into micro_batches=3", "data.batch=6"),
    ({"mesh": MeshShape(data=2, fsdp=4)}, "mesh.data=2 x mesh.fsdp=4", "data.batch=8"),
    ({"micro_batches": 0}, "0 is too few", "Use 1 or more"),
    ({"objective__soft_cap": 30.0}, "not the model's soft cap, None", "model.soft_cap=30.0"),
    ({"objective__z_loss": -1.0}, "reward a large normalizer", "0 or a small"),
    ({"model__soft_cap": 0.0}, "caps nothing", "positive"),
    ({"seed": -1}, "seed=-1", "count from 0"),
    ({"name": "a/b"}, "'a/b' cannot name a folder", "letters"),
    ({"name": ".."}, "cannot name a folder", "letters"),
    ({"name": ""}, "cannot name a folder", "letters"),
    ({"data__batch": 0}, "0 is too few", "Use 1 or more"),
    ({"data__held_out": 0.0}, "0.0 is no share", "such as 0.05"),
    ({"data__held_out": 1.0}, "1.0 is no share", "such as 0.05"),
    ({"evaluation__times": -1}, "-1 is too few", "only at the end"),
    ({"evaluation__rows": 0}, "0 is too few", "Use 1 or more"),
    ({"evaluation__batch": 0}, "0 is too few", "Use 1 or more"),
    ({"evaluation__stride_tokens": 0}, "0 is too few", "Use 1 or more"),
    ({"saving__every_seconds": 0.0}, "0.0 is no interval", "or None"),
    ({"saving__every_steps": -4}, "-4 is no interval", "or None"),
    ({"budget__steps": 0}, "0 steps are no run", "Use 1 or more"),
    ({"budget": lambda: Minutes(minutes=0.0)}, "0.0 minutes are no run", "above 0"),
    ({"budget": lambda: Minutes(minutes=float("nan"))}, "nan minutes are no run", "above 0"),
]


@pytest.mark.parametrize(("changes", "problem", "remedy"), CASES, ids=lambda c: None if isinstance(c, dict) else c[:40])
def test_what_cannot_be_trained_is_refused_with_a_remedy(experiment, changes, problem, remedy):
    with pytest.raises(ConfigError) as refused:
        experiment(**{path: value() if callable(value) else value for path, value in changes.items()})
    assert problem in refused.value.problem
    assert remedy in refused.value.remedy


@pytest.mark.parametrize(
    "changes",
    [
        {"model__max_length": 80, "evaluation__length_tokens": 80},
        {"data__batch": 6, "micro_batches": 3},
        {"data__batch": 8, "mesh": MeshShape(data=2, fsdp=4)},
        {"model__soft_cap": 30.0, "objective": Objective(soft_cap=30.0, z_loss=1e-4, label_smoothing=0.1)},
        {"name": "width-384.v2_b"},
        {"saving": Saving(every_seconds=None, every_steps=None)},
        {"evaluation": Evaluation(times=0, rows=None)},
    ],
    ids=str,
)
def test_what_the_remedies_say_is_accepted(experiment, changes):
    assert experiment(**changes).name


def test_the_model_takes_the_experiments_precision(experiment):
    made = experiment()
    assert made.model.stack.block.attention.precision == made.precision


def test_steps_are_seen_from_their_middle():
    budget = Steps(steps=4)
    assert [budget.progress(step, 1e9) for step in range(4)] == [0.125, 0.375, 0.625, 0.875]
    assert [budget.is_spent(step, 1e9) for step in (0, 3, 4, 5)] == [False, False, True, True]


def test_minutes_follow_the_clock():
    budget = Minutes(minutes=2.0)
    assert [budget.progress(10**9, seconds) for seconds in (0.0, 30.0, 120.0, 500.0)] == [0, 0.25, 1, 1]
    assert [budget.is_spent(10**9, seconds) for seconds in (0.0, 119.9, 120.0)] == [False, False, True]
