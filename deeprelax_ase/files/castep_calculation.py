"""What a .cell file of CASTEP says of the relaxation that it asks for, and its .param beside it.

Meanings are those of https://castep-docs.github.io/castep-docs, input files.
"""

import re
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
from jaxtyping import Float

from deeprelax_ase.files.calculation import Calculation, with_dispersion
from deeprelax_ase.files.file_text import decode, fortran_float, read_bytes, split_name
from deeprelax_ase.structures.exact_holds import HeldParameters
from deeprelax_ase.structures.held import Held
from deeprelax_ase.structures.validation import StructureError

_D3 = ("D3", "D3-BJ")
_FUNCTIONALS = {"PBE": "PBE", "PBESOL": "PBEsol", "R2SCAN": "r2SCAN"}
_NEAREST = {"SCAN": "r2SCAN", "RSCAN": "r2SCAN", "RPBE": "PBE"}
_RELAXED = {"geometryoptimization", "geometryoptimisation", "geometry"}
_FLAGS = {"FIX_ALL_CELL": "cell", "FIX_VOL": "volume", "FIX_ALL_IONS": "positions"}


def read_castep_calculation(
    text: str, cell: Float[np.ndarray, "3 3"], param: str | None = None
) -> Calculation:
    """Read what the inputs of CASTEP ask for.

    Args:
        text: Of the .cell file. IONIC_CONSTRAINTS are read with its atoms.
        cell: Row vectors, Å.
        param: Text of the .param file, where there is one.

    Raises:
        StructureError: A block cannot be read.
    """
    functional, nearest, refusal = None, "unknown", ""
    if param is not None:
        given = _keywords(param)
        functional, nearest = _functional(given)
        task = given.get("TASK", "singlepoint")
        if re.sub(r"[\s_]", "", task.lower()) not in _RELAXED:
            refusal = f"TASK : {task} is no geometry optimization"
    keywords, blocks = _keywords(text), _blocks(text)
    pressure = [_number(word) for word in blocks.get("EXTERNAL_PRESSURE", "").split()]
    names = [name for flag, name in _FLAGS.items() if _is_true(keywords.get(flag, "false"))]
    held = Held(frozenset(names))
    reasons = [flag for flag in _FLAGS if _is_true(keywords.get(flag, "false"))]
    if refusal:  # of what is no relaxation, these say nothing
        return Calculation(Held(), "", functional, refusal, nearest)
    if not names and (param is not None or any(flag in keywords for flag in _FLAGS)):
        held = Held.of("nothing")
    if "CELL_CONSTRAINTS" in blocks and "cell" not in names:
        combinations = _cell_constraints(blocks["CELL_CONSTRAINTS"])
        held |= Held(parts=(HeldParameters(cell, combinations),))
        if len(held.rows):
            reasons.append("CELL_CONSTRAINTS")
    if any(pressure) and "cell" not in names:
        refusal = "EXTERNAL_PRESSURE asks for an external pressure"
    if "NONLINEAR_CONSTRAINTS" in blocks:
        what = "NONLINEAR_CONSTRAINTS hold distances or angles, which cannot be honoured"
        refusal = refusal or what
    if any(_number(word) for word in blocks.get("EXTERNAL_EFIELD", "").split()):
        refusal = refusal or "EXTERNAL_EFIELD asks for an electric field"
    return Calculation(held, " and ".join(reasons), functional, refusal, nearest)


def _functional(given: Mapping[str, str]) -> tuple[str, str]:
    """Functional with its correction for dispersion, and the nearest to an unknown one."""
    named = given.get("XC_FUNCTIONAL", "LDA").upper()
    plain = _FUNCTIONALS.get(named, "unknown")
    nearest = _NEAREST.get(named, "unknown")
    if not _is_true(given.get("SEDC_APPLY", "false")):
        return plain, nearest
    return with_dispersion(plain, nearest, is_d3=given.get("SEDC_SCHEME", "").upper() in _D3)


def read_param_beside(path: Path) -> str | None:
    """Text of the .param file that goes with a .cell file, or None."""
    param = path.with_name(f"{split_name(path)[0]}.param")
    return decode(read_bytes(param)) if param.is_file() else None


def _cell_constraints(block: str) -> Float[np.ndarray, "rows 6"]:
    """Combinations of lengths and angles that stay: 0 keeps one, equal numbers tie two."""
    words = block.split()
    if len(words) != 6 or not all(re.fullmatch(r"[-+]?\d+", word) for word in words):  # noqa: PLR2004
        msg = f"CELL_CONSTRAINTS has to be two lines of three whole numbers, not {block.split()}"
        raise StructureError(msg)
    numbers = np.array([int(word) for word in words])
    every = np.eye(6)
    rows = [every[k] for k in range(6) if numbers[k] == 0]
    for kinds in (range(3), range(3, 6)):
        rows += [
            every[i] - every[j]
            for i, j in combinations(kinds, 2)
            if numbers[i] == numbers[j] and numbers[i] != 0
        ]
    return np.array(rows).reshape(-1, 6)


def _keywords(text: str) -> Mapping[str, str]:
    """Keywords outside of blocks, in capitals, with their values."""
    outside = re.sub(r"(?is)%block.*?%endblock[^\n]*", "", text)
    found = {}
    for line in outside.splitlines():
        words = re.split(r"[!#;]", line, maxsplit=1)[0].strip()
        name, *value = re.split(r"\s*[:=]\s*|\s+", words, maxsplit=1)
        if name:
            found[name.upper()] = value[0].strip() if value else "true"
    return found


def _blocks(text: str) -> Mapping[str, str]:
    """Blocks by their names in capitals, without comments."""
    plain = re.sub(r"[!#;][^\n]*", "", text)
    found = re.findall(r"(?is)%block\s+(\w+)[^\n]*\n(.*?)%endblock", plain)
    return {name.upper(): body for name, body in found}


def _number(word: str) -> float:
    """A number; 0 for the name of a unit."""
    try:
        return fortran_float(word)
    except ValueError:
        return 0.0


def _is_true(word: str) -> bool:
    return word.strip().strip(".").upper()[:1] in ("T", "Y", "1")
