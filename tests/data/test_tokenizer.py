"""Text goes through a tokenizer and back unchanged; what cannot be read is refused."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers

from cupola.core.errors import TokenizerError
from cupola.data.tokenizer import END, Tokenizer

TEXTS = [f"def area_{i}(width, height):\n    return width * height  # größer, 高さ, 🦊\n" for i in range(40)]
TOKENIZER = Tokenizer.train(TEXTS, vocabulary=300)


@pytest.fixture
def saved(tmp_path):
    TOKENIZER.save(tmp_path / "tokenizer.json")
    return tmp_path / "tokenizer.json"


def with_bytes_as_tokens() -> Tokenizer:
    """A small tokenizer in the manner of SentencePiece: spaces as marks, bytes where no piece fits."""
    pieces = ["<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "▁hello", "▁world", "h", "i"]
    inner = tokenizers.Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=[], byte_fallback=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.add_special_tokens(["<s>", "</s>"])
    return Tokenizer(inner)


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_round_trips(text):
    ids = TOKENIZER.encode(text)
    assert ids.dtype == np.int32
    assert TOKENIZER.decode(ids) == text
    assert TOKENIZER.end not in ids


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0",
        "".join(map(chr, range(0x300))),
        "e\u0301",
        "\ufb01 \u1e9b\u0323",
        "🏳️‍🌈",
        "\U0010ffff",
        "\r\n\t  \v",
        END,
    ],
)
def test_odd_texts_round_trip(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_training_merges_and_keeps_all_bytes_and_the_end():
    assert TOKENIZER.vocabulary == 300
    assert len(TOKENIZER.encode(TEXTS[0])) < len(TEXTS[0].encode()) / 2
    assert TOKENIZER.decode([TOKENIZER.end]) == ""


def test_training_is_deterministic_across_processes_and_threads():
    code = f"from cupola.data.tokenizer import Tokenizer\nprint(Tokenizer.train({TEXTS!r}, vocabulary=300).fingerprint)"
    env = {"RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "7", "PYTHONIOENCODING": "utf-8"}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == TOKENIZER.fingerprint
    assert Tokenizer.train(TEXTS[1:], vocabulary=299).fingerprint != TOKENIZER.fingerprint


def test_few_texts_give_a_smaller_vocabulary_aloud(caplog):
    assert Tokenizer.train(["abc abc"], vocabulary=1000).vocabulary < 270
    assert "not 1000" in caplog.text


def test_a_vocabulary_below_the_bytes_is_refused():
    with pytest.raises(TokenizerError, match="257 or more"):
        Tokenizer.train(TEXTS, vocabulary=256)
    assert Tokenizer.train(TEXTS, vocabulary=257).vocabulary == 257


def test_encode_all_equals_encode(monkeypatch):
    monkeypatch.setattr("cupola.data.tokenizer._BATCH_CHARACTERS", 500)
    texts = [*TEXTS, "", END]
    for ids, text in zip(TOKENIZER.encode_all(iter(texts)), texts, strict=True):
        np.testing.assert_array_equal(ids, TOKENIZER.encode(text))
    assert list(TOKENIZER.encode_all([])) == []


def test_half_a_surrogate_pair_is_refused_everywhere():
    for act in (TOKENIZER.encode, lambda t: list(TOKENIZER.encode_all([t])), lambda t: Tokenizer.train([t])):
        with pytest.raises(TokenizerError, match="character 1 of a text is half of a surrogate pair"):
            act("a\ud800")


def test_saved_and_loaded_is_the_same(saved):
    loaded = Tokenizer.load(saved)
    assert loaded.fingerprint == TOKENIZER.fingerprint
    assert (loaded.end, loaded.vocabulary) == (TOKENIZER.end, TOKENIZER.vocabulary)
    np.testing.assert_array_equal(loaded.encode(TEXTS[0]), TOKENIZER.encode(TEXTS[0]))
    assert [path.name for path in saved.parent.iterdir()] == ["tokenizer.json"]


def test_a_file_that_cuts_pads_or_adds_tokens_does_not(tmp_path):
    inner = tokenizers.Tokenizer.from_str(TOKENIZER._inner.to_str())
    inner.enable_truncation(4)
    inner.enable_padding(length=64)
    inner.post_processor = tokenizers.processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 0)])
    inner.save(str(tmp_path / "tokenizer.json"))
    np.testing.assert_array_equal(
        Tokenizer.load(tmp_path / "tokenizer.json").encode(TEXTS[0]), TOKENIZER.encode(TEXTS[0])
    )


def test_a_save_that_fails_leaves_what_was_there(saved, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = saved.read_text()
    monkeypatch.setattr("cupola.data.files.os.fsync", full)
    with pytest.raises(TokenizerError, match="No space left"):
        Tokenizer.train(TEXTS, vocabulary=260).save(saved)
    assert saved.read_text() == before
    assert [path.name for path in saved.parent.iterdir()] == ["tokenizer.json"]


@pytest.mark.parametrize("data", [b"", b'{"version": "1.0"', b"[]", b"\xff\xfe", json.dumps({"model": {}}).encode()])
def test_corrupt_files_are_refused(tmp_path, data):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(data)
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.load(path)
    assert caught.value.where == str(path)


def test_truncated_and_missing_files_are_refused(saved, tmp_path):
    saved.write_bytes(saved.read_bytes()[:-9])
    with pytest.raises(TokenizerError, match="truncated"):
        Tokenizer.load(saved)
    with pytest.raises(TokenizerError, match="No such file"):
        Tokenizer.load(tmp_path / "none.json")
    with pytest.raises(TokenizerError, match=r"Name a tokenizer\.json"):
        Tokenizer.load(tmp_path)


def test_the_end_is_found_by_name_or_taken_as_told(tmp_path):
    inner = tokenizers.Tokenizer.from_str(TOKENIZER._inner.to_str().replace(END, "<stop>"))
    inner.save(str(tmp_path / "t.json"))
    with pytest.raises(TokenizerError, match="Special tokens here: <stop>"):
        Tokenizer.load(tmp_path / "t.json")
    with pytest.raises(TokenizerError, match="Did you mean '<stop>'"):
        Tokenizer.load(tmp_path / "t.json", end="<stopp>")
    assert Tokenizer.load(tmp_path / "t.json", end="<stop>").end == 0
    inner.add_special_tokens(["<|im_end|>", "<|endoftext|>"])
    assert Tokenizer(inner).end == inner.token_to_id("<|endoftext|>")


@given(st.lists(st.integers(0, 299)))
@settings(max_examples=300, deadline=None)
def test_stream_of_any_tokens_is_their_text(ids):
    stream = TOKENIZER.stream()
    parts = [stream.feed(i) for i in ids]
    assert "".join(parts) + stream.flush() == TOKENIZER._inner.decode(ids) == TOKENIZER.decode(ids)


def test_stream_never_gives_half_a_character():
    byte = {TOKENIZER._bytes[i]: i for i in range(300)}
    tokens = [byte[bytes([b])] for b in "🦊".encode()]
    stream = TOKENIZER.stream()
    assert [stream.feed(t) for t in tokens] == ["", "", "", "🦊"]
    assert [stream.feed(t) for t in (tokens[0], byte[b"a"])] == ["", "\ufffda"]
    assert stream.feed(tokens[0]) == ""
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""


def test_stream_of_a_tokenizer_that_is_not_byte_level():
    tokenizer = with_bytes_as_tokens()
    text = "hello world 🦊 hi"
    ids = tokenizer.encode(text)
    assert len(ids) > 8
    stream = tokenizer.stream()
    parts = [stream.feed(i) for i in ids.tolist()]
    assert "".join(parts) == text == tokenizer.decode(ids)
    assert not any("\ufffd" in part for part in parts)
    fox = [tokenizer._inner.token_to_id(f"<0x{b:02X}>") for b in "🦊".encode()]
    assert stream.feed(fox[0]) == ""
    assert stream.flush() == "\ufffd"
    draw = random.Random(0)
    for _ in range(200):
        anything = [draw.randrange(tokenizer.vocabulary) for _ in range(6)]
        assert isinstance(tokenizer.decode(anything), str)


@pytest.mark.parametrize("token", [-1, 300])
def test_ids_outside_the_vocabulary_are_refused(token):
    with pytest.raises(TokenizerError, match="outside the vocabulary of 300"):
        TOKENIZER.decode([0, token])


def test_added_tokens_with_characters_of_their_own():
    inner = tokenizers.Tokenizer.from_str(TOKENIZER._inner.to_str())
    inner.add_tokens(["a b", "ключ"])
    tokenizer = Tokenizer(inner)
    assert tokenizer.decode([300, 301]) == inner.decode([300, 301]) == "a bключ"


def test_another_vocabulary_is_refused_with_both_sizes():
    for check in (TOKENIZER.check_vocabulary, TOKENIZER.check_exact_vocabulary):
        check(300)
        with pytest.raises(TokenizerError, match=r"300 tokens, but the model has 299[\s\S]*vocabulary=300"):
            check(299)
    TOKENIZER.check_vocabulary(8192)
    with pytest.raises(TokenizerError, match=r"300 tokens, but the model has 8192[\s\S]*vocabulary=300"):
        TOKENIZER.check_exact_vocabulary(8192)


@pytest.mark.parametrize("make", [lambda: TOKENIZER, with_bytes_as_tokens], ids=["byte-level", "sentencepiece"])
def test_bytes_of_tokens_make_up_the_text(make):
    tokenizer = make()
    text = "hello world 🦊 hi\n"
    joined = b"".join(tokenizer.token_bytes(i) for i in tokenizer.encode(text).tolist())
    # The space that is put before a text, and taken away again, is there.
    assert joined.decode().removeprefix(" ") == text
    assert all(tokenizer.token_bytes(i) == b"" for i in tokenizer.special)
    assert {tokenizer.token_bytes(i) for i in range(tokenizer.vocabulary)} >= {bytes([b]) for b in range(256)}
    assert [tokenizer.token(i) for i in tokenizer.special_names.values()] == list(tokenizer.special_names)
    with pytest.raises(TokenizerError, match="outside the vocabulary"):
        tokenizer.token_bytes(tokenizer.vocabulary)


def test_an_added_token_is_its_own_bytes():
    inner = tokenizers.Tokenizer.from_str(with_bytes_as_tokens()._inner.to_str())
    inner.add_tokens(["▁raw", "  "])
    tokenizer = Tokenizer(inner)
    assert [tokenizer.token_bytes(tokenizer.vocabulary - n) for n in (2, 1)] == ["▁raw".encode(), b"  "]


def test_special_tokens_only_where_they_are_asked_for():
    text = f"a{END}b"
    assert TOKENIZER.end not in TOKENIZER.encode(text)
    a, b = TOKENIZER.encode("a").tolist(), TOKENIZER.encode("b").tolist()
    assert TOKENIZER.encode_special(text).tolist() == [*a, TOKENIZER.end, *b]
    assert TOKENIZER.encode_parts(["a", TOKENIZER.end, "b"]).tolist() == [*a, TOKENIZER.end, *b]
    assert TOKENIZER.encode_parts([END]).tolist() == TOKENIZER.encode(END).tolist()
    assert TOKENIZER.encode_special("").tolist() == TOKENIZER.encode_parts([]).tolist() == []
    with pytest.raises(TokenizerError, match="token 300 is outside"):
        TOKENIZER.encode_parts([300])
    with pytest.raises(TokenizerError, match="surrogate"):
        TOKENIZER.encode_special("\ud800")


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_parts_are_encoded_as_the_library_encodes_the_whole(scheme):
    inner = tokenizers.Tokenizer(
        models.WordLevel({"<s>": 0, "▁": 1, "a": 2, "▁a": 3, "b": 4, "▁b": 5, "?": 6}, unk_token="?")
    )
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    inner.decoder = decoders.Metaspace(prepend_scheme=scheme)
    inner.add_special_tokens(["<s>", tokenizers.AddedToken("<e>", lstrip=True, rstrip=True)])
    for text in ("a<s>b", "<s>a b<s> b", "a <e> b<s>a <e>", "a b"):
        assert (
            Tokenizer(inner, end="<s>").encode_special(text).tolist()
            == inner.encode(text, add_special_tokens=False).ids
        )


def test_the_alphabet_of_bytes_is_the_librarys():
    assert sorted(pre_tokenizers.ByteLevel.alphabet()) == sorted(c for c in TOKENIZER._inner.get_vocab() if len(c) == 1)
    assert sorted(b for b in TOKENIZER._bytes if len(b) == 1) == [bytes([b]) for b in range(256)]
