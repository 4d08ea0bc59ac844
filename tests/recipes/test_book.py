from pathlib import Path

import pytest

from cupola.config import golden, text
from cupola.core.errors import ConfigError
from cupola.recipes import book
from cupola.train.experiment import Experiment
from cupola.train.folder import RunFolder

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", book.RECIPES)
def test_a_recipe_prints_as_its_golden_text_and_rebuilds_equal(name):
    made = book.find(name)
    golden.compare(made, GOLDEN / f"{name}.txt", command=f"cupola config show {name}")
    assert text.parse(text.show(made)) == made


def test_every_golden_text_has_a_recipe():
    assert {path.stem for path in GOLDEN.iterdir()} == set(book.RECIPES)


def test_a_changed_recipe_is_shown_with_the_command_that_keeps_it():
    changed = book.find("quickstart").replace("model.width", 384)
    with pytest.raises(AssertionError, match=r"~ model.width: 256 -> 384\n(.*\n)*.*cupola config show quickstart > "):
        golden.compare(changed, GOLDEN / "quickstart.txt", command="cupola config show quickstart")


@pytest.mark.parametrize("name", book.RECIPES)
def test_a_recipe_can_be_trained(name):
    made = book.find(name)
    assert made.name == name
    assert made.model.count() > 0
    assert book.RECIPES[name].__doc__


def test_an_experiment_is_found_by_recipe_run_and_file(experiment, tmp_path):
    folder = RunFolder.create(tmp_path, experiment())
    assert book.find("quickstart") == book.RECIPES["quickstart"]()
    assert book.find(str(folder.path)) == experiment()
    assert book.find(str(folder.config)) == experiment()


def decoder(experiment: Experiment) -> bytes:
    return text.show(experiment.model).encode()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\x89PNG\r\n\xff", "is not text"),
        (decoder, "describes a Decoder, not an Experiment"),
        (b"once upon a time", "."),
        (b"", "."),
    ],
    ids=["binary", "another value", "prose", "empty"],
)
def test_a_file_of_another_kind_is_refused(experiment, tmp_path, content, problem):
    path = tmp_path / "file.txt"
    path.write_bytes(content(experiment()) if callable(content) else content)
    with pytest.raises(ConfigError, match=problem) as refused:
        book.find(str(path))
    assert refused.value.remedy


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no recipe, run or file 'quickstrat'\nDid you mean .*quickstart"):
        book.find("quickstrat")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(Exception, match="no run here"):
        book.find(str(tmp_path))
