import json

from cupola.checkpoint.store import Checkpoints
from cupola.config import text
from cupola.train.folder import RunFolder


def steps(run):
    return Checkpoints(run / "checkpoints").steps()


def test_a_file_is_trained_with_changes_and_goes_on_with_more(cupola, config, tmp_path):
    ended = cupola("train", config(), "budget.steps=3", "name=small", "--runs", tmp_path / "runs")
    run = tmp_path / "runs" / "small"
    assert ended.code == 0
    assert f"run: {run}\n" in ended.out
    assert f"see {run / 'card.md'}\n" in ended.out
    assert "fitted" not in ended.out  # what stands in a file is trained as it stands
    ended = cupola("train", "--resume", run, "budget.steps=5")
    assert ended.code == 0
    assert "~ budget.steps: 3 -> 5\n" in ended.out
    assert "going on from step 3" in ended.out
    assert steps(run) == [4, 5]
    assert json.loads((run / "summary.json").read_text())["steps"] == 5
    assert RunFolder.open(run).experiment().budget.steps == 5


def test_a_run_is_trained_anew_under_the_next_name(cupola, copied):
    ended = cupola("train", copied, "budget.steps=1", "saving.every_steps=None", "--runs", copied.parent)
    assert ended.code == 0
    assert steps(copied) == [8, 12]
    assert steps(copied.parent / "tiny") == [0, 1]


def test_a_recipe_is_fitted_to_the_machine_and_says_so(cupola, tmp_path, monkeypatch):
    monkeypatch.setattr("cupola.command.train.run", lambda made, folder, console: None)
    ended = cupola("train", "quickstart", "--runs", tmp_path)
    assert ended.code == 130
    assert "~ model.stack.form: cupola.layers.repeat:Form.SCAN -> cupola.layers.repeat:Form.UNROLL" in ended.out
    made = text.parse((tmp_path / "quickstart" / "config.txt").read_text())
    assert made.model.stack.form.value == "unroll"


def test_nothing_to_train_is_a_mistake(cupola):
    ended = cupola("train")
    assert ended.code == 2
    assert "Type `cupola train quickstart`, or --resume RUN." in ended.err
