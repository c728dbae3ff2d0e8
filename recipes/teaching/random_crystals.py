"""Build random symmetric crystals, as generative models and random searches do."""

from functools import cache

import numpy as np
import spglib
import spglib.error
from ase import Atoms
from jaxtyping import Float

from recipes.teaching.chemistry import GASES, UnusableError, draw_alike, least_distance
from recipes.teaching.hosts import Hosts
from recipes.teaching.inputs import FMAX_FREE, Built, Input, rattle
from recipes.teaching.potentials import NEQUIX

_GROUPS = (2, 5, 8, 9, 12, 15, 19, 33, 38, 44, 51, 59, 62, 63, 65, 71, 74, 87, 99, 113, 119, 123)
_HIGH_GROUPS = (127, 129, 136, 139, 140, 141, 148, 156, 160, 164, 166, 167, 186, 187, 189, 191)
_CUBIC_GROUPS = (193, 194, 198, 205, 215, 216, 217, 221, 223, 225, 227, 229)
_MOST = 16
_MERGE = 0.13
"""Images of a site nearer than this share of the cell's edge merge into one special site."""
_LEAST_SHARE = 0.7


def build_random(hosts: Hosts, rng: np.random.Generator) -> Built:
    """Build a crystal at random in a space group, its volume off by up to 25 %."""
    yield from ()
    host = hosts.draw(rng, largest=20)
    species = [int(z) for z in np.unique(host.numbers)][:4]
    if rng.random() < 0.5:
        species = [draw_alike(z, rng) for z in species]
    if set(species) <= GASES:
        msg = "a random crystal of gases"
        raise UnusableError(msg)
    for _ in range(120):
        number = int(rng.choice(_GROUPS + _HIGH_GROUPS + _CUBIC_GROUPS))
        atoms = _random_crystal(number, species, hosts, rng)
        if atoms is not None and least_distance(atoms) > _LEAST_SHARE:
            break
    else:
        msg = "no random crystal without close atoms"
        raise UnusableError(msg)
    variant = f"random in space group {number}"
    if rng.random() < 0.3:
        rattle(atoms, rng, rng.uniform(0.0, 0.1))
        variant += ", rattled"
    return Input(atoms, "free", NEQUIX, host, variant, fmax=FMAX_FREE)


def _random_crystal(
    group: int, species: list[int], hosts: Hosts, rng: np.random.Generator
) -> Atoms | None:
    rotations, translations = _operations(group)
    cell = _random_cell(group, rng)
    sites: list[Float[np.ndarray, "sites 3"]] = []
    numbers: list[int] = []
    for _ in range(int(rng.integers(len(species), len(species) + 3))):
        orbit = _orbit(rng.random(3), rotations, translations)
        number = species[len(sites)] if len(sites) < len(species) else int(rng.choice(species))
        sites.append(orbit)
        numbers += [number] * len(orbit)
    if len(numbers) > 4 * _MOST:
        return None
    try:
        primitive = spglib.find_primitive((cell, np.concatenate(sites), numbers), symprec=1e-3)
    except spglib.error.SpglibError:  # raised or not, by a switch of the process
        primitive = None
    if primitive is None or not 2 <= len(primitive[2]) <= _MOST:
        return None
    atoms = Atoms(numbers=primitive[2], cell=primitive[0], scaled_positions=primitive[1], pbc=True)
    if not set(species) <= set(atoms.numbers.tolist()):
        return None
    volume = hosts.volumes[atoms.numbers].sum() * np.exp(rng.uniform(np.log(0.8), np.log(1.25)))
    atoms.set_cell(atoms.cell.array * (volume / atoms.get_volume()) ** (1 / 3), scale_atoms=True)
    return atoms


@cache
def _operations(group: int) -> tuple[np.ndarray, np.ndarray]:
    """Rotations and translations of the first (standard) setting of a space group."""
    for hall in range(1, 531):
        if spglib.get_spacegroup_type(hall).number == group:
            found = spglib.get_symmetry_from_database(hall)
            return found["rotations"], found["translations"]
    msg = f"space group {group}: there are 230"
    raise ValueError(msg)


def _orbit(
    point: Float[np.ndarray, "3"], rotations: np.ndarray, translations: np.ndarray
) -> Float[np.ndarray, "sites 3"]:
    """All images of a point; where several nearly coincide it moves to the site they share."""
    for _ in range(4):
        images = rotations @ point + translations
        images = images - np.rint(images - point)
        near = np.abs(images - point).max(axis=1) < _MERGE
        point = images[near].mean(axis=0)
    images = (rotations @ point + translations) % 1.0
    kept: list[Float[np.ndarray, 3]] = []
    for image in images:
        apart = [np.abs(image - other - np.rint(image - other)).max() for other in kept]
        if not kept or min(apart) > 1e-4:
            kept.append(image)
    return np.array(kept)


def _random_cell(group: int, rng: np.random.Generator) -> Float[np.ndarray, "3 3"]:
    """Vectors of the conventional cell of a group's crystal system, of about volume one."""
    a, b, c = np.exp(rng.uniform(-0.45, 0.45, size=3))
    alpha = beta = gamma = 90.0
    if group <= 2:
        alpha, beta, gamma = rng.uniform(65, 115, size=3)
    elif group <= 15:
        beta = rng.uniform(90, 120)
    elif 75 <= group <= 142:
        b = a
    elif 143 <= group <= 194:
        b, gamma = a, 120.0
    elif group >= 195:
        b = c = a
    from ase.geometry import cellpar_to_cell

    return cellpar_to_cell([a, b, c, alpha, beta, gamma])
