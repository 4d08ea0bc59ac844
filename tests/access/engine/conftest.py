"""What the tests of the engine share: a plain store, the naive evaluator, random graphs."""

import sys
from pathlib import Path

import pytest
from jaxtyping import config

sys.path.insert(0, str(Path(__file__).parent))  # the tests of this folder import the modules beside them


@pytest.fixture
def unchecked():
    """Types are not checked at each call, which takes many times as long as the engine does."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
