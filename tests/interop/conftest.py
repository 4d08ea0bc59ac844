import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the tests of this folder import plain_llama.py and tiny.py beside them
