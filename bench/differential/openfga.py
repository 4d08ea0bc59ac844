"""Random models, asked of Cupola and of the `fga` binary, which runs OpenFGA's engine in memory.

Not here: the models (`models.py`), Cupola's answers (`cupola_side.py`).
"""

import collections
import json
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import harness

from differential import cupola_side
from differential.models import make

KINDS = {"bulk": "check", "check": "check", "resources": "list_objects", "subjects": "list_users"}
MOST_SHOWN = 5
SECONDS = 60


def compare(seeds: Iterable[int], break_one: bool) -> collections.Counter[str]:
    """Compares models and prints what is unexplained; returns how many of what there were."""
    fga = Path(harness.peer_python("access")).parent / "fga"
    tally: collections.Counter[str] = collections.Counter()
    for seed in seeds:
        message = json.loads(json.dumps(make(seed)))
        questions = [one for one in message["questions"] if one[0] in KINDS]
        message["questions"] = sorted(questions, key=lambda one: list(KINDS.values()).index(KINDS[one[0]]))
        ours, theirs = cupola_side.answer(message), ask(fga, message)
        if break_one and not tally["worlds"]:
            ours["answers"] = ["broken", *ours["answers"][1:]]
        tally["worlds"] += 1
        tally["schemas refused by both"] += bool(ours["schema"]) and bool(theirs["schema"])
        found: list[Any] = []
        if bool(ours["schema"]) != bool(theirs["schema"]):
            found.append(("schema", ours["schema"], theirs["schema"]))
        elif not ours["schema"]:
            tally["questions"] += len(theirs["answers"])
            said = map(as_openfga, message["questions"], ours["answers"])
            pairs = zip(message["questions"], said, theirs["answers"], strict=True)
            found += [one for one in pairs if one[1] != one[2]]
        for one in found:
            if known := _known(fga, message, *one):
                tally[known] += 1
                continue
            tally["unexplained"] += 1
            if tally["unexplained"] <= MOST_SHOWN:
                print(f"seed {seed}: {one[0]}\n  ours   {one[1]}\n  theirs {one[2]}\n{message['schema']}")
                print("\n".join(f"# {cupola_side.relationship(*parts)}" for parts in message["relationships"]))
    return tally


def _known(fga: Path, message: dict[str, Any], question: Any, ours: Any, theirs: Any) -> str:
    """Returns the key of the known difference; for missing context, where with whatever values OpenFGA says what
    we say without."""
    if question == "schema":
        return "entry" if not ours and any(one in theirs for one in ("no entrypoints", "potential loop")) else ""
    if ours == "error":
        return ""
    if theirs != "error":
        return "users" if ours == _wanted(question, theirs) else ""
    contexts = [{"x": x, "y": y} | question[-1] for x in (1, 2) for y in (1, 2)]
    completed = [[*question[:-1], context] for context in contexts]
    answers = ask(fga, message | {"questions": completed})["answers"]
    return "context" if len(answers) == 4 and all(_wanted(question, one) == ours for one in answers) else ""


def _wanted(question: Any, answer: Any) -> Any:
    """Returns an answer without the plain objects that nobody asked for."""
    if isinstance(answer, str) or question[0] != "subjects" or not question[4]:
        return answer
    return [one for one in answer if "#" in one]


def ask(fga: Path, message: dict[str, Any]) -> dict[str, Any]:
    """Returns the binary's answers to a model."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "store.fga.yaml"
        file.write_text(json.dumps(store(message)), encoding="utf-8")
        command = [str(fga), "model", "test", "--verbose", "--suppress-summary", "--tests", str(file)]
        told = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if not told.stdout.startswith("["):
        return {"schema": told.stderr or told.stdout, "answers": []}
    (test,) = json.loads(told.stdout)
    answers = [answer_of(one) for kind in dict.fromkeys(KINDS.values()) for one in test[f"{kind}_results"] or []]
    return {"schema": "", "answers": answers}


def store(message: dict[str, Any]) -> dict[str, Any]:
    """Returns a model, its tuples and questions as a store file; what it expects does not matter."""
    test: dict[str, Any] = {kind: [] for kind in KINDS.values()}
    test |= {"name": "all", "tuples": [_tuple(*one) for one in message["relationships"]]}
    for kind, *question in message["questions"]:
        if kind == "resources":
            type, name, who, context = question
            one = {"user": _text(who), "type": type, "context": context, "assertions": {name: []}}
        elif kind == "subjects":
            object, name, type, relation, context = question
            wanted = {"type": type} | ({"relation": relation} if relation else {})
            one = {"object": _text(object), "user_filter": [wanted], "assertions": {name: {"users": []}}}
            one["context"] = context
        else:
            object, name, who, context = question
            one = {"user": _text(who), "object": _text(object), "context": context, "assertions": {name: True}}
        test[KINDS[kind]].append(one)
    return {"name": "random", "model": message["schema"], "tests": [test]}


def as_openfga(question: Any, answer: Any) -> Any:
    """Returns one of our answers as OpenFGA would say it: what lacks context is an error there."""
    if isinstance(answer, list) or (isinstance(answer, dict) and "error" in answer):
        return "error"
    if isinstance(answer, str):
        return answer
    conditional = any(
        missing[0] if missing and isinstance(missing[0], list) else missing for missing in answer.values()
    )
    relation = f"#{question[4]}" if question[0] == "subjects" and question[4] else ""
    return "error" if conditional else sorted(f"{id}{relation}" for id in answer)


def answer_of(result: dict[str, Any]) -> Any:
    """Returns the binary's answer to one question."""
    if result["error"] is not None:
        return "error"
    got = result["got"]
    if isinstance(got, bool):
        return "yes" if got else "no"
    found = got["users"] if isinstance(got, dict) else got
    return sorted(one.partition(":")[2] for one in found or [])


def questions_of(test: dict[str, Any]) -> Iterator[tuple[Any, list[Any], dict[str, Any]]]:
    """Yields each question of a test with the relationships it was asked about and what the binary made of it."""
    for kind in dict.fromkeys(KINDS.values()):
        for result in test[f"{kind}_results"] or []:
            asked = result["request"]
            name, context = asked["relation"], asked.get("context") or {}
            question: list[Any]
            if kind == "list_users":
                object, (wanted,) = asked["object"], asked["user_filters"]
                thing = [object["type"], object["id"]]
                question = ["subjects", thing, name, wanted["type"], wanted.get("relation", ""), context]
            elif kind == "list_objects":
                question = ["resources", asked["type"], name, _subject(asked["user"]), context]
            else:
                question = ["check", asked["object"].split(":", 1), name, _subject(asked["user"]), context]
            yield question, [_parts(one) for one in asked.get("contextual_tuples") or []], result


def _parts(tuple: dict[str, Any]) -> list[Any]:
    condition = tuple.get("condition")
    caveat = None if condition is None else [condition["name"], condition.get("context") or {}]
    return [tuple["object"].split(":", 1), tuple["relation"], _subject(tuple["user"]), caveat, None]


def _subject(text: str) -> list[str]:
    type, _, rest = text.partition(":")
    id, _, relation = rest.partition("#")
    return [type, id, relation]


def _tuple(object: Any, relation: str, who: Any, caveat: Any, _: Any) -> dict[str, Any]:
    found = {"user": _text(who), "relation": relation, "object": _text(object)}
    return found if caveat is None else found | {"condition": {"name": caveat[0], "context": caveat[1]}}


def _text(parts: Any) -> str:
    type, id, *relation = parts
    return f"{type}:{id}#{relation[0]}" if relation and relation[0] else f"{type}:{id}"
