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
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from jaxtyping import Float

TENSORNET = "TensorNet-MatPES-PBE-v2025.1"
NEQUIX = "Nequix-OAM-1"
NEQUIX_D3 = "Nequix-OAM-1 + D3(BJ)"
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


def _network_potential(
    energies_of: Callable[[Any, Any], Any], cutoff: float, index_of: dict[int, int], device: str
) -> Potential:
    """Turn a function of species and a graph into a potential.

    Args:
        energies_of: Of species and a `PaddedGraph`; energies of the atoms, eV.
        cutoff: Å.
        index_of: Index of a species by its atomic number.
        device: `cpu` or `cuda`.
    """
    import torch

    from recipes.teaching.graphs import build_graph

    def evaluate(structures: Sequence[Atoms]) -> list[Response]:
        graph = build_graph(structures, cutoff, device)
        counts = [len(atoms) for atoms in structures]
        numbers = np.concatenate([atoms.numbers for atoms in structures])
        cells = np.stack([atoms.cell.array for atoms in structures])
        species = torch.tensor([index_of[int(z)] for z in numbers], device=device)
        owner = torch.tensor(np.repeat(np.arange(len(counts)), counts), device=device)

        def single(values: Any) -> Any:
            return torch.tensor(values, dtype=torch.float32, device=device)

        positions = single(np.concatenate([atoms.positions for atoms in structures]))
        moves = torch.zeros_like(positions, requires_grad=True)
        strains = torch.zeros(len(counts), 3, 3, device=device, requires_grad=True)
        owners = owner[graph.centers]
        vectors = positions[graph.ends] - positions[graph.centers]
        vectors = vectors + (graph.offsets[:, None] @ single(cells)[owners])[:, 0]
        symmetric = (strains + strains.transpose(1, 2)) / 2
        vectors = vectors + (vectors[:, None] @ symmetric[owners])[:, 0]
        vectors = vectors + moves[graph.ends] - moves[graph.centers]
        energies = energies_of(species, graph.with_vectors(vectors))
        gradient, virial = torch.autograd.grad(energies.sum(), (moves, strains))
        totals = torch.zeros(len(counts), device=device).index_add(0, owner, energies.detach())
        volumes = np.abs(np.linalg.det(cells))
        stresses = virial.cpu().numpy().astype(float) / volumes[:, None, None]
        forces = np.split(-gradient.cpu().numpy().astype(float), np.cumsum(counts)[:-1])
        return [
            Response(float(total), force, stress)
            for total, force, stress in zip(totals.cpu().numpy(), forces, stresses, strict=True)
        ]

    return evaluate


def load_tensornet(folder: Path, device: str = "cpu") -> Potential:
    """Load TensorNet-MatPES-PBE (matgl)."""
    import matgl
    from ase.data import atomic_numbers

    from recipes.teaching.tensornet import FastTensorNet

    whole = matgl.load_model(str(folder / _TENSORNET_FOLDER)).eval()
    for parameter in whole.parameters():
        parameter.requires_grad_(False)
    network = FastTensorNet(whole.model).to(device)
    scale = float(whole.data_std)
    references = whole.element_refs.property_offset.float().to(device)

    def energies_of(species: Any, graph: Any) -> Any:
        return scale * network(species, graph) + references[species]

    index_of = {atomic_numbers[name]: k for k, name in enumerate(whole.model.element_types)}
    return _network_potential(energies_of, network.cutoff, index_of, device)


def load_nequix(folder: Path, device: str = "cpu") -> Potential:
    """Load Nequix-OAM-1; its torch form goes to a scratch folder."""
    import shutil
    import tempfile

    from nequix.calculator import from_pretrained

    from recipes.teaching.nequix import FastNequix

    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copy(folder / _NEQUIX_FILE, scratch)
        network, settings = from_pretrained(model_path=copy, backend="torch", use_kernel=False)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    fast = FastNequix(network.eval()).to(device)
    index_of = {int(z): k for k, z in enumerate(sorted(settings["atomic_numbers"]))}
    return _network_potential(fast, fast.cutoff, index_of, device)


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


def from_calculator(calculator: Any) -> Potential:
    """A potential of an ASE calculator, one structure after the other."""

    def evaluate(structures: Sequence[Atoms]) -> list[Response]:
        responses = []
        for given in structures:
            atoms = Atoms(given.numbers, given.positions, cell=given.cell, pbc=True)
            atoms.calc = calculator
            forces, stress = atoms.get_forces(), atoms.get_stress(voigt=False)
            responses.append(Response(atoms.get_potential_energy(), forces, stress))
        return responses

    return evaluate


def as_calculator(potential: Potential) -> Calculator:
    """An ASE calculator of a potential, one structure after the other."""

    class Single(Calculator):
        """Ask the potential of one structure."""

        implemented_properties = ("energy", "forces", "stress")

        def calculate(
            self,
            atoms: Atoms | None = None,
            properties: Sequence[str] = ("energy",),
            system_changes: Sequence[str] = all_changes,
        ) -> None:
            super().calculate(atoms, properties, system_changes)
            (response,) = potential([self.atoms])
            stress = full_3x3_to_voigt_6_stress(response.stress)
            self.results = {"energy": response.energy, "forces": response.forces, "stress": stress}

    return Single()


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

    nequix = lazily(NEQUIX, lambda: load_nequix(folder, device))
    return {
        TENSORNET: lazily(TENSORNET, lambda: load_tensornet(folder, device)),
        NEQUIX: nequix,
        NEQUIX_D3: add(nequix, lazily("D3(BJ)", load_dispersion)),
    }
