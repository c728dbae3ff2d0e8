"""Put crystals into right-handed cells, without making them their mirror images."""

import numpy as np
from ase import Atoms
from pymatgen.core import IStructure, Structure


def right_handed(structure: IStructure) -> IStructure:
    """Copy a structure into a right-handed cell: two vectors and their coordinates change places.

    VASP refuses left-handed cells, pymatgen negates their vectors, and a CIF cannot say them: the
    crystal would become its mirror image. Here it stays the same, in another setting.
    """
    if np.linalg.det(structure.lattice.matrix) > 0:
        return structure
    order = [1, 0, 2]
    properties = dict(structure.site_properties)
    flags = properties.get("selective_dynamics")
    if flags is not None:
        properties["selective_dynamics"] = [
            None if one is None else [bool(one[k]) for k in order] for one in flags
        ]
    return Structure(
        structure.lattice.matrix[order],
        structure.species_and_occu,
        structure.frac_coords[:, order],
        site_properties=properties,
        labels=structure.labels,
    )


def right_handed_atoms(atoms: Atoms) -> Atoms:
    """Atoms in a right-handed cell: its first two vectors change places, and no atom moves."""
    if np.linalg.det(atoms.cell[:]) >= 0:
        return atoms
    changed = atoms.copy()
    changed.set_cell(atoms.cell[:][[1, 0, 2]])
    changed.pbc = atoms.pbc[[1, 0, 2]]
    return changed
