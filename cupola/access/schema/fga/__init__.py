"""OpenFGA's languages: the DSL 1.1 and 1.2, its JSON form and models in modules, read into schemas and written back.

Not here: evaluation of conditions (`caveat/`), which relationships a schema allows (`schema/relate.py`).
"""

from cupola.access.schema.fga.ids import is_object_id as is_object_id
from cupola.access.schema.fga.json import read_fga_json as read_fga_json
from cupola.access.schema.fga.json import to_json as to_json
from cupola.access.schema.fga.modules import read_modules as read_modules
from cupola.access.schema.fga.parser import read_fga as read_fga
from cupola.access.schema.fga.printer import write_fga as write_fga
from cupola.access.schema.fga.validate import validate as validate
