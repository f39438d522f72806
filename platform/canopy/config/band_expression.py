"""Expressions over band names, such as ``(nir - red) / (nir + red)``: parsed to a tree, never executed.

Allowed are numbers, names, ``+ - * / **``, signs, parentheses, and the functions of :data:`FUNCTIONS`.
"""

from __future__ import annotations

import ast

from canopy.errors import ConfigError

MAX_CHARACTERS, MAX_NODES = 400, 100
MAX_EXPONENT = 8
"""Largest number that a power may have as its exponent, without its sign."""
OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)
FUNCTIONS = {"abs": 1, "sqrt": 1, "log": 1, "min": 2, "max": 2}
"""Functions, with the number of their arguments."""
INDICES = {
    "ndvi": "(nir - red) / (nir + red)",  # Rouse et al., 1974: vegetation
    "ndwi": "(green - nir) / (green + nir)",  # McFeeters, 1996: open water
    "nbr": "(nir - swir2) / (nir + swir2)",  # Key and Benson, 2006: burned land
}
"""Named indices; each takes the bands of those names and lies between -1 and 1."""
REMEDY = "Use numbers, names of bands, + - * / **, parentheses, abs, sqrt, log, min and max."


def parse_expression(text: str, thing: str) -> ast.expr:
    """The tree of an expression, every node of which is allowed.

    Args:
        text: the expression, or the name of an index of :data:`INDICES`.
        thing: name of the option; used in error messages.

    Raises:
        ConfigError: when the text is no expression, or holds anything that is not allowed.
    """
    source = INDICES.get(text.strip().lower(), text)
    if len(source) > MAX_CHARACTERS:
        need = f"must have at most {MAX_CHARACTERS} characters"
        raise ConfigError(thing, need, len(source), "Split it into several bands.")
    try:
        tree = ast.parse(source.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ConfigError(thing, "must be an expression over band names", repr(text), REMEDY) from None
    if sum(1 for _ in ast.walk(tree)) > MAX_NODES:
        raise ConfigError(thing, f"must have at most {MAX_NODES} parts", repr(text), "Make it shorter.")
    _check(tree, thing, text)
    return tree


def expression_names(tree: ast.expr) -> tuple[str, ...]:
    """Names of the bands in a tree of :func:`parse_expression`, each once, in order."""
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in called]
    return tuple(dict.fromkeys(names))


def _check(node: ast.expr, thing: str, text: str) -> None:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            if abs(number) > 1e12:
                raise ConfigError(thing, "must have numbers up to 1e12", repr(text), REMEDY)
            return
        case ast.Name():
            return
        case ast.UnaryOp(op=ast.UAdd() | ast.USub(), operand=operand):
            _check(operand, thing, text)
            return
        case ast.BinOp(op=ast.Pow(), right=exponent) if not _is_small_number(exponent):
            need = f"must have numbers of at most {MAX_EXPONENT} as exponents"
            raise ConfigError(thing, need, repr(text), REMEDY)
        case ast.BinOp(op=operator, left=left, right=right) if isinstance(operator, OPERATORS):
            _check(left, thing, text)
            _check(right, thing, text)
            return
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if FUNCTIONS.get(name) == len(args):
            for argument in args:
                _check(argument, thing, text)
            return
    raise ConfigError(thing, "must be an expression over band names", repr(text), REMEDY)


def _is_small_number(node: ast.expr) -> bool:
    inner = node.operand if isinstance(node, ast.UnaryOp) else node
    if not isinstance(inner, ast.Constant) or isinstance(inner.value, bool):
        return False
    return isinstance(inner.value, int | float) and inner.value <= MAX_EXPONENT
