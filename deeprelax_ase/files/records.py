"""Read one structure of a record: pymatgen's, JARVIS', OPTIMADE's, a CIF's, or plain arrays."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.io.jsonio import decode as decode_ase
from pymatgen.core import Element, Lattice, Structure

from deeprelax_ase.files.cif import read_cif
from deeprelax_ase.structures.elements import HYDROGEN_ISOTOPES
from deeprelax_ase.structures.validation import StructureError

Named = tuple[str, Any]
"""The id of a structure, and the structure."""
ID_KEYS = ("id", "material_id", "entry_id", "jid", "mat_id")
"""Where a record, a row or the comment of a frame may hold an id of its own."""
PLAIN_COLUMNS = ("numbers", "cell", "positions")
"""What a record of arrays holds, flat, Å; and perhaps `pbc`."""
CIF_SIGN = "_cell_length_a"
_JARVIS = ("lattice_mat", "coords", "elements")
_OPTIMADE = ("cartesian_site_positions", "lattice_vectors")
_NESTED = ("structure", "atoms", "cif")
_NO_CONCENTRATION = "vacancy"
_TELLING = (ValueError, OSError, NotImplementedError, RuntimeError)
"""Exceptions whose message is for people; the others say what broke in the code of a parser."""
_EMPTY_WORDS = (
    "unpack",
    "argument",
    "NoneType",
    "object",
    "iterable",
    "subscript",
    "reduction",
    "StopIter",
)


@dataclass(frozen=True)
class Item:
    """One entry of an input.

    Attributes:
        id: Its name, where it has none of its own.
        read: Its structures with their ids; can be pickled. It raises where it cannot be read.
    """

    id: str
    read: Callable[[], Iterable[Named]]


class EntryError(StructureError):
    """An entry cannot be read, whose own id is known all the same.

    Args:
        entry: Its id.
        reason: Why.
    """

    def __init__(self, entry: str, reason: str) -> None:
        super().__init__(reason)
        self.entry = entry


def one_line(error: Any) -> str:
    """Say what an exception says, in one line of a readable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300]


def reason_of(
    error: BaseException, otherwise: str = "it breaks off, or is in another format"
) -> str:
    """Say in words what an exception of a parser or a writer means.

    Args:
        error: The exception.
        otherwise: What to say of those whose text tells a user nothing.
    """
    text = " ".join(str(error).split())
    if isinstance(error, KeyError) and error.args:
        return _of_missing(str(error.args[0]))
    is_telling = isinstance(error, _TELLING) or type(error).__module__.split(".")[0] == "ase"
    if is_telling and text and not any(word in text for word in _EMPTY_WORDS):
        return text[:200]
    return f"{otherwise} ({type(error).__name__})"


def _of_missing(key: str) -> str:
    """What it means that a parser does not find a key, which may be the name of a species."""
    is_word = re.fullmatch(r"[A-Z][A-Za-z]{0,2}", key) and not Element.is_valid_symbol(key)
    if re.fullmatch(r"[A-Za-z]{1,3}[-_+\d]\w*", key):
        return f"{key!r} is no element: strip the numbers of labels"
    if key in HYDROGEN_ISOTOPES:
        return f"{key!r} is no element to its reader: write H"
    return f"{key!r} is no element" if is_word or key.isdecimal() else f"it lacks {key!r}"


def cannot_be_read(message: str) -> NoReturn:
    """Stand for the reading of what is broken."""
    raise StructureError(message)


def read_record(name: str, record: Any) -> list[Named]:
    """Read the structure of a record, under its own id if it has one."""
    if not isinstance(record, dict):
        cannot_be_read(f"{name}: {str(record)[:60]!r} is no structure")
    own = next((str(record[key]) for key in ID_KEYS if record.get(key) not in (None, "")), name)
    try:
        return [(own, _structure_of(record))]
    except Exception as error:  # the parsers raise whatever their code runs into
        raise EntryError(own, reason_of(error, "its record is not laid out as known")) from error


def structure_of_text(text: str) -> Any:
    """Read the structure of a field of a table: a CIF, or JSON of what `read_record` reads.

    Raises:
        StructureError: It is neither.
    """
    if CIF_SIGN in text:
        return _of_cif(text)
    if not is_structure_text(text):
        msg = f"{text[:60]!r} is no CIF and no JSON of a structure"
        raise StructureError(msg)
    return _structure_of(json.loads(text))


def is_structure_text(text: Any) -> bool:
    """Whether a field of a table looks like a structure."""
    if not isinstance(text, str):
        return False
    if CIF_SIGN in text:
        return True
    if not text.lstrip().startswith("{"):
        return False
    try:
        return is_record(json.loads(text))
    except ValueError:
        return False


def _structure_of(record: Mapping[str, Any]) -> Any:
    for is_kind, read in (
        ({"lattice", "sites"} <= record.keys(), Structure.from_dict),
        ("__ase_objtype__" in record, lambda one: decode_ase(json.dumps(one))),
        (set(_JARVIS) <= record.keys(), _of_jarvis),
        (bool({"attributes", *_OPTIMADE} & record.keys()), _of_optimade),
    ):
        if is_kind:
            return read(record)
    nested = next((record[key] for key in _NESTED if isinstance(record.get(key), dict | str)), None)
    if nested is not None:
        return structure_of_text(nested) if isinstance(nested, str) else _structure_of(nested)
    return _of_arrays(record)


def _of_cif(text: str) -> Structure:
    structures, _ = read_cif(text)
    if len(structures) != 1:
        msg = f"its CIF holds {len(structures)} structures"
        raise StructureError(msg)
    return structures[0]


def _of_jarvis(record: Mapping[str, Any]) -> Structure:
    """A dictionary of `jarvis.core.atoms.Atoms`."""
    return Structure(
        np.array(record["lattice_mat"], dtype=float),
        [str(element).strip() for element in record["elements"]],
        np.array(record["coords"], dtype=float),
        coords_are_cartesian=bool(record.get("cartesian", False)),
    )


def _of_optimade(entry: Mapping[str, Any]) -> Structure | Atoms:
    """An entry of OPTIMADE, or its attributes: https://specs.optimade.org."""
    record = entry.get("attributes", entry)
    missing = [key for key in (*_OPTIMADE, "species", "species_at_sites") if not record.get(key)]
    if missing:
        msg = f"is an OPTIMADE structure without {' and '.join(missing)}"
        raise StructureError(msg)
    species = {}
    for one in record["species"]:
        parts = zip(one["chemical_symbols"], one["concentration"], strict=True)
        species[one["name"]] = {
            symbol: share for symbol, share in parts if symbol != _NO_CONCENTRATION
        }
    sites = [species.get(name) for name in record["species_at_sites"]]
    names = {symbol for site in sites if site is not None for symbol in site}
    unknown = [name for name in sorted(names) if not Element.is_valid_symbol(name)]
    if None in sites or unknown:
        wrong = unknown[0] if unknown else record["species_at_sites"][sites.index(None)]
        msg = f"is an OPTIMADE structure with a site of {wrong!r}, which is no species of it"
        raise StructureError(msg)
    positions = np.array(record["cartesian_site_positions"], dtype=float)
    pbc = tuple(bool(one) for one in record.get("dimension_types") or (1, 1, 1))
    vectors = [row if row and None not in row else [0, 0, 0] for row in record["lattice_vectors"]]
    lattice = np.array(vectors, dtype=float)
    if not all(map(any, vectors)):
        symbols = [next(iter(site)) for site in sites if site is not None and len(site) == 1]
        return Atoms(symbols, positions=positions, cell=lattice, pbc=pbc)
    return Structure(Lattice(lattice, pbc=pbc), sites, positions, coords_are_cartesian=True)


def _of_arrays(record: Mapping[str, Any]) -> Atoms:
    missing = [key for key in PLAIN_COLUMNS if record.get(key) is None]
    if len(missing) == len(PLAIN_COLUMNS):
        msg = f"holds no structure: its keys are {', '.join(map(str, list(record)[:12]))}"
        raise StructureError(msg)
    if missing:
        msg = f"holds no {' and no '.join(missing)}"
        raise StructureError(msg)
    numbers = np.array(record["numbers"], dtype=float).ravel()
    cell = np.array(record["cell"], dtype=float).ravel()
    positions = np.array(record["positions"], dtype=float).ravel()
    pbc = [True] * 3 if record.get("pbc") is None else np.ravel(record["pbc"]).tolist()
    if (numbers != np.rint(numbers)).any():
        msg = f"numbers are atomic numbers, and one is {numbers[numbers != np.rint(numbers)][0]}"
        raise StructureError(msg)
    sizes = (len(positions), len(cell), len(pbc))
    if sizes != (3 * len(numbers), 9, 3):
        msg = (
            f"{len(numbers)} numbers, {sizes[0]} coordinates, {sizes[1]} values of the cell and "
            f"{sizes[2]} of pbc do not belong together: three an atom, nine and three are needed"
        )
        raise StructureError(msg)
    atoms = Atoms(
        numbers=numbers.astype(int),
        positions=positions.reshape(-1, 3),
        cell=cell.reshape(3, 3),
        pbc=pbc,
    )
    if record.get("fixed") is not None:
        if len(record["fixed"]) != len(numbers):
            msg = f"{len(record['fixed'])} values of fixed do not belong to {len(numbers)} atoms"
            raise StructureError(msg)
        atoms.set_constraint(FixAtoms(mask=np.array(record["fixed"], dtype=bool)))
    return atoms


def is_record(value: Any) -> bool:
    """Whether a value of JSON is what `read_record` reads."""
    return isinstance(value, dict) and (
        {"lattice", "sites"} <= value.keys()
        or set(_JARVIS) <= value.keys()
        or set(PLAIN_COLUMNS) <= value.keys()
        or bool(set(_OPTIMADE) & value.keys())
        or "__ase_objtype__" in value
        or isinstance(value.get("attributes"), dict)
        or isinstance(value.get("structure"), dict)
        or is_structure_text(value.get("structure"))
        or isinstance(value.get("cif"), str)
        or is_record(value.get("atoms"))
    )
