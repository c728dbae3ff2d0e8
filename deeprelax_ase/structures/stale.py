"""Find what is stored beside a structure and belongs to the geometry it had: energies, forces."""

import re
from collections.abc import Iterable

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_OF_A_GEOMETRY = frozenset(
    {
        "energy", "energies", "enthalpy", "enthalpies", "toten", "etot", "efermi", "hull", "ehull",
        "volume", "density",
        "force", "forces", "fmax", "magforce", "magforces",
        "stress", "stresses", "virial", "virials", "pressure",
        "momentum", "momenta", "velocity", "velocities",
        "dipole", "hessian",
    }
)  # fmt: skip


def stale_names(names: Iterable[str]) -> list[str]:
    """Choose the names of what is no longer true once atoms have moved.

    `REF_energy`, `mace_forces`, `e_above_hull` and `freeEnergy` are such names; those of initial
    magnetic moments, charges, tags and masses are not.
    """
    return [
        name
        for name in names
        if _OF_A_GEOMETRY & {word.lower() for word in _WORDS.findall(str(name))}
    ]
