"""Build slabs of crystals, bare and with adsorbates, in cells that are held."""

from dataclasses import replace

import numpy as np
from ase import Atoms
from ase.build import surface
from ase.constraints import FixAtoms
from ase.data import atomic_numbers, covalent_radii
from jaxtyping import Float, Int
from scipy.spatial import Delaunay

from recipes.teaching.chemistry import METALS, UnusableError, least_distance
from recipes.teaching.hosts import Hosts
from recipes.teaching.inputs import (
    LEAST_SHARE,
    Built,
    Input,
    fixed_atoms,
    rattle,
    relaxed_host,
)
from recipes.teaching.potentials import NEQUIX, TENSORNET

THICKNESS = (6.0, 14.0)
"""Å, of a slab's atoms."""
VACUUM = (15.0, 20.0)
"""Å."""
_LEAST_GAP = 0.5
"""Å between the planes that a cut separates."""
_SHELLS = 5
_ATTEMPTS = 6
ADSORBATES: dict[str, tuple[tuple[str, tuple[float, float, float]], ...]] = {
    "H": (("H", (0, 0, 0)),),
    "O": (("O", (0, 0, 0)),),
    "N": (("N", (0, 0, 0)),),
    "C": (("C", (0, 0, 0)),),
    "S": (("S", (0, 0, 0)),),
    "OH": (("O", (0, 0, 0)), ("H", (0.92, 0, 0.35))),
    "CO": (("C", (0, 0, 0)), ("O", (0, 0, 1.16))),
    "H2O": (("O", (0, 0, 0)), ("H", (0.76, 0.59, 0.1)), ("H", (-0.76, 0.59, 0.1))),
}
"""Atoms of each adsorbate relative to the one that binds; the surface lies below."""


def build_slab(hosts: Hosts, rng: np.random.Generator) -> Built:
    """Build a bare slab, the bottom fixed in half of them."""
    host = hosts.draw(rng, largest=16)
    potential = NEQUIX
    bulk = yield from relaxed_host(host, potential)
    atoms, name = cut_slab(
        bulk, rng, most=int(rng.choice([20, 32, 48])), edge=float(rng.choice([2.5, 2.5, 4.5]))
    )
    variant = f"slab {name}"
    if rng.random() < 0.5:
        fix_bottom(atoms, rng)
        variant += ", fixed bottom"
    if rng.random() < 0.4:
        rattle(atoms, rng, rng.uniform(0.0, 0.1))
        variant += ", rattled"
    return Input(atoms, "held", potential, host, variant)


def build_adsorbate(hosts: Hosts, rng: np.random.Generator) -> Built:
    """Build a slab with one atom or molecule on it, the bottom fixed in most."""
    with_u = rng.random() < 0.08
    host = hosts.draw(rng, largest=12, with_u=with_u)
    # On slabs of metals the two are equally near to DFT, on those of nitrides and chalcogenides
    # Nequix is nearer.
    is_metal = set(host.numbers.tolist()) <= METALS
    potential = TENSORNET if is_metal else NEQUIX
    bulk = yield from relaxed_host(host, potential)
    atoms, name = cut_slab(bulk, rng, most=int(rng.choice([32, 40, 60])), edge=5.0)
    if rng.random() < 0.8:
        fix_bottom(atoms, rng)
    species = str(rng.choice(list(ADSORBATES)))
    count = len(atoms)
    atoms, site = adsorb(atoms, species, rng)
    variant = f"{species} on {site}, slab {name}"
    if rng.random() < 0.4:
        rattle(atoms, rng, rng.uniform(0.0, 0.1))
        variant += ", rattled"
    made = Input(atoms, "held", potential, host, variant)
    return replace(made, adsorbed=len(atoms) - count)


def cut_slab(bulk: Atoms, rng: np.random.Generator, most: int, edge: float) -> tuple[Atoms, str]:
    """Cut a slab along a low-index plane of the primitive cell.

    Args:
        bulk: Any cell; its own Miller indices are used.
        rng: Random numbers.
        most: Atoms at most.
        edge: In-plane vectors are repeated until they are this long (Å), if `most` allows.

    Returns:
        The slab, normal to z in the middle of its vacuum, and its indices.
    """
    for _ in range(_ATTEMPTS):
        indices = _draw_indices(bulk, rng)
        slab = _cut_along(bulk, indices, rng, most)
        if slab is not None:
            break
    else:
        msg = f"no slab of {THICKNESS[0]} to {THICKNESS[1]} Å with at most {most} atoms"
        raise UnusableError(msg)
    slab = _repeat_in_plane(slab, most, edge)
    low, high = slab.positions[:, 2].min(), slab.positions[:, 2].max()
    vacuum = rng.uniform(*VACUUM)
    cell = slab.cell.array.copy()
    cell[2] = [0.0, 0.0, high - low + vacuum]
    slab.set_cell(cell)
    slab.positions[:, 2] += vacuum / 2 - low
    slab.pbc = [True, True, False]
    if least_distance(slab) < LEAST_SHARE:
        msg = "slab: atoms on top of each other"
        raise UnusableError(msg)
    return slab, "(" + " ".join(str(int(k)) for k in indices) + ")"


def _cut_along(
    bulk: Atoms, indices: Int[np.ndarray, "3"], rng: np.random.Generator, most: int
) -> Atoms | None:
    """Stack layers between two cuts through wide gaps; None where no count of layers will do."""
    reciprocal = indices @ np.linalg.inv(bulk.cell.array).T
    spacing = 1 / np.linalg.norm(reciprocal)
    heights = np.sort((bulk.positions @ reciprocal) % 1.0)
    gaps = np.diff(np.append(heights, heights[0] + 1.0)) * spacing
    order = np.argsort(-gaps, kind="stable")
    usable = [int(k) for k in order if gaps[k] > max(_LEAST_GAP, 0.4 * gaps[order[0]])]
    if not usable:
        return None
    cut = int(rng.choice(usable[:3]))
    counts = np.arange(1, most // len(bulk) + 1)
    extents = counts * spacing - gaps[cut]
    counts = counts[(extents >= THICKNESS[0]) & (extents <= THICKNESS[1])]
    if len(counts) == 0:
        return None
    height = heights[cut] + gaps[cut] / spacing / 2
    shifted = bulk.copy()
    shifted.positions -= height * spacing * reciprocal / np.linalg.norm(reciprocal)
    return surface(shifted, tuple(int(k) for k in indices), int(rng.choice(counts)), periodic=True)


def _draw_indices(bulk: Atoms, rng: np.random.Generator) -> Int[np.ndarray, "3"]:
    """Draw Miller indices; planes far apart are more common than planes close together."""
    grid = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    grid = grid[np.gcd.reduce(grid, axis=1) == 1]
    spacings = 1 / np.linalg.norm(grid @ np.linalg.inv(bulk.cell.array).T, axis=1)
    shells = np.unique(np.round(spacings, 2))[::-1][:_SHELLS]
    shell = shells[min(int(rng.geometric(0.45)) - 1, len(shells) - 1)]
    members = grid[np.isclose(np.round(spacings, 2), shell)]
    return members[int(rng.integers(len(members)))]


def _repeat_in_plane(slab: Atoms, most: int, edge: float) -> Atoms:
    """Reduce the in-plane vectors, repeat them, and lay the first along x."""
    first, second = slab.cell.array[:2]
    while True:  # Gauss's reduction
        if first @ first > second @ second:
            first, second = second, -first
        step = np.rint(first @ second / (first @ first))
        if step == 0:
            break
        second = second - step * first
    repeats = [1, 1]
    while True:
        lengths = [np.linalg.norm(first) * repeats[0], np.linalg.norm(second) * repeats[1]]
        axis = int(np.argmin(lengths))
        grown = repeats[0] * repeats[1] // repeats[axis] * (repeats[axis] + 1)
        if lengths[axis] >= edge or grown * len(slab) > most:
            break
        repeats[axis] += 1
    cell = np.array([first, second, slab.cell.array[2]])
    slab = slab.copy()
    slab.set_cell(cell)
    slab.pbc = [True, True, False]
    slab.wrap()
    slab = slab.repeat((*repeats, 1))
    first, second = slab.cell.array[:2]
    along = first / np.linalg.norm(first)
    normal = np.cross(first, second)
    normal /= np.linalg.norm(normal)
    axes = np.array([along, np.cross(normal, along), normal])
    slab.set_cell(slab.cell.array @ axes.T, scale_atoms=True)
    return slab


def fix_bottom(slab: Atoms, rng: np.random.Generator) -> None:
    """Fix the lower third to half of a slab, at least one atom, never its top."""
    heights = slab.positions[:, 2]
    low, high = heights.min(), heights.max()
    limit = low + rng.uniform(0.3, 0.55) * (high - low)
    below = heights <= max(limit, low + 0.1)
    if below.all():
        return
    slab.set_constraint(FixAtoms(mask=below))


def adsorb(slab: Atoms, species: str, rng: np.random.Generator) -> tuple[Atoms, str]:
    """Put an adsorbate on a top, bridge or hollow site at a distance of covalent radii.

    Returns:
        Slab with the adsorbate's atoms last, and the kind of site.
    """
    heights = slab.positions[:, 2]
    surface_atoms = np.flatnonzero(heights > heights.max() - 1.2)
    site = str(rng.choice(["top", "bridge", "hollow"]))
    plane = _draw_site(slab.positions[surface_atoms, :2], slab.cell.array[:2, :2], site, rng)
    shape = ADSORBATES.get(species, ((species, (0.0, 0.0, 0.0)),))
    numbers = [atomic_numbers[name] for name, _ in shape]
    offsets = np.array([offset for _, offset in shape], dtype=float)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array(
        [[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    offsets = offsets @ turn
    contact = rng.uniform(0.95, 1.2)
    images = np.array([[i, j, 0] for i in (-1, 0, 1) for j in (-1, 0, 1)]) @ slab.cell.array
    near = (slab.positions[:, None] + images).reshape(-1, 3)
    radii = np.repeat(covalent_radii[slab.numbers], len(images))
    height = heights.max() + 0.3  # lower ones would lie below the surface, hydrogen above all
    for _ in range(100):
        points = np.array([*plane, height]) + offsets
        distances = np.linalg.norm(near[None] - points[:, None], axis=2)
        sums = covalent_radii[numbers][:, None] + radii[None]
        sums[1:] *= 1.15  # those that do not bind stay a little farther away
        if (distances >= contact * sums).all():
            break
        height += 0.05
    added = Atoms(numbers=numbers, positions=np.array([*plane, height]) + offsets)
    fixed = fixed_atoms(slab)
    whole = slab + added
    cell = slab.cell.array.copy()
    cell[2, 2] += max(0.0, added.positions[:, 2].max() - heights.max())  # as much vacuum as before
    whole.set_cell(cell)
    if fixed.any():
        whole.set_constraint(FixAtoms(mask=np.append(fixed, np.zeros(len(added), dtype=bool))))
    if least_distance(whole) < LEAST_SHARE:
        msg = "adsorbate: its images are on top of each other"
        raise UnusableError(msg)
    return whole, site


def _draw_site(
    points: Float[np.ndarray, "atoms 2"],
    cell: Float[np.ndarray, "2 2"],
    site: str,
    rng: np.random.Generator,
) -> Float[np.ndarray, "2"]:
    """A point above an atom, between two or amid three, of a periodic plane of atoms."""
    first = points[int(rng.integers(len(points)))]
    if site == "top":
        return first
    images = np.array([[i, j] for i in range(-2, 3) for j in range(-2, 3)]) @ cell
    mesh = (points[:, None] + images).reshape(-1, 2)
    mesh = mesh + 1e-4 * np.sin(37.0 * mesh[:, ::-1])  # no four points on one circle
    triangles = Delaunay(mesh).simplices
    start = int(np.linalg.norm(mesh - first, axis=1).argmin())
    around = triangles[(triangles == start).any(axis=1)]
    corners = around[int(rng.integers(len(around)))]
    if site == "bridge":
        other = int(rng.choice(corners[corners != start]))
        return (mesh[start] + mesh[other]) / 2
    return mesh[corners].mean(axis=0)
