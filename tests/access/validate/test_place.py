import pytest

from cupola.access.validate.place import FileError, Place, beside, read_text


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(FileError, match="No such file"):
        read_text(tmp_path / "none")
    with pytest.raises(FileError, match="directory"):
        read_text(tmp_path)
    (tmp_path / "bytes").write_bytes(b"ab\nc\xff\xfe")
    with pytest.raises(FileError, match="UTF-8") as error:
        read_text(tmp_path / "bytes")
    assert (error.value.line, error.value.column) == (2, 2)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "in/../../x", "link"])
def test_a_named_file_stays_in_the_folder(tmp_path, name):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(FileError, match="leaves the folder"):
        beside(folder / "file.yaml", name, Place("file.yaml", 3, 2))
    assert beside(folder / "file.yaml", "./x", Place("f")) == folder / "x"
