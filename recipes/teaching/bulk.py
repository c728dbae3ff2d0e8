"""Build point defects, inserted and removed ions, decorations, random crystals and oxides."""

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from recipes.teaching.chemistry import (
    ALIKE,
    METALS,
    MOBILE,
    RARE,
    UnusableError,
    draw_alike,
    elements,
    find_voids,
    least_distance,
    needs_u,
)
from recipes.teaching.hosts import Host, Hosts
from recipes.teaching.inputs import (
    FMAX_FREE,
    LEAST_SHARE,
    Built,
    Input,
    cheap_teacher_of,
    cube_like_supercell,
    disturb,
    relaxed_host,
    right_handed,
)
from recipes.teaching.potentials import NEQUIX

_DOPANTS = sorted(
    elements("Li Na Mg Ca Al Si B C N O F P S Ti V Cr Mn Fe Co Ni Cu Zn Ga Y Zr Nb Mo Sn La W")
)
_SUPERCELLS = (60, 80, 130)
"""Atoms at most."""
_ROOM = 0.55
"""Share of its covalent radius that an ion finds in a void."""


def build_defect(hosts: Hosts, rng: np.random.Generator) -> Built:
    """Build a point defect in a supercell that is held."""
    host = hosts.draw(rng, largest=20, with_u=rng.random() < 0.08)
    potential = cheap_teacher_of(host.numbers)
    bulk = yield from relaxed_host(host, potential)
    sizes = _SUPERCELLS[int(rng.choice(len(_SUPERCELLS), p=[0.7, 0.22, 0.08])) :]
    supercells = (cube_like_supercell(bulk, 40, most, rng) for most in sizes)
    atoms = next((found for found in supercells if found is not None), None)
    if atoms is None:
        msg = f"no square supercell of 40 to {_SUPERCELLS[-1]} atoms"
        raise UnusableError(msg)
    kinds = [*_DEFECTS, "vacancy"]
    if len(np.unique(atoms.numbers)) == 1:
        kinds = [kind for kind in kinds if kind not in ("antisite", "exchange")]
    kind = str(rng.choice(kinds))
    _DEFECTS[kind](atoms, int(rng.integers(len(atoms))), rng)
    if cheap_teacher_of(atoms.numbers) != potential:
        msg = "the defect needs a Hubbard U and its host does not"
        raise UnusableError(msg)
    variant = f"{kind}, {disturb(atoms, 'held', rng)}"
    return Input(_checked(atoms), "held", potential, host, variant)


def _remove_atom(atoms: Atoms, site: int, _: np.random.Generator) -> None:
    del atoms[site]


def _remove_two(atoms: Atoms, site: int, rng: np.random.Generator) -> None:
    distances = atoms.get_distances(site, range(len(atoms)), mic=True)
    del atoms[sorted({site, int(np.argsort(distances)[1 + int(rng.integers(3))])})]


def _make_antisite(atoms: Atoms, site: int, rng: np.random.Generator) -> None:
    species = np.unique(atoms.numbers)
    atoms.numbers[site] = rng.choice(species[species != atoms.numbers[site]])


def _exchange(atoms: Atoms, site: int, _: np.random.Generator) -> None:
    """Exchange an atom with the nearest of another species."""
    others = np.flatnonzero(atoms.numbers != atoms.numbers[site])
    other = int(others[np.argmin(atoms.get_distances(site, others, mic=True))])
    atoms.numbers[[site, other]] = atoms.numbers[[other, site]]


def _substitute(atoms: Atoms, site: int, rng: np.random.Generator) -> None:
    number = int(atoms.numbers[site])
    alike = rng.random() < 0.6
    atoms.numbers[site] = draw_alike(number, rng) if alike else rng.choice(_DOPANTS)
    if atoms.numbers[site] == number:
        msg = "no element to substitute"
        raise UnusableError(msg)


def _add_interstitial(atoms: Atoms, _: int, rng: np.random.Generator) -> None:
    voids, room = find_voids(atoms)
    own = rng.random() < 0.5
    new = int(rng.choice(np.unique(atoms.numbers) if own else _DOPANTS))
    chosen = int(rng.integers(min(3, len(voids))))
    if room[chosen] < _ROOM * covalent_radii[new]:
        msg = "no void for an interstitial"
        raise UnusableError(msg)
    atoms.extend(Atoms(numbers=[new], positions=voids[chosen : chosen + 1]))


_DEFECTS = {
    "vacancy": _remove_atom,
    "divacancy": _remove_two,
    "antisite": _make_antisite,
    "exchange": _exchange,
    "substitution": _substitute,
    "interstitial": _add_interstitial,
}


def build_ions(hosts: Hosts, rng: np.random.Generator) -> Built:
    """Put ions into the largest voids of a host, or take ions out; the cell is free."""
    yield from ()
    with_u = rng.random() < 0.3
    if rng.random() < 0.5:
        return _insert(hosts, rng, with_u)
    return _remove(hosts, rng, with_u)


def _insert(hosts: Hosts, rng: np.random.Generator, with_u: bool) -> Input:
    host = hosts.draw(rng, largest=24, with_u=with_u)
    while set(host.numbers.tolist()) <= METALS:
        host = hosts.draw(rng, largest=24, with_u=with_u)
    atoms = _small_supercell(host, rng, most=32)
    voids, room = find_voids(atoms)
    fitting = [z for z in sorted(MOBILE) if room[0] > _ROOM * covalent_radii[z]]
    if not fitting:
        msg = "no void for an ion"
        raise UnusableError(msg)
    ion = int(rng.choice(fitting))
    wanted = int(rng.choice([1, 1, 2, 3]))
    count = 0
    while count < wanted and room[0] > _ROOM * covalent_radii[ion]:
        atoms += Atoms(numbers=[ion], positions=voids[:1])
        count += 1
        voids, room = find_voids(atoms)
    variant = f"{count} {_symbol(ion)} inserted, {disturb(atoms, 'free', rng)}"
    return _free(atoms, host, variant)


def _remove(hosts: Hosts, rng: np.random.Generator, with_u: bool) -> Input:
    for _ in range(400):
        host = hosts.draw(rng, largest=28, with_u=with_u)
        ions = sorted({int(z) for z in host.numbers} & MOBILE)
        species = {int(z) for z in host.numbers}
        if ions and len(species) >= 3 and not species <= METALS:
            break
    else:
        msg = "no host with ions to take out"
        raise UnusableError(msg)
    atoms = _small_supercell(host, rng, most=32)
    ion = int(rng.choice(ions))
    sites = np.flatnonzero(atoms.numbers == ion)
    share = 1.0 if rng.random() < 0.3 else rng.uniform(0.0, 1.0)
    taken = rng.choice(sites, size=max(1, round(share * len(sites))), replace=False)
    if len(taken) == len(atoms) or len(taken) > 0.6 * len(atoms):
        msg = "too little of the host is left"
        raise UnusableError(msg)
    del atoms[sorted(taken.tolist())]
    variant = f"{len(taken)} of {len(sites)} {_symbol(ion)} removed, {disturb(atoms, 'free', rng)}"
    return _free(atoms, host, variant)


def build_decoration(hosts: Hosts, rng: np.random.Generator) -> Built:
    """Decorate a sublattice (of an alloy, oxide, nitride ...) at random; the cell is free."""
    yield from ()
    category = str(
        rng.choice(
            ["metal", "oxide", "pnictide", "chalcogenide", "halide"],
            p=[0.45, 0.25, 0.15, 0.1, 0.05],
        )
    )
    host = hosts.draw(rng, largest=16, category=category)
    atoms = _small_supercell(host, rng, most=int(rng.choice([16, 28, 40])), least=6)
    before = _expected_volume(atoms, hosts)
    species = np.unique(atoms.numbers)
    if category == "metal":
        sites = np.arange(len(atoms))
    else:
        cations = [z for z in species if z in METALS] or list(species)
        sites = np.flatnonzero(atoms.numbers == rng.choice(cations))
    original = int(atoms.numbers[sites[0]])
    alike = [
        z for z in sorted(ALIKE.get(original, set()) - RARE) if category != "metal" or z in METALS
    ]
    if category == "metal":
        alike = sorted({*alike, *(int(z) for z in species), *_near_in_size(original)})
    if not alike:
        msg = "no element to decorate with"
        raise UnusableError(msg)
    count = min(int(rng.choice([1, 1, 2, 3])), len(alike))
    others = rng.choice(alike, size=count, replace=False)
    new = np.append(others, original)
    atoms.numbers[sites] = rng.choice(new, size=len(sites))
    if len(np.unique(atoms.numbers[sites])) < 2 and len(sites) > 1:
        atoms.numbers[sites[0]], atoms.numbers[sites[-1]] = new[0], new[-1]
    variant = f"decorated {category}"
    if rng.random() < 0.5:
        ratio = np.clip(_expected_volume(atoms, hosts) / before, 0.6, 1.7)
        atoms.set_cell(atoms.cell.array * ratio ** (1 / 3), scale_atoms=True)
        variant += ", volumes of its elements"
    variant += f", {disturb(atoms, 'free', rng)}"
    return _free(atoms, host, variant)


def build_oxide(hosts: Hosts, rng: np.random.Generator) -> Built:
    """Disturb or substitute an oxide or fluoride of a transition metal; the cell is free."""
    yield from ()
    category = "halide" if rng.random() < 0.25 else "oxide"
    host = hosts.draw(rng, largest=16, with_u=True, category=category)
    atoms = right_handed(host.atoms)
    before = _expected_volume(atoms, hosts)
    variant = "strained by more"
    if rng.random() < 0.6:
        species = [int(z) for z in np.unique(atoms.numbers) if z in METALS]
        old = int(rng.choice(species))
        new = draw_alike(old, rng, METALS)
        atoms.numbers[atoms.numbers == old] = new
        variant = f"{_symbol(old)} to {_symbol(new)}"
        if rng.random() < 0.5:
            ratio = np.clip(_expected_volume(atoms, hosts) / before, 0.6, 1.7)
            atoms.set_cell(atoms.cell.array * ratio ** (1 / 3), scale_atoms=True)
    if not needs_u(atoms.numbers):
        msg = "no oxide or fluoride of a transition metal any more"
        raise UnusableError(msg)
    said = disturb(atoms, "free", rng)
    if variant == "strained by more":
        scale = 1 + rng.uniform(-0.04, 0.06)
        atoms.set_cell(atoms.cell.array * scale, scale_atoms=True)
    return _free(atoms, host, f"{variant}, {said}")


def _small_supercell(host: Host, rng: np.random.Generator, most: int, least: int = 8) -> Atoms:
    """The host's cell, or a supercell where there is room for one."""
    atoms = right_handed(host.atoms)
    while len(atoms) < least or (2 * len(atoms) <= most and rng.random() < 0.4):
        axis = int(np.argmin(atoms.cell.lengths()))
        if 2 * len(atoms) > most:
            break
        atoms = atoms.repeat([2 if k == axis else 1 for k in range(3)])
    return atoms


def _expected_volume(atoms: Atoms, hosts: Hosts) -> float:
    return float(hosts.volumes[atoms.numbers].sum())


def _near_in_size(number: int) -> list[int]:
    """Metals whose radius differs by less than 10 %."""
    radius = covalent_radii[number]
    return [z for z in sorted(METALS - RARE) if abs(covalent_radii[z] / radius - 1) < 0.1]


def _free(atoms: Atoms, host: Host, variant: str) -> Input:
    return Input(_checked(atoms), "free", NEQUIX, host, variant, fmax=FMAX_FREE)


def _checked(atoms: Atoms) -> Atoms:
    if least_distance(atoms) < LEAST_SHARE:
        msg = "input: atoms on top of each other"
        raise UnusableError(msg)
    return atoms


def _symbol(number: int) -> str:
    from ase.data import chemical_symbols

    return chemical_symbols[number]
