"""What every builder shares: the input it makes, how inputs are disturbed, supercells."""

import itertools
from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from ase.constraints import FixAtoms
from jaxtyping import Bool, Float, Int

from recipes.teaching.chemistry import UnusableError, needs_u
from recipes.teaching.hosts import Host, Hosts
from recipes.teaching.potentials import NEQUIX, TENSORNET
from recipes.teaching.relaxing import Relaxed, Request

LARGEST_RATTLE = 0.1
"""Å, root mean square over the atoms."""
LARGEST_STRAIN = 0.05
FMAX_FREE = 0.03
"""eV/Å and eV an atom where the cell is free: 0.05 would leave soft lattices 1 % off."""
_LARGEST_CHANGE, _LARGEST_MOVE = 0.1, 0.12
"""Logarithm of the volume and mean displacement (Å) of a host: beyond, DFT and potential differ."""
_SHAPES = tuple(itertools.product((0.85, 1.0, 1.2), repeat=3))
FMAX_HELD = 0.05
LEAST_SHARE = 0.55
"""Of the sum of two covalent radii: nearer atoms make no sensible input."""


@dataclass(frozen=True)
class Input:
    """An input that a user might hand over for relaxation.

    Attributes:
        atoms: With `FixAtoms` where atoms are held.
        cell: `free`, `in_plane` or `held`.
        potential: That relaxes it.
        host: The crystal it was made of.
        variant: What was done to it.
        functional: That the potential stands for.
        adsorbed: Count of atoms at the end that lie on a surface.
        fmax: Forces (eV/Å) and virials (eV an atom) at which it is relaxed.
    """

    atoms: Atoms
    cell: str
    potential: str
    host: Host
    variant: str
    functional: str = "PBE"
    adsorbed: int = 0
    fmax: float = FMAX_HELD

    @property
    def fixed(self) -> Bool[np.ndarray, " atoms"]:
        """Which atoms are held."""
        return fixed_atoms(self.atoms)


Built = Generator[Request, Relaxed, Input]
Builder = Callable[[Hosts, np.random.Generator], Built]


def fixed_atoms(atoms: Atoms) -> Bool[np.ndarray, " atoms"]:
    """Which atoms `FixAtoms` holds."""
    fixed = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            fixed[constraint.index] = True
    return fixed


def cheap_teacher_of(numbers: Int[np.ndarray, " atoms"]) -> str:
    """TensorNet, but Nequix where PBE means PBE+U: TensorNet was trained without."""
    return NEQUIX if needs_u(numbers) else TENSORNET


def relaxed_host(
    host: Host, potential: str, cell: str = "free"
) -> Generator[Request, Relaxed, Atoms]:
    """Relax a host with the potential that will relax what is built of it.

    Slabs and defects are built in cells that are held, so the host has to be at the potential's own
    minimum; otherwise each pair would carry the potential's error of the lattice.
    """
    atoms = right_handed(host.atoms)
    relaxed = yield Request(atoms, cell, potential, steps=80, fmax=0.02)
    if relaxed.trouble:
        msg = f"host: {relaxed.trouble}"
        raise UnusableError(msg)
    change = abs(np.log(relaxed.atoms.get_volume() / atoms.get_volume()))
    moves = relaxed.atoms.get_scaled_positions(wrap=False) - atoms.get_scaled_positions(wrap=False)
    moves = (moves - moves.mean(axis=0)) @ atoms.cell.array
    if change > _LARGEST_CHANGE or np.linalg.norm(moves, axis=1).mean() > _LARGEST_MOVE:
        msg = "host: the potential does not keep its minimum of DFT"
        raise UnusableError(msg)
    return relaxed.atoms


def right_handed(atoms: Atoms) -> Atoms:
    """The same crystal with vectors of a right-handed cell."""
    atoms = atoms.copy()
    if np.linalg.det(atoms.cell.array) < 0:
        atoms.set_cell(-atoms.cell.array)
    return atoms


def rattle(atoms: Atoms, rng: np.random.Generator, amplitude: float) -> None:
    """Move free atoms at random; `amplitude` is the root mean square distance, Å."""
    free = ~fixed_atoms(atoms)
    moves = rng.normal(size=(len(atoms), 3)) * amplitude / np.sqrt(3.0)
    atoms.positions[free] += moves[free]


def disturb(atoms: Atoms, cell: str, rng: np.random.Generator) -> str:
    """Leave an input as built, rattle it, or strain (and perhaps rattle) it; says which."""
    choice = int(rng.integers(3 if cell != "held" else 2))
    if choice == 0:
        return "as built"
    amplitude = rng.uniform(0.0, LARGEST_RATTLE)
    if choice == 1:
        rattle(atoms, rng, amplitude)
        return f"rattled {amplitude:.3f}"
    strain = random_strain(rng, LARGEST_STRAIN, in_plane=cell == "in_plane")
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    if rng.random() < 0.5:
        rattle(atoms, rng, amplitude)
        return f"strained and rattled {amplitude:.3f}"
    return "strained"


def random_strain(
    rng: np.random.Generator, largest: float, *, in_plane: bool = False
) -> Float[np.ndarray, "3 3"]:
    """A symmetric strain: half of the time the same along all axes."""
    axes = np.diag([1.0, 1.0, 0.0 if in_plane else 1.0])
    if rng.random() < 0.5:
        return rng.uniform(-largest, largest) * axes
    components = rng.uniform(-largest, largest, size=(3, 3))
    return axes @ ((components + components.T) / 2) @ axes


def cube_like_supercell(
    atoms: Atoms, least: int, most: int, rng: np.random.Generator
) -> Atoms | None:
    """A supercell with vectors as equal and square as possible; None where there is none."""
    inverse = np.linalg.inv(atoms.cell.array)
    best: dict[int, tuple[float, Int[np.ndarray, "3 3"]]] = {}
    for edge in np.arange(4.0, 18.0, 0.5):
        for shape in _SHAPES:
            matrix = np.rint(edge * np.diag(shape) @ inverse).astype(int)
            count = round(abs(np.linalg.det(matrix))) * len(atoms)
            if not least <= count <= most:
                continue
            cell = matrix @ atoms.cell.array
            lengths = np.linalg.norm(cell, axis=1)
            badness = lengths.max() / abs(np.linalg.det(cell)) ** (1 / 3)
            if count not in best or badness < best[count][0]:
                best[count] = (badness, matrix)
    good = [(count, matrix) for count, (badness, matrix) in best.items() if badness < 1.45]
    if not good:
        return None
    counts = np.array([count for count, _ in good], dtype=float)
    chosen = int(rng.choice(len(good), p=(1 / counts) / (1 / counts).sum()))
    supercell = make_supercell(atoms, good[chosen][1])
    return right_handed(supercell)
