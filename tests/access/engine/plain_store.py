"""The memory store, with an account of what was read of it."""

from cupola.access.relation import create, delete, touch
from cupola.access.store.memory import MemoryStore


class CountedSnapshot:
    def __init__(self, snapshot, reads):
        self.revision, self._snapshot, self._reads = snapshot.revision, snapshot, reads

    def find(self, object, relation, subject):
        self._reads.append(("find", object, relation, subject))
        return self._snapshot.find(object, relation, subject)

    def subjects(self, object, relation):
        self._reads.append(("subjects", object, relation))
        return self._snapshot.subjects(object, relation)

    def indirect(self, object, relation):
        self._reads.append(("indirect", object, relation))
        return self._snapshot.indirect(object, relation)

    def objects(self, subject, type, relation):
        self._reads.append(("objects", subject, type, relation))
        return self._snapshot.objects(subject, type, relation)

    def read(self, filter, *, after=None, limit=None):
        self._reads.append(("read", filter))
        return self._snapshot.read(filter, after=after, limit=limit)


class PlainStore(MemoryStore):
    """Begins with a schema at revision 1 and relationships at revision 2."""

    def __init__(self, schema, relationships=()):
        super().__init__()
        self.reads = []
        super().write((), schema=("", schema))
        super().write([create(one) for one in relationships])

    @property
    def version(self):
        return self.schemas()[0]

    def snapshot(self, revision):
        return CountedSnapshot(super().snapshot(revision), self.reads)

    def put(self, *relationships):
        return self.write([touch(one) for one in relationships])

    def drop(self, *relationships):
        return self.write([delete(one) for one in relationships])
