"""A missing extra: answered with what to type."""

import sys

import pytest

from cupola.core.errors import Unsupported
from cupola.core.extra import bring


def test_what_is_there_is_brought():
    assert bring("json", "speech").loads("1") == 1


def test_what_is_missing_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(Unsupported) as caught:
        bring("soundfile", "speech")
    assert caught.value.remedy == f"Type: {sys.executable} -m pip install 'cupola[speech]'"
