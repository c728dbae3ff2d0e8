"""Edit the text of a POSCAR: read its structure, write new coordinates, keep everything else.

Groups of species stay as they are, also two neighbouring ones of the same element, since POTCAR,
MAGMOM and LDAUU go by them. So does the scale of line 2, the unit of Cartesian KPOINTS:
https://www.vasp.at/wiki/POSCAR. `new_poscar` makes the text of any other structure.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
from jaxtyping import Float
from pymatgen.core import Element, IStructure, Structure

from deeprelax_ase.files.file_text import fortran_float
from deeprelax_ase.structures.validation import StructureError

_NUMBER = re.compile(r"[-+]?(?:nan|inf|(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?)")
_HEAD = 5  # comment, scale, three lattice vectors
_AXES = 3


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
        has_velocities: Whether velocities follow, of atoms or of the lattice.
        lines: All lines.
        has_lattice_velocities: Whether some of the velocities are those of the lattice.
        remarks: Lines behind the atoms that are comments.
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
    has_lattice_velocities: bool = False
    remarks: tuple[str, ...] = ()

    def structure(self, symbols: Sequence[str] = ()) -> Structure:
        """Read the structure, with selective dynamics as a site property.

        Args:
            symbols: Elements of the groups, for a VASP 4 file.

        Raises:
            StructureError: A number cannot be read, or an element is none.
        """
        names = self.symbols or tuple(symbols)
        _check_names(names, self.counts)
        try:
            lattice, scale = self._lattice_and_scale()
            places = np.array([_three(line) for line in self.lines[-len(self.tails) :]])
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
            flags = [_flags(tail, number) for number, tail in enumerate(self.tails, start=1)]
            structure.add_site_property("selective_dynamics", flags)
        return structure

    def symbols_behind_atoms(self) -> tuple[str, ...]:
        """Elements of the groups that the lines of the atoms end with, as some VASP 4 files do."""
        words = iter(tail.split()[-1] if tail.split() else "" for tail in self.tails)
        groups = [{next(words) for _ in range(count)} for count in self.counts]
        names = tuple(group.pop() for group in groups if len(group) == 1)
        is_named = len(names) == len(groups) and all(map(Element.is_valid_symbol, names))
        return names if is_named else ()

    def with_structure(self, structure: IStructure) -> str:
        """Write the text with another cell and other coordinates, its atoms in the same order.

        Line 2 stays, unless it is a volume: then it becomes the new one, and the factor that it
        stands for stays.
        """
        _, scale = self._lattice_and_scale()
        matrix = structure.lattice.matrix
        is_volume = len(_floats(self.lines[1])) == 1 and _floats(self.lines[1])[0] < 0
        volume = f"{-abs(np.linalg.det(matrix)):.16f}"
        atoms = [
            f"{numbers_line(place)}{tail}"
            for place, tail in zip(structure.frac_coords, self.tails, strict=True)
        ]
        return "\n".join(
            [
                self.head,
                volume if is_volume else self.lines[1],
                *(numbers_line(vector) for vector in matrix / scale),
                *self.middle,
                "Direct",
                *atoms,
                *self.remarks,
                "",
            ]
        )

    def _lattice_and_scale(self) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
        """Vectors as they stand there, and the factors of x, y and z."""
        lattice = np.array([_three(line) for line in self.lines[2:_HEAD]])
        return lattice, _scale(self.lines[1], lattice)


def poscar_ending(name: str) -> str | None:
    """Ending of a file's name that begins as those of VASP's structures do; None for others."""
    found = re.match("POSCAR|CONTCAR", name, flags=re.IGNORECASE)
    return name[found.end() :] if found else None


def read_poscar_text(text: str) -> PoscarText:
    """Take a POSCAR apart.

    Raises:
        StructureError: It breaks off, or a line is not what it should be.
    """
    lines = [line.rstrip("\r") for line in text.split("\n")]
    lines = [*lines[:2], *(line.rstrip() for line in lines[2:])]
    try:
        species = _plain(lines[_HEAD])
        is_old = all(word.isdecimal() for word in species) and bool(species)
        counted = _HEAD if is_old else _HEAD + 1
        counts = tuple(int(word) for word in _plain(lines[counted]))
        at = counted + 1
        is_selective = lines[at].strip()[:1] in ("S", "s")
        at += is_selective
        first = at + 1
        has_mode = not _begins_with_three(lines[at])
        first -= not has_mode
        atoms = [lines[first + k] for k in range(sum(counts))]
        tails = tuple(_tail(line) for line in atoms)
    except IndexError as error:
        count = len(text.rstrip().splitlines())
        msg = f"is no POSCAR, or breaks off after {count} lines" if count else "is empty"
        raise StructureError(msg) from error
    except ValueError as error:
        msg = f"is no POSCAR, or breaks off ({error})"
        raise StructureError(msg) from error
    if not has_mode:
        msg = "has no line with Direct or Cartesian above its coordinates: add one"
        raise StructureError(msg)
    symbols = () if is_old else tuple(_element(word) for word in _plain(lines[_HEAD]))
    if symbols and len(symbols) != len(counts):
        msg = f"names {len(symbols)} species and {len(counts)} counts: they have to be as many"
        raise StructureError(msg)
    if not atoms:
        msg = f"has no atoms: its counts are {' '.join(map(str, counts))}"
        raise StructureError(msg)
    rest = lines[first + len(atoms) :]
    if all(line.lstrip()[:1] in ("", "#", "!") for line in rest):
        remarks, rest = tuple(line for line in rest if line), []
    else:
        remarks = ()
    if rest and _begins_with_three(rest[0]):
        msg = f"lists more coordinates than the {len(atoms)} atoms of its counts"
        raise StructureError(msg)
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
        has_lattice_velocities=any(line.lstrip()[:1] in ("L", "l") for line in rest[:2]),
        remarks=remarks,
    )


def _check_names(names: Sequence[str], counts: Sequence[int]) -> None:
    if len(names) != len(counts):
        msg = f"has {len(counts)} groups of atoms, and {len(names)} species are given for them"
        raise StructureError(msg)
    unknown = [name for name in names if not Element.is_valid_symbol(name)]
    if unknown:
        msg = f"names the species {unknown[0]!r}, which is no element: write its symbol alone"
        raise StructureError(msg)


def _scale(line: str, lattice: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3"]:
    """Factors of x, y and z: one for all, one each, or a volume (negative)."""
    values = _floats(line)
    if not all(values) or len(values) not in (1, _AXES) or min(values) < 0 < len(values) - 1:
        msg = f"the scale is {line.strip()!r}: give one number, not zero, or three, none negative"
        raise ValueError(msg)
    if len(values) == _AXES:
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
    found = [fortran_float(word) for word in words]
    if not found:
        msg = f"{line!r} begins with no number"
        raise ValueError(msg)
    return found


def _begins_with_three(line: str) -> bool:
    return len([*takewhile(_NUMBER.fullmatch, line.split())]) >= _AXES


def _three(line: str) -> list[float]:
    values = _floats(line)
    if len(values) < _AXES:
        msg = f"{line!r} holds no three coordinates"
        raise ValueError(msg)
    return values


def _element(name: str) -> str:
    """Element of the name of a potential, such as Fe_pv or that of a part of hydrogen, H1.25."""
    plain = re.split(r"[_/]", name, maxsplit=1)[0]
    return re.sub(r"\d*\.\d*$", "", plain)


def _tail(line: str) -> str:
    """What follows the three coordinates of an atom."""
    _three(line)
    rest = line.split(maxsplit=3)[3:]
    return f"  {rest[0]}" if rest else ""


def _flags(tail: str, number: int) -> list[bool]:
    """Three flags of selective dynamics of an atom; all free where there is none."""
    words = tail.split()[:3]
    flags = [word.lstrip(".")[:1].upper() for word in words]
    if words and (len(words) < _AXES or not {*flags} <= {"T", "F"}):
        msg = (
            f"has the selective dynamics {' '.join(words)!r} of its atom {number}, which has to be "
            "three times T or F"
        )
        raise StructureError(msg)
    return [flag == "T" for flag in flags] or [True] * _AXES


def numbers_line(values: Float[np.ndarray, "3"] | Any) -> str:
    """Three numbers, as a line of a POSCAR has them."""
    return " ".join(f"{value + 0.0:21.16f}" for value in values)  # -0 as 0
