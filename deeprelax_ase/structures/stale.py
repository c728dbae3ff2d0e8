"""Find what is stored beside a structure and belongs to the geometry it had: energies, forces."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_OF_A_GEOMETRY = frozenset(
    {
        "energy", "energies", "enthalpy", "enthalpies", "toten", "etot", "etotal", "epot",
        "efermi", "hull", "ehull", "volume", "volumes", "density",
        "force", "forces", "fmax", "magforce", "magforces",
        "stress", "stresses", "virial", "virials", "pressure",
        "momentum", "momenta", "velocity", "velocities", "vel",
        "dipole", "hessian", "grad", "gradient", "gradients",
    }
)  # fmt: skip
_ENERGY_OF_VASP = "e0"
_OF_A_SETTING = frozenset(
    {
        "cutoff", "cut", "ecut", "field", "correction", "id", "ids", "index", "rank", "target",
        "external", "applied", "weight", "weights", "tol", "tolerance", "threshold", "limit",
        "criterion", "convergence", "scale", "factor", "unit", "units", "type", "key", "grid",
    }
)  # fmt: skip


def stale_names(entries: Mapping[Any, Any]) -> list[str]:
    """Choose the names of what is no longer true once atoms have moved.

    `REF_energy`, `mace_forces`, `e_above_hull` and `freeEnergy` are such names; those of initial
    magnetic moments, charges, tags and masses are not, nor are settings and labels:
    `energy_cutoff`, `volume_id`, and whatever is a text or a truth value.
    """
    return [str(name) for name, value in entries.items() if _is_stale(str(name), value)]


def _is_stale(name: str, value: Any) -> bool:
    if value is None or isinstance(value, str | bool | np.bool_):
        return False
    if isinstance(value, np.ndarray) and value.dtype.kind in "bSU":
        return False
    words = {word.lower() for word in _WORDS.findall(name)}
    if name.lower() == _ENERGY_OF_VASP:
        return True
    return bool(words & _OF_A_GEOMETRY) and not words & _OF_A_SETTING


def stale_entries(entries: Mapping[Any, Any], above: str = "") -> Iterator[str]:
    """Names of what is no longer true in a dictionary and in those inside of it: `calc.energy`."""
    stale = set(stale_names(entries))
    for name, value in entries.items():
        if str(name) in stale:
            yield f"{above}{name}"
        elif isinstance(value, dict):
            yield from stale_entries(value, f"{above}{name}.")


def without_stale(entries: dict[Any, Any]) -> dict[Any, Any]:
    """A dictionary, and those inside of it, without what is no longer true: itself or a copy."""
    if not any(stale_entries(entries)):
        return entries
    stale = set(stale_names(entries))
    return {
        name: without_stale(value) if isinstance(value, dict) else value
        for name, value in entries.items()
        if str(name) not in stale
    }
