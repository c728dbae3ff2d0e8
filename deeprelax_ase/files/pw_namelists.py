"""Read the namelists of a pw.x input, and the cell that ibrav and its parameters give.

Formulas: https://www.quantum-espresso.org/Doc/INPUT_PW.html#ibrav. The cards are not read here.
"""

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from jaxtyping import Float

from deeprelax_ase.structures.validation import StructureError

BOHR = 0.529177210903
"""Å."""
Namelists = Mapping[str, Mapping[str, str]]
"""Values as they are written, without quotes, by the names of namelist and variable, in small."""
_ENTRY = re.compile(r"([A-Za-z]\w*(?:\s*\(\s*[\d\s,]+\))?)\s*=")
_QUOTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"")
_FORTRAN = re.compile(r"(?<=[\d.])[dD](?=[-+\d])")
_WITH_COS_BC_FIRST = (0, 14)
_UNIQUE_B = (-12, -13)
_RHOMBOHEDRAL = (5, -5)
_OPERATIONS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS = ("sqrt", "sin", "cos", "tan", "exp", "log")


def namelists_of(text: str) -> Namelists:
    """Read every namelist of a text, in any layout that Fortran takes."""
    found: dict[str, dict[str, str]] = {}
    name, body = "", ""
    for raw in text.splitlines():
        line = without_comment(raw)
        if line.lstrip().startswith("#"):
            continue
        start = None if name else re.match(r"\s*[&$](\w+)", line)
        if start:
            name, line = start[1].lower(), line[start.end() :]
        if not name:
            continue
        end = re.search(r"/|[&$]end\b", hide_quoted(line), flags=re.IGNORECASE)
        body += " " + (line[: end.start()] if end else line)
        if end:
            found.setdefault(name, {}).update(_entries(body))
            name, body = "", ""
    if name:
        msg = f"breaks off: the namelist &{name} has no '/' at its end"
        raise StructureError(msg)
    return found


def hide_quoted(line: str) -> str:
    """A line with its quoted texts blanked, of the same length."""
    return _QUOTED.sub(lambda found: " " * len(found[0]), line)


def without_comment(line: str) -> str:
    """A line of a namelist without what follows an exclamation mark."""
    mark = hide_quoted(line).find("!")
    return line if mark < 0 else line[:mark]


def _entries(body: str) -> dict[str, str]:
    marks = list(_ENTRY.finditer(hide_quoted(body)))
    ends = [mark.start() for mark in marks[1:]] + [len(body)]
    entries = {}
    for mark, end in zip(marks, ends, strict=False):  # there may be no marks
        value = body[mark.end() : end].strip().rstrip(",").strip()
        entries[re.sub(r"\s", "", mark[1]).lower()] = value.strip("'\"").strip()
    return entries


def number_of(word: str) -> float:
    """A number, or an expression such as 1/3, sqrt(3)/2 or 0.5d0, as pw.x takes them.

    Raises:
        ValueError: It is none, or not finite.
    """
    try:
        value = _value(_FORTRAN.sub("e", word.strip()))
    except (SyntaxError, TypeError, ArithmeticError, KeyError) as error:
        msg = f"{word!r} is no number"
        raise ValueError(msg) from error
    if not math.isfinite(value):
        msg = f"{word!r} is no number that is finite"
        raise ValueError(msg)
    return value


def _value(plain: str) -> float:
    with suppress(ValueError):
        return float(plain)
    return float(_evaluate(ast.parse(plain.replace("^", "**"), mode="eval").body))


def _evaluate(node: Any) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.BinOp):
        return _OPERATIONS[type(node.op)](_evaluate(node.left), _evaluate(node.right))
    if isinstance(node, ast.UnaryOp):
        return _OPERATIONS[type(node.op)](_evaluate(node.operand))
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    if is_call and len(node.args) == 1 and node.func.id.lower() in _FUNCTIONS:
        function: Callable[[float], float] = getattr(math, node.func.id.lower())
        return function(_evaluate(node.args[0]))
    raise TypeError(node)


def integer_of(system: Mapping[str, str], name: str) -> int | None:
    """An integer of a namelist, also one written as 5.000000; None where it is not given.

    Raises:
        ValueError: It is none.
    """
    if name not in system:
        return None
    value = number_of(system[name])
    if value != round(value):
        msg = f"{name} is {system[name]}, and has to be an integer"
        raise ValueError(msg)
    return round(value)


def lattice_parameters(system: Mapping[str, str], ibrav: int) -> list[float]:
    """Read celldm, or A, B, C and the cosines, as the six values of celldm; the first in Å.

    Values that are not given are 0, as in pw.x.

    Raises:
        ValueError: Both are given, or one is no number.
    """
    celldm = _celldm(system)
    if celldm and "a" in system:
        msg = "gives both celldm and A: keep one of them"
        raise ValueError(msg)
    if ibrav in _RHOMBOHEDRAL and 4 not in celldm and "cosab" not in system:  # noqa: PLR2004
        msg = f"ibrav is {ibrav}, and neither celldm(4) nor its cosine is given"
        raise ValueError(msg)
    if "a" not in system:
        values = [celldm.get(k, 0.0) for k in range(1, 7)]
        return [values[0] * BOHR, *values[1:]]
    a, b, c, ab, ac, bc = (
        number_of(system.get(name, "0")) for name in ("a", "b", "c", "cosab", "cosac", "cosbc")
    )
    if ibrav in _WITH_COS_BC_FIRST:
        cosines = [bc, ac, ab]
    elif ibrav in _UNIQUE_B:
        cosines = [0.0, ac, 0.0]
    else:
        cosines = [ab, 0.0, 0.0]
    return [a, b / a, c / a, *cosines]


def _celldm(system: Mapping[str, str]) -> dict[int, float]:
    """Values of celldm by their numbers: one by one, or several from the first or another on."""
    found: dict[int, float] = {}
    for name, text in system.items():
        mark = re.fullmatch(r"celldm(?:\((\d+)\))?", name)
        if mark is None:
            continue
        number = int(mark[1] or 1)
        with suppress(ValueError):
            found[number] = number_of(text)
            continue
        for word in re.split(r"\s*,\s*|\s+", text):
            count, star, value = word.rpartition("*")
            for _ in range(int(count) if star else 1):
                if value:  # nothing between two commas leaves what is there
                    found[number] = number_of(value)
                number += 1
    return found


def cell_of_ibrav(ibrav: int, parameters: list[float]) -> Float[np.ndarray, "3 3"]:
    """Vectors (Å) of a Bravais lattice of pw.x.

    Raises:
        ValueError: There is no such lattice, or a parameter that it needs is missing.
    """
    a = parameters[0]
    if ibrav not in _LATTICES:
        msg = f"ibrav is {ibrav}: pw.x knows 0 and {', '.join(map(str, sorted(_LATTICES)))}"
        raise ValueError(msg)
    if not a > 0:
        msg = f"ibrav is {ibrav}, and neither celldm(1) nor A is given"
        raise ValueError(msg)
    needed, vectors = _LATTICES[ibrav]
    for index in needed:
        if not parameters[index - 1]:
            msg = f"ibrav is {ibrav}, and neither celldm({index}) nor {' BC'[index - 1]} is given"
            raise ValueError(msg)
    b, c = parameters[1], parameters[2]
    cell: np.ndarray = a * np.array(vectors(b, c, *parameters[3:]), dtype=float)
    if not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-6 * a**3:
        msg = f"ibrav is {ibrav}, and its parameters make no cell: look at the cosines"
        raise ValueError(msg)
    return cell


def _root(value: float) -> float:
    return math.sqrt(value) if value >= 0 else math.nan


def _rhombohedral(_b: float, _c: float, cosine: float, *_: float) -> list[list[float]]:
    x, y, z = _root((1 - cosine) / 2), _root((1 - cosine) / 6), _root((1 + 2 * cosine) / 3)
    return [[x, -y, z], [0, 2 * y, z], [-x, -y, z]]


def _rhombohedral_111(_b: float, _c: float, cosine: float, *_: float) -> list[list[float]]:
    y, z = _root((1 - cosine) / 6), _root((1 + 2 * cosine) / 3)
    u, v = (z - 2 * _root(2) * y) / _root(3), (z + _root(2) * y) / _root(3)
    return [[u, v, v], [v, u, v], [v, v, u]]


def _triclinic(b: float, c: float, bc: float, ac: float, ab: float) -> list[list[float]]:
    sine = _root(1 - ab**2)
    height = _root(1 + 2 * bc * ac * ab - bc**2 - ac**2 - ab**2)
    if not sine > 0:
        return [[math.nan] * 3] * 3
    return [
        [1, 0, 0],
        [b * ab, b * sine, 0],
        [c * ac, c * (bc - ac * ab) / sine, c * height / sine],
    ]


# What each needs of celldm, and its vectors in units of a, from b/a, c/a and celldm(4) to (6).
_Lattice = tuple[tuple[int, ...], Callable[..., list[list[float]]]]
_LATTICES: dict[int, _Lattice] = {
    1: ((), lambda *_: [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
    2: ((), lambda *_: [[-0.5, 0, 0.5], [0, 0.5, 0.5], [-0.5, 0.5, 0]]),
    3: ((), lambda *_: [[0.5, 0.5, 0.5], [-0.5, 0.5, 0.5], [-0.5, -0.5, 0.5]]),
    -3: ((), lambda *_: [[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]]),
    4: ((3,), lambda _, c, *__: [[1, 0, 0], [-0.5, math.sqrt(3) / 2, 0], [0, 0, c]]),
    5: ((), _rhombohedral),
    -5: ((), _rhombohedral_111),
    6: ((3,), lambda _, c, *__: [[1, 0, 0], [0, 1, 0], [0, 0, c]]),
    7: ((3,), lambda _, c, *__: [[0.5, -0.5, c / 2], [0.5, 0.5, c / 2], [-0.5, -0.5, c / 2]]),
    8: ((2, 3), lambda b, c, *_: [[1, 0, 0], [0, b, 0], [0, 0, c]]),
    9: ((2, 3), lambda b, c, *_: [[0.5, b / 2, 0], [-0.5, b / 2, 0], [0, 0, c]]),
    -9: ((2, 3), lambda b, c, *_: [[0.5, -b / 2, 0], [0.5, b / 2, 0], [0, 0, c]]),
    91: ((2, 3), lambda b, c, *_: [[1, 0, 0], [0, b / 2, -c / 2], [0, b / 2, c / 2]]),
    10: ((2, 3), lambda b, c, *_: [[0.5, 0, c / 2], [0.5, b / 2, 0], [0, b / 2, c / 2]]),
    11: (
        (2, 3),
        lambda b, c, *_: [[0.5, b / 2, c / 2], [-0.5, b / 2, c / 2], [-0.5, -b / 2, c / 2]],
    ),
    12: ((2, 3), lambda b, c, ab, *_: [[1, 0, 0], [b * ab, b * _root(1 - ab**2), 0], [0, 0, c]]),
    -12: (
        (2, 3),
        lambda b, c, _, ac, *__: [[1, 0, 0], [0, b, 0], [c * ac, 0, c * _root(1 - ac**2)]],
    ),
    13: (
        (2, 3),
        lambda b, c, ab, *_: [
            [0.5, 0, -c / 2],
            [b * ab, b * _root(1 - ab**2), 0],
            [0.5, 0, c / 2],
        ],
    ),
    -13: (
        (2, 3),
        lambda b, c, _, ac, *__: [
            [0.5, b / 2, 0],
            [-0.5, b / 2, 0],
            [c * ac, 0, c * _root(1 - ac**2)],
        ],
    ),
    14: ((2, 3), _triclinic),
}
