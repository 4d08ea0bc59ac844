import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # others that test hearing import small_whisper.py too

import small_whisper


@pytest.fixture(scope="session")
def whisper_tokens(tmp_path_factory):
    return small_whisper.make_tokens(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="session")
def recognizer(whisper_tokens):
    return small_whisper.make_recognizer(whisper_tokens)


@pytest.fixture(scope="session")
def clips():
    return small_whisper.make_clips()
