"""Periodic multigraphs of crystals (Sec. 4.2) in batches, and the conventions of the project.

Conventions, stated here once:

* Units are Å and eV. Cells hold row vectors: `positions = scaled @ cell`.
* An edge `j -> i` has `edge_vector = r_j + offset @ cell - r_i`: it points from i to j.
* The crystal's edges come as *pairs*, each listed once; the reverse of a pair is implied.
* A relaxation moves an atom by `displacement` in the frame of the input cell and then deforms
  space: `relaxed_positions = (positions + displacement) @ deformation` and
  `relaxed_cell = cell @ deformation`, with `deformation = expm(strain)` symmetric. So
  displacements are differences of fractional coordinates; their mean over a crystal is zero,
  unless atoms are fixed: then theirs are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from deeprelax_ase.network.config import NetworkConfig
from deeprelax_ase.network.neighbors import chosen_pairs
from deeprelax_ase.structures.crystal import Crystal
from deeprelax_ase.structures.symmetry import reduced_cell


@dataclass(frozen=True)
class CrystalGraph:
    """A batch of crystals as one graph of several components.

    Attributes:
        numbers: Atomic numbers.
        positions: Å.
        cells: Å, row vectors.
        strain_projectors: `Crystal.strain_freedom` of each crystal: of flat matrices, onto the
            strains it may have.
        functionals: Index into `config.functionals` of the functional to relax to.
        told_holds: `Crystal.told_holds`.
        free: Whether each atom may move (1 or 0).
        anchored: Whether an atom of the crystal is fixed (1 or 0).
        num_atoms: Atoms of each crystal.
        sizes: The same, on the processor wherever the graph is.
        neighbors: How many the atoms of each crystal ask for.
        batch: Crystal that each atom belongs to.
        edge_index: Atoms i (row 0) and j (row 1) of each pair.
        offsets: Cells between i and j.
        edge_batch: Crystal that each pair belongs to.
        edge_vectors: From i to the image of j, Å.
        edge_lengths: Å.
        encoded_offsets: Offsets in the canonical cell, for the UCOE; zero where not asked for.
    """

    numbers: Int[Tensor, " atoms"]
    positions: Float[Tensor, "atoms 3"]
    cells: Float[Tensor, "crystals 3 3"]
    strain_projectors: Float[Tensor, "crystals 9 9"]
    functionals: Int[Tensor, " crystals"]
    told_holds: Float[Tensor, "atoms 2"]
    free: Float[Tensor, " atoms"]
    anchored: Float[Tensor, " crystals"]
    num_atoms: Int[Tensor, " crystals"]
    sizes: Int[Tensor, " crystals"]
    neighbors: Int[Tensor, " crystals"]
    batch: Int[Tensor, " atoms"]
    edge_index: Int[Tensor, "2 pairs"]
    offsets: Int[Tensor, "pairs 3"]
    edge_batch: Int[Tensor, " pairs"]
    edge_vectors: Float[Tensor, "pairs 3"]
    edge_lengths: Float[Tensor, " pairs"]
    encoded_offsets: Int[Tensor, "pairs 3"]

    @property
    def num_crystals(self) -> int:
        """Number of crystals in the batch."""
        return len(self.num_atoms)

    def to(self, dtype: torch.dtype, device: str | torch.device | None = None) -> "CrystalGraph":
        """The graph with floats of another type, and perhaps on another device."""
        if device is None and self.positions.dtype == dtype:
            return self
        moved = {}
        for field in fields(self):
            tensor = getattr(self, field.name)
            wanted = dtype if tensor.is_floating_point() else tensor.dtype
            place = "cpu" if field.name == "sizes" else device
            moved[field.name] = tensor.to(place, wanted, non_blocking=True)
        return replace(self, **moved)

    def settled(self, moves: Float[Tensor, "atoms 3"]) -> Float[Tensor, "atoms 3"]:
        """Moves without those of fixed atoms; in crystals that have none, of mean zero."""
        shifts = self.mean(moves) * (1.0 - self.anchored).unsqueeze(1)
        return (moves - shifts.index_select(0, self.batch)) * self.free.unsqueeze(1)

    def mean(self, values: Float[Tensor, "atoms ..."]) -> Float[Tensor, "crystals ..."]:
        """Mean over the atoms of each crystal."""
        total = values.new_zeros(self.num_crystals, *values.shape[1:])
        total = total.index_add(0, self.batch, values)
        count = self.num_atoms.to(values.dtype)
        return total / count.view(-1, *[1] * (values.dim() - 1))


def build_graph(
    crystals: Sequence[Crystal],
    functionals: Sequence[str],
    config: NetworkConfig,
    further: float = 0.0,
) -> CrystalGraph:
    """Build the batched graph of several crystals.

    Each atom is joined to its `config.max_neighbors` nearest neighbours within `config.cutoff`
    and to all that are tied with the last of them, so that no symmetry is broken. A pair is kept
    if either of its ends asks for it. Where that does not hold a crystal together, such as the
    layers of graphite, its atoms ask for twice as many, until it does.

    Args:
        crystals: At least one.
        functionals: The functional to relax each to; names from `config.functionals`.
        config: Cutoff and neighbours; whether offsets in the canonical cell are needed.
        further: Keep all pairs up to so far (Å) beyond the cutoff.

    Returns:
        The graph, floats in double precision.
    """
    num_atoms = np.array([len(crystal) for crystal in crystals])
    pairs, vectors, neighbors, keep = chosen_pairs(crystals, config, further)
    first, second, offsets, lengths, of_pair = pairs

    encoded = np.zeros_like(offsets)
    if config.ucoe:
        encoded = np.concatenate(
            [
                canonical_offsets(crystal, *crystal.pairs_within(config.reach + further)[:3])
                for crystal in crystals
            ]
        )
    return CrystalGraph(
        numbers=torch.from_numpy(np.concatenate([c.numbers for c in crystals]).astype(np.int64)),
        positions=torch.from_numpy(np.concatenate([c.positions for c in crystals])),
        cells=torch.from_numpy(np.stack([c.cell for c in crystals])),
        strain_projectors=torch.from_numpy(np.stack([c.strain_freedom() for c in crystals])),
        functionals=torch.tensor([config.functionals.index(name) for name in functionals]),
        told_holds=torch.from_numpy(np.concatenate([c.told_holds() for c in crystals])),
        free=torch.from_numpy(np.concatenate([_free(crystal) for crystal in crystals])),
        anchored=torch.tensor([float(c.fixed is not None) for c in crystals], dtype=torch.float64),
        num_atoms=torch.from_numpy(num_atoms),
        sizes=torch.from_numpy(num_atoms),
        neighbors=torch.from_numpy(neighbors),
        batch=torch.from_numpy(np.repeat(np.arange(len(crystals)), num_atoms)),
        edge_index=torch.from_numpy(np.stack([first, second])[:, keep]),
        offsets=torch.from_numpy(offsets[keep]),
        edge_batch=torch.from_numpy(of_pair[keep]),
        edge_vectors=torch.from_numpy(vectors[keep]),
        edge_lengths=torch.from_numpy(lengths[keep]),
        encoded_offsets=torch.from_numpy(encoded[keep]),
    )


def _free(crystal: Crystal) -> Float[np.ndarray, " atoms"]:
    return np.ones(len(crystal)) if crystal.fixed is None else 1.0 - crystal.fixed


def canonical_offsets(
    crystal: Crystal,
    first: Int[np.ndarray, " pairs"],
    second: Int[np.ndarray, " pairs"],
    offsets: Int[np.ndarray, "pairs 3"],
) -> Int[np.ndarray, "pairs 3"]:
    """Offsets counted in the Niggli-reduced cell with the atoms wrapped into it.

    Makes the UCOE depend on the crystal and not on which of its cells the user chose, as far as
    the Niggli cell and the origin are unique. Only bulk crystals are reduced.
    """
    reduced = reduced_cell(crystal.cell) if crystal.pbc.all() else crystal.cell
    change = np.linalg.inv(reduced)
    scaled = (crystal.positions - crystal.positions[0]) @ change
    wrapped_by = np.floor(scaled + 1e-6) * crystal.pbc
    in_reduced = offsets @ crystal.cell @ change + wrapped_by[second] - wrapped_by[first]
    return np.rint(in_reduced).astype(np.int64)
