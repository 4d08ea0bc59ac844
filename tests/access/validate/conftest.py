import pytest

SCHEMA = """\
definition user {}
definition group { relation member: user | group#member }
caveat hours(hour int) { hour >= 9 }
definition model {
    relation reader: user | user:* | group#member | user with hours
    relation writer: user
    relation banned: user
    permission use = (reader + writer) - banned
}
"""
FACTS = [
    "model:kiln#reader@group:research#member",
    "group:research#member@user:ada",
    "model:kiln#writer@user:ada",
    "model:kiln#reader@user:temp[hours]",
    "model:open#reader@user:*",
    "model:open#banned@user:mallory",
]


def indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


@pytest.fixture
def validation(tmp_path):
    """Writes a validation file over the small schema, with these further lines."""

    def write(more: str = "", *, facts=FACTS, name="lab.yaml"):
        path = tmp_path / name
        path.write_text(f"schema: |\n{indented(SCHEMA)}relationships: |\n{indented(chr(10).join(facts))}{more}")
        return path

    return write
