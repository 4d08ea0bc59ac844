"""Documents: the same on every machine, or a typed error that says what to type."""

import errno
import json
import logging
from pathlib import Path

import pytest

from cupola.core.errors import ConfigError, DataError
from cupola.data.sources import JSONL, Document, HeldOut, PythonLibrary, Source, Split, TextFiles


class Given(Source):
    texts: tuple[tuple[str, str], ...]

    def documents(self):
        yield from (Document(name, text) for name, text in self.texts)


def given(count: int) -> Given:
    return Given(texts=tuple((f"{i:04d}", f"text {i}") for i in range(count)))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def names(source):
    return [document.name for document in source.documents()]


def refusal(source, kind=DataError):
    with pytest.raises(kind) as caught:
        list(source.documents())
    return caught.value


def test_python_library_is_this_interpreters_own_without_tests(caplog):
    documents = {document.name: document.text for document in PythonLibrary().documents()}
    assert list(documents) == sorted(documents)
    assert 400 < len(documents) < 800
    assert 8e6 < sum(len(text.encode()) for text in documents.values()) < 13e6
    assert documents["json/decoder.py"] == Path(json.decoder.__file__).read_bytes().decode()
    parts = {part for name in documents for part in name.split("/")}
    assert not parts & {"test", "tests", "idlelib", "site-packages", "dist-packages", "__pycache__"}
    assert {"unittest", "os.py"} <= parts
    assert not caplog.records


def test_python_library_without_source_says_what_to_use(tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    write(tmp_path / "site-packages" / "theirs.py", "x = 1")
    assert "TextFiles(path=...)" in refusal(PythonLibrary()).remedy


def test_one_file_keeps_every_character(tmp_path):
    text = "\ufeffline\r\nλ 🦊\n"
    source = TextFiles(path=str(write(tmp_path / "a.txt", text)))
    assert list(source.documents()) == [Document("a.txt", text)]


def test_folder_is_read_in_order_of_names(tmp_path):
    for name in ("b.md", "a/z.md", "a.md", ".git/config.md", ".hidden.md", "c.txt", "empty.md"):
        write(tmp_path / name, "" if name.startswith("empty") else name)
    (tmp_path / "broken.md").symlink_to(tmp_path / "nowhere")
    assert names(TextFiles(path=str(tmp_path), patterns=("*.md",))) == ["a.md", "a/z.md", "b.md"]
    assert names(TextFiles(path=str(tmp_path), patterns=("*.txt", "a/*"))) == ["a/z.md", "c.txt"]


@pytest.mark.parametrize(("data", "said"), [(b"a\0b", "zero bytes"), (b"caf\xe9", "byte 3")])
def test_binary_is_refused_by_name_and_left_out_of_a_folder_aloud(tmp_path, caplog, data, said):
    binary = write(tmp_path / "data.bin", data)
    error = refusal(TextFiles(path=str(binary)))
    assert said in error.problem
    assert error.where == str(binary)
    write(tmp_path / "a.txt", "text")
    with caplog.at_level(logging.WARNING, logger="cupola.data.sources"):
        assert names(TextFiles(path=str(tmp_path))) == ["a.txt"]
    assert "left out 1 files" in caplog.text
    assert "data.bin" in caplog.text


def test_missing_paths_name_the_nearest(tmp_path):
    write(tmp_path / "notes.txt", "x")
    assert f"Did you mean {tmp_path / 'notes.txt'}?" in refusal(TextFiles(path=str(tmp_path / "note.txt"))).remedy
    assert str(tmp_path) in refusal(JSONL(path=str(tmp_path / "qqq" / "x.jsonl"))).remedy


def test_nothing_to_read_is_an_error(tmp_path):
    assert "no file at all" in refusal(TextFiles(path=str(tmp_path))).remedy
    write(tmp_path / "a.md", "x")
    assert "*.md (1)" in refusal(TextFiles(path=str(tmp_path), patterns=("*.txt",))).remedy
    assert "empty" in refusal(TextFiles(path=str(write(tmp_path / "empty.txt", "")))).problem


def test_unreadable_file_is_an_error(tmp_path, monkeypatch):
    write(tmp_path / "a.txt", "x")

    def refused(*_):  # not by chmod: root reads everything
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refused)
    assert "chmod" in refusal(TextFiles(path=str(tmp_path / "a.txt"))).remedy


def test_jsonl_takes_one_field_of_each_line(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "one", "n": 1}\n\n{"text": ""}\n{"text": "f\\u00fcr"}')
    assert list(JSONL(path=str(path)).documents()) == [
        Document("a.jsonl:000000001", "one"),
        Document("a.jsonl:000000004", "für"),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{'text': 1}", "not JSON"),
        (b'{"text": "\xff"}', "not JSON"),
        ('["text"]', "holds a list"),
        ('{"test": "x"}', "Did you mean 'test'?"),
        ('{"text": 3, "body": "x"}', "Fields that hold text here: body."),
        ('{"text": null}', "NoneType"),
        ('{"text": "\\ud83e"}', "surrogate"),
    ],
)
def test_jsonl_errors_name_the_line(tmp_path, line, said):
    line = line if isinstance(line, bytes) else line.encode()
    path = write(tmp_path / "a.jsonl", b'{"text": "fine"}\n' + line + b"\n")
    error = refusal(JSONL(path=str(path)))
    assert error.where == f"{path}:2"
    assert said in str(error)


def test_jsonl_of_nothing_or_a_folder(tmp_path):
    assert "no line" in refusal(JSONL(path=str(write(tmp_path / "a.jsonl", "\n\n")))).problem
    assert str(tmp_path / "a.jsonl") in refusal(JSONL(path=str(tmp_path))).remedy


def test_held_out_sides_share_the_documents_and_stay_put():
    train, held, everything = (HeldOut(source=given(400), fraction=0.1, split=split) for split in Split)
    assert sorted(names(train) + names(held)) == names(everything) == names(given(400))
    assert 20 < len(names(held)) < 60
    more = HeldOut(source=given(800), fraction=0.1, split=Split.HELD_OUT)
    assert names(more)[: len(names(held))] == names(held)
    # These are drawn by the names alone, so they may never change.
    assert names(HeldOut(source=given(60), fraction=0.02, split=Split.HELD_OUT)) == ["0040"]


@pytest.mark.parametrize(("fraction", "held"), [(0.05, "j"), (0.25, "hij"), (0.9, "bcdefghij")])
def test_one_document_is_split_by_its_tail(fraction, held):
    one = Given(texts=(("one", "abcdefghij"),))
    parts = [next(HeldOut(source=one, fraction=fraction, split=s).documents()) for s in (Split.TRAIN, Split.HELD_OUT)]
    assert [part.text for part in parts] == ["abcdefghij".removesuffix(held), held]


def test_one_document_too_short_to_split_says_how_long_it_must_be():
    one = HeldOut(source=Given(texts=(("one", "abc"),)), fraction=0.8)
    assert "at least 5 characters" in refusal(one).remedy
    long_enough = one.replace("source.texts", (("one", "abcde"),))
    assert [d.text for d in long_enough.documents()] == ["a"]


@pytest.mark.parametrize("count", [2, 5])
def test_of_few_documents_one_is_held_out(count):
    train, held, _ = (names(HeldOut(source=given(count), fraction=0.0001, split=split)) for split in Split)
    assert len(held) == 1
    assert sorted(train + held) == names(given(count))


@pytest.mark.parametrize("split", [Split.TRAIN, Split.HELD_OUT])
def test_a_fraction_that_leaves_nothing_is_refused_from_both_sides(split):
    error = refusal(HeldOut(source=given(5), fraction=0.9999, split=split))
    assert "smaller fraction" in error.remedy
    assert names(HeldOut(source=given(5), fraction=0.4, split=split))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_fraction_must_be_a_share(fraction):
    with pytest.raises(ConfigError, match=r"0\.05"):
        HeldOut(source=given(3), fraction=fraction)
