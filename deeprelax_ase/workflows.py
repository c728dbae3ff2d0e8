"""Old name of `deeprelax_ase.interfaces.jobflow`, which stored workflows and files go by."""

import warnings

from deeprelax_ase.interfaces.jobflow import (
    DeepRelaxDocument,
    DeepRelaxMaker,
    PreconditionedMaker,
    UncertainBond,
    precondition,
)

__all__ = [
    "DeepRelaxDocument",
    "DeepRelaxMaker",
    "PreconditionedMaker",
    "UncertainBond",
    "precondition",
]

warnings.warn(
    "deeprelax_ase.workflows has moved: import from deeprelax_ase.interfaces.jobflow",
    DeprecationWarning,
    stacklevel=2,
)
