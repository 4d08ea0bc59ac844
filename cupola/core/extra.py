"""Packages that only an extra brings: asked for where they are used, so that the rest works without them.

Not here: whole commands that need an extra (`command/extra.py`).
"""

import importlib
import sys
from types import ModuleType

from cupola.core.errors import Unsupported


def bring(package: str, extra: str) -> ModuleType:
    """Returns a package that an extra of ours installs.

    Raises:
        Unsupported: it is not installed; the message is what to type.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        # Also where it is there, and a library that it needs is not.
        raise Unsupported(
            f"the package {package} cannot be imported ({error})",
            where=extra,
            remedy=f"Type: {sys.executable} -m pip install 'cupola[{extra}]'",
        ) from error
