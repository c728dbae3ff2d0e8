from dataclasses import replace

import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk, graphene, molecule, mx2
from ase.spacegroup import crystal as spacegroup_crystal
from hypothesis import given
from hypothesis import strategies as st
from strategies import crystals

from deeprelax_ase.compiled import IS_COMPILED
from deeprelax_ase.structures.crystal import Crystal, complete_cell
from deeprelax_ase.structures.symmetry import SYMPREC, find_space_group, symmetrise

CRYSTALS = {
    "fcc": bulk("Cu"),
    "bcc": bulk("Fe"),
    "hcp": bulk("Mg"),
    "diamond": bulk("Si"),
    "rocksalt": bulk("NaCl", "rocksalt", a=5.6),
    "rocksalt supercell": bulk("NaCl", "rocksalt", a=5.6) * (3, 2, 1),
    "cubic cell": bulk("NaCl", "rocksalt", a=5.6, cubic=True),
    "large": bulk("NaCl", "rocksalt", a=5.6, cubic=True) * (2, 2, 2),
    "wurtzite": bulk("ZnO", "wurtzite", a=3.25, c=5.2),
    "rutile": spacegroup_crystal(
        ["Ti", "O"],
        [(0, 0, 0), (0.305, 0.305, 0)],
        spacegroup=136,
        cellpar=[4.59, 4.59, 2.96, 90, 90, 90],
    ),
    "quartz": spacegroup_crystal(
        ["Si", "O"],
        [(0.47, 0, 1 / 3), (0.41, 0.27, 0.45)],
        spacegroup=154,
        cellpar=[4.91, 4.91, 5.4, 90, 90, 120],
    ),
    "monoclinic": spacegroup_crystal(
        ["Zr", "O", "O"],
        [(0.276, 0.04, 0.21), (0.07, 0.336, 0.344), (0.45, 0.757, 0.48)],
        spacegroup=14,
        cellpar=[5.15, 5.2, 5.32, 90, 99.2, 90],
    ),
}


def crystal_of(atoms):
    cell = complete_cell(np.array(atoms.cell), atoms.pbc)
    return Crystal(atoms.numbers.astype(np.int64), atoms.positions.copy(), cell, atoms.pbc)


def order_by_spglib(crystal, symprec=SYMPREC):
    scaled = crystal.positions @ np.linalg.inv(crystal.cell)
    return len(
        spglib.get_symmetry((crystal.cell, scaled, crystal.numbers), symprec=symprec)["rotations"]
    )


@pytest.mark.parametrize("name", CRYSTALS)
@pytest.mark.parametrize("noise", [0.0, 1e-4])
def test_as_many_operations_as_spglib(name, noise, rng):
    crystal = crystal_of(CRYSTALS[name])
    shift = rng.uniform(-noise, noise, size=crystal.positions.shape)
    crystal = replace(crystal, positions=crystal.positions + shift)
    group = find_space_group(crystal)
    assert group is not None
    assert group.order == order_by_spglib(crystal)


@given(crystals(periodic=[True] * 3))
def test_random_crystals_as_spglib(crystal):
    group = find_space_group(crystal)
    assert (1 if group is None else group.order) == order_by_spglib(crystal)


@given(st.sampled_from(sorted(CRYSTALS)), st.integers(0, 1000))
def test_operations_map_the_crystal_onto_itself(name, seed):
    shift = np.random.default_rng(seed).uniform(-5, 5, size=3)
    crystal = crystal_of(CRYSTALS[name])
    crystal = replace(crystal, positions=crystal.positions + shift)
    group = find_space_group(crystal)
    scaled = crystal.positions @ np.linalg.inv(group.basis)
    np.testing.assert_array_equal(group.images[0], np.arange(len(crystal)))
    for rotation, translation, images in zip(
        group.rotations, group.translations, group.images, strict=True
    ):
        apart = scaled @ rotation.T + translation - scaled[images]
        np.testing.assert_allclose(apart, np.rint(apart), atol=1e-6)
        np.testing.assert_array_equal(crystal.numbers[images], crystal.numbers)


@pytest.mark.parametrize("name", CRYSTALS)
def test_any_move_becomes_symmetric(name, rng):
    crystal = crystal_of(CRYSTALS[name])
    group = find_space_group(crystal)
    moves = rng.normal(scale=0.05, size=crystal.positions.shape)
    strain = rng.normal(scale=0.03, size=(3, 3))
    deformation = np.eye(3) + (strain + strain.T) / 2
    moves, deformation = symmetrise(crystal, group, moves, deformation)
    relaxed = replace(
        crystal,
        positions=(crystal.positions + moves) @ deformation,
        cell=crystal.cell @ deformation,
    )
    assert order_by_spglib(relaxed, 1e-6) == group.order
    again = symmetrise(crystal, group, moves, deformation)
    np.testing.assert_allclose(again[0], moves, atol=1e-9)
    np.testing.assert_allclose(again[1], deformation, atol=1e-9)


def test_a_noisy_crystal_becomes_exactly_symmetric(rng):
    crystal = crystal_of(CRYSTALS["rutile"])
    noisy = replace(
        crystal,
        positions=crystal.positions + rng.uniform(-2e-4, 2e-4, size=crystal.positions.shape),
        cell=crystal.cell + rng.uniform(-1e-4, 1e-4, size=(3, 3)),
    )
    group = find_space_group(noisy)
    assert group.order == 16
    moves, deformation = symmetrise(noisy, group, np.zeros_like(noisy.positions), np.eye(3))
    clean = replace(
        noisy, positions=(noisy.positions + moves) @ deformation, cell=noisy.cell @ deformation
    )
    assert order_by_spglib(noisy, 1e-6) == 1
    assert order_by_spglib(clean, 1e-6) == 16
    assert np.abs(moves).max() < 5e-4


@pytest.mark.parametrize(("shift", "order"), [(1e-4, 48), (1e-2, 8)])
def test_a_distortion_that_is_no_noise_is_kept(shift, order):
    """The ferroelectric phase of a perovskite is not made cubic."""
    places = [[0.5, 0.5, 0.5 + shift / 4], [0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    atoms = Atoms("TiBaO3", scaled_positions=places, cell=[4.0] * 3, pbc=True)
    assert find_space_group(crystal_of(atoms)).order == order


@pytest.mark.parametrize(
    ("atoms", "order"),
    [(mx2("MoS2", a=3.2), 12), (graphene(), 24), (molecule("C60"), None), (molecule("H2O"), None)],
)
def test_sheets_and_molecules(atoms, order):
    crystal = crystal_of(atoms)
    group = find_space_group(crystal)
    if order:
        assert group.order == order
    if group is not None:
        moves, deformation = symmetrise(crystal, group, np.zeros((len(atoms), 3)), np.eye(3))
        np.testing.assert_allclose(moves - moves.mean(axis=0), 0, atol=1e-3)
        np.testing.assert_allclose(deformation, np.eye(3), atol=1e-6)


def test_large_and_asymmetric_crystals_have_none(rng):
    assert find_space_group(crystal_of(bulk("Cu") * (11, 10, 10))) is None
    rattled = crystal_of(CRYSTALS["quartz"])
    rattled = replace(
        rattled, positions=rattled.positions + rng.normal(scale=0.1, size=rattled.positions.shape)
    )
    assert find_space_group(rattled) is None


def test_what_spglib_does_not_find_is_no_error(monkeypatch):
    """ASE can make spglib raise where it used to answer nothing."""
    monkeypatch.setattr(spglib.error, "OLD_ERROR_HANDLING", False)
    crowded = np.zeros((250, 3))
    crowded[:, 0] = np.linspace(0, 1e-5, 250)
    crystal = Crystal(np.full(250, 6), crowded, 3 * np.eye(3), np.ones(3, dtype=bool))
    assert find_space_group(crystal) is None


@pytest.mark.parametrize("noise", [1e-4, 3e-4, 6e-4])
@pytest.mark.parametrize("name", ["rocksalt supercell", "quartz"])
def test_the_order_of_the_atoms_decides_nothing(name, noise, rng):
    """Of an input of few digits, too: operations are judged by all atoms, not by the first."""
    atoms = CRYSTALS[name] * (2, 1, 1)
    atoms.rattle(noise, seed=3)
    first = find_space_group(crystal_of(atoms))
    for _ in range(3):
        order = rng.permutation(len(atoms))
        group = find_space_group(crystal_of(atoms[order]))
        assert (group is None) == (first is None)
        if group is not None:
            assert (group.order, len(group.rotations)) == (first.order, len(first.rotations))


@pytest.mark.skipif(not IS_COMPILED, reason="nothing compiled it")
def test_the_average_in_c_is_that_in_numpy(monkeypatch, rng):
    crystal = crystal_of(CRYSTALS["rocksalt supercell"])
    group = find_space_group(crystal)
    moves = rng.normal(scale=0.1, size=crystal.positions.shape), np.eye(3) + 0.01
    compiled = symmetrise(crystal, group, *moves)
    monkeypatch.setattr("deeprelax_ase.structures.symmetry.IS_COMPILED", False)
    for one, other in zip(compiled, symmetrise(crystal, group, *moves), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.skipif(not IS_COMPILED, reason="nothing compiled it")
def test_arrays_that_do_not_belong_together_are_refused():
    from deeprelax_ase.compiled import core

    one, two = np.zeros((1, 3)), np.zeros((2, 3))
    rotation, images = np.eye(3)[None], np.zeros((1, 1), dtype=np.int64)
    core.average(rotation, one, images, one, one.copy())
    for arguments in (
        (rotation, two, images, one, one.copy()),
        (rotation, one, images, two, two.copy()),
        (rotation, one, images + 1, one, one.copy()),
        (rotation, one, images - 1, one, one.copy()),
        (rotation, one, images, one, two.copy()),
    ):
        with pytest.raises(ValueError, match="belong together"):
            core.average(*arguments)
    with pytest.raises(ValueError, match="belong together"):
        core.find_operations(np.eye(3), two, np.zeros(3, dtype=np.int64), 1e-3)
    # Whatever is no crystal has no group, not even of one operation.
    number = np.ones(1, dtype=np.int64)
    assert core.find_operations(np.eye(3), np.full((1, 3), np.nan), number, 1e-3)[1] is False
    salt = crystal_of(bulk("MgO", "rocksalt", a=4.2))
    numbers = salt.numbers.astype(np.int64)
    assert core.find_operations(salt.cell, salt.positions @ np.linalg.inv(salt.cell), numbers, 9.0)


def test_translations_of_a_noisy_supercell_are_a_group():
    atoms = bulk("Cu", cubic=True) * (3, 3, 3)
    atoms.rattle(2e-4, seed=1)
    group = find_space_group(crystal_of(atoms))
    assert group.num_translations == 108
    assert group.order == 48 * 108
