"""One-pass relaxation of crystals: unrelaxed structure in, relaxed structure out."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deeprelax_ase.interfaces.ase_optimizer import (
        DeepRelaxBFGS,
        DeepRelaxFIRE,
        DeepRelaxLBFGS,
        DeepRelaxOptimizer,
    )
    from deeprelax_ase.interfaces.pymatgen_transformation import DeepRelaxTransformation
    from deeprelax_ase.relaxation.relaxer import Relaxer
    from deeprelax_ase.relaxation.result import Bonds, RelaxResult
    from deeprelax_ase.structures.validation import StructureError

try:
    __version__ = version("deeprelax-ase")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

_HOMES = {
    "Bonds": "relaxation.result",
    "DeepRelaxBFGS": "interfaces.ase_optimizer",
    "DeepRelaxFIRE": "interfaces.ase_optimizer",
    "DeepRelaxLBFGS": "interfaces.ase_optimizer",
    "DeepRelaxOptimizer": "interfaces.ase_optimizer",
    "DeepRelaxTransformation": "interfaces.pymatgen_transformation",
    "RelaxResult": "relaxation.result",
    "Relaxer": "relaxation.relaxer",
    "StructureError": "structures.validation",
}

__all__ = [
    "Bonds",
    "DeepRelaxBFGS",
    "DeepRelaxFIRE",
    "DeepRelaxLBFGS",
    "DeepRelaxOptimizer",
    "DeepRelaxTransformation",
    "RelaxResult",
    "Relaxer",
    "StructureError",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for, and torch with it, only then."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
