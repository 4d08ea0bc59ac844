import os
import subprocess
import sys
from pathlib import Path

import pytest

from cupola.kernels.native.library import find

REPOSITORY = Path(__file__).parents[3]
BITS = REPOSITORY / "tests" / "kernels" / "bits.py"


def bits(cores, programs):
    done = subprocess.run(
        [sys.executable, BITS, str(cores)],
        capture_output=True,
        text=True,
        env=os.environ
        | {
            "PYTHONPATH": str(REPOSITORY),
            # What is compiled is the same: the second takes it from the first.
            "JAX_COMPILATION_CACHE_DIR": str(programs),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_the_number_of_threads_changes_no_bit(tmp_path):
    if not find().libraries:
        pytest.skip(f"no native library: {find().reason}")
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    one, two = bits(1, tmp_path), bits(2, tmp_path)
    assert len(one) >= len(find().libraries)
    assert one == two
    assert len({line.split()[-1] for line in one}) > 1  # else the digits would be of nothing
