"""`cupola access check`, `explain`, `expand` and `lookup`: questions.

Invariant: standard output holds the answer alone; with `--json`, a line of JSON for each answer.
"""

import json
from typing import Annotated, Any

import typer

from cupola.access.decision import Decision, Step
from cupola.access.engine.at import Holder, Node
from cupola.access.errors import InvalidArgument
from cupola.access.server.tls import Insecure
from cupola.command.access.ends import EXITS
from cupola.command.access.target import Address, Asked, Clear, Key, Roots, Tenant, freshness, opened

Permission = Annotated[str, typer.Argument(metavar="TYPE:ID#PERMISSION", help="Such as model:kiln#use.")]
Subject = Annotated[str, typer.Argument(metavar="SUBJECT", help="Such as user:ada, or group:research#member.")]
Context = Annotated[str, typer.Option("--context", help="Parameters for conditions: a JSON object.")]
Least = Annotated[str, typer.Option("--at-least", help="A token: the answer is not older than it.")]
Exactly = Annotated[str, typer.Option("--exactly", help="A token: the answer is of its moment.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

lookup = typer.Typer(no_args_is_help=True, help="Lists what a subject may use, or who may use it.")


def context_of(text: str) -> dict[str, Any]:
    """Returns the parameters of a JSON object.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidArgument(f"{text!r} is no JSON object", where="--context", remedy="Write '{\"hour\": 10}'.")
    return found


def check(
    address: Address,
    permission: Permission,
    subject: Subject,
    context: Context = "",
    at_least: Least = "",
    exactly: Exactly = "",
    as_json: Json = False,
    key: Key = None,
    roots: Roots = None,
    insecure: Clear = Insecure.REFUSED,
    tenant: Tenant = "default",
) -> None:
    """Answers whether a subject has a permission.

    The exit code is 0 for yes, 1 for no, 3 where conditions lack parameters, and 2 for a mistake.

    \b
    cupola access check access.db model:kiln#use user:ada
    """
    how: dict[str, Any] = {"context": context_of(context), "consistency": freshness(at_least, exactly)}
    with opened(Asked(address, key, roots, insecure, tenant)) as target:
        decision = target.check(permission, subject, **how)
    if as_json:
        typer.echo(json.dumps(_decided(decision)))
    else:
        lacks = f": lacks {', '.join(decision.missing)}" if decision.missing else ""
        typer.echo({0: "allowed", 1: "denied", 3: "conditional"}[EXITS[decision.verdict]] + lacks)
    raise typer.Exit(EXITS[decision.verdict])


def explain(
    address: Address,
    permission: Permission,
    subject: Subject,
    context: Context = "",
    at_least: Least = "",
    exactly: Exactly = "",
    as_json: Json = False,
    key: Key = None,
    roots: Roots = None,
    insecure: Clear = Insecure.REFUSED,
    tenant: Tenant = "default",
) -> None:
    """Shows why: the path that allows, or all that were tried.

    + is yes, - is no, ? is neither, as a condition lacks parameters.

    \b
    cupola access explain access.db model:kiln#use user:ada
    """
    how: dict[str, Any] = {"context": context_of(context), "consistency": freshness(at_least, exactly)}
    with opened(Asked(address, key, roots, insecure, tenant)) as target:
        decision = target.check(permission, subject, explain=True, **how)
    if as_json:
        why = None if decision.why is None else _step(decision.why)
        typer.echo(json.dumps(_decided(decision) | {"why": why}))
    else:
        typer.echo(str(decision.why))


def expand(
    address: Address,
    permission: Permission,
    at_least: Least = "",
    exactly: Exactly = "",
    as_json: Json = False,
    key: Key = None,
    roots: Roots = None,
    insecure: Clear = Insecure.REFUSED,
    tenant: Tenant = "default",
) -> None:
    """Shows the tree of who has a permission.

    \b
    cupola access expand access.db model:kiln#use
    """
    with opened(Asked(address, key, roots, insecure, tenant)) as target:
        token, tree = target.expand(permission, consistency=freshness(at_least, exactly))
    typer.echo(json.dumps({"revision": token, "tree": _node(tree)}) if as_json else "\n".join(_lines(tree, 0)))


@lookup.command("resources")
def resources(
    address: Address,
    type: Annotated[str, typer.Argument(metavar="TYPE", help="Of the objects.")],
    permission: Annotated[str, typer.Argument(metavar="PERMISSION", help="Or relation.")],
    subject: Subject,
    context: Context = "",
    at_least: Least = "",
    exactly: Exactly = "",
    as_json: Json = False,
    key: Key = None,
    roots: Roots = None,
    insecure: Clear = Insecure.REFUSED,
    tenant: Tenant = "default",
) -> None:
    """Lists the objects that a subject may use.

    \b
    cupola access lookup resources access.db model use user:ada
    """
    how: dict[str, Any] = {"context": context_of(context), "consistency": freshness(at_least, exactly)}
    with opened(Asked(address, key, roots, insecure, tenant)) as target:
        for one in target.resources(type, permission, subject, **how):
            _print(f"{type}:{one.id}", one.missing, as_json)


@lookup.command("subjects")
def subjects(
    address: Address,
    permission: Permission,
    type: Annotated[str, typer.Argument(metavar="TYPE", help="Of the subjects; group#member for groups as such.")],
    context: Context = "",
    at_least: Least = "",
    exactly: Exactly = "",
    as_json: Json = False,
    key: Key = None,
    roots: Roots = None,
    insecure: Clear = Insecure.REFUSED,
    tenant: Tenant = "default",
) -> None:
    """Lists the subjects that have a permission.

    \b
    cupola access lookup subjects access.db model:kiln#use user
    """
    kind, mark, relation = type.partition("#")
    how: dict[str, Any] = {"context": context_of(context), "consistency": freshness(at_least, exactly)}
    with opened(Asked(address, key, roots, insecure, tenant)) as target:
        for one in target.subjects(permission, kind, relation, **how):
            _print(f"{kind}:{one.id}{mark}{relation}", one.missing, as_json, one)


def _print(name: str, missing: tuple[str, ...], as_json: bool, holder: Holder | None = None) -> None:
    excluded = [f"{name.partition(':')[0]}:{one.id}" for one in holder.excluded] if holder else []
    if as_json:
        found: dict[str, Any] = {"name": name, "missing": missing}
        typer.echo(json.dumps(found | ({"excluded": excluded} if excluded else {})))
    else:
        but = f"  but {', '.join(excluded)}" if excluded else ""
        typer.echo(f"{name}{but}" + (f"  lacks {', '.join(missing)}" if missing else ""))


def _decided(decision: Decision) -> dict[str, Any]:
    return {
        "allowed": decision.allowed,
        "verdict": decision.verdict.value,
        "missing": decision.missing,
        "revision": decision.revision,
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "question": step.text,
        "verdict": step.verdict.value,
        "relationship": None if step.relationship is None else str(step.relationship),
        "missing": step.missing,
        "note": step.note,
        "parts": [_step(part) for part in step.parts],
    }


def _node(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = {"name": f"{node.object}#{node.relation}"}
    if node.operator:
        return found | {"operator": node.operator, "parts": [_node(child) for child in node.children]}
    return found | {"relationships": [str(one) for one in node.relationships]}


def _lines(node: Node, depth: int) -> list[str]:
    indent = "  " * depth
    operator = f"  {node.operator}" if node.operator else ""
    lines = [f"{indent}{node.object}#{node.relation}{operator}"]
    lines += [f"{indent}  {one.subject}" + (f"[{one.caveat.name}]" if one.caveat else "") for one in node.relationships]
    return lines + [line for child in node.children for line in _lines(child, depth + 1)]
