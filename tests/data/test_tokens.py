"""Corpora: [end, t1..tn] one after another, saved whole, verified when loaded."""

import json

import numpy as np
import pytest

from cupola.core.errors import DataError, TokenizerError
from cupola.data.sources import JSONL, HeldOut, Source, TextFiles
from cupola.data.tokenizer import Tokenizer
from cupola.data.tokens import TokenCorpus

TEXTS = ["hello world", "größer 🦊 hello", "x"]
TOKENIZER = Tokenizer.train(TEXTS * 3, vocabulary=270)


@pytest.fixture
def source(tmp_path):
    lines = [json.dumps({"text": text}) for text in TEXTS]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    return JSONL(path=str(tmp_path / "texts.jsonl"))


@pytest.fixture
def corpus(source):
    return TokenCorpus.encode(source, TOKENIZER)


@pytest.fixture
def folder(corpus, tmp_path):
    corpus.save(tmp_path / "corpus")
    return tmp_path / "corpus"


def test_documents_stand_one_after_another_each_begun_by_the_end(corpus):
    expected = [i for text in TEXTS for i in (TOKENIZER.end, *TOKENIZER.encode(text))]
    assert corpus.tokens.tolist() == [*expected, TOKENIZER.end]
    assert corpus.tokens.dtype == np.uint16
    assert corpus.offsets[-1] == corpus.size_tokens == len(expected)
    assert all(corpus.tokens[corpus.offsets] == TOKENIZER.end)
    assert corpus.document_bytes.tolist() == [len(text.encode()) for text in TEXTS]
    assert (corpus.documents, corpus.size_bytes) == (3, sum(map(len, map(str.encode, TEXTS))))


def test_the_texts_come_back(corpus):
    assert list(corpus.texts(TOKENIZER)) == TEXTS


def test_large_vocabularies_take_four_bytes_a_token(source):
    inner = TOKENIZER._inner
    for fits, dtype in ((2**16, np.uint16), (2**16 + 1, np.uint32)):
        copy = type(inner).from_str(inner.to_str())
        copy.add_tokens([f"<extra {i}>" for i in range(fits - TOKENIZER.vocabulary)])
        large = Tokenizer(copy)
        assert large.vocabulary == fits
        assert TokenCorpus.encode(source, large).tokens.dtype == dtype


def test_saved_and_loaded_is_the_same_and_mapped(corpus, folder):
    loaded = TokenCorpus.load(folder, TOKENIZER)
    assert isinstance(loaded.tokens, np.memmap)
    for name in ("tokens", "offsets", "document_bytes"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(corpus, name))
    assert loaded.fingerprint == corpus.fingerprint
    corpus.save(folder)  # again: nothing to do
    assert sorted(path.name for path in folder.parent.iterdir()) == ["corpus", "texts.jsonl"]


def test_the_fingerprint_sees_text_documents_and_tokenizer(corpus, tmp_path):
    (tmp_path / "more.txt").write_text("hello")
    other = TokenCorpus.encode(TextFiles(path=str(tmp_path), patterns=("more.txt",)), TOKENIZER)
    retrained = Tokenizer.train(TEXTS, vocabulary=260)
    again = TokenCorpus.encode(TextFiles(path=str(tmp_path / "more.txt")), retrained)
    assert len({corpus.fingerprint, other.fingerprint, again.fingerprint}) == 3


def test_a_folder_that_holds_anything_else_is_left_alone(corpus, folder, tmp_path):
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match="Name a new folder"):
        corpus.save(folder)
    assert (folder / "manifest.json").read_text() == "{}"


def test_an_empty_folder_may_be_filled(corpus, tmp_path):
    (tmp_path / "empty").mkdir()
    corpus.save(tmp_path / "empty")
    assert TokenCorpus.load(tmp_path / "empty", TOKENIZER).fingerprint == corpus.fingerprint


def test_a_source_without_documents_is_refused():
    class Nothing(Source):
        def documents(self):
            yield from ()

    for source in (Nothing(), HeldOut(source=Nothing())):
        with pytest.raises(DataError, match="has no document"):
            TokenCorpus.encode(source, TOKENIZER)


def test_a_save_that_fails_leaves_nothing(corpus, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(DataError, match="No space left"):
        corpus.save(tmp_path / "new" / "corpus")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("name", ["tokens", "offsets", "document_bytes"])
@pytest.mark.parametrize("harm", ["truncate", "flip", "remove"])
def test_every_harm_is_found(folder, name, harm):
    path = folder / f"{name}.npy"
    data = bytearray(path.read_bytes())
    data[-2] ^= harm == "flip"
    path.write_bytes(data[:-1] if harm == "truncate" else data)
    if harm == "remove":
        path.unlink()
    with pytest.raises(DataError, match="encode the text again"):
        TokenCorpus.load(folder, TOKENIZER)


@pytest.mark.parametrize("key", ["end", "vocabulary", "sha256", "bytes", "format"])
@pytest.mark.parametrize("value", [None, 7, "x"])
def test_a_changed_manifest_is_found(folder, key, value):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {key: value}))
    with pytest.raises(DataError, match="truncated or changed"):
        TokenCorpus.load(folder, TOKENIZER)


def test_no_corpus_or_another_tokenizer(folder, tmp_path):
    with pytest.raises(DataError, match="holds no corpus"):
        TokenCorpus.load(tmp_path, TOKENIZER)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "manifest.json").write_text("[1")
    with pytest.raises(DataError, match="holds no corpus"):
        TokenCorpus.load(tmp_path / "bad", TOKENIZER)
    with pytest.raises(TokenizerError, match="encode the text again"):
        TokenCorpus.load(folder, Tokenizer.train(TEXTS, vocabulary=260))
