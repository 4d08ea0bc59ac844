"""From a condition of a schema to what can be evaluated.

Not here: reading the schema (`schema/`), keeping what was compiled (`engine/`).
"""

from cupola.access.caveat.closures import Closures
from cupola.access.caveat.evaluate import Compiled
from cupola.access.caveat.syntax import SyntaxProblem, names_in, parse_expression
from cupola.access.caveat.types import parameter_types, schema_error
from cupola.access.schema.model import Caveat, Language


def compile_caveat(caveat: Caveat, language: Language) -> Compiled:
    """Returns a condition that can be evaluated.

    Args:
        language: of its schema: whose types and functions it may use. In `.zed`, each parameter must be used.

    Raises:
        SchemaError: the expression cannot be read, its types do not fit, or it gives no bool; a parameter is of a
            type that there is not, or is not used.
    """
    types = parameter_types(caveat, language)
    try:
        tree = parse_expression(caveat.expression, types, language)
        closures = Closures(tuple(types))
        run = closures.make(tree)
    except SyntaxProblem as problem:
        place = f" at {problem.line}:{problem.column} of the expression" if problem.line else ""
        raise schema_error(
            caveat, f"{problem.problem}{place}", f"Its parameters are {', '.join(types) or 'none'}."
        ) from problem
    if language is Language.ZED:
        used = frozenset(names_in(tree))
        unused = next((name for name in types if name not in used), None)
        if unused is not None:
            raise schema_error(caveat, f"parameter {unused} is not used", "Leave it out, or use it in the expression.")
    return Compiled(caveat.name, types, run, closures.frame_size, closures.cost)
