import json

import pytest

TINY = [
    "model.width=32",
    "model.stack.layers=1",
    "model.stack.block.feed_forward.hidden=48",
    "model.vocabulary=280",
    "model.max_length=64",
    "data.batch=4",
    "data.length_tokens=32",
    "data.held_out=0.2",
    "evaluation.rows=4",
]


@pytest.fixture
def quickstart(cupola, corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *words: cupola("quickstart", "--text", corpus, "--minutes", 0.005, *TINY, *words)


def test_from_nothing_to_a_model_that_completes(quickstart, tmp_path):
    ended = quickstart()
    run = tmp_path / "runs" / "quickstart"
    summary = json.loads((run / "summary.json").read_text())
    assert ended.code == 0
    for name in ("bits_per_byte", "gzip_bits_per_byte", "xz_bits_per_byte"):
        assert f"{summary[name]:.3f}" in ended.out
    assert "try next:\n  cupola complete runs/quickstart" in ended.out
    assert "loss curve: runs/quickstart/loss.png" in ended.out


def test_a_second_one_takes_the_next_name_and_interrupted_shows_no_results(quickstart, monkeypatch, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("cupola.train.run.prepare", stop)
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    ended = quickstart()
    assert ended.code == 130
    assert "run: runs/quickstart-2\n" in ended.out
    assert "go on with: cupola train --resume runs/quickstart-2" in ended.out
    assert "try next" not in ended.out


def test_without_a_text_it_learns_pythons_library_and_completes_a_function(cupola, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("cupola.command.train.run", lambda experiment, folder, console: made.append(experiment))
    assert cupola("quickstart", "--runs", tmp_path).code == 130
    assert type(made[0].data.mixture.parts[0].source).__name__ == "PythonLibrary"
    assert made[0].budget.minutes == 3.0
