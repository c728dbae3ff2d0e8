"""Choose a method and solve for the structures that fit a prediction best."""

from deeprelax_ase.network.config import SOLVER_METHODS
from deeprelax_ase.network.graph import CrystalGraph
from deeprelax_ase.network.prediction import Prediction
from deeprelax_ase.solver.bed import solve_bounds
from deeprelax_ase.solver.gauss_newton import solve_joint
from deeprelax_ase.solver.state import Solution


def solve(
    graph: CrystalGraph,
    prediction: Prediction,
    method: str = "joint",
    max_steps: int = 20,
    tolerance: float = 1e-7,
) -> Solution:
    """Find the structures that fit the predicted distances, displacements and strains best.

    Args:
        graph: The unrelaxed crystals.
        prediction: What to fit.
        method: `joint` (weighted least squares) or `bed`, the paper's hinge.
        max_steps: Gauss-Newton steps; 0 gives the heads' own displacement and strain.
        tolerance: Stop when no atom moves further (Å) and no strain changes more in a step.

    Raises:
        ValueError: The method is none of these.
    """
    if method not in SOLVER_METHODS:
        msg = f"unknown method {method!r}: choose from {', '.join(SOLVER_METHODS)}"
        raise ValueError(msg)
    if method == "bed":
        return solve_bounds(graph, prediction)
    return solve_joint(graph, prediction, max_steps, tolerance)
