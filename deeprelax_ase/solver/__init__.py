"""Euclidean distance geometry: from predicted distances to a structure (Sec. 4.6).

The default is a joint weighted least-squares fit, by Gauss-Newton, of displacements and
deformation to the predicted distances, displacements and strain. The paper's hinge with its
100 Adam steps is kept as `method="bed"`. Nothing here knows a network; a network is trained
through `gauss_newton_step`, which is differentiable. Torch is imported with what needs it.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Solution": "state",
    "SolveStatus": "status",
    "gauss_newton_step": "gauss_newton",
    "solve": "methods",
    "start": "state",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
