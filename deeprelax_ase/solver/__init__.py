"""Euclidean distance geometry: from predicted distances to a structure (Sec. 4.6).

The default is a joint weighted least-squares fit, by Gauss-Newton, of displacements and
deformation to the predicted distances, displacements and strain. The paper's hinge with its
100 Adam steps is kept as `method="bed"`. Nothing here knows a network; a network is trained
through `gauss_newton_step`, which is differentiable.
"""

from deeprelax_ase.solver.gauss_newton import gauss_newton_step
from deeprelax_ase.solver.solve import solve
from deeprelax_ase.solver.state import Solution, SolveStatus, start

__all__ = ["Solution", "SolveStatus", "gauss_newton_step", "solve", "start"]
