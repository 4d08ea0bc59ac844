import pytest

from cupola.core.errors import DataError, TokenizerError
from cupola.data.mixture import Mixture, Part
from cupola.data.sources import Split, TextFiles
from cupola.data.tokenizer import Tokenizer
from cupola.train.corpus import prepare, split


def fingerprints(prepared):
    return [corpus.fingerprint for corpus in (*prepared.train, *prepared.held_out)]


def test_the_two_sides_share_no_document_and_lose_none(experiment):
    data = experiment().data
    sides = [{d.name for d in split(data, side).documents()} for side in (Split.TRAIN, Split.HELD_OUT)]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 40


def test_what_is_made_is_told_and_is_found_again(experiment, folder):
    told, made = [], experiment()
    first = prepare(made, folder(made), told.append)
    assert [line.split(":")[0] for line in told] == ["tokenizer", "train", "held out"]
    again = prepare(made, folder(made), lambda line: pytest.fail(f"made again: {line}"))
    assert fingerprints(again) == fingerprints(first)
    assert again.tokenizer.fingerprint == first.tokenizer.fingerprint


def test_what_was_prepared_stays_when_the_text_changes(experiment, folder, corpus, tmp_path):
    text = tmp_path / "text"
    text.mkdir()
    for file in corpus.iterdir():
        (text / file.name).write_text(file.read_text())
    made = experiment(data__mixture=Mixture(parts=(Part(source=TextFiles(path=str(text))),)))
    first = prepare(made, folder(made), print)
    for file in text.iterdir():
        file.unlink()
    assert fingerprints(prepare(made, folder(made), print)) == fingerprints(first)


def test_half_a_preparation_is_completed(experiment, folder):
    made = experiment()
    first = prepare(made, folder(made), print)
    for file in (folder(made).data / "held_out-0").iterdir():
        file.unlink()
    (folder(made).data / "held_out-0").rmdir()
    assert fingerprints(prepare(made, folder(made), print)) == fingerprints(first)


@pytest.mark.filterwarnings("default")
def test_little_text_makes_a_smaller_vocabulary_and_the_runs_text_says_so(experiment, folder):
    told, made = [], experiment(model__vocabulary=100_000)
    prepared = prepare(made, folder(made), told.append)
    small = prepared.experiment.model.vocabulary
    assert 257 < small == prepared.tokenizer.vocabulary < 100_000
    assert folder(made).experiment() == prepared.experiment.replace("name", "tiny")
    assert f"model.vocabulary is {small} in this run" in " ".join(told)
    assert fingerprints(prepare(prepared.experiment, folder(made), print)) == fingerprints(prepared)


def test_a_named_tokenizer_is_used_or_refused(experiment, folder, tmp_path):
    path = tmp_path / "tokenizer.json"
    Tokenizer.train(["the furnace melts the iron"] * 3, 262).save(path)
    fits = experiment(data__tokenizer=str(path), model__vocabulary=262)
    assert prepare(fits, folder(fits, "fits"), print).tokenizer.fingerprint == Tokenizer.load(path).fingerprint
    other = experiment(data__tokenizer=str(path))
    with pytest.raises(TokenizerError, match=r"has 262 tokens, but the model has 280\nUse vocabulary=262"):
        prepare(other, folder(other, "other"), print)


def test_a_tokenizer_that_was_exchanged_is_noticed(experiment, folder):
    made = experiment()
    prepare(made, folder(made), print)
    Tokenizer.train(["another text, another text, other words"] * 9, 280).save(folder(made).tokenizer)
    with pytest.raises(TokenizerError):
        prepare(made, folder(made), print)


@pytest.mark.parametrize(
    ("path", "value"), [("data.held_out", 0.5), ("data.mixture", None), ("data.tokenizer", "other.json")]
)
def test_a_run_goes_on_with_the_data_that_it_began_with(experiment, folder, corpus, path, value):
    made = experiment()
    prepare(made, folder(made), print)
    value = value or Mixture(parts=(Part(source=TextFiles(path=str(corpus)), weight=2.0),))
    with pytest.raises(DataError, match=rf"{path}: .*\n.*start a new run"):
        prepare(made.replace(path, value), folder(made), print)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "no such file"), (b"", "the file is empty"), (b"\0\1\2" * 99, "binary")],
    ids=["missing", "empty", "binary"],
)
def test_a_text_that_cannot_be_learnt_from_is_refused(experiment, folder, tmp_path, content, problem):
    text = tmp_path / "text.txt"
    if content is not None:
        text.write_bytes(content)
    made = experiment(data__mixture=Mixture(parts=(Part(source=TextFiles(path=str(text))),)))
    with pytest.raises(DataError, match=problem) as refused:
        prepare(made, folder(made), print)
    assert refused.value.remedy
