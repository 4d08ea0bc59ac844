"""Which ids OpenFGA's language lets objects have.

Not here: ids of `.zed` schemas, and of types and relations (`validate.py`).
"""

import re

_OBJECT_ID = re.compile(r"[A-Za-z0-9_|@.+/-][A-Za-z0-9_|*@.+/-]*")


def is_object_id(text: str) -> bool:
    """Returns whether a text can be the id of an object.

    Letters, digits and `_ | * @ . + / -` can; a `*` in the first place cannot, it is the wildcard's.
    """
    return _OBJECT_ID.fullmatch(text) is not None
