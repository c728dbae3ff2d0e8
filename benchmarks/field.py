"""Measures that the field reports beside the paper's: RMSD, space groups, energies by a potential.

RMSD and numbers of symmetry operations as in Matbench Discovery (Riebesell et al., Nature Machine
Intelligence 7, 836 (2025)); DFT's own structure is the reference.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import spglib
from ase import Atoms
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.io.ase import AseAtomsAdaptor

from benchmarks.rival import Rival

SYMPRECS = (1e-2, 1e-5)
"""Å"""
_UNMATCHED = 1.0
_CLOSE = 5.0
"""meV/atom"""


def rmsd(ends: Sequence[Atoms], targets: Sequence[Atoms]) -> dict[str, float]:
    """Root mean square distance of sites after matching, in units of `(V / atoms)^(1/3)`.

    A structure that the matcher (`stol=1`, no scaling) does not match counts as 1.
    """
    matcher = StructureMatcher(stol=_UNMATCHED, scale=False)
    to_structure = AseAtomsAdaptor.get_structure
    found = [
        matcher.get_rms_dist(to_structure(end), to_structure(target))
        for end, target in zip(ends, targets, strict=True)
    ]
    values = np.array([_UNMATCHED if pair is None else pair[0] for pair in found])
    return {"mean": float(values.mean()), "median": float(np.median(values))}


def symmetry(
    ends: Sequence[Atoms], inputs: Sequence[Atoms], targets: Sequence[Atoms]
) -> dict[str, dict[str, float]]:
    """Share (%) of structures by their number of symmetry operations, for each of `SYMPRECS`.

    Returns:
        By symprec: `kept` and `lost`, as many operations as the input has and fewer; `as_dft`, as
        many as the relaxed crystal has.
    """
    found = {}
    for symprec in SYMPRECS:
        end, start, target = (
            np.array([_operations(atoms, symprec) for atoms in group])
            for group in (ends, inputs, targets)
        )
        found[f"{symprec:g}"] = {
            "kept": 100 * float((end == start).mean()),
            "lost": 100 * float((end < start).mean()),
            "as_dft": 100 * float((end == target).mean()),
        }
    return found


def _operations(atoms: Atoms, symprec: float) -> int:
    """Number of symmetry operations; 0 where spglib finds none."""
    cell = (np.array(atoms.cell), atoms.get_scaled_positions(), atoms.numbers)
    try:
        return len(spglib.get_symmetry(cell, symprec=symprec)["rotations"])
    except (spglib.SpglibError, TypeError):
        return 0


def energies(ends: Sequence[Atoms], targets: Sequence[Atoms], judge: Rival) -> dict[str, Any]:
    """Energy (meV/atom) above the crystal that DFT relaxed, by a potential.

    Returns:
        `mean`, `median`, and `close`: the share (%) that is at most 5 meV/atom above; a structure
        that the potential fails on is not close, and does not count in the others.

    Raises:
        RivalError: The process of the potential ended.
    """
    above = []
    for end, target in zip(ends, targets, strict=True):
        answers = [judge.ask("energy", atoms, options=judge.options()) for atoms in (end, target)]
        if any("error" in answer for answer in answers):
            above.append(np.nan)
        else:
            high, low = (answer["energy"] for answer in answers)
            above.append(1000 * (high - low) / len(end))
    values = np.array(above)
    return {
        "mean": float(np.nanmean(values)),
        "median": float(np.nanmedian(values)),
        "close": 100 * float((values <= _CLOSE).mean()),
    }
