import subprocess
import sys

import pytest

from cupola.config import text
from cupola.core.errors import ConfigError, TokenizerError, TrainingError
from cupola.train.folder import RunFolder

HOLD = "import sys; from cupola.train.folder import RunFolder\nwith RunFolder(sys.argv[1]):\n    print('held', flush=True); sys.stdin.read()"


def test_runs_of_one_name_are_numbered(experiment, tmp_path):
    made = [RunFolder.create(tmp_path / "runs", experiment()) for _ in range(3)]
    assert [folder.path.name for folder in made] == ["tiny", "tiny-2", "tiny-3"]
    assert RunFolder.open(made[2].path).experiment() == experiment()


def test_a_folder_that_cannot_be_written_is_named(experiment, tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "runs", "/proc/runs"):
        with pytest.raises(TrainingError, match="could not be written .*\n.*--runs"):
            RunFolder.create(root, experiment())


def test_a_folder_without_a_run_names_those_beside_it(experiment, tmp_path):
    with pytest.raises(TrainingError, match="cupola quickstart"):
        RunFolder.open(tmp_path / "tinny")
    RunFolder.create(tmp_path, experiment())
    with pytest.raises(TrainingError, match="Runs in .*: tiny"):
        RunFolder.open(tmp_path / "tinny")


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"\xff\xfe", "is not text"), (b"steps = 3", "of which class"), (b"", "nothing to read")],
)
def test_a_configuration_that_is_none_is_refused(tmp_path, content, problem):
    (tmp_path / "config.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=problem) as refused:
        RunFolder.open(tmp_path).experiment()
    assert refused.value.remedy


def test_a_configuration_of_another_kind_is_refused(experiment, tmp_path):
    (tmp_path / "config.txt").write_text(text.show(experiment().model))
    with pytest.raises(ConfigError, match="a Decoder, not an Experiment"):
        RunFolder.open(tmp_path).experiment()


def test_one_process_at_a_time_trains_in_a_folder(experiment, folder):
    made = folder(experiment())
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(made.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(TrainingError, match="another process is training"), made:
            pass
        holder.stdin.close()
        holder.wait()
    with made:
        pass
    with made:  # and it was given back
        pass


def test_what_is_written_is_whole_or_what_was_there(experiment, folder, monkeypatch):
    made = folder(experiment())
    before = made.config.read_text()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(TrainingError, match="No space left on device.*\n.*Free some space"):
        made.write(made.config, "half")
    assert made.config.read_text() == before


def test_a_new_run_on_a_full_disk_leaves_no_folder(experiment, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(TrainingError):
        RunFolder.create(tmp_path, experiment())
    assert list(tmp_path.iterdir()) == []


def test_only_a_run_without_a_checkpoint_is_discarded(experiment, folder):
    begun, unbegun = folder(experiment(), "begun"), folder(experiment(), "unbegun")
    (begun.checkpoints / "step-00000000").mkdir(parents=True)
    begun.discard_unbegun()
    unbegun.discard_unbegun()
    assert begun.config.exists()
    assert not unbegun.path.exists()


def test_a_tokenizer_of_another_vocabulary_is_refused(experiment, folder, finished):
    other = folder(experiment(model__vocabulary=300))
    with pytest.raises(TokenizerError, match="cannot be read"):
        other.load_tokenizer()
    other.tokenizer.write_text(finished[0].tokenizer.read_text())
    with pytest.raises(TokenizerError, match="the tokenizer has 280 tokens, but the model has 300"):
        other.load_tokenizer()
