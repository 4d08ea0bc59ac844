"""Lookups: on which resources a subject has a permission, and which subjects have one on a resource.

Invariant: results come sorted by id, each once, all or as many as were asked for; the cursor of the last goes on
behind it at the same revision.
"""

import itertools
from collections.abc import Iterator, Sequence

from authzed.api.v1 import core_pb2 as core
from authzed.api.v1 import permission_service_pb2 as api

from cupola.access.engine.at import Holder
from cupola.access.relation import WILDCARD
from cupola.access.server.grpc.cursor import Cursors
from cupola.access.server.grpc.gate import Call
from cupola.access.wire import read_name, read_object, read_struct, read_subject

_HAS = api.LOOKUP_PERMISSIONSHIP_HAS_PERMISSION
_CONDITIONAL = api.LOOKUP_PERMISSIONSHIP_CONDITIONAL_PERMISSION


def lookup_resources(call: Call, request: api.LookupResourcesRequest) -> Iterator[api.LookupResourcesResponse]:
    """Answers with the resources on which a subject has a permission."""
    cursors = Cursors(request)
    place = cursors.place()
    token, found = call.graph.lookup_resources(
        read_name(request.resource_object_type, "resource_object_type"),
        read_name(request.permission, "permission"),
        read_subject(request.subject),
        context=read_struct(request.context),
        consistency=place.consistency,
        after=place.after,
    )
    for resource in itertools.islice(found, request.optional_limit or None):
        yield api.LookupResourcesResponse(
            looked_up_at=core.ZedToken(token=token),
            resource_object_id=resource.id,
            permissionship=_CONDITIONAL if resource.missing else _HAS,
            partial_caveat_info=_partial(resource.missing),
            after_result_cursor=cursors.after(token, resource.id),
        )


def lookup_subjects(call: Call, request: api.LookupSubjectsRequest) -> Iterator[api.LookupSubjectsResponse]:
    """Answers with the subjects that have a permission; a wildcard comes first and counts as none of the limit."""
    cursors = Cursors(request)
    place = cursors.place()
    token, found = call.graph.lookup_subjects(
        (read_object(request.resource), read_name(request.permission, "permission")),
        read_name(request.subject_object_type, "subject_object_type"),
        "" if request.optional_subject_relation == "..." else request.optional_subject_relation,
        context=read_struct(request.context),
        consistency=place.consistency,
        after=place.after,
    )
    wildcards = request.wildcard_option != api.LookupSubjectsRequest.WILDCARD_OPTION_EXCLUDE_WILDCARDS
    left = request.optional_concrete_limit or None
    for holder in found:
        if holder.id == WILDCARD and not wildcards:
            continue
        if left is not None and holder.id != WILDCARD:
            if not left:
                return
            left -= 1
        yield _found(holder, token, cursors)
        if left == 0:
            return


def _found(holder: Holder, token: str, cursors: Cursors) -> api.LookupSubjectsResponse:
    subject = _resolved(holder)
    return api.LookupSubjectsResponse(
        looked_up_at=core.ZedToken(token=token),
        subject=subject,
        excluded_subjects=[_resolved(one) for one in holder.excluded],
        after_result_cursor=cursors.after(token, holder.id),
        # Older clients read these.
        subject_object_id=holder.id,
        excluded_subject_ids=[one.id for one in holder.excluded],
        permissionship=subject.permissionship,
        partial_caveat_info=_partial(holder.missing),
    )


def _resolved(holder: Holder) -> api.ResolvedSubject:
    return api.ResolvedSubject(
        subject_object_id=holder.id,
        permissionship=_CONDITIONAL if holder.missing else _HAS,
        partial_caveat_info=_partial(holder.missing),
    )


def _partial(missing: Sequence[str]) -> core.PartialCaveatInfo | None:
    return core.PartialCaveatInfo(missing_required_context=missing) if missing else None
