"""What is predicted of one crystal, whichever way it went through network and solve."""

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
