"""What the tests of the engine share: a plain store, the naive evaluator, random graphs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the tests of this folder import the modules beside them
