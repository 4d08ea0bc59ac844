"""The rules of the house: each reads a repository and returns its breaches, one line each.

Not here: style that ruff and mypy check. Invariant: a rule takes a folder and nothing else, so that
`test_house.py` can plant a breach in a small copy and see it found.
"""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = "cupola"
FLOORS = {
    "config": 0,
    "access": 0,
    "core": 1,
    "observe": 1,
    "kernels": 2,
    "data": 2,
    "checkpoint": 2,
    "optim": 3,
    "layers": 3,
    "models": 4,
    "interop": 5,
    "train": 6,
    "serve": 6,
    "catalog": 6,
    "evals": 7,
    "posttrain": 8,
    "recipes": 9,
    "command": 10,
}
REMOVABLE = {"access", "serve"}
"""Rooms that only the top floors may see: elsewhere a protocol stands for them."""
JOINING = {"recipes", "command"}
NO_ROOM = {"": -1, "__main__": 11}
"""The package's own two files: what every import runs imports nothing; the start may see all."""

FILE_LINES, FUNCTION_LINES, KERNEL_LINES, README_LINES = 500, 60, 120, 150
VAGUE = {"util", "utils", "common", "helper", "helpers", "misc", "manager", "managers"}
MIRROR_FREE = {"house", "promises", "scenarios", "docs"}
"""Folders of tests/ that are about the whole, not about one room."""
# A letter in brackets keeps a pattern from finding itself.
FORBIDDEN = [
    r"\b[i]ssue #?\d",
    r"/[w]ork/",
    r"/tmp/[b]rief",
    r"\b(this|next|last|previous) [s]ession\b",
    r"this [w]orkplace",
    r"shared/[D]ESIGN|shared/[s]pecs",
    r"pypi\.[o]rg|python[h]osted|registry\.[n]pmjs|deb\.[d]ebian",
    r"(?-i:\bT[O]DO\b|\bF[I]XME\b|\bX[X]X\b)",
    r"Co-[A]uthored-By",
]

Rule = Callable[[Path], list[str]]
RULES: dict[str, Rule] = {}


def rule(check: Callable[[Path], Iterator[str]]) -> Rule:
    """Makes a generator of breaches one of the rules."""

    def listed(root: Path) -> list[str]:
        return list(check(root))

    RULES[check.__name__] = listed
    return listed


def files(root: Path) -> list[Path]:
    """Every file that git knows or would add; outside a repository, every file in no hidden folder."""
    asked = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if shutil.which("git") and (root / ".git").exists():
        told = subprocess.run(asked, capture_output=True, text=True, check=True)
        return sorted({root / name for name in told.stdout.split("\0") if name and (root / name).is_file()})
    found = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    return sorted(root / path for path in found if not any(part.startswith(".") for part in path.parts[:-1]))


def sources(root: Path, *tops: str) -> Iterator[tuple[str, ast.Module]]:
    """Yields (path from the root, syntax tree) of the Python files below these folders."""
    for path in files(root):
        name = path.relative_to(root).as_posix()
        if path.suffix == ".py" and (not tops or name.split("/")[0] in tops):
            yield name, parsed(path.read_text(encoding="utf-8"))


@cache
def parsed(text: str) -> ast.Module:
    """Returns the syntax tree of a text; most rules read the same files."""
    return ast.parse(text)


def module_of(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(name: str, tree: ast.Module, known: set[str]) -> Iterator[tuple[int, str]]:
    """Yields (line, module) for each module that a file imports, whether as a module or a name in it."""
    here = module_of(name).split(".")
    package = here if name.endswith("__init__.py") else here[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield node.lineno, inner if inner in known else source


def own_imports(root: Path) -> Iterator[tuple[str, str, int, str]]:
    """Yields (file, module, line, imported module) for imports of our own modules."""
    trees = list(sources(root, PACKAGE))
    known = {module_of(name) for name, _ in trees}
    for name, tree in trees:
        for line, target in imports(name, tree, known):
            if target.split(".")[0] == PACKAGE:
                yield name, module_of(name), line, target


def room_of(module: str) -> str:
    return [*module.split("."), ""][1]


@rule
def imports_go_down(root: Path) -> Iterator[str]:
    """A module imports from lower floors or its own room; the removable rooms are seen only from the top."""
    for name, module, line, target in own_imports(root):
        room, other = room_of(module), room_of(target)
        floors = FLOORS | NO_ROOM
        if room not in floors or other not in floors:
            yield f"{name}:{line}: {room if room not in floors else other!r} is no room of the house"
        elif room != other and other and floors[other] >= floors[room]:
            yield f"{name}:{line}: {room or PACKAGE} (floor {floors[room]}) imports {target} (floor {floors[other]})"
        elif room != other and other in REMOVABLE and room not in JOINING | {"__main__"}:
            yield f"{name}:{line}: only {' and '.join(sorted(JOINING))} may import {target}; take a protocol here"


@rule
def every_room_is_known(root: Path) -> Iterator[str]:
    """Each folder of the package is a room with a floor, and each folder in it is a package."""
    folders = {path.parent for path in files(root) if path.suffix == ".py" and (root / PACKAGE) in path.parents}
    for folder in sorted(folders):
        name = folder.relative_to(root).as_posix()
        if not (folder / "__init__.py").exists():
            yield f"{name}: has no __init__.py, so it is not installed"
        if folder.parent == root / PACKAGE and folder.name not in FLOORS:
            yield f"{name}: is no room of the house; floors are in tests/house/rules.py"


@rule
def no_cycle(root: Path) -> Iterator[str]:
    """No module imports itself, however long the way around."""
    edges: dict[str, set[str]] = {}
    for _, module, _, target in own_imports(root):
        edges.setdefault(module, set()).add(target)
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> Iterator[str]:
        if module in way:
            yield "a cycle: " + " -> ".join([*way[way.index(module) :], module])
        elif module not in done:
            for target in sorted(edges.get(module, ())):
                yield from visit(target, [*way, module])
            done.add(module)

    for module in sorted(edges):
        yield from visit(module, [])


@rule
def imports_stand_at_the_top(root: Path) -> Iterator[str]:
    """No import inside a function."""
    for name, tree in sources(root, PACKAGE):
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                for node in ast.walk(function):
                    if isinstance(node, ast.Import | ast.ImportFrom):
                        yield f"{name}:{node.lineno}: an import inside a function"


@rule
def imports_are_the_same_for_all(root: Path) -> Iterator[str]:
    """No TYPE_CHECKING, and no annotations that are only text."""
    for name, tree in sources(root, PACKAGE):
        for node in ast.walk(tree):
            named = {ast.Name: "id", ast.Attribute: "attr", ast.alias: "name"}.get(type(node), "")
            if getattr(node, named, "") == "TYPE_CHECKING":
                yield f"{name}:{getattr(node, 'lineno', 0)}: TYPE_CHECKING"
            if isinstance(node, ast.ImportFrom) and node.module == "__future__":
                yield f"{name}:{node.lineno}: from __future__ import"


def is_private(dotted: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in dotted.split("."))


def is_theirs(dotted: str) -> bool:
    top = dotted.split(".")[0]
    return bool(top) and top != PACKAGE and top not in sys.stdlib_module_names


@rule
def no_private_api(root: Path) -> Iterator[str]:
    """No private module, name or attribute of a dependency."""
    for name, tree in sources(root, PACKAGE, "bench"):
        theirs = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                source = f"{node.module or ''}." if isinstance(node, ast.ImportFrom) and not node.level else ""
                if isinstance(node, ast.ImportFrom) and node.level:
                    continue
                for alias in node.names:
                    if is_theirs(f"{source}{alias.name}"):
                        theirs.add(alias.asname or alias.name.split(".")[0])
                        if is_private(f"{source}{alias.name}"):
                            yield f"{name}:{node.lineno}: {source}{alias.name} is private"
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                start = node.value
                while isinstance(start, ast.Attribute):
                    start = start.value
                if isinstance(start, ast.Name) and start.id in theirs:
                    yield f"{name}:{node.lineno}: {ast.unparse(node)} is private"


@rule
def no_bare_assert(root: Path) -> Iterator[str]:
    """What a user can cause is a typed error; an assert vanishes under python -O."""
    for name, tree in sources(root, PACKAGE):
        for node in ast.walk(tree):
            if isinstance(node, ast.Assert):
                yield f"{name}:{node.lineno}: a bare assert"


@rule
def no_environment_variable(root: Path) -> Iterator[str]:
    """Nothing in the environment changes behaviour."""
    names = {"environ", "environb", "getenv", "getenvb"}
    for name, tree in sources(root, PACKAGE):
        for node in ast.walk(tree):
            reads = isinstance(node, ast.Attribute) and node.attr in names and ast.unparse(node.value) == "os"
            takes = isinstance(node, ast.ImportFrom) and node.module == "os" and names & {a.name for a in node.names}
            if reads or takes:
                yield f"{name}:{node.lineno}: reads the environment"


@rule
def files_are_short(root: Path) -> Iterator[str]:
    for path in files(root):
        if path.suffix in {".py", ".cc", ".cpp", ".h", ".cu"}:
            lines = path.read_text(encoding="utf-8").count("\n")
            if lines > FILE_LINES:
                yield f"{path.relative_to(root).as_posix()}: {lines} lines, at most {FILE_LINES}"


@rule
def functions_are_short(root: Path) -> Iterator[str]:
    for name, tree in sources(root):
        limit = KERNEL_LINES if name.startswith(f"{PACKAGE}/kernels/") else FUNCTION_LINES
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > limit:
                    yield f"{name}:{node.lineno}: {node.name} has {lines} lines, at most {limit}"


@rule
def names_say_what_is_inside(root: Path) -> Iterator[str]:
    for path in files(root):
        relative = path.relative_to(root)
        if path.suffix == ".py":
            for part in (*relative.parts[:-1], path.stem):
                if VAGUE & set(part.lower().split("_")):
                    yield f"{relative.as_posix()}: {part!r} does not say what is inside"


@rule
def modules_open_with_a_docstring(root: Path) -> Iterator[str]:
    for name, tree in sources(root, PACKAGE, "bench"):
        if not ast.get_docstring(tree):
            yield f"{name}: has no docstring"


@rule
def tests_mirror_the_package(root: Path) -> Iterator[str]:
    """tests/ROOM/test_FILE.py is about cupola/ROOM/FILE.py or FILE/; test_FILE_MORE.py too."""
    for name, _ in sources(root, "tests"):
        folder, _, file = name.removeprefix("tests/").rpartition("/")
        if file == "__init__.py":
            yield f"{name}: tests are no package"
        if not file.startswith("test_") or folder.split("/")[0] in MIRROR_FREE:
            continue
        words = file.removesuffix(".py").removeprefix("test_").split("_")
        seen = ["_".join(words[:n]) for n in range(1, len(words) + 1)]
        room = root / PACKAGE / folder
        if not any((room / f"{stem}.py").exists() or (room / stem / "__init__.py").exists() for stem in seen):
            yield f"{name}: mirrors no file of {PACKAGE}/{folder}"


@rule
def the_readme_is_short_and_starts_with_a_command(root: Path) -> Iterator[str]:
    readme = root / "README.md"
    lines = readme.read_text(encoding="utf-8").splitlines() if readme.exists() else []
    if not lines:
        yield "README.md: there is none"
    if len(lines) > README_LINES:
        yield f"README.md: {len(lines)} lines, at most {README_LINES}"
    if not any(re.match(r"( {4}|\$ )?(make|pip|python3?|cupola) \S", line) for line in lines[:12]):
        yield "README.md: no command to type in its first 12 lines"


@rule
def nothing_speaks_of_how_it_was_made(root: Path) -> Iterator[str]:
    """No file names the place, the tickets or the hosts of its making."""
    patterns = re.compile("|".join(f"(?:{p})" for p in FORBIDDEN), re.IGNORECASE)
    for path in files(root):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture, or another file that nobody reads as text
        for number, line in enumerate(text.splitlines(), 1):
            if found := patterns.search(line):
                yield f"{path.relative_to(root).as_posix()}:{number}: {found[0]!r}"
