"""OpenFGA's own conformance cases."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Cases = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def cases(shared: Path) -> Cases:
    folder = shared / "authz_conformance" / "openfga_language"
    return lambda name: yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def models(shared: Path) -> list[str]:
    """Every model of the sample stores."""

    def found(part: Any) -> list[str]:
        if isinstance(part, dict):
            own = [part["model"]] if isinstance(part.get("model"), str) else []
            return own + [text for key, value in part.items() if key != "model" for text in found(value)]
        return [text for value in part for text in found(value)] if isinstance(part, list) else []

    files = sorted((shared / "authz_conformance" / "openfga_sample_stores").rglob("*.yaml"))
    return [text for file in files for text in found(yaml.safe_load(file.read_text(encoding="utf-8")))]
