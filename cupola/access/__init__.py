"""The permission graph: who may do what to which object, in process, as a server, and as the guard of serving.

This room imports no other and no jax.
"""

from cupola.access.consistency import FAST as FAST
from cupola.access.consistency import LATEST as LATEST
from cupola.access.consistency import at_exactly as at_exactly
from cupola.access.consistency import at_least as at_least
from cupola.access.decision import Decision as Decision
from cupola.access.decision import Question as Question
from cupola.access.errors import AccessError as AccessError
from cupola.access.graph import Graph as Graph
from cupola.access.relation import Filter as Filter
from cupola.access.relation import Object as Object
from cupola.access.relation import Relationship as Relationship
from cupola.access.relation import Subject as Subject
from cupola.access.relation import create as create
from cupola.access.relation import delete as delete
from cupola.access.relation import touch as touch
