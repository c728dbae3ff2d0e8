"""The text of a POSCAR: read for its structure, and given new coordinates with all else kept.

Groups of species stay as they are, also two neighbouring ones of the same element, since POTCAR,
MAGMOM and LDAUU go by them: https://www.vasp.at/wiki/POSCAR.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from pymatgen.core import Structure
from pymatgen.io.vasp import Poscar

from deeprelax_ase.checks import StructureError

_HEAD = 5  # comment, scale, three lattice vectors


@dataclass(frozen=True)
class PoscarText:
    """A POSCAR, taken apart.

    Attributes:
        head: Comment line.
        middle: Lines from the species to the counts, and that of selective dynamics.
        symbols: Element of each group; empty in a VASP 4 file.
        counts: Atoms in each group.
        tails: What stands behind the coordinates of each atom: flags, labels.
        has_velocities: Whether more follows.
        lines: All lines.
    """

    head: str
    middle: tuple[str, ...]
    symbols: tuple[str, ...]
    counts: tuple[int, ...]
    tails: tuple[str, ...]
    has_velocities: bool
    lines: tuple[str, ...]

    def structure(self, symbols: Sequence[str] = ()) -> Structure:
        """The structure, with selective dynamics as a site property.

        Args:
            symbols: Elements of the groups, for a VASP 4 file.

        Raises:
            StructureError: It cannot be read.
        """
        lines = list(self.lines)
        names = self.symbols or tuple(symbols)
        if self.symbols:  # Fe_pv and O_s/1ab2 are names of potentials
            lines[_HEAD] = " ".join(names)
        else:
            lines.insert(_HEAD, " ".join(names))
        try:
            structure = Poscar.from_str("\n".join(lines)).structure
        except Exception as error:  # the parser raises whatever its code runs into
            reason = " ".join(str(error).split())
            msg = f"cannot be read as a POSCAR: {reason[:200]}"
            raise StructureError(msg) from error
        if "velocities" in structure.site_properties:
            structure.remove_site_property("velocities")
        return structure

    def with_structure(self, structure: Structure) -> str:
        """The text with another cell and other coordinates, its atoms in the same order."""
        vectors = [_numbers(vector) for vector in structure.lattice.matrix]
        atoms = [
            f"{_numbers(place)}{tail}"
            for place, tail in zip(structure.frac_coords, self.tails, strict=True)
        ]
        return "\n".join([self.head, "1.0", *vectors, *self.middle, "Direct", *atoms, ""])


def read_poscar_text(text: str) -> PoscarText:
    """Take a POSCAR apart.

    Raises:
        StructureError: It breaks off, or a line is not what it should be.
    """
    lines = [line.rstrip() for line in text.splitlines()]
    try:
        species = lines[_HEAD].split()
        is_old = all(word.isdecimal() for word in species) and bool(species)
        counted = _HEAD if is_old else _HEAD + 1
        counts = tuple(int(word) for word in _plain(lines[counted]))
        at = counted + 1
        if lines[at].strip()[:1] in ("S", "s"):
            at += 1
        first = at + 1
        atoms = [lines[first + k] for k in range(sum(counts))]
        tails = tuple(_tail(line) for line in atoms)
    except (IndexError, ValueError) as error:
        msg = f"is no POSCAR, or breaks off ({error})"
        raise StructureError(msg) from error
    symbols = () if is_old else tuple(_element(word) for word in _plain(lines[_HEAD]))
    if symbols and len(symbols) != len(counts):
        msg = f"names {len(symbols)} species and {len(counts)} counts: they have to be as many"
        raise StructureError(msg)
    rest = lines[first + len(atoms) :]
    return PoscarText(
        head=lines[0],
        middle=tuple(lines[_HEAD:at]),
        symbols=symbols,
        counts=counts,
        tails=tails,
        has_velocities=any(line.strip() for line in rest),
        lines=tuple(lines[: first + len(atoms)]),
    )


def _plain(line: str) -> list[str]:
    return line.partition("!")[0].split()


def _element(name: str) -> str:
    """Element of the name of a potential."""
    return re.split(r"[_/.]", name, maxsplit=1)[0]


def _tail(line: str) -> str:
    """What follows the three coordinates of an atom."""
    words = line.split(maxsplit=3)
    _ = [float(word) for word in words[:3]]
    if len(words) < 3:  # noqa: PLR2004 - x, y and z
        msg = f"{line!r} holds no three coordinates"
        raise ValueError(msg)
    return f"  {words[3]}" if len(words) > 3 else ""  # noqa: PLR2004


def _numbers(values: Float[np.ndarray, "3"] | Any) -> str:
    return " ".join(f"{value:21.16f}" for value in values)
