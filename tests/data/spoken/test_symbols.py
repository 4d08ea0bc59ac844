"""Symbols: what is encoded is read back, what is unknown is named, phonemes where a dictionary has them."""

import shutil

import pytest

from cupola.config.text import parse, show
from cupola.core.errors import ConfigError, TextError, Unsupported
from cupola.data.spoken.symbols import END, IPA, PAD, Arpabet, Characters

TEXT = 'The furnace is ready, sir! "Hello"; it\'s well-known.'


def test_characters_are_read_back_in_lower_case():
    ids = Characters().encode(TEXT)
    assert ids[-1] == END
    assert ids.min() > PAD
    assert ids.max() < Characters().vocabulary
    assert Characters().decode([*ids, PAD, PAD]) == TEXT.lower()


@pytest.mark.parametrize("kind", [Characters, Arpabet, IPA])
def test_an_alphabet_names_each_symbol_once(kind):
    symbols = list(kind().alphabet)
    assert len(set(symbols)) == len(symbols) == kind().vocabulary - 2
    assert parse(show(kind())) == kind()


def test_every_unknown_character_is_named():
    with pytest.raises(TextError) as caught:
        Characters().encode("fire 火 and ☃ and ☃ 7")
    assert "CJK UNIFIED IDEOGRAPH-706B" in caught.value.problem
    assert caught.value.problem.count("SNOWMAN") == 1
    assert "DIGIT SEVEN" in caught.value.problem


@pytest.mark.parametrize("text", ["", " ", "...", "-!"])
def test_nothing_to_say_is_refused(text):
    with pytest.raises(TextError, match="nothing to say"):
        Characters().encode(text)


def test_another_alphabet():
    assert Characters(letters="абв ").encode("Баба").tolist() == [3, 2, 3, 2, END]
    with pytest.raises(ConfigError, match="repeats"):
        Characters(letters="aa")


def test_words_of_the_dictionary_become_phonemes():
    assert (
        Arpabet().decode(Arpabet().encode("Hello, it's 'iron'!")) == "{HH}{AH0}{L}{OW1}, {IH1}{T}{S} '{AY1}{ER0}{N}'!"
    )


def test_any_word_of_letters_has_phonemes():
    said = Arpabet().decode(Arpabet().encode("cqzt blorping"))
    assert not set("abcdefghijklmnopqrstuvwxyz") & set(said)
    assert said.count(" ") == 1


def test_ipa_keeps_the_punctuation():
    if shutil.which("espeak-ng") is None:
        pytest.skip("needs Debian's package espeak-ng")
    said = IPA().decode(IPA().encode('The furnace is ready, sir! "Hello".'))
    assert said == 'ðə fˈɜːnɪs ɪz ɹˈɛdi, sˈɜː! "həlˈoʊ".'  # noqa: RUF001


def test_ipa_without_its_program_says_what_to_type(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(Unsupported, match="apt-get install espeak-ng"):
        IPA().encode("hello")
