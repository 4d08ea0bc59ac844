"""Runs a few lines of torch in the Python that has it, in float32 and in float64."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

PYTHON = Path(__file__).parents[2] / ".venv-interop/bin/python"
MAIN = """
import sys
import numpy as np
import torch
from torch import nn

def run(given):
{body}

given = dict(np.load(sys.argv[1]))
for dtype in ("float32", "float64"):
    torch.set_default_dtype(getattr(torch, dtype))
    as_tensor = lambda x: torch.from_numpy(x).to(getattr(torch, dtype)) if x.dtype.kind == "f" else torch.from_numpy(x)
    made = run({{name: as_tensor(x) for name, x in given.items()}})
    np.savez(sys.argv[2] + dtype, **{{name: x.detach().numpy() for name, x in made.items()}})
"""


def torch_answers(folder, body, **given):
    """Returns {name: (in float32, in float64)} of the dict that `body`, with torch, nn and `given`, returns."""
    if not PYTHON.exists():
        pytest.skip("needs a virtual environment .venv-interop with torch")
    lines = "\n".join(f"    {line}" for line in body.strip("\n").splitlines())
    np.savez(folder / "given.npz", **{name: np.asarray(x) for name, x in given.items()})
    command = [PYTHON, "-c", MAIN.format(body=lines), folder / "given.npz", folder / "made_"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    low, high = (np.load(folder / f"made_{dtype}.npz") for dtype in ("float32", "float64"))
    return {name: (low[name], high[name]) for name in high}


def as_near(ours, theirs):
    """Whether ours is as near to torch in float64 as twice torch in float32 is, and four roundings."""
    near, exact = theirs
    allowed = 2 * np.abs(near - exact).max() + 4 * np.finfo(np.float32).eps * np.abs(exact).max()
    return np.abs(np.asarray(ours) - exact).max() <= allowed
