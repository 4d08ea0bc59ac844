"""The peers of bench/access.py: SpiceDB and pemba, each embedded in this process.

Run by the Python of .venv-access with the side, how many questions a turn asks, and SpiceDB's library or the folder
for pemba's files. SpiceDB's requests are built before the clock starts; its lookups are streams, which its library
has on a socket alone. Not here: the graphs (`bench/access_shapes.py`), what is compared (`bench/access.py`).
"""

import importlib.metadata
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import access_shapes
import pemba
from access_shapes import Question, Shape
from authzed.api.v1 import core_pb2 as core
from authzed.api.v1 import permission_service_pb2 as api
from authzed.api.v1.permission_service_pb2_grpc import PermissionsServiceStub
from google.protobuf.struct_pb2 import Struct
from spicedb_embedded import EmbeddedSpiceDB

YES = api.CheckPermissionResponse.PERMISSIONSHIP_HAS_PERMISSION
FASTEST = api.Consistency(minimize_latency=True)
SPICEDB, PEMBA = "SpiceDB", "pemba"
STALE_SECONDS = 12
"""So long its fastest answers may be from before the graph was loaded."""
BATCH = 500
RELATIONSHIP = re.compile(r"(\w+):(\w+)#(\w+)@(\w+):(\w+|\*)(?:#(\w+))?(?:\[(\w+)\])?")


def main() -> None:
    """Loads every shape that the side can hold and serves turns."""
    side, questions, place = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if side == SPICEDB:
        os.environ["SPICEDB_LIBRARY_PATH"] = place
    made: list[tuple[Shape, access_shapes.Side]] = []
    for number, shape in enumerate(access_shapes.shapes()):
        if side == SPICEDB:
            made.append((shape, SpiceDB(shape)))
        elif "caveat" not in shape.schema:
            made.append((shape, Pemba(shape, "" if side == PEMBA else f"{place}/pemba{number}.db")))
    if side == SPICEDB:
        time.sleep(STALE_SECONDS)
    package = "spicedb-embedded" if side == SPICEDB else "pemba"
    access_shapes.serve(made, questions, versions={package: importlib.metadata.version(package)})


class SpiceDB:
    """A SpiceDB of its own, in memory."""

    def __init__(self, shape: Shape):
        updates = [update(one) for one in shape.relationships]
        self._spicedb = EmbeddedSpiceDB.start(shape.schema)
        self._calls = self._spicedb.permissions()
        self._streams = PermissionsServiceStub(self._spicedb.channel())
        for start in range(0, len(updates), BATCH):
            self._calls.WriteRelationships(api.WriteRelationshipsRequest(updates=updates[start : start + BATCH]))

    def ready(self, question: Question) -> Any:
        """Returns the message."""
        context = None
        if question.context is not None:
            context = Struct()
            context.update(question.context)
        return api.CheckPermissionRequest(
            consistency=FASTEST,
            resource=thing(question.file),
            permission="view",
            subject=core.SubjectReference(object=thing(question.user)),
            context=context,
        )

    def ask(self, ready: Any) -> bool:
        """Returns the answer."""
        return self._calls.CheckPermission(ready).permissionship == YES

    def look_up(self, user: str) -> int:
        """Returns how many files a user may view."""
        asked = api.LookupResourcesRequest(
            consistency=FASTEST,
            resource_object_type="file",
            permission="view",
            subject=core.SubjectReference(object=thing(user)),
        )
        return sum(1 for _ in self._streams.LookupResources(asked))

    def write(self, relationship: str) -> None:
        """Writes a relationship that matters to nobody."""
        self._calls.WriteRelationships(api.WriteRelationshipsRequest(updates=[update(relationship)]))


class Pemba:
    """An engine of pemba's, in memory or over a file."""

    def __init__(self, shape: Shape, file: str):
        self._engine = pemba.Engine.sqlite(file) if file else pemba.Engine.memory()
        self._engine.write_schema(shape.schema)
        for start in range(0, len(shape.relationships), BATCH):
            self._engine.write(touch=shape.relationships[start : start + BATCH])

    def ready(self, question: Question) -> Any:
        """Returns the arguments."""
        return question.file, "view", question.user

    def ask(self, ready: Any) -> bool:
        """Returns the answer."""
        return self._engine.check(*ready)

    def look_up(self, user: str) -> int:
        """Returns how many files a user may view."""
        return sum(1 for _ in self._engine.iter_resources("file", "view", user))

    def write(self, relationship: str) -> None:
        """Writes a relationship that matters to nobody."""
        self._engine.write(touch=[relationship])


def update(text: str) -> core.RelationshipUpdate:
    """Returns the message that writes a relationship."""
    found = RELATIONSHIP.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no relationship")
    type, id, relation, subject_type, subject_id, subject_relation, caveat = found.groups()
    subject = core.ObjectReference(object_type=subject_type, object_id=subject_id)
    made = core.Relationship(
        resource=core.ObjectReference(object_type=type, object_id=id),
        relation=relation,
        subject=core.SubjectReference(object=subject, optional_relation=subject_relation or ""),
    )
    if caveat:
        made.optional_caveat.caveat_name = caveat
    return core.RelationshipUpdate(operation=core.RelationshipUpdate.OPERATION_TOUCH, relationship=made)


def thing(text: str) -> core.ObjectReference:
    """Returns the message of an object."""
    type, _, id = text.partition(":")
    return core.ObjectReference(object_type=type, object_id=id)


if __name__ == "__main__":
    main()
