"""What has to be known of pymatgen's `Structure`: how to read and copy it, losing nothing."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from pymatgen.core import IStructure, Lattice

from deeprelax_ase.structures.crystal import Crystal, as_before
from deeprelax_ase.structures.stale import stale_entries, stale_names, without_stale
from deeprelax_ase.structures.validation import FULL, StructureError, disordered

KIND = IStructure
_OF_A_RELAXATION = frozenset({"calc", "dynamics"})
"""Attributes that pymatgen's `relax` and `calculate` leave, and that its own copies do not have."""


def read(structure: IStructure) -> tuple[Crystal, Bool[np.ndarray, "atoms 3"]]:
    """Sites as they stand there, and which of their coordinates may change.

    Several species of one element that fill a site together, such as Fe2+ and Fe3+, are one atom.

    Raises:
        StructureError: A site is not fully occupied by one element, or by a dummy.
    """
    numbers = []
    for site in structure:
        elements = {getattr(species, "Z", None) for species in site.species}
        if len(elements) > 1 or abs(sum(site.species.values()) - 1) > FULL:
            raise disordered(site.species.as_dict())
        species = next(iter(site.species))
        number = elements.pop()
        if not isinstance(number, int) or "Dummy" in type(species).__name__:
            msg = f"site {site.label!r} holds the dummy species {species}: name a real element"
            raise StructureError(msg)
        numbers.append(number)
    flags = structure.site_properties.get("selective_dynamics")
    free = np.ones((len(structure), 3), dtype=bool)
    for site, flag in enumerate(flags or ()):
        if flag is not None:
            free[site] = _free(flag, site)
    crystal = Crystal(
        np.array(numbers, dtype=np.int64),
        np.array(structure.cart_coords, dtype=float).reshape(-1, 3),
        np.array(structure.lattice.matrix, dtype=float),
        np.array(structure.lattice.pbc),
    )
    return crystal, free


def _free(flag: Any, site: int) -> Bool[np.ndarray, "3"]:
    """Read what of a site selective dynamics lets move: three truth values, or one for all."""
    values = np.array(flag, dtype=object).ravel()
    if values.size not in (1, 3) or not all(
        isinstance(value, bool | np.bool_) or value in (0, 1) for value in values
    ):
        msg = (
            f"selective_dynamics of site {site} is {flag!r}: it has to be three of True and False, "
            "such as [True, True, False]"
        )
        raise StructureError(msg)
    free: np.ndarray = np.broadcast_to(values.astype(bool), 3)
    return free


def copied(structure: IStructure) -> IStructure:
    """A copy where it is."""
    return _copied(structure, structure.lattice, structure.frac_coords)


def _copied(
    structure: IStructure, lattice: Lattice, scaled: Float[np.ndarray, "atoms 3"]
) -> IStructure:
    """A copy with its sites elsewhere: species are shared, all else is copied.

    A deep copy would turn deuterium into hydrogen.
    """
    sites = []
    for site, coords in zip(structure, scaled, strict=True):
        moved = copy.copy(site)
        moved.properties = copy.deepcopy(site.properties)
        moved.lattice = lattice
        moved.frac_coords = coords
        sites.append(moved)
    twin = copy.copy(structure)
    twin.properties = copy.deepcopy(structure.properties)
    twin._lattice = lattice  # noqa: SLF001 - an IStructure has no public way
    twin._sites = type(structure._sites)(sites)  # noqa: SLF001
    moved_to = {id(old): new for old, new in zip(structure, sites, strict=True)}
    for name, value in vars(structure).items():  # of subclasses, such as SymmetrizedStructure
        if name not in ("_sites", "_lattice", "properties") and type(value) in (list, tuple):
            setattr(twin, name, _with_sites(value, moved_to))
    return twin


def _with_sites(value: Any, moved_to: Mapping[int, Any]) -> Any:
    """Lists of sites, or of lists of them, with other sites in their places."""
    if type(value) in (list, tuple):
        return type(value)(_with_sites(one, moved_to) for one in value)
    return moved_to.get(id(value), value)


def stale_in(structure: IStructure) -> list[str]:
    """Names of properties, and of attributes of subclasses, that belong to the geometry of now."""
    own = [*stale_names(vars(structure)), *sorted(_OF_A_RELAXATION & {*vars(structure)})]
    return [*stale_entries(structure.properties), *stale_names(structure.site_properties), *own]


def relaxed(
    structure: IStructure,
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    deformation: Float[np.ndarray, "3 3"],  # noqa: ARG001 - ASE's constraints ask for it
) -> IStructure:
    """Copy a structure of any type elsewhere (Å), without energies, forces and the like."""
    before = structure.lattice
    lattice = Lattice(as_before(cell, before.matrix), pbc=before.pbc)
    moved = _copied(structure, lattice, lattice.get_fractional_coords(positions))
    moved.properties = without_stale(moved.properties)
    for site in moved:
        site.properties = without_stale(site.properties)
    for name in stale_names(vars(structure)):  # of subclasses, such as the energy of a Slab
        setattr(moved, name, None)
    for name in _OF_A_RELAXATION & {*vars(structure)}:
        delattr(moved, name)
    return moved


def fixed_directions(
    structure: IStructure,  # noqa: ARG001 - ASE's constraints have them
) -> tuple[Int[np.ndarray, " fixed"], Float[np.ndarray, "fixed 3"]]:
    """None: selective dynamics hold fractional coordinates."""
    return np.zeros(0, dtype=np.int64), np.zeros((0, 3))


def broken_constraint(
    before: IStructure,  # noqa: ARG001 - as with ASE
    after: IStructure,  # noqa: ARG001
    free: Bool[np.ndarray, "atoms 3"],  # noqa: ARG001
) -> str | None:
    """None: selective dynamics cannot contradict themselves."""
    return None


def force_from_outside(structure: IStructure) -> str | None:  # noqa: ARG001 - as with ASE
    """None: a structure names no forces."""
    return None
