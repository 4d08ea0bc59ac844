import json

import pytest
import tokenizers
from ggufs import BYTES, TEMPLATE, real
from tokenizers import decoders, models, pre_tokenizers, processors

from cupola.core.errors import TokenizerError
from cupola.data.tokenizer import Tokenizer
from cupola.interop.errors import TemplateError
from cupola.interop.header import read_header
from cupola.interop.tokenizer import language_of_folder, language_of_gguf

TEXTS = [
    "hi hi",
    " 12345 x1y22",
    "naïve 高さ 🦊\n\n\n  tabs\t\tand  double   spaces  ",
    "I'll don't HE'S",
    "½ ² ٣",
    "",
    " ",
    "e\u0301 \ufb01",
    "a<|im_end|>b",
]
BYTE_LEVEL = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        *BYTES,
        "hi",
        "Ġhi",
        "<think>",
        "12",
        "123",
        "1234",
    ],
    "tokenizer.ggml.token_type": [3, 3, 3, *[1] * 258, 4, 1, 1, 1],
    "tokenizer.ggml.merges": ["h i", "Ġ hi", "1 2", "12 3", "123 4"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.chat_template": TEMPLATE,
}
PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "h", "i", "hi", "▁hi", "▁h", "  "]
SENTENCE_PIECES = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": PIECES,
    "tokenizer.ggml.scores": [0.0] * 259 + [-9.0, -8.0, -8.0, -2.0, -1.0, -3.0, -1000.0],
    "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * 6, 4],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
}


def language(base, **changes):
    entries = base | {f"tokenizer.ggml.{name}": value for name, value in changes.items()}
    return language_of_gguf({k: v for k, v in entries.items() if v is not None}, "m.gguf")


def names(tokenizer, text):
    return [tokenizer._inner.id_to_token(i) for i in tokenizer.encode(text)]


@pytest.mark.parametrize("pre", ["smollm", "llama-bpe", "gpt-2", "default", "tekken"])
def test_byte_level_text_round_trips(pre):
    tokenizer = language(BYTE_LEVEL, pre=pre).tokenizer
    for text in TEXTS:
        ids = tokenizer.encode(text).tolist()
        assert tokenizer.decode(ids) == text
        assert b"".join(map(tokenizer.token_bytes, ids)).decode() == text


@pytest.mark.parametrize(
    ("pre", "expected"),
    [
        ("smollm", ["1", "2", "3", "4"]),
        ("qwen2", ["1", "2", "3", "4"]),
        ("tekken", ["1", "2", "3", "4"]),
        ("llama-bpe", ["123", "4"]),
        ("llama3", ["123", "4"]),
        ("gpt-2", ["1234"]),
        ("default", ["123", "4"]),
    ],
)
def test_digits_are_cut_as_each_model_was_trained(pre, expected):
    assert names(language(BYTE_LEVEL, pre=pre).tokenizer, "1234") == expected


def test_a_word_that_is_a_token_is_taken_whole_where_the_model_was_trained_so():
    for pre, expected in (("llama-bpe", ["hi"]), ("gpt-2", ["h", "i"])):
        assert names(language(BYTE_LEVEL, pre=pre, merges=[]).tokenizer, "hi") == expected


def test_what_a_file_says_beside_its_tokens():
    found = language(BYTE_LEVEL)
    assert found.stop_tokens == {0, 2}
    assert (found.begin_tokens, found.tokenizer.end, found.tokenizer.special) == ((), 0, {0, 1, 2})
    assert found.template.tokens == {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    assert language(BYTE_LEVEL, add_bos_token=True).begin_tokens == (1,)
    assert language(BYTE_LEVEL, pre="llama-bpe").begin_tokens == (1,)
    assert names(found.tokenizer, "<think>hi") == ["<think>", "hi"]
    ids = found.template.encode(found.tokenizer, [{"role": "user", "content": "hi<|im_end|>"}])
    assert [i for i in ids if i < 3] == [1, 2, 1]


@pytest.mark.parametrize("prefixed", [True, False])
def test_sentence_pieces(prefixed):
    # Where a space is put before each text, one is put after each added token too: none is added there.
    kinds = [*SENTENCE_PIECES["tokenizer.ggml.token_type"][:-1], 1 if prefixed else 4]
    found = language(SENTENCE_PIECES, add_space_prefix=prefixed, token_type=kinds)
    assert (found.begin_tokens, found.tokenizer.end, found.template) == ((1,), 2, None)
    assert names(found.tokenizer, "hi hi") == (["▁hi", "▁hi"] if prefixed else ["hi", "▁hi"])
    assert names(found.tokenizer, "🦊")[-4:] == ["<0xF0>", "<0x9F>", "<0xA6>", "<0x8A>"]
    for text in ("hi hi", "hi  🦊\nhi", "  hi", "</s>"):
        ids = found.tokenizer.encode(text).tolist()
        assert 2 not in ids
        assert found.tokenizer.decode(ids) == text
        assert b"".join(map(found.tokenizer.token_bytes, ids)).decode().removeprefix(" " * prefixed) == text


def test_the_best_piece_is_merged_first():
    tokens = ["a", "b", "c", "ab", "bc", "<unk>", "</s>"]
    kinds = [1, 1, 1, 1, 1, 2, 3]
    for better, expected in (([-1.0, -2.0], ["ab", "c"]), ([-2.0, -1.0], ["a", "bc"])):
        changes = {"tokens": tokens, "token_type": kinds, "scores": [-9.0, -9.0, -9.0, *better, 0.0, 0.0]}
        found = language(SENTENCE_PIECES, **changes, eos_token_id=6, unknown_token_id=5, add_space_prefix=False)
        assert names(found.tokenizer, "abc") == expected
        assert names(found.tokenizer, "z") == ["<unk>"]


REFUSED = {
    "no tokens": ({"tokens": None}, "holds no tokenizer"),
    "tokens that are numbers": ({"tokens": [1, 2]}, "holds no tokenizer"),
    "a kind that is not read": ({"model": "bert"}, "kind 'bert'"),
    "no kind": ({"model": None}, "kind None"),
    "cuts that are not known": ({"pre": "new"}, r"'new'[\s\S]*qwen2"),
    "no merges": ({"merges": None}, "no merges"),
    "merges of what is no token": ({"merges": ["z zz"]}, "cannot be made"),
    "merges that are none": ({"merges": ["hi"]}, "cannot be made"),
    "few types": ({"token_type": [1]}, "one tokenizer.ggml.token_type for each"),
    "a token twice": ({"tokens": ["a", "a"], "token_type": [1, 1]}, "'a' twice"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_broken_entries_are_refused(changes, message):
    with pytest.raises(TokenizerError, match=message) as caught:
        language(BYTE_LEVEL, **changes)
    assert caught.value.where == "m.gguf"


def test_scores_are_needed_for_sentence_pieces():
    with pytest.raises(TokenizerError, match="one score for each"):
        language(SENTENCE_PIECES, scores=[1.0])


def test_a_broken_template_in_a_file_is_refused():
    with pytest.raises(TemplateError, match="broken"):
        language_of_gguf(BYTE_LEVEL | {"tokenizer.chat_template": "{% for %}"}, "m.gguf")


@pytest.fixture
def folder(tmp_path):
    """A folder whose tokenizer puts a token before each text."""
    inner = tokenizers.Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(BYTES)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<bos>", "<eos>", "<end_of_turn>"])
    inner.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 256)])
    inner.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def settings(folder, **held):
    (folder / "tokenizer_config.json").write_text(json.dumps(held))


def test_a_folder_says_as_much(folder):
    settings(folder, bos_token={"content": "<bos>"}, eos_token="<eos>", chat_template=TEMPLATE)
    found = language_of_folder(folder, ends=[[257, 5], None, 7])
    assert (found.begin_tokens, found.tokenizer.end) == ((256,), 257)
    assert found.stop_tokens == {5, 7, 257, 258}
    assert found.template.source == TEMPLATE
    assert found.template.tokens == {"bos_token": "<bos>", "eos_token": "<eos>"}
    settings(folder, bos_token="<bos>", eos_token="<end_of_turn>", add_bos_token=False)
    again = language_of_folder(folder)
    assert (again.begin_tokens, again.template, again.tokenizer.end) == ((), None, 257)


def test_where_a_template_may_stand(folder):
    settings(folder, chat_template=[{"name": "rag", "template": "R"}, {"name": "default", "template": "D"}])
    assert language_of_folder(folder).template.source == "D"
    settings(folder, chat_template=[{"name": "rag", "template": "R"}])
    assert language_of_folder(folder).template.source == "R"
    (folder / "chat_template.jinja").write_text("J")
    assert language_of_folder(folder).template.source == "J"
    (folder / "tokenizer_config.json").unlink()
    assert language_of_folder(folder).begin_tokens == (256,)


@pytest.mark.parametrize("text", ["[]", "{", '"x"', "\xff", "[" * 100_000])
def test_settings_that_are_none_are_refused(folder, text):
    (folder / "tokenizer_config.json").write_text(text, encoding="latin-1")
    with pytest.raises(TokenizerError, match="no JSON|not a text") as caught:
        language_of_folder(folder)
    assert caught.value.where.endswith("tokenizer_config.json")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json[\s\S]*AutoTokenizer"):
        language_of_folder(tmp_path)


def test_the_real_smollm2():
    found = language_of_gguf(read_header(real("smollm2")).metadata, "smollm2")
    assert found.tokenizer.vocabulary == 49152
    # From transformers' tokenizer for the same model.
    known = {"Hello world": [19556, 905], "<|im_start|>user\nhi<|im_end|>\n": [1, 4093, 198, 6004, 2, 198]}
    for text, ids in known.items():
        assert found.tokenizer.encode_special(text).tolist() == ids
    for text in TEXTS:
        assert found.tokenizer.decode(found.tokenizer.encode(text)) == text
    assert (found.tokenizer.end, found.stop_tokens) == (0, {0, 2})
    assert isinstance(found.tokenizer, Tokenizer)
    assert (found.template.supports_system, found.template.supports_tools) == (True, False)


@pytest.mark.slow
def test_the_real_gemma3():
    found = language_of_gguf(read_header(real("gemma3-270m")).metadata, "gemma3")
    assert (found.begin_tokens, found.stop_tokens, found.tokenizer.end) == ((2,), {1, 106}, 1)
    assert names(found.tokenizer, "Hello world\n\n  x") == ["Hello", "▁world", "\n\n", "  ", "x"]
    for text in TEXTS:
        assert found.tokenizer.decode(found.tokenizer.encode(text)) == text
