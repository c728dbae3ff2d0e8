"""Build sheets under PBE, and layered crystals and bilayers with dispersion."""

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from jaxtyping import Float
from vesin import NeighborList

from recipes.teaching.chemistry import METALS, UnusableError, draw_alike, elements, least_distance
from recipes.teaching.hosts import Host, Hosts
from recipes.teaching.inputs import (
    FMAX_FREE,
    FMAX_HELD,
    LEAST_SHARE,
    Built,
    Input,
    disturb,
    relaxed_host,
    right_handed,
)
from recipes.teaching.potentials import NEQUIX, NEQUIX_D3
from recipes.teaching.surfaces import adsorb

VACUUM = 16.0
"""Å beside a sheet."""
_SHIFTS = ((0, 0), (1 / 3, 2 / 3), (2 / 3, 1 / 3), (0.5, 0), (0, 0.5), (0.5, 0.5))
_ADATOMS = ("H", "O", "N", "C", "S")
_METAL_ADATOMS = elements("Li Na K Mg Ca Al Ti Fe Cu Zn Pd Ag Sn Pt Au")
_PLANE = 2


def build_sheet(hosts: Hosts, rng: np.random.Generator) -> Built:
    """Build a sheet: pristine, with a defect or an adatom, Janus, or of mixed species."""
    kind = str(
        rng.choice(
            ["pristine", "defect", "adatom", "Janus", "mixed"], p=[0.42, 0.16, 0.14, 0.14, 0.14]
        )
    )
    if kind == "pristine":
        host = hosts.draw_sheet(rng, largest=20, mxenes=0.05)
        yield from relaxed_host(_as_host(host), NEQUIX, "in_plane")
        atoms = _upright(host.atoms)
        said = disturb(atoms, "in_plane", rng)
        return _made(atoms, "in_plane", host, f"pristine, {said}")
    host = hosts.draw_sheet(rng, largest=12)
    if kind == "Janus":
        atoms = _small_supercell(_upright(host.atoms), rng, 12)
        _make_janus(atoms, rng)
        return _made(atoms, "in_plane", host, f"Janus, {disturb(atoms, 'in_plane', rng)}")
    if kind == "mixed":
        atoms = _small_supercell(_upright(host.atoms), rng, 24)
        _mix_species(atoms, rng)
        return _made(atoms, "in_plane", host, f"mixed, {disturb(atoms, 'in_plane', rng)}")
    cell = "held" if rng.random() < 0.6 else "in_plane"
    relaxed = yield from relaxed_host(_as_host(host), NEQUIX, "in_plane")
    atoms = _supercell(relaxed, int(rng.choice([24, 36])))
    if kind == "adatom":
        metal = rng.random() < 0.4
        name = (
            _symbol(int(rng.choice(sorted(_METAL_ADATOMS)))) if metal else str(rng.choice(_ADATOMS))
        )
        atoms, site = adsorb(atoms, name, rng)
        return _made(
            atoms, cell, host, f"{name} on {site}, {disturb(atoms, cell, rng)}", adsorbed=1
        )
    site_index = int(rng.integers(len(atoms)))
    if rng.random() < 0.5:
        del atoms[site_index]
        name = "vacancy"
    else:
        number = int(atoms.numbers[site_index])
        atoms.numbers[site_index] = draw_alike(number, rng)
        name = "substitution"
        if atoms.numbers[site_index] == number:
            msg = "no element to substitute"
            raise UnusableError(msg)
    return _made(atoms, cell, host, f"{name}, {disturb(atoms, cell, rng)}")


def build_monolayer(hosts: Hosts, rng: np.random.Generator) -> Built:
    """Take a whole sheet, most of them from a minimum of another functional."""
    yield from ()
    host = hosts.draw_sheet(rng, largest=20, mxenes=0.1)
    atoms = _upright(host.atoms)
    return _made(atoms, "in_plane", host, f"whole, {disturb(atoms, 'in_plane', rng)}")


def build_layered(hosts: Hosts, rng: np.random.Generator) -> Built:
    """Build a layered crystal or a bilayer for relaxation with dispersion."""
    yield from ()
    kind = str(rng.choice(["crystal", "bilayer", "stack"], p=[0.5, 0.3, 0.2]))
    if kind == "crystal":
        host, normal = _draw_layered(hosts, rng)
        atoms = right_handed(host.atoms)
        if rng.random() < 0.5:
            stretch = rng.uniform(-0.04, 0.15)
            atoms.set_cell(
                atoms.cell.array @ (np.eye(3) + stretch * np.outer(normal, normal)),
                scale_atoms=True,
            )
            said = f"layers apart by {stretch:+.3f}"
        else:
            said = disturb(atoms, "free", rng)
        return _with_d3(atoms, "free", host, f"layered crystal, {said}")
    host = hosts.draw_sheet(rng, largest=8, mxenes=0.05)
    sheet = _upright(host.atoms)
    shift = _SHIFTS[int(rng.integers(len(_SHIFTS)))]
    gap = rng.uniform(2.7, 3.8)
    thickness = float(np.ptp(sheet.positions[:, 2]))
    if kind == "stack":
        cell = sheet.cell.array.copy()
        cell[2] = np.array([*shift, 0.0]) @ cell
        cell[2, 2] = thickness + gap
        atoms = Atoms(sheet.numbers, sheet.positions, cell=cell, pbc=True)
        atoms.positions[:, 2] -= atoms.positions[:, 2].min()
        atoms = atoms.repeat((1, 1, 2)) if rng.random() < 0.3 else atoms
        return _with_d3(atoms, "free", host, f"stacked sheets, {disturb(atoms, 'free', rng)}")
    second = sheet.copy()
    if rng.random() < 0.5:
        second.positions = -second.positions
        second.positions[:, 2] += 2 * sheet.positions[:, 2].mean()
    second.positions += np.array([*shift, 0.0]) @ sheet.cell.array
    second.positions[:, 2] += sheet.positions[:, 2].max() + gap - second.positions[:, 2].min()
    atoms = _upright(sheet + second)
    return _with_d3(atoms, "in_plane", host, f"bilayer, {disturb(atoms, 'in_plane', rng)}")


def _made(atoms: Atoms, cell: str, host: Host, variant: str, adsorbed: int = 0) -> Input:
    if least_distance(atoms) < LEAST_SHARE:
        msg = "input: atoms on top of each other"
        raise UnusableError(msg)
    return Input(atoms, cell, NEQUIX, host, variant, adsorbed=adsorbed, fmax=_fmax(cell))


def _fmax(cell: str) -> float:
    return FMAX_HELD if cell == "held" else FMAX_FREE


def _with_d3(atoms: Atoms, cell: str, host: Host, variant: str) -> Input:
    if least_distance(atoms) < LEAST_SHARE:
        msg = "input: atoms on top of each other"
        raise UnusableError(msg)
    return Input(atoms, cell, NEQUIX_D3, host, variant, functional="PBE-D3", fmax=0.01)


def _upright(sheet: Atoms) -> Atoms:
    """The sheet in the middle of its vacuum, the third vector along z."""
    atoms = right_handed(sheet)
    cell = atoms.cell.array.copy()
    if np.abs(cell[:2, 2]).max() > 1e-4 or np.abs(cell[2, :2]).max() > 1e-4:
        msg = "sheet: its vectors do not lie in the plane"
        raise UnusableError(msg)
    cell[:2, 2] = cell[2, :2] = 0.0
    if cell[2, 2] < 0:
        msg = "sheet: turned over"
        raise UnusableError(msg)
    heights = atoms.positions[:, 2]
    low, extent = heights.min(), np.ptp(heights)
    if extent > cell[2, 2] - 8.0:
        msg = "sheet: wraps around its vacuum"
        raise UnusableError(msg)
    cell[2, 2] = extent + VACUUM
    positions = atoms.positions.copy()
    positions[:, 2] += VACUUM / 2 - low
    return Atoms(atoms.numbers, positions, cell=cell, pbc=[True, True, False])


def _as_host(host: Host) -> Host:
    return Host(host.id, host.functional, host.group, _upright(host.atoms))


def _supercell(sheet: Atoms, most: int) -> Atoms:
    """Repeat the shorter in-plane vector while there is room."""
    atoms = sheet
    repeats = [1, 1]
    while True:
        lengths = atoms.cell.lengths()[:2] * repeats
        axis = int(np.argmin(lengths))
        repeats[axis] += 1
        if repeats[0] * repeats[1] * len(atoms) > most:
            repeats[axis] -= 1
            break
    return atoms.repeat((*repeats, 1))


def _small_supercell(sheet: Atoms, rng: np.random.Generator, most: int) -> Atoms:
    if rng.random() < 0.3 or 2 * len(sheet) > most:
        return sheet
    return _supercell(sheet, int(rng.integers(2 * len(sheet), most + 1)))


def _make_janus(atoms: Atoms, rng: np.random.Generator) -> None:
    """Exchange the outermost atoms of one side for an element of the same group."""
    heights = atoms.positions[:, 2]
    top = np.flatnonzero(heights > heights.max() - 0.4)
    if np.ptp(heights) < 0.8:
        msg = "a flat sheet has no two sides"
        raise UnusableError(msg)
    old = int(atoms.numbers[top[0]])
    new = draw_alike(old, rng)
    if new == old:
        msg = "no element for the other side"
        raise UnusableError(msg)
    atoms.numbers[top[atoms.numbers[top] == old]] = new


def _mix_species(atoms: Atoms, rng: np.random.Generator) -> None:
    species = np.unique(atoms.numbers)
    old = int(rng.choice(species))
    new = draw_alike(old, rng)
    sites = np.flatnonzero(atoms.numbers == old)
    if new == old:
        msg = "no element to mix in"
        raise UnusableError(msg)
    count = int(rng.integers(1, max(2, len(sites))))
    atoms.numbers[rng.choice(sites, size=count, replace=False)] = new


def _draw_layered(hosts: Hosts, rng: np.random.Generator) -> tuple[Host, Float[np.ndarray, "3"]]:
    """Draw a bulk crystal that is made of layers, and their normal."""
    for _ in range(600):
        host = hosts.draw(rng, largest=16, with_u=None if rng.random() < 0.1 else False)
        if set(host.numbers.tolist()) <= METALS:
            continue
        normal = layer_normal(host.atoms)
        if normal is not None:
            return host, normal
    msg = "no layered host"
    raise UnusableError(msg)


def layer_normal(atoms: Atoms, factor: float = 1.25) -> Float[np.ndarray, "3"] | None:
    """The normal of the layers that a crystal is made of, or None where it is not.

    Args:
        atoms: Bulk crystal.
        factor: Atoms are bonded within this times the sum of their covalent radii.
    """
    i, j, offsets, distances = NeighborList(cutoff=5.0, full_list=True).compute(
        points=atoms.positions, box=atoms.cell.array, periodic=True, quantities="ijSd"
    )
    i, j = i.astype(int), j.astype(int)
    radii = covalent_radii[atoms.numbers]
    bonded = distances < factor * (radii[i] + radii[j])
    links: dict[int, list[tuple[int, Float[np.ndarray, 3]]]] = {}
    for a, b, offset in zip(i[bonded], j[bonded], offsets[bonded], strict=True):
        links.setdefault(int(a), []).append((int(b), np.asarray(offset)))
    seen: dict[int, Float[np.ndarray, 3]] = {}
    planes = []
    for start in range(len(atoms)):
        if start in seen:
            continue
        seen[start] = np.zeros(3)
        cycles = []
        waiting = [start]
        while waiting:
            here = waiting.pop()
            for there, offset in links.get(here, []):
                place = seen[here] + offset
                if there not in seen:
                    seen[there] = place
                    waiting.append(there)
                elif not np.array_equal(place, seen[there]):
                    cycles.append(place - seen[there])
        vectors = np.array(cycles).reshape(-1, 3)
        if np.linalg.matrix_rank(vectors) != _PLANE:
            return None
        planes.append(vectors)
    _, _, axes = np.linalg.svd(np.concatenate(planes) @ atoms.cell.array)
    if np.linalg.matrix_rank(np.concatenate(planes)) != _PLANE:
        return None
    return axes[2]


def _symbol(number: int) -> str:
    from ase.data import chemical_symbols

    return chemical_symbols[number]
