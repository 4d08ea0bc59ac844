import sys
from pathlib import Path

import jax
import pytest

from cupola.kernels.native.level import Level
from cupola.kernels.native.library import find

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the tests of this folder import cases.py and judge.py beside them

# The matrix compiles hundreds of small programs: all are kept, so that a second run takes seconds.
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What is given each level of instructions is quick at the highest alone; the lower ones are for the sanitizers too."""
    lower = {name for level in list(find().libraries)[:-1] for name in (level, level.value, f"cpu/{level.value}")}
    for item in items:
        given = getattr(item, "callspec", None)
        if not given or not item.path.is_relative_to(HERE) or item.get_closest_marker("slow"):
            continue
        if lower & {x for x in given.params.values() if _is_name(x)}:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.lower_level)


def _is_name(given):
    return isinstance(given, str | Level)
