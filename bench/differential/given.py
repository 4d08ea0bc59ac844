"""The conformance data of the engines' own projects, through both sides: the control of the comparison.

Not here: random worlds. The data is no part of the repository: it is read where it lies.
"""

import collections
import json
import subprocess
from pathlib import Path
from typing import Any

import harness
import yaml

from cupola.access.relation import Relationship
from differential import cupola_side
from differential.openfga import answer_of, as_openfga, questions_of
from differential.spicedb import SpiceDB

EXPECTED = {"assertTrue": "yes", "assertFalse": "no", "assertCaveated": "conditional"}


def compare(data: Path) -> collections.Counter[str]:
    """Returns how many answers there were, and how many differ from what is expected."""
    tally: collections.Counter[str] = collections.Counter()
    with SpiceDB() as spicedb:
        for file in sorted((data / "spicedb" / "testconfigs").glob("*.yaml")):
            _validation_file(file, spicedb, tally)
    fga = Path(harness.peer_python("access")).parent / "fga"
    stores = data / "openfga_sample_stores"
    for file in sorted([*stores.glob("*.fga.yaml"), *stores.glob("inlined/*.fga.yaml")]):
        _store_file(file, fga, tally)
    return tally


def _validation_file(file: Path, spicedb: SpiceDB, tally: collections.Counter[str]) -> None:
    read = yaml.safe_load(file.read_text(encoding="utf-8"))
    lines = [line.strip() for line in (read.get("relationships") or "").splitlines()]
    questions, expected = [], []
    for kind, verdict in EXPECTED.items():
        for line in (read.get("assertions") or {}).get(kind) or []:
            text, _, context = line.partition(" with ")
            (object, relation, who, *_) = Relationship.parse(text)
            questions.append(["check", object, relation, who, json.loads(context) if context else {}])
            expected.append(verdict)
    facts = [_parts(Relationship.parse(line)) for line in lines if line and not line.startswith("//")]
    message = json.loads(json.dumps({"schema": read["schema"], "relationships": facts, "questions": questions}))
    ours, theirs = cupola_side.answer(message), spicedb.answer(message)
    tally["SpiceDB's files"] += 1
    for question, wanted, mine, other in zip(
        questions, expected, ours["answers"], theirs["answers"] if theirs else [], strict=True
    ):
        tally["SpiceDB's assertions"] += 1
        if not wanted == _kind(mine) == _kind(other) or mine != other:
            tally["unexplained"] += 1
            print(f"{file.name}: {question}\n  expected {wanted}\n  ours   {mine}\n  theirs {other}")


def _store_file(file: Path, fga: Path, tally: collections.Counter[str]) -> None:
    read = yaml.safe_load(file.read_text(encoding="utf-8"))
    command = [str(fga), "model", "test", "--verbose", "--suppress-summary", "--tests", str(file)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    if not told.startswith("[") or "model" not in read:
        return
    tally["OpenFGA's files"] += 1
    for test in json.loads(told):
        for kind, request, got in questions_of(test):
            tally["OpenFGA's answers"] += 1
            message = {"schema": read["model"], "relationships": request, "questions": [kind]}
            answers = cupola_side.answer(message)
            mine = as_openfga(kind, answers["answers"][0]) if answers["answers"] else answers["schema"]
            if mine != answer_of(got):
                tally["unexplained"] += 1
                print(f"{file.name}: {kind}\n  ours   {mine}\n  theirs {answer_of(got)}")


def _parts(one: Relationship) -> list[Any]:
    caveat = None if one.caveat is None else [one.caveat.name, one.caveat.parameters]
    return [one.object, one.relation, one.subject, caveat, one.expires_seconds]


def _kind(answer: Any) -> Any:
    return "conditional" if isinstance(answer, list) else answer
