"""Evaluate universal potentials for many structures in one batch.

A potential takes a list of structures and gives forces and stresses. The networks see one disjoint
graph of all of them, so that small cells share the overhead of a call.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float, Int

TENSORNET = "TensorNet-MatPES-PBE-v2025.1"
NEQUIX = "Nequix-OAM-1"
TENSORNET_D3 = "TensorNet-MatPES-PBE-v2025.1 + D3(BJ)"
_TENSORNET_FOLDER = "TensorNet-MatPES-PBE-v2025.1-PES"
_NEQUIX_FILE = "nequix-oam-1.nqx"
_D3_CUTOFFS = {"disp2": 21.0, "disp3": 8.0, "cn": 12.0}
"""Å. The three-body term is short-ranged enough to stop at 8 Å."""


@dataclass(frozen=True)
class Response:
    """What a potential says of one structure.

    Attributes:
        energy: eV.
        forces: eV/Å.
        stress: eV/Å^3, positive where the crystal wants to shrink, as in ASE.
    """

    energy: float
    forces: Float[np.ndarray, "atoms 3"]
    stress: Float[np.ndarray, "3 3"]


Potential = Callable[[Sequence[Atoms]], list[Response]]


@dataclass(frozen=True)
class _Batch:
    """Disjoint graphs: arrays of all structures, one after the other."""

    numbers: Int[np.ndarray, " atoms"]
    positions: Float[np.ndarray, "atoms 3"]
    cells: Float[np.ndarray, "structures 3 3"]
    structure: Int[np.ndarray, " atoms"]
    centers: Int[np.ndarray, " edges"]
    neighbors: Int[np.ndarray, " edges"]
    offsets: Float[np.ndarray, "edges 3"]


def _batch(structures: Sequence[Atoms], cutoff: float) -> _Batch:
    """Join structures; all axes are taken as periodic, since vacuum is wider than the cutoff."""
    from vesin import NeighborList

    search = NeighborList(cutoff=cutoff, full_list=True, sorted=True)
    counts = [len(atoms) for atoms in structures]
    starts = np.cumsum([0, *counts[:-1]])
    edges = []
    for start, atoms in zip(starts, structures, strict=True):
        i, j, offsets = search.compute(
            points=atoms.positions, box=atoms.cell.array, periodic=True, quantities="ijS"
        )
        edges.append((i.astype(np.int64) + start, j.astype(np.int64) + start, offsets))
    centers, neighbors, offsets = (np.concatenate([part[k] for part in edges]) for k in range(3))
    return _Batch(
        numbers=np.concatenate([atoms.numbers for atoms in structures]),
        positions=np.concatenate([atoms.positions for atoms in structures]),
        cells=np.stack([atoms.cell.array for atoms in structures]),
        structure=np.repeat(np.arange(len(counts)), counts),
        centers=centers,
        neighbors=neighbors,
        offsets=offsets.astype(float),
    )


def _network_potential(
    energies_of: Callable[..., Any], cutoff: float, index_of: dict[int, int], device: str
) -> Potential:
    """Turn a function of species and edge vectors into a potential.

    Args:
        energies_of: Of species, edge vectors, centers and neighbors; energies of the atoms, eV.
        cutoff: Å.
        index_of: Index of a species by its atomic number.
        device: `cpu` or `cuda`.
    """
    import torch

    def evaluate(structures: Sequence[Atoms]) -> list[Response]:
        batch = _batch(structures, cutoff)
        species = torch.tensor([index_of[int(z)] for z in batch.numbers], device=device)
        positions = torch.tensor(batch.positions, dtype=torch.float32, device=device)
        cells = torch.tensor(batch.cells, dtype=torch.float32, device=device)
        structure, centers, neighbors = (
            torch.tensor(values, device=device)
            for values in (batch.structure, batch.centers, batch.neighbors)
        )
        offsets = torch.tensor(batch.offsets, dtype=torch.float32, device=device)
        moves = torch.zeros_like(positions, requires_grad=True)
        strains = torch.zeros_like(cells, requires_grad=True)
        vectors = positions[neighbors] - positions[centers]
        vectors = vectors + (offsets[:, None] @ cells[structure[centers]])[:, 0]
        symmetric = (strains + strains.transpose(1, 2)) / 2
        vectors = vectors + (vectors[:, None] @ symmetric[structure[centers]])[:, 0]
        vectors = vectors + moves[neighbors] - moves[centers]
        energies = energies_of(species, vectors, centers, neighbors)
        gradient, virial = torch.autograd.grad(energies.sum(), (moves, strains))
        totals = torch.zeros(len(structures), device=device).index_add(0, structure, energies)
        volumes = np.abs(np.linalg.det(batch.cells))
        stresses = virial.detach().cpu().numpy().astype(float) / volumes[:, None, None]
        forces = np.split(
            -gradient.cpu().numpy().astype(float),
            np.cumsum([len(atoms) for atoms in structures])[:-1],
        )
        return [
            Response(float(total), force, stress)
            for total, force, stress in zip(
                totals.detach().cpu().numpy(), forces, stresses, strict=True
            )
        ]

    return evaluate


def load_tensornet(folder: Path, device: str = "cpu") -> Potential:
    """Load TensorNet-MatPES-PBE (matgl)."""
    import matgl
    import torch
    from ase.data import atomic_numbers

    from recipes.teaching.tensornet import FastTensorNet

    whole = matgl.load_model(str(folder / _TENSORNET_FOLDER)).eval()
    for parameter in whole.parameters():
        parameter.requires_grad_(False)
    network = FastTensorNet(whole.model).to(device)
    scale = float(whole.data_std)
    references = whole.element_refs.property_offset.float().to(device)

    def energies_of(species: Any, vectors: Any, centers: Any, neighbors: Any) -> Any:
        counts = torch.bincount(centers, minlength=len(species))
        width = max(int(counts.max()), 1)
        starts = torch.cumsum(counts, 0) - counts
        slot = centers * width + torch.arange(len(centers), device=device) - starts[centers]
        padded = torch.zeros(len(species) * width, dtype=torch.long, device=device)
        padded[slot] = neighbors
        real = torch.zeros(len(species) * width, dtype=torch.bool, device=device)
        real[slot] = True
        edges = vectors.new_zeros(len(species) * width, 3).index_copy(0, slot, vectors)
        shape = (len(species), width)
        energies = network(species, edges.view(*shape, 3), padded.view(shape), real.view(shape))
        return scale * energies + references[species]

    index_of = {atomic_numbers[name]: k for k, name in enumerate(whole.model.element_types)}
    return _network_potential(energies_of, network.cutoff, index_of, device)


def load_nequix(folder: Path, device: str = "cpu") -> Potential:
    """Load Nequix-OAM-1; its torch form is written once, to a folder of its own."""
    import shutil
    import tempfile

    from nequix.calculator import from_pretrained

    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copy(folder / _NEQUIX_FILE, scratch)
        network, settings = from_pretrained(model_path=copy, backend="torch", use_kernel=False)
    network = network.to(device).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)

    def energies_of(species: Any, vectors: Any, centers: Any, neighbors: Any) -> Any:
        return network.node_energies(vectors, species, neighbors, centers)[:, 0]

    index_of = {int(z): k for k, z in enumerate(sorted(settings["atomic_numbers"]))}
    return _network_potential(energies_of, float(settings["cutoff"]), index_of, device)


def load_dispersion() -> Potential:
    """Load D3(BJ) for PBE without three-body terms, as VASP's IVDW=12 (simple-dftd3)."""
    from ase.units import Bohr, Hartree
    from dftd3.interface import DispersionModel, RationalDampingParam

    damping = RationalDampingParam(method="pbe", atm=False)

    def evaluate(structures: Sequence[Atoms]) -> list[Response]:
        responses = []
        for atoms in structures:
            model = DispersionModel(
                atoms.numbers,
                atoms.positions / Bohr,
                lattice=atoms.cell.array / Bohr,
                periodic=np.array([True, True, True]),
            )
            model.set_realspace_cutoff(**{k: v / Bohr for k, v in _D3_CUTOFFS.items()})
            result = model.get_dispersion(damping, grad=True)
            responses.append(
                Response(
                    float(result["energy"]) * Hartree,
                    -result["gradient"] * Hartree / Bohr,
                    result["virial"] * Hartree / atoms.get_volume(),
                )
            )
        return responses

    return evaluate


def add(first: Potential, second: Potential) -> Potential:
    """The sum of two potentials."""

    def evaluate(structures: Sequence[Atoms]) -> list[Response]:
        pairs = zip(first(structures), second(structures), strict=True)
        return [
            Response(a.energy + b.energy, a.forces + b.forces, a.stress + b.stress)
            for a, b in pairs
        ]

    return evaluate


def load_potentials(folder: Path, device: str = "cpu") -> dict[str, Potential]:
    """All potentials by name, each loaded when it is first asked for.

    Args:
        folder: With the potentials' weights.
        device: `cpu` or `cuda`.
    """
    loaded: dict[str, Potential] = {}

    def lazily(name: str, load: Callable[[], Potential]) -> Potential:
        def evaluate(structures: Sequence[Atoms]) -> list[Response]:
            if name not in loaded:
                loaded[name] = load()
            return loaded[name](structures)

        return evaluate

    tensornet = lazily(TENSORNET, lambda: load_tensornet(folder, device))
    return {
        TENSORNET: tensornet,
        NEQUIX: lazily(NEQUIX, lambda: load_nequix(folder, device)),
        TENSORNET_D3: add(tensornet, lazily("D3(BJ)", load_dispersion)),
    }
