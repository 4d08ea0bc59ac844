import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from greedy import answers

from cupola.interop.huggingface import export

LOOK = "import jax; jax.devices()"


@pytest.mark.parametrize("platform", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_device_says_greedily_what_this_cpu_does(platform, language, tmp_path):
    # This process has decided for its CPU; another device needs a process of its own.
    elsewhere = os.environ | {"JAX_PLATFORMS": platform, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if subprocess.run([sys.executable, "-c", LOOK], env=elsewhere, capture_output=True, check=False).returncode:
        pytest.skip(f"JAX sees no device of {platform} here")
    export(language.model, language.params, tmp_path / "model", tokenizer=language.tokenizer)
    command = [sys.executable, str(Path(__file__).with_name("greedy.py")), str(tmp_path / "model")]
    done = subprocess.run(command, env=elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == answers(*language)
