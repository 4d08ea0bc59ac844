from cupola.access.testing import Made


def test_a_graph_from_a_schema(make_graph: Made):
    schema = "definition user {}\ndefinition file { relation reader: user }"
    first = make_graph(schema, "file:1#reader@user:ada")
    second = make_graph(schema)
    assert first.check("file:1#reader", "user:ada")
    assert not second.check("file:1#reader", "user:ada")


def test_the_graph_is_empty(graph):
    assert not graph.schemas()
