"""`cupola access`: its commands by name."""

import typer

from cupola.command.access import ask, change, files, schema, serve
from cupola.command.access.ends import Refusing

app = typer.Typer(
    cls=Refusing,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Serve a permission graph, ask it and change it.

    \b
    cupola access schema write access.db lab.zed
    cupola access write access.db model:kiln#reader@user:ada
    cupola access check access.db model:kiln#use user:ada
    """,
)
app.command("serve")(serve.serve)
app.command("key")(serve.key)
app.add_typer(schema.app, name="schema")
app.command("check")(ask.check)
app.command("explain")(ask.explain)
app.command("expand")(ask.expand)
app.add_typer(ask.lookup, name="lookup")
app.command("write")(change.write)
app.command("import")(change.load)
app.command("export")(change.export)
app.command("watch")(change.watch)
app.command("validate")(files.validate)
app.command("test")(files.run_all)
