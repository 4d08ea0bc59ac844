import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the tests of this folder import cases.py and judge.py beside them
