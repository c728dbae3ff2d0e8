"""Old name of `interfaces.pymatgen_transformation`, which stored workflows and files go by."""

import warnings

from deeprelax_ase.interfaces.pymatgen_transformation import (
    DeepRelaxTransformation,
)

__all__ = [
    "DeepRelaxTransformation",
]

warnings.warn(
    "deeprelax_ase.transformation has moved: import "
    "from deeprelax_ase.interfaces.pymatgen_transformation",
    DeprecationWarning,
    stacklevel=2,
)
