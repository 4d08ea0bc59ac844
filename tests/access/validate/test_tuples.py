import pytest

from cupola.access.validate.place import FileError
from cupola.access.validate.tuples import facts_of, read_tuples

HEAD = "user_type,user_id,user_relation,relation,object_type,object_id,condition_name,condition_context\n"


def test_the_three_forms_say_the_same(tmp_path):
    (tmp_path / "a.csv").write_text(HEAD + 'group,g,member,viewer,doc,1,small,"{""x"": 1}"\nuser,u,,viewer,doc,1,,\n')
    (tmp_path / "a.yaml").write_text(
        "- {user: 'group:g#member', relation: viewer, object: 'doc:1', condition: {name: small, context: {x: 1}}}\n"
        "- {user: 'user:u', relation: viewer, object: 'doc:1'}\n"
    )
    (tmp_path / "a.json").write_text(
        '[{"user": "group:g#member", "relation": "viewer", "object": "doc:1",'
        ' "condition": {"name": "small", "context": {"x": 1}}},\n'
        '{"user": "user:u", "relation": "viewer", "object": "doc:1"}]'
    )
    forms = [
        [str(fact.relationship) for fact in facts_of(read_tuples(tmp_path / name))]
        for name in ("a.csv", "a.yaml", "a.json")
    ]
    assert forms[0] == ['doc:1#viewer@group:g#member[small:{"x":1}]', "doc:1#viewer@user:u"]
    assert forms[0] == forms[1] == forms[2]


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        ("", "lacks the line of names", 1),
        ("user_type,user\n", "no column 'user'", 1),
        ("user_type,user_id\n", "lacks the column relation", 1),
        (HEAD + "user,u\n", "has 2 columns", 2),
        (HEAD + "user,u,,viewer,doc,1,small,nope\n", "no JSON", 2),
        (HEAD + 'user,u,,viewer,doc,1,,"{""x"": 1}"\n', "no condition_name", 2),
        (HEAD + 'user,"u,viewer\n', "no CSV", 2),
    ],
)
def test_csv_that_is_none(tmp_path, text, problem, line):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(FileError, match=problem) as error:
        read_tuples(tmp_path / "a.csv")
    assert error.value.line == line


def test_a_tuple_may_be_repeated_and_not_contradicted(tmp_path):
    one = "- {user: 'user:u', relation: viewer, object: 'doc:1'}\n"
    (tmp_path / "a.yaml").write_text(one * 2)
    assert len(facts_of(read_tuples(tmp_path / "a.yaml"))) == 1
    (tmp_path / "a.yaml").write_text(one + one.replace("}", ", condition: {name: c}}"))
    with pytest.raises(FileError, match="two conditions") as error:
        facts_of(read_tuples(tmp_path / "a.yaml"))
    assert error.value.line == 2
