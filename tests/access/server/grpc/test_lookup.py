"""Lookups and their cursors, as the clients of others ask."""

import grpc
import pytest
from authzed.api.v1 import (
    Consistency,
    Cursor,
    LookupResourcesRequest,
    LookupSubjectsRequest,
)
from authzed.api.v1 import permission_service_pb2 as api

HAS, PERHAPS = api.LOOKUP_PERMISSIONSHIP_HAS_PERMISSION, api.LOOKUP_PERMISSIONSHIP_CONDITIONAL_PERMISSION
FULLY = Consistency(fully_consistent=True)


@pytest.fixture
def filled(authzed, m):
    """ada uses m00 to m09, and m10 on a condition; all but two use what is open."""
    request = m.touches(
        *(f"model:m{number:02}#owner@user:ada" for number in range(10)),
        "model:m10#reader@user:ada",
        "model:open#guest@user:*",
        "model:open#banned@user:eve",
        "model:open#banned@user:bob",
        *(f"model:held#reader@user:u{number}" for number in range(7)),
    )
    request.updates[10].relationship.optional_caveat.caveat_name = "near"
    return authzed.WriteRelationships(request).written_at


def resources(m, **more):
    return LookupResourcesRequest(
        **{
            "consistency": FULLY,
            "resource_object_type": "model",
            "permission": "own",
            "subject": m.who("user:ada"),
            **more,
        }
    )


def subjects(m, **more):
    return LookupSubjectsRequest(
        **{
            "consistency": FULLY,
            "resource": m.thing("model:held"),
            "permission": "use",
            "subject_object_type": "user",
            **more,
        }
    )


OWNED = [f"m{number:02}" for number in range(10)]


def test_resources(authzed, filled, m):
    found = list(authzed.LookupResources(resources(m, permission="use")))
    assert [(one.resource_object_id, one.permissionship) for one in found] == [
        *((id, HAS) for id in OWNED),
        ("m10", PERHAPS),
        ("open", HAS),
    ]
    assert list(found[10].partial_caveat_info.missing_required_context)
    assert all(one.looked_up_at == filled for one in found)


@pytest.mark.parametrize("size", [1, 3, 5, 10, 50])
def test_pages_of_resources_are_of_one_revision(authzed, filled, m, size):
    found, cursor = [], None
    while True:
        page = list(authzed.LookupResources(resources(m, optional_limit=size, optional_cursor=cursor)))
        found += [one.resource_object_id for one in page]
        assert all(one.looked_up_at == filled for one in page)
        if len(page) < size:
            break
        cursor = page[-1].after_result_cursor
        authzed.WriteRelationships(m.touches(f"model:z{len(found)}#owner@user:ada"))
    assert found == OWNED


def test_the_cursor_of_another_question(authzed, filled, m):
    cursor = next(iter(authzed.LookupResources(resources(m, optional_limit=1)))).after_result_cursor
    for other in (
        resources(m, optional_cursor=cursor, permission="use"),
        resources(m, optional_cursor=cursor, subject=m.who("user:bob")),
        resources(m, optional_cursor=Cursor(token="x")),
    ):
        found = m.refused(lambda other=other: authzed.LookupResources(other))
        assert (found.code.name, found.reason) == ("FAILED_PRECONDITION", "ERROR_REASON_INVALID_CURSOR")
    found = m.refused(lambda: authzed.LookupSubjects(subjects(m, optional_cursor=cursor)))
    assert found.reason == "ERROR_REASON_INVALID_CURSOR"


def test_subjects(authzed, filled, m):
    found = list(authzed.LookupSubjects(subjects(m)))
    assert [one.subject.subject_object_id for one in found] == [f"u{number}" for number in range(7)]
    assert [one.subject_object_id for one in found] == [f"u{number}" for number in range(7)]
    assert all(one.subject.permissionship == one.permissionship == HAS for one in found)


@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_pages_of_subjects(authzed, filled, m, size):
    found, cursor = [], None
    while True:
        page = list(authzed.LookupSubjects(subjects(m, optional_concrete_limit=size, optional_cursor=cursor)))
        found += [one.subject.subject_object_id for one in page]
        if len(page) < size:
            break
        cursor = page[-1].after_result_cursor
    assert found == [f"u{number}" for number in range(7)]


def test_a_wildcard_and_who_is_left_out(authzed, filled, m):
    request = subjects(m, resource=m.thing("model:open"))
    (found,) = authzed.LookupSubjects(request)
    assert found.subject.subject_object_id == "*"
    assert {one.subject_object_id for one in found.excluded_subjects} == {"bob", "eve"}
    assert set(found.excluded_subject_ids) == {"bob", "eve"}
    request.wildcard_option = LookupSubjectsRequest.WILDCARD_OPTION_EXCLUDE_WILDCARDS
    assert not list(authzed.LookupSubjects(request))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"resource_object_type": "modle"}, "FAILED_PRECONDITION"),
        ({"permission": "uze"}, "FAILED_PRECONDITION"),
        ({"permission": ""}, "INVALID_ARGUMENT"),
        ({"resource_object_type": ""}, "INVALID_ARGUMENT"),
        ({"subject": None}, "INVALID_ARGUMENT"),
    ],
)
def test_a_lookup_that_cannot_be(authzed, m, changes, code):
    assert m.refused(lambda: authzed.LookupResources(resources(m, **changes))).code.name == code


def test_a_lookup_of_subjects_that_cannot_be(authzed, m):
    assert m.refused(lambda: authzed.LookupSubjects(subjects(m, subject_object_type="usr"))).code is (
        grpc.StatusCode.FAILED_PRECONDITION
    )
    assert m.refused(lambda: authzed.LookupSubjects(subjects(m, subject_object_type=""))).code is (
        grpc.StatusCode.INVALID_ARGUMENT
    )
