"""Tokenizers and chat templates of others: from a Hugging Face folder, or from a GGUF file's metadata.

Not here: the tokenizer itself (`data/tokenizer.py`), how a template is run (`template.py`).
Invariant: a text has the tokens that the model was trained with, or the file is refused.
Source: pre-tokenizers by the names that llama.cpp gives them (`llama-vocab.cpp`).
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from cupola.core.errors import TokenizerError
from cupola.data.tokenizer import Tokenizer
from cupola.interop.template import ChatTemplate

_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>")
_ENDS = (*_TURN_ENDS, "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
"""Special tokens after which no answer goes on, whatever a file says."""
_TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")
_NORMAL, _CONTROL, _USER_DEFINED, _BYTE = 1, 3, 4, 6
"""Kinds of tokens in GGUF files."""
_SETTINGS_BYTES = 64_000_000

_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_NEWER = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
_NEWER += r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS: dict[str, tuple[str, ...]] = {
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _WORDS, r"\p{N}+", "[0-9][0-9][0-9]"),
    "gpt-2": (_WORDS,),
    "llama-bpe": (_NEWER.format("{1,3}"),),
    "qwen2": (_NEWER.format(""),),
    "smollm": (r"\p{N}", _WORDS),
    "tekken": (_CASED,),
}
"""How a text is cut before pieces are merged, each pattern within the pieces of the one before."""
_ALIASES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "starcoder": "smollm", "deepseek-r1-qwen": "qwen2"}
_WHOLE_WORDS = {"llama-bpe", "tekken"}
"""Where a piece that is a token is taken as it is, without merging."""


@dataclasses.dataclass(frozen=True)
class Language:
    """How a model reads and writes text.

    Args:
        tokenizer: text to tokens and back.
        template: messages to a prompt; None: the model does not chat.
        begin_tokens: stand before a prompt that no template writes.
        stop_tokens: end an answer.
    """

    tokenizer: Tokenizer
    template: ChatTemplate | None
    begin_tokens: tuple[int, ...]
    stop_tokens: frozenset[int]


def language_of_folder(folder: Path, *, ends: Iterable[Any] = ()) -> Language:
    """Returns what `tokenizer.json` and the files beside it say.

    Args:
        folder: of a model.
        ends: token ids, or lists of them, that end an answer by what the model's other files say.

    Raises:
        TokenizerError: a file is missing, or is not what its name says.
        TemplateError: the chat template is broken.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise TokenizerError(
            "there is no tokenizer.json",
            where=str(folder),
            remedy="Save the model with its fast tokenizer: AutoTokenizer.from_pretrained(...).save_pretrained(folder).",
        )
    settings = _read_settings(folder / "tokenizer_config.json")
    tokens = {n: text for n in _TOKEN_NAMES if (text := _name_of(settings.get(n))) is not None}
    eos = tokens.get("eos_token")
    tokenizer = Tokenizer.load(file, end=None if eos in _TURN_ENDS else eos)
    begin = _begin_tokens(tokenizer, file, settings.get("add_bos_token"), tokens.get("bos_token"))
    stops = _stops(tokenizer, [*_flat(ends), tokenizer.special_names.get(tokens.get("eos_token", ""))])
    source = _template_source(folder, settings)
    template = None if source is None else ChatTemplate(source, tokens=tokens)
    return Language(tokenizer=tokenizer, template=template, begin_tokens=begin, stop_tokens=stops)


def language_of_gguf(metadata: Mapping[str, Any], where: str) -> Language:
    """Returns what a GGUF file says in its `tokenizer.` entries.

    Args:
        metadata: of the file.
        where: the file, for errors.

    Raises:
        TokenizerError: entries are missing, contradict each other, or are of a kind that is not read.
        TemplateError: the chat template is broken.
    """
    said = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
    pieces, kinds = _pieces(said, where)
    model = said.get("model")
    if model not in ("gpt2", "llama"):
        _refuse(
            where,
            f"has a tokenizer of the kind {model!r}",
            "Use a model whose tokenizer is byte-level BPE or SentencePiece's BPE.",
        )
    try:
        inner = _byte_level(said, pieces, where) if model == "gpt2" else _sentence_pieces(said, pieces, kinds, where)
    # The library raises plain Exception for whatever it cannot take.
    except (TokenizerError, MemoryError):
        raise
    except Exception as error:
        _refuse(where, f"has a tokenizer that cannot be made ({error})", "Convert the model again.")
    inner.add_special_tokens(
        [AddedToken(p, special=True, normalized=False) for p, k in zip(pieces, kinds, strict=True) if k == _CONTROL]
    )
    inner.add_tokens(
        [AddedToken(p, normalized=False) for p, k in zip(pieces, kinds, strict=True) if k == _USER_DEFINED]
    )
    ids = {name: said.get(f"{name}_token_id") for name in ("bos", "eos", "eot", "eom", "unknown", "padding")}
    named = {name: pieces[i] for name, i in ids.items() if isinstance(i, int) and 0 <= i < len(pieces)}
    # A chat model's file names the end of a turn, where the end of a document is another token.
    tokenizer = Tokenizer(inner, end=None if named.get("eos") in _TURN_ENDS else named.get("eos"), where=where)
    begins = said.get("add_bos_token", model == "llama" or said.get("pre") in ("llama-bpe", "llama3", "llama-v3"))
    begin = (pieces.index(named["bos"]),) if begins and "bos" in named else ()
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    tokens = {theirs: named[ours] for theirs, ours in names.items() if ours in named}
    source = metadata.get("tokenizer.chat_template")
    template = ChatTemplate(source, tokens=tokens) if isinstance(source, str) else None
    stops = _stops(tokenizer, [ids["eos"], ids["eot"], ids["eom"]])
    return Language(tokenizer=tokenizer, template=template, begin_tokens=begin, stop_tokens=stops)


def _pieces(said: Mapping[str, Any], where: str) -> tuple[list[str], list[int]]:
    pieces, kinds = said.get("tokens"), said.get("token_type")
    if not isinstance(pieces, list) or not pieces or not isinstance(pieces[0], str):
        _refuse(where, "holds no tokenizer (tokenizer.ggml.tokens)", "Convert the model again, with its tokenizer.")
    kinds = [_NORMAL] * len(pieces) if kinds is None else kinds
    if not isinstance(kinds, list) or len(kinds) != len(pieces):
        _refuse(where, "does not have one tokenizer.ggml.token_type for each token", "Convert the model again.")
    if len(set(pieces)) != len(pieces):
        twice = next(p for p in pieces if pieces.count(p) > 1)
        _refuse(where, f"has the token {twice!r} twice", "Convert the model again.")
    return pieces, kinds


def _byte_level(said: Mapping[str, Any], pieces: list[str], where: str) -> tokenizers.Tokenizer:
    asked = said.get("pre", "default")
    pre = _ALIASES.get(asked, asked)
    if pre not in _SPLITS:
        known = ", ".join(sorted({*_SPLITS, *_ALIASES}))
        _refuse(where, f"cuts its texts in the way {asked!r} (tokenizer.ggml.pre)", f"These are read: {known}.")
    merges = said.get("merges")
    if not isinstance(merges, list):
        _refuse(where, "has no merges for its tokens (tokenizer.ggml.merges)", "Convert the model again.")
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    inner = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=pre in _WHOLE_WORDS))
    if pre == "qwen2":
        inner.normalizer = normalizers.NFC()
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in _SPLITS[pre]]
    inner.pre_tokenizer = pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(False, use_regex=False)])
    inner.decoder = decoders.ByteLevel()
    return inner


def _sentence_pieces(said: Mapping[str, Any], pieces: list[str], kinds: list[int], where: str) -> tokenizers.Tokenizer:
    scores = said.get("scores")
    if not isinstance(scores, list) or len(scores) != len(pieces):
        _refuse(where, "does not have one score for each token (tokenizer.ggml.scores)", "Convert the model again.")
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    normal = {p: s for p, s, kind in zip(pieces, scores, kinds, strict=True) if kind == _NORMAL}
    unknown = said.get("unknown_token_id", 0)
    model = models.BPE(
        vocab=vocabulary,
        merges=_merges(normal, vocabulary),
        unk_token=pieces[unknown] if isinstance(unknown, int) and unknown < len(pieces) else None,
        fuse_unk=True,
        byte_fallback=_BYTE in kinds,
    )
    inner = tokenizers.Tokenizer(model)
    prefixed = said.get("add_space_prefix", True)
    space = "\N{LOWER ONE EIGHTH BLOCK}"
    steps = [normalizers.Prepend(space)] if prefixed else []
    inner.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", space)])
    back = [decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse()]
    inner.decoder = decoders.Sequence([*back, *([decoders.Strip(" ", 1, 0)] if prefixed else [])])
    return inner


def _merges(scores: Mapping[str, float], ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """The pairs that make each piece, the best piece first: SentencePiece merges what has the best score."""
    found = []
    for piece, score in scores.items():
        cuts = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
        known = [(ids[left], ids[right], left, right) for left, right in cuts if left in scores and right in scores]
        found += [(-score, *pair) for pair in sorted(known)]
    found.sort(key=lambda pair: pair[0])
    return [(left, right) for *_, left, right in found]


def _begin_tokens(tokenizer: Tokenizer, file: Path, asked: Any, name: str | None) -> tuple[int, ...]:
    """What the library would put before a text, unless the folder says otherwise."""
    if asked is False:
        return ()
    if asked is True and name in tokenizer.special_names:
        return (tokenizer.special_names[name],)
    inner = tokenizers.Tokenizer.from_file(str(file))
    with_special, without = inner.encode("a").ids, inner.encode("a", add_special_tokens=False).ids
    return tuple(with_special[: with_special.index(without[0])]) if without and without[0] in with_special else ()


def _stops(tokenizer: Tokenizer, said: Iterable[Any]) -> frozenset[int]:
    named = [i for name in _ENDS if (i := tokenizer.special_names.get(name)) is not None]
    known = [i for i in said if isinstance(i, int) and 0 <= i < tokenizer.vocabulary]
    return frozenset([*named, *known, tokenizer.end])


def _template_source(folder: Path, settings: Mapping[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return _read_text(file)
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default", next(iter(named.values()), None))
    return template if isinstance(template, str) else None


def _read_settings(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        settings = json.loads(_read_text(file))
    except (ValueError, RecursionError) as error:
        if isinstance(error, TokenizerError):
            raise
        raise TokenizerError(f"is no JSON ({error})", where=str(file), remedy="Download it again.") from None
    if not isinstance(settings, dict):
        raise TokenizerError("is no JSON object", where=str(file), remedy="Download it again.")
    return settings


def _read_text(file: Path) -> str:
    try:
        if file.stat().st_size > _SETTINGS_BYTES:
            raise TokenizerError(
                f"has {file.stat().st_size} bytes, which no such file has", where=str(file), remedy="Download it again."
            )
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise TokenizerError(
            f"cannot be read ({error.strerror})", where=str(file), remedy="Download it again."
        ) from None
    except UnicodeDecodeError:
        raise TokenizerError("is not a text file", where=str(file), remedy="Download it again.") from None


def _name_of(token: Any) -> str | None:
    name = token.get("content") if isinstance(token, dict) else token
    return name if isinstance(name, str) else None


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from value
        else:
            yield value


def _refuse(where: str, problem: str, remedy: str) -> NoReturn:
    raise TokenizerError(problem, where=where, remedy=remedy)
