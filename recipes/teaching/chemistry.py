"""Elements and geometry: which are alike, how large they are, where there is room between atoms."""

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from jaxtyping import Float, Int
from vesin import NeighborList

_GROUPS = (
    "Li Na K Rb Cs Cu Ag",
    "Be Mg Ca Sr Ba Zn Cd",
    "B Al Ga In Tl",
    "C Si Ge Sn Pb",
    "N P As Sb Bi",
    "O S Se Te",
    "F Cl Br I",
    "Ti Zr Hf V Nb Ta",
    "Cr Mo W Mn Re",
    "Fe Co Ni Mn Cr",
    "Ru Os Rh Ir Pd Pt",
    "Cu Ag Au Pd Pt Ni",
    "Sc Y La Al Lu",
    "Ce Pr Nd Sm Eu Gd Tb Dy Ho Er Tm Yb Lu La Y",
)
ALIKE: dict[int, set[int]] = {}
"""Of each element those that take its place in crystals."""
for _group in _GROUPS:
    _members = {atomic_numbers[name] for name in _group.split()}
    for _number in _members:
        ALIKE.setdefault(_number, set()).update(_members - {_number})


class UnusableError(Exception):
    """Nothing sensible can be built here; the message says why."""


def elements(names: str) -> frozenset[int]:
    """Atomic numbers of symbols."""
    return frozenset(atomic_numbers[name] for name in names.split())


NONMETALS = elements("H C N O F P S Cl Se Br I B Si Ge As Te")
NOT_METALS = elements("H He B C N O F Ne Si P S Cl Ar Ge As Se Br Kr Te I Xe Rn At")
METALS = frozenset(range(3, 84)) - NOT_METALS
GASES = elements("H N O F Cl Br I He Ne Ar Kr Xe")
RARE = elements(
    "He Ne Ar Kr Xe Rn Tc Pm Po At Fr Ra Ac Th Pa U Np Pu Tb Dy Ho Er Tm Lu Pr Nd Sm Eu Gd Yb"
)
RADIOACTIVE = elements("Tc Pm Po At Rn Fr Ra Ac Th Pa U Np Pu")
MOBILE = elements("Li Na K Mg Ca Zn Al H")
"""Ions that batteries and hosts are filled with and emptied of."""
_WITH_U = elements("Co Cr Fe Mn Mo Ni V W")


def needs_u(numbers: Int[np.ndarray, " atoms"]) -> bool:
    """Tell whether the Materials Project relaxes this composition with a Hubbard U."""
    species = {int(z) for z in numbers}
    return bool(species & _WITH_U) and bool(species & {8, 9})


def draw_alike(number: int, rng: np.random.Generator, among: frozenset[int] | None = None) -> int:
    """Draw an element that takes the place of another."""
    choices = sorted(
        ALIKE.get(number, set()) - RARE if number not in RARE else ALIKE.get(number, set())
    )
    if among is not None:
        choices = [z for z in choices if z in among]
    return int(rng.choice(choices)) if choices else number


def least_distance(atoms: Atoms) -> float:
    """The shortest distance between atoms as a share of the sum of their covalent radii."""
    if len(atoms) == 0:
        return np.inf
    i, j, distances = NeighborList(cutoff=4.5, full_list=False).compute(
        points=atoms.positions, box=atoms.cell.array, periodic=True, quantities="ijd"
    )
    if len(i) == 0:
        return np.inf
    radii = covalent_radii[atoms.numbers]
    return float((distances / (radii[i.astype(int)] + radii[j.astype(int)])).min())


def count_pieces(atoms: Atoms, factor: float = 1.35) -> tuple[int, int]:
    """How many pieces of bonded atoms there are, and of how many atoms the smallest is."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    i, j, distances = NeighborList(cutoff=6.5, full_list=True).compute(
        points=atoms.positions, box=atoms.cell.array, periodic=True, quantities="ijd"
    )
    i, j = i.astype(int), j.astype(int)
    radii = covalent_radii[atoms.numbers]
    bonded = distances < factor * (radii[i] + radii[j])
    links = coo_matrix((np.ones(bonded.sum()), (i[bonded], j[bonded])), shape=(len(atoms),) * 2)
    count, labels = connected_components(links, directed=False)
    return count, int(np.bincount(labels).min())


def find_voids(
    atoms: Atoms, spacing: float = 0.4, zone: tuple[float, float] | None = None
) -> tuple[Float[np.ndarray, "voids 3"], Float[np.ndarray, " voids"]]:
    """Find points that are farthest from all atoms, the largest first.

    Args:
        atoms: All axes count as periodic.
        spacing: Of the grid, Å.
        zone: Least and largest third coordinate of the points, Å.

    Returns:
        Positions, and distances to the nearest surface of an atom (of its covalent radius), Å.
    """
    from scipy.spatial import cKDTree

    counts = np.maximum(np.ceil(atoms.cell.lengths() / spacing).astype(int), 1)
    axes = [(np.arange(n) + 0.5) / n for n in counts]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    points = grid @ atoms.cell.array
    if zone is not None:
        points = points[(points[:, 2] >= zone[0]) & (points[:, 2] <= zone[1])]
    room = np.full(len(points), np.inf)
    repeats = np.ceil(5.0 / np.abs(1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)))
    images = (
        np.stack(
            np.meshgrid(*[np.arange(-n, n + 1) for n in repeats.astype(int)], indexing="ij"),
            axis=-1,
        ).reshape(-1, 3)
        @ atoms.cell.array
    )
    wrapped = atoms.get_scaled_positions() @ atoms.cell.array
    for number in np.unique(atoms.numbers):
        sites = (wrapped[atoms.numbers == number][:, None] + images[None]).reshape(-1, 3)
        distances, _ = cKDTree(sites).query(points, distance_upper_bound=8.0)
        room = np.minimum(room, distances - covalent_radii[number])
    order = np.argsort(-room, kind="stable")[:2000]
    chosen: list[int] = []
    for index in order:
        if len(chosen) == 12:
            break
        others = points[chosen] - points[index]
        scaled = others @ np.linalg.inv(atoms.cell.array)
        near = np.linalg.norm((scaled - np.rint(scaled)) @ atoms.cell.array, axis=-1)
        if len(chosen) == 0 or near.min() > 1.5:
            chosen.append(int(index))
    return points[chosen], room[chosen]
