import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("CUPOLA_SHARED", Path(__file__).parents[3] / "shared"))


def pytest_generate_tests(metafunc):
    """A test that takes a scenario runs once for each file of its folder; without the data it says so."""
    for name, (folder, pattern) in FOLDERS.items():
        if name in metafunc.fixturenames:
            found = sorted((SHARED / "authz_conformance" / folder).glob(pattern))
            missing = pytest.mark.skip(reason=f"there is no {folder} in {SHARED}; set CUPOLA_SHARED")
            metafunc.parametrize(
                name, found or [pytest.param(None, marks=missing)], ids=lambda path: path and path.stem
            )


FOLDERS = {
    "validation_file": ("spicedb/testconfigs", "*.yaml"),
    "sample_store": ("openfga_sample_stores", "*store.fga.yaml"),
}
