"""Records and messages, both ways."""

import math
import string

import pytest
from authzed.api.v1 import core_pb2 as core
from authzed.api.v1 import permission_service_pb2 as api
from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from cupola.access import wire
from cupola.access.consistency import FAST, LATEST, at_exactly, at_least
from cupola.access.errors import InvalidArgument
from cupola.access.relation import (
    Caveated,
    Filter,
    Must,
    Object,
    Operation,
    Precondition,
    Relationship,
    Subject,
    Update,
)

NAMES = st.text(string.ascii_lowercase + "_", min_size=1, max_size=20)
IDS = st.text(string.ascii_letters + string.digits + "/_|-=+.éü", min_size=1, max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
CONTEXTS = st.dictionaries(st.text(max_size=8), VALUES, max_size=4)
RELATIONSHIPS = st.builds(
    Relationship,
    st.builds(Object, NAMES, IDS),
    NAMES,
    st.builds(Subject, NAMES, IDS, st.just("") | NAMES) | st.builds(Subject, NAMES, st.just("*"), st.just("")),
    st.none() | st.builds(Caveated.of, NAMES, CONTEXTS),
    st.none() | st.integers(0, 4_000_000_000 * 1000).map(lambda thousandths: thousandths / 1000),
)
FILTERS = st.builds(
    Filter, NAMES, st.just("") | IDS, st.just(""), st.just("") | NAMES, NAMES, st.just("") | IDS, st.none() | NAMES
) | st.sampled_from([Filter(id_prefix="a"), Filter(subject_type="user", subject_relation=""), Filter(relation="r")])


@given(RELATIONSHIPS, st.sampled_from(Operation))
def test_a_relationship_comes_back_equal(relationship, operation):
    message = wire.write_update(Update(operation, relationship))
    sent = core.RelationshipUpdate.FromString(message.SerializeToString())
    assert wire.read_update(sent) == Update(operation, relationship)


@pytest.mark.parametrize("seconds", [1.761, 0.1 + 0.2, 1.9999999, -0.25, 4e9 + 0.001])
def test_a_time_comes_back_to_the_microsecond(seconds):
    assert wire.read_time(wire.write_time(seconds)) == round(seconds, 6)


@given(FILTERS, st.sampled_from(Must))
def test_a_filter_comes_back_equal(filter, must):
    assert wire.read_filter(wire.write_filter(filter)) == filter
    condition = Precondition(must, filter)
    assert wire.read_preconditions(wire.write_preconditions([condition])) == [condition]


@given(CONTEXTS)
def test_a_context_comes_back_equal(context):
    assert wire.read_struct(wire.write_struct(context)) == context


@pytest.mark.parametrize("wanted", [FAST, LATEST, at_least("t"), at_exactly("t")])
def test_a_consistency_comes_back_equal(wanted):
    assert wire.read_consistency(wire.write_consistency(wanted)) == wanted


def test_no_consistency_is_for_the_least_latency():
    assert wire.read_consistency(api.Consistency()) == FAST


def test_the_dots_of_a_subject_are_the_object_itself():
    message = wire.write_subject(Subject("user", "ada"))
    message.optional_relation = "..."
    assert wire.read_subject(message) == Subject("user", "ada")
    filter = wire.write_filter(Filter("model", subject_type="user", subject_relation=""))
    filter.optional_subject_filter.optional_relation.relation = "..."
    assert wire.read_filter(filter).subject_relation == ""


@pytest.mark.parametrize(
    ("type", "id"),
    [("", "a"), ("t", ""), ("t", "*"), ("t", "a b"), ("t", "a#b"), ("t:u", "a"), ("t", "x" * 1025)],
)
def test_what_no_object_is_called(type, id):
    with pytest.raises(InvalidArgument):
        wire.read_object(core.ObjectReference(object_type=type, object_id=id))


@pytest.mark.parametrize("relation", ["a b", "a#b", "a:b", "x" * 129])
@pytest.mark.parametrize("id", ["ada", "*"])
def test_what_no_subject_is_called(id, relation):
    reference = core.ObjectReference(object_type="group", object_id=id)
    with pytest.raises(InvalidArgument):
        wire.read_subject(core.SubjectReference(object=reference, optional_relation=relation))


def test_all_of_a_relation_is_no_subject():
    reference = core.ObjectReference(object_type="group", object_id="*")
    with pytest.raises(InvalidArgument):
        wire.read_subject(core.SubjectReference(object=reference, optional_relation="member"))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_have(number):
    message = struct_pb2.Struct(fields={"x": struct_pb2.Value(number_value=number)})
    with pytest.raises(InvalidArgument):
        wire.read_struct(message)
    with pytest.raises(InvalidArgument):
        wire.write_struct({"x": number})


def test_fractions_and_large_numbers_stay_what_they_are():
    assert wire.read_struct(wire.write_struct({"x": 1.5, "y": 1e300})) == {"x": 1.5, "y": 1e300}
