import numpy as np
import pytest

from cupola.core.errors import ConfigError, TokenizerError
from cupola.data.tokenizer import Tokenizer
from cupola.models.speech.whisper_tokens import Task, Times, WhisperTokens


def test_a_prompt_names_language_task_and_times(whisper_tokens):
    named = whisper_tokens.tokenizer.special_names
    english = [named["<|startoftranscript|>"], named["<|en|>"], named["<|transcribe|>"]]
    assert whisper_tokens.prompt(language="en") == english
    german = whisper_tokens.prompt(language="de", task=Task.TRANSLATE, times=Times.NONE)
    assert german == [english[0], named["<|de|>"], named["<|translate|>"], named["<|notimestamps|>"]]
    assert whisper_tokens.prompt(language=None) == english[:1]
    before = whisper_tokens.prompt(language="en", before=range(9), most=3)
    assert before == [named["<|startofprev|>"], 6, 7, 8, *english]


def test_what_is_not_said_is_suppressed(whisper_tokens):
    codes, tokenizer = whisper_tokens.codes, whisper_tokens.tokenizer
    hidden = whisper_tokens.suppressed(codes.times + 21, also=[5])
    names = tokenizer.special_names
    assert hidden[[names["<|en|>"], names["<|translate|>"], codes.no_speech, 5]].all()
    assert hidden[int(tokenizer.encode("(")[0])]
    # The controls: words, times and the end are not.
    assert not hidden[codes.times :].any()
    assert not hidden[[codes.end, *tokenizer.encode("the bell")]].any()
    assert not hidden[int(tokenizer.encode("a")[0])]
    assert whisper_tokens.blank == [int(tokenizer.encode(" ")[0]), codes.end]
    assert np.flatnonzero(hidden).max() < codes.times


def test_times_are_no_words(whisper_tokens):
    words = whisper_tokens.tokenizer.encode("a bell").tolist()
    codes = whisper_tokens.codes
    assert whisper_tokens.text([codes.times, *words, codes.times + 4, codes.end]) == "a bell"


def test_other_tokenizers_and_languages_are_refused(whisper_tokens):
    with pytest.raises(TokenizerError, match=r"has no token <\|startoftranscript\|>"):
        WhisperTokens(Tokenizer.train(["a bell " * 9], 260))
    assert whisper_tokens.is_multilingual
    with pytest.raises(ConfigError, match=r"(?s)'eng' is no language.*en"):
        whisper_tokens.check_language("eng")
