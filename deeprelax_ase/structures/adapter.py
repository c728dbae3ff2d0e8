"""What is asked of a library's structures: the modules for ASE and for pymatgen answer alike."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from deeprelax_ase.structures import ase_adapter, pymatgen_adapter
from deeprelax_ase.structures.crystal import Crystal
from deeprelax_ase.structures.validation import StructureError


@runtime_checkable
class Adapter(Protocol):
    """What has to be known of the structures of a library.

    Attributes:
        KIND: Their class.
    """

    KIND: type

    def read(self, structure: Any, /) -> tuple[Crystal, Bool[np.ndarray, "atoms 3"]]:
        """The crystal as it stands there, and which of its coordinates may change."""

    def copied(self, structure: Any, /) -> Any:
        """A copy, for somebody to change."""

    def relaxed(
        self,
        structure: Any,
        positions: Float[np.ndarray, "atoms 3"],
        cell: Float[np.ndarray, "3 3"],
        deformation: Float[np.ndarray, "3 3"],
        /,
    ) -> Any:
        """A copy elsewhere (Å), without energies, forces and the like; `deformation` led there."""

    def stale_in(self, structure: Any, /) -> list[str]:
        """Names of what it stores that belongs to its geometry of now."""

    def fixed_directions(
        self, structure: Any, /
    ) -> tuple[Int[np.ndarray, " fixed"], Float[np.ndarray, "fixed 3"]]:
        """Atoms that are fixed along Cartesian directions, and unit vectors along these."""

    def broken_constraint(
        self, before: Any, after: Any, free: Bool[np.ndarray, "atoms 3"], /
    ) -> str | None:
        """Say which constraint does not hold after a move, or None."""

    def force_from_outside(self, structure: Any, /) -> str | None:
        """Say which constraint pulls at a relaxed structure, or None."""


_ADAPTERS: tuple[Adapter, ...] = (ase_adapter, pymatgen_adapter)


KINDS = tuple(adapter.KIND for adapter in _ADAPTERS)
"""Classes of structures."""


def adapter_of(structure: Any) -> Adapter:
    """The module that knows a structure.

    Raises:
        StructureError: It is neither of ASE nor of pymatgen.
    """
    for adapter in _ADAPTERS:
        if isinstance(structure, adapter.KIND):
            return adapter
    msg = (
        f"cannot relax a {type(structure).__module__}.{type(structure).__name__}: "
        "give an ase.Atoms or a pymatgen Structure"
    )
    raise StructureError(msg)
