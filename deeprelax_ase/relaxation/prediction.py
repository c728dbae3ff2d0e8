"""What is predicted of one crystal, whichever way it went through network and solve."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from deeprelax_ase.solver.status import SolveStatus


@dataclass(frozen=True)
class CrystalPrediction:
    """What is predicted of one crystal, in numpy.

    Attributes:
        displacements: Of the solved structure, Å.
        deformation: Of the solved structure.
        status: Of the solve.
        displacement_scales: Laplace scale of each atom's displacement, Å.
        strain_scale: Laplace scale of the strain.
        edge_index: Atoms of each pair.
        offsets: Cells between them.
        lengths: Of the pairs in the input, Å.
        distances: Predicted relaxed lengths, Å.
        distance_scales: Their Laplace scales, Å.
    """

    displacements: Float[np.ndarray, "atoms 3"]
    deformation: Float[np.ndarray, "3 3"]
    status: SolveStatus
    displacement_scales: Float[np.ndarray, " atoms"]
    strain_scale: float
    edge_index: Int[np.ndarray, "2 bonds"]
    offsets: Int[np.ndarray, "bonds 3"]
    lengths: Float[np.ndarray, " bonds"]
    distances: Float[np.ndarray, " bonds"]
    distance_scales: Float[np.ndarray, " bonds"]


def split(
    num_atoms: Int[np.ndarray, " crystals"],
    num_pairs: Int[np.ndarray, " crystals"],
    statuses: Sequence[int],
    *,
    displacements: Float[np.ndarray, "atoms 3"],
    deformations: Float[np.ndarray, "crystals 3 3"],
    displacement_scales: Float[np.ndarray, " atoms"],
    strain_scales: Sequence[float],
    edge_index: Int[np.ndarray, "2 pairs"],
    offsets: Int[np.ndarray, "pairs 3"],
    lengths: Float[np.ndarray, " pairs"],
    distances: Float[np.ndarray, " pairs"],
    distance_scales: Float[np.ndarray, " pairs"],
) -> Iterator[CrystalPrediction]:
    """The crystals of a batch one after the other, whose atoms and pairs stand together in it.

    Atoms and pairs of each, and how its solve ended, come first; what is named is of the whole
    batch and stands in `CrystalPrediction`. In `edge_index` the atoms are counted through.
    """
    last_atoms, last_pairs = np.cumsum(num_atoms), np.cumsum(num_pairs)
    for crystal, (last_atom, last_pair) in enumerate(zip(last_atoms, last_pairs, strict=True)):
        atoms = slice(last_atom - num_atoms[crystal], last_atom)
        pairs = slice(last_pair - num_pairs[crystal], last_pair)
        yield CrystalPrediction(
            displacements=displacements[atoms],
            deformation=deformations[crystal],
            status=SolveStatus(statuses[crystal]),
            displacement_scales=displacement_scales[atoms],
            strain_scale=strain_scales[crystal],
            edge_index=edge_index[:, pairs] - atoms.start,
            offsets=offsets[pairs],
            lengths=lengths[pairs],
            distances=distances[pairs],
            distance_scales=distance_scales[pairs],
        )
