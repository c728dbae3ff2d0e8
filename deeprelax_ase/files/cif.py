"""Read the structures of a CIF, and refuse where something of it would be lost.

pymatgen parses; `cif_symmetry` finds the operations. Blocks without atoms, such as those of
journals and powder patterns, are no structures and are skipped.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifParser
from scipy.spatial import cKDTree

from deeprelax_ase.files.cif_checks import (
    COORDINATES,
    check_formula,
    check_group,
    check_sites,
    closest,
    fits_file,
    is_same,
)
from deeprelax_ase.files.cif_moments import (
    check_moments,
    is_whole,
    magnetism_of,
    plain_moments,
    usual_tags,
    without_group,
    without_moments,
)
from deeprelax_ase.files.cif_symmetry import CifSymmetry, Operation, cif_symmetry, text_of
from deeprelax_ase.structures.crystal import LEAST_DISTANCE
from deeprelax_ase.structures.elements import HYDROGEN_ISOTOPES
from deeprelax_ase.structures.validation import FULL, StructureError

_SYMBOLS = "_atom_site_type_symbol"
_ATOMS = ("_atom_site_fract_x", "_atom_site_label", _SYMBOLS)
_OCCUPANCY = "_atom_site_occupancy"
"""A dot stands for the default value, which is 1."""
_LENGTHS = ("_cell_length_a", "_cell_length_b", "_cell_length_c")
_ANGLES = ("_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma")
_COARSE = 3e-3
"""Fractional coordinates of three digits differ from special positions by no more."""
_ONE_SITE = 0.1
"""Atoms as near (Å) are one, on a special position that is written with too few digits."""
_EXACT = 1e-4
_NUMBER = re.compile(
    r"^\s*_(?:space_group_IT|symmetry_Int_Tables)_number\s+\S+", re.MULTILINE | re.IGNORECASE
)
"""pymatgen takes the usual setting of the group of that number where it knows no name."""
_TAGS = re.compile(
    r"^\s*(?:loop_|_(?:cell_(?:length|angle)|atom_site_(?:fract|label|type|occ))\w*)", re.IGNORECASE
)


def read_cif(text: str) -> tuple[list[Structure], tuple[str, ...]]:
    """Read every structure of a CIF, and what should be told of the reading.

    Raises:
        StructureError: There is none, or one cannot be read without a loss; the message says why.
    """
    structures: list[Structure] = []
    notes: dict[str, None] = {}
    for name, block_text in _blocks(usual_tags(text)):
        block = _values(block_text)
        if not any(tag in block for tag in _ATOMS):
            continue
        try:
            structure, told = _read_block(block_text, block)
        except StructureError as error:
            msg = f"{error} (block {name!r})"
            raise StructureError(msg) from error
        structures.append(structure)
        notes.update(dict.fromkeys(told))
    if not structures:
        msg = "cannot be read as a CIF: no block has atom sites"
        raise StructureError(msg)
    return structures, tuple(notes)


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Names and texts of the data blocks; a text between semicolons begins none."""
    name, lines, is_text = None, [], False
    for line in text.splitlines():
        if line.startswith(";"):
            is_text = not is_text
        found = None if is_text else re.match(r"\s*data_(\S*)", line, re.IGNORECASE)
        if found:
            if name is not None:
                yield name, "\n".join([*lines, ""])
            name, lines = found[1], ["data_block"]
        elif name is not None:
            if is_text:
                lines.append(re.sub(r"^(\s*)data_", r"\1data-", line))
            else:  # tags are the same in capitals, to all but pymatgen
                lines.append(_TAGS.sub(lambda tag: tag[0].lower(), line))
    if name is not None:
        yield name, "\n".join([*lines, ""])


def _parser(text: str, tolerance: float, rounding: float) -> CifParser:
    parser = CifParser.from_str(
        text,
        occupancy_tolerance=1 + FULL,
        site_tolerance=tolerance,
        frac_tolerance=rounding,
        check_cif=False,
    )
    for block in parser._cif.data.values():  # noqa: SLF001 - it reads a dot as zero
        values = block.data.get(_OCCUPANCY)
        if isinstance(values, list):
            block.data[_OCCUPANCY] = ["1" if value == "." else value for value in values]
        symbols = block.data.get(_SYMBOLS)
        if isinstance(symbols, list):  # of D and H on one site it adds up the occupancies wrongly
            block.data[_SYMBOLS] = ["H" if s in HYDROGEN_ISOTOPES else s for s in symbols]
    return parser


def _values(text: str) -> dict[str, Any]:
    """Values of a block, by tags in small letters."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            block: Mapping[str, Any] = next(iter(_parser(text, _EXACT, 0.0).as_dict().values()), {})
        except (ValueError, ZeroDivisionError, IndexError, StopIteration) as error:
            msg = "has a loop whose values do not fill its columns"
            raise StructureError(msg) from error
    for warning in caught:
        if "Possible issue" in str(warning.message):
            line = str(warning.message).partition("line: ")[2]
            msg = f"has values that belong to no column or tag: {line[:60]!r}"
            raise StructureError(msg)
    return {tag.lower(): value for tag, value in block.items()}


def _read_block(text: str, block: Mapping[str, Any]) -> tuple[Structure, list[str]]:
    told = check_sites(block)
    lattice = _lattice(block)
    is_magnetic, group = magnetism_of(block)
    if group:
        return _magnetic(text, block, group, told)
    symmetry = cif_symmetry(block, lattice.metric_tensor)
    if not symmetry.name and not symmetry.is_listed:
        told.append("no space group is named: taken for P 1")
    if is_magnetic:
        check_moments(block, symmetry)
        structure, told = _magnetic(text, block, "", told)
        check_group(structure, symmetry)
        return structure, told
    text = without_moments(text)
    found = _candidates(text, symmetry)
    fitting = [one for one in found if fits_file(one, block, symmetry)] or found
    if len(fitting) > 1:
        msg = (
            f"names the space group {symmetry.name!r}, which has two origin choices, and gives no "
            f"symmetry operations: write '{symmetry.name} :1' or '{symmetry.name} :2'"
        )
        raise StructureError(msg)
    structure = fitting[0]
    check_group(structure, symmetry)
    told += check_formula(structure, block)
    if symmetry.operations and all(len(one) == 1 for one in symmetry.operations):
        structure = _in_order(structure, block)
    return structure, told


def _magnetic(
    text: str, block: Mapping[str, Any], group: str, told: list[str]
) -> tuple[Structure, list[str]]:
    """The structure of a block by its magnetic group; of none, its sites as they stand there."""
    if is_whole(group):
        structure = _in_order(_parsed(without_group(text), 1e-8, 0.0), block)
    else:
        structure = _parsed(text, _EXACT, _EXACT, group)
    told += [*plain_moments(structure, block), *check_formula(structure, block)]
    return structure, told


def _in_order(structure: Structure, block: Mapping[str, Any]) -> Structure:
    """The sites of P 1 as they stand in the file; pymatgen sorts them by element."""
    columns = [[_number(value) for value in block[tag]] for tag in COORDINATES]
    rows = np.transpose(columns) % 1.0 % 1.0  # of -1e-20, too
    found = cKDTree(rows, boxsize=1.0).query(structure.frac_coords % 1.0 % 1.0)[1]
    places = dict(zip(map(id, structure), found, strict=True))
    structure.sort(key=lambda site: places[id(site)])
    return structure


def _candidates(text: str, symmetry: CifSymmetry) -> list[Structure]:
    """Structures by each of the sets of operations that it may be; equal ones once."""
    if not symmetry.operations:
        return [_parsed(_NUMBER.sub("", text), _EXACT, _EXACT, symmetry.name)]
    found: list[Structure] = []
    problems: list[StructureError] = []
    for operations in symmetry.operations:
        try:
            structure = _expanded(text, operations, symmetry.name)
        except StructureError as error:
            problems.append(error)
            continue
        if not any(is_same(structure, other) for other in found):
            found.append(structure)
    if not found:
        raise problems[0]
    return found


def _expanded(text: str, operations: tuple[Operation, ...], name: str) -> Structure:
    """The structure that operations make of the sites; sites of P 1 are read exactly."""
    listed = "\n".join(f"'{text_of(one)}'" for one in operations)
    whole = f"{text}\nloop_\n_symmetry_equiv_pos_as_xyz\n{listed}\n"
    if len(operations) == 1:
        return _parsed(whole, 1e-8, 0.0, name)
    structure = _parsed(whole, _EXACT, _EXACT, name)
    if closest(structure) < _ONE_SITE:
        coarse = min(_COARSE, _ONE_SITE / max(structure.lattice.abc))
        structure = _parsed(whole, coarse, _COARSE, name)
    distance = closest(structure)
    if distance < LEAST_DISTANCE:
        msg = (
            f"puts atoms {distance:.3f} Å apart by its symmetry operations: they contradict its "
            "sites"
        )
        raise StructureError(msg)
    return structure


def _parsed(text: str, tolerance: float, rounding: float, name: str = "") -> Structure:
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        parser = _parser(text, tolerance, rounding)
        try:
            structures = parser.parse_structures(primitive=False, on_error="raise")
        except (ValueError, KeyError, NotImplementedError, IndexError, TypeError) as error:
            reason = str(error).partition("\n")[2] or str(error)
            msg = f"cannot be read as a CIF: {' '.join(reason.split())[:200]}"
            if "exceeded tolerance" in reason:
                msg = (
                    "puts more than one whole atom on a site: does it list atoms that its symmetry "
                    "operations generate as well?"
                )
            raise StructureError(msg) from error
    if name and any("Defaulting to P1" in one or "No magnetic" in one for one in parser.warnings):
        msg = f"names the space group {name!r} and gives no operations that could be read: add them"
        raise StructureError(msg)
    structure = structures[0]
    for site in structure:
        total = sum(site.species.values())
        if total != 1 and abs(total - 1) <= FULL:  # full but for rounding
            site.species = {species: part / total for species, part in site.species.items()}
    return structure


def _lattice(block: Mapping[str, Any]) -> Lattice:
    """The cell; angles that are missing are right ones."""
    missing = [tag for tag in _LENGTHS if tag not in block]
    if missing:
        msg = f"has atom sites and no {missing[0]}"
        raise StructureError(msg)
    try:
        values = [_number(block[tag]) for tag in _LENGTHS]
        values += [_number(block.get(tag, "90")) for tag in _ANGLES]
    except (ValueError, TypeError, AttributeError) as error:
        msg = f"has a cell that cannot be read: {error}"
        raise StructureError(msg) from error
    for tag, value in zip((*_LENGTHS, *_ANGLES), values, strict=True):
        most, unit = (180, "degrees") if tag in _ANGLES else (np.inf, "Å")
        if not 0 < value < most:
            below = "" if most == np.inf else f" and below {most}"
            msg = f"has {tag} = {value:g}, which has to be above 0{below} {unit}"
            raise StructureError(msg)
    lattice = Lattice.from_parameters(*values)
    if not np.isfinite(lattice.matrix).all() or lattice.volume < LEAST_DISTANCE**3:
        msg = f"has a cell without a volume: {', '.join(f'{value:g}' for value in values)}"
        raise StructureError(msg)
    return lattice


def _number(text: str) -> float:
    """A number without its standard deviation, in brackets."""
    return float(re.sub(r"\(.*", "", text.strip()))
