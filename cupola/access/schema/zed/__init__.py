"""SpiceDB's schema language, `.zed`: `read_zed` and `write_zed`.

Not here: whether names and types hold together (`check.py`), what a caveat's CEL means (`caveat/`).
"""

from cupola.access.schema.zed.compose import read_zed as read_zed
from cupola.access.schema.zed.printer import write_zed as write_zed
