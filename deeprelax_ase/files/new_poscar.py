"""Write a POSCAR of a structure that comes from elsewhere."""

from itertools import groupby
from typing import Any

from pymatgen.core import IStructure

from deeprelax_ase.files.handedness import right_handed
from deeprelax_ase.files.poscar_text import numbers_line


def new_poscar_text(structure: IStructure, comment: str = "") -> str:
    """Write any structure as a POSCAR, one group for each run of the same element.

    It is right-handed: see `right_handed`.
    """
    structure = right_handed(structure)
    symbols = [str(_main_species(site).symbol) for site in structure]
    groups = [(name, len(list(group))) for name, group in groupby(symbols)]
    middle = [
        " ".join(name for name, _ in groups),
        " ".join(str(count) for _, count in groups),
    ]
    flags = structure.site_properties.get("selective_dynamics")
    tails = [""] * len(structure)
    if flags is not None:
        middle.append("Selective dynamics")
        tails = [
            "  " + " ".join("T" if flag else "F" for flag in ([True] * 3 if one is None else one))
            for one in flags
        ]
    head = " ".join(comment.split()) or structure.formula
    vectors = [numbers_line(vector) for vector in structure.lattice.matrix]
    atoms = [
        f"{numbers_line(place)}{tail}"
        for place, tail in zip(structure.frac_coords, tails, strict=True)
    ]
    return "\n".join([head, "1.0", *vectors, *middle, "Direct", *atoms, ""])


def _main_species(site: Any) -> Any:
    """Species of a site; the most abundant one of several of one element."""
    return max(site.species.items(), key=lambda pair: pair[1])[0]
