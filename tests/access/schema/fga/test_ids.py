import pytest

from cupola.access.schema.fga.ids import is_object_id


def test_conformance(cases):
    all_cases = cases("object-id-validation-cases")
    assert {c["object_id"]: is_object_id(c["object_id"]) for c in all_cases} == {
        c["object_id"]: c["valid"] for c in all_cases
    }
    assert len(all_cases) == 23


@pytest.mark.parametrize("text", ["", "*", "*a", "a\n", "a\tb", "a=b"])
def test_others_are_none(text):
    assert not is_object_id(text)
