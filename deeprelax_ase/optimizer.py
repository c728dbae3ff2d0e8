"""Old name of `deeprelax_ase.interfaces.ase_optimizer`, which stored workflows and files go by."""

import warnings

from deeprelax_ase.interfaces.ase_optimizer import (
    DeepRelaxBFGS,
    DeepRelaxFIRE,
    DeepRelaxLBFGS,
    DeepRelaxOptimizer,
)

__all__ = [
    "DeepRelaxBFGS",
    "DeepRelaxFIRE",
    "DeepRelaxLBFGS",
    "DeepRelaxOptimizer",
]

warnings.warn(
    "deeprelax_ase.optimizer has moved: import from deeprelax_ase.interfaces.ase_optimizer",
    DeprecationWarning,
    stacklevel=2,
)
