"""Files and folders appear whole or not at all."""

import pytest

from cupola.data.files import whole


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_stood_there_stands_whatever_stops_the_writing(tmp_path, error):
    target = tmp_path / "a" / "file"
    with whole(target) as unfinished:
        unfinished.write_text("old")

    def stopped():
        with whole(target) as unfinished:
            unfinished.write_text("half")
            assert target.read_text() == "old"
            raise error

    with pytest.raises(error):
        stopped()
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]
    with whole(target) as unfinished:
        unfinished.write_text("new")
    assert target.read_text() == "new"


def test_a_folder_appears_with_all_that_is_in_it(tmp_path):
    with whole(tmp_path / "folder") as unfinished:
        (unfinished / "inner").mkdir(parents=True)
        (unfinished / "inner" / "file").write_text("x")
        assert not (tmp_path / "folder").exists()
    assert (tmp_path / "folder" / "inner" / "file").read_text() == "x"
    with pytest.raises(OSError, match="not empty"), whole(tmp_path / "folder") as unfinished:
        unfinished.mkdir()
    assert (tmp_path / "folder" / "inner" / "file").exists()
