import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parent))  # the tests of this folder import cases.py and judge.py beside them

# The matrix compiles hundreds of small programs: all are kept, so that a second run takes seconds.
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
