"""The text of a POSCAR: read for its structure, and given new coordinates with all else kept.

Groups of species stay as they are, also two neighbouring ones of the same element, since POTCAR,
MAGMOM and LDAUU go by them: https://www.vasp.at/wiki/POSCAR.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
from jaxtyping import Float
from pymatgen.core import Structure

from deeprelax_ase.structures.validation import StructureError

_NUMBER = re.compile(r"[-+]?(?:nan|inf|(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?)")
_HEAD = 5  # comment, scale, three lattice vectors


@dataclass(frozen=True)
class PoscarText:
    """A POSCAR, taken apart.

    Attributes:
        head: Comment line.
        middle: Lines from the species to the counts, and that of selective dynamics.
        symbols: Element of each group; empty in a VASP 4 file.
        counts: Atoms in each group.
        mode: Line that says whether coordinates are Cartesian.
        is_selective: Whether flags say what may move.
        tails: What stands behind the coordinates of each atom: flags, labels.
        has_velocities: Whether more follows.
        lines: All lines.
    """

    head: str
    middle: tuple[str, ...]
    symbols: tuple[str, ...]
    counts: tuple[int, ...]
    mode: str
    is_selective: bool
    tails: tuple[str, ...]
    has_velocities: bool
    lines: tuple[str, ...]

    def structure(self, symbols: Sequence[str] = ()) -> Structure:
        """The structure, with selective dynamics as a site property.

        Args:
            symbols: Elements of the groups, for a VASP 4 file.

        Raises:
            StructureError: A number cannot be read, or an element is none.
        """
        names = self.symbols or tuple(symbols)
        try:
            lattice = np.array([_floats(line)[:3] for line in self.lines[2:_HEAD]])
            scale = _scale(self.lines[1], lattice)
            places = np.array([_floats(line)[:3] for line in self.lines[-len(self.tails) :]])
            is_cartesian = self.mode[:1] in ("C", "c", "K", "k")
            structure = Structure(
                lattice * scale,
                [
                    name
                    for name, count in zip(names, self.counts, strict=True)
                    for _ in range(count)
                ],
                places * scale if is_cartesian else places,
                coords_are_cartesian=is_cartesian,
            )
        except (ValueError, IndexError, np.linalg.LinAlgError) as error:
            msg = f"cannot be read as a POSCAR: {' '.join(str(error).split())[:200]}"
            raise StructureError(msg) from error
        if self.is_selective:
            flags = [[flag[:1] in ("T", "t") for flag in _flags(tail)] for tail in self.tails]
            structure.add_site_property("selective_dynamics", flags)
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
    lines = [line.rstrip() for line in text.split("\n")]
    try:
        species = _plain(lines[_HEAD])
        is_old = all(word.isdecimal() for word in species) and bool(species)
        counted = _HEAD if is_old else _HEAD + 1
        counts = tuple(int(word) for word in _plain(lines[counted]))
        at = counted + 1
        is_selective = lines[at].strip()[:1] in ("S", "s")
        at += is_selective
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
        mode=lines[at].strip(),
        is_selective=is_selective,
        tails=tails,
        has_velocities=any(line.strip() for line in rest),
        lines=tuple(lines[: first + len(atoms)]),
    )


def _scale(line: str, lattice: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3"]:
    """Factors of x, y and z: one for all, one each, or a volume (negative)."""
    values = _floats(line)
    if len(values) == 3:  # noqa: PLR2004 - x, y and z
        return np.array(values)
    if values[0] < 0:
        return np.full(3, (-values[0] / abs(np.linalg.det(lattice))) ** (1 / 3))
    return np.full(3, values[0])


def _plain(line: str) -> list[str]:
    """Words of a line, without its comment."""
    return re.split(r"[!#]", line, maxsplit=1)[0].split()


def _floats(line: str) -> list[float]:
    """Numbers at the beginning of a line, as Fortran reads them."""
    words = takewhile(_NUMBER.fullmatch, _plain(line)[:3])
    found = [float(re.sub("[dD]", "e", word)) for word in words]
    if not found:
        msg = f"{line!r} begins with no number"
        raise ValueError(msg)
    return found


def _element(name: str) -> str:
    """Element of the name of a potential."""
    return re.split(r"[_/.]", name, maxsplit=1)[0]


def _tail(line: str) -> str:
    """What follows the three coordinates of an atom."""
    if len(_floats(line)) < 3:  # noqa: PLR2004 - x, y and z
        msg = f"{line!r} holds no three coordinates"
        raise ValueError(msg)
    rest = line.split(maxsplit=3)[3:]
    return f"  {rest[0]}" if rest else ""


def _flags(tail: str) -> list[str]:
    """Three flags of selective dynamics; T where there is none."""
    return [*tail.replace(".", "").split(), "T", "T", "T"][:3]


def _numbers(values: Float[np.ndarray, "3"] | Any) -> str:
    return " ".join(f"{value:21.16f}" for value in values)
