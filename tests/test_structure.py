import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule, mx2
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixCartesian, FixScaled, FixSymmetry
from pymatgen.core import DummySpecies, Element, IStructure, Lattice, Structure

from deeprelax_ase.structures.crystal import log_symmetric
from deeprelax_ase.structures.read_structure import read_structure
from deeprelax_ase.structures.validation import StructureError

STRETCH = np.diag([1.02, 0.97, 1.05])


def displacements(count, scale=0.05):
    moves = np.random.default_rng(0).normal(scale=scale, size=(count, 3))
    return moves - moves.mean(axis=0)


def test_atoms_lose_nothing():
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.calc = EMT()
    atoms.info["key"] = {"a": 1}
    atoms.set_tags(range(8))
    atoms.set_initial_magnetic_moments(np.arange(8.0))
    atoms.set_initial_charges([1, -1] * 4)
    atoms.set_momenta(np.ones((8, 3)))
    atoms.set_masses([2.0] * 8)
    atoms.set_celldisp([0.1, 0, 0])
    atoms.arrays["own"] = np.arange(16).reshape(8, 2)
    before = atoms.copy()
    moves = displacements(8)
    relaxed = read_structure(atoms).with_relaxed(moves, STRETCH)
    assert atoms == before
    assert relaxed.calc is atoms.calc
    assert relaxed.info == atoms.info
    assert set(relaxed.arrays) == set(atoms.arrays) - {"momenta"}
    assert read_structure(atoms).stale() == ["momenta"]
    for name, array in atoms.arrays.items():
        if name not in ("positions", "momenta"):
            np.testing.assert_array_equal(relaxed.arrays[name], array)
    np.testing.assert_allclose(relaxed.cell[:], atoms.cell[:] @ STRETCH)
    np.testing.assert_allclose(relaxed.positions, (atoms.positions + moves) @ STRETCH)


def test_structure_loses_nothing(perovskite):
    before = perovskite.copy()
    moves = displacements(5)
    relaxed = read_structure(perovskite).with_relaxed(moves, STRETCH)
    assert perovskite == before
    assert type(relaxed) is Structure
    assert relaxed.charge == 1
    assert relaxed.labels == perovskite.labels
    assert relaxed.site_properties == perovskite.site_properties
    assert relaxed.properties == perovskite.properties
    assert [s.specie for s in relaxed] == [s.specie for s in perovskite]
    assert relaxed[0].specie.oxi_state == 2
    np.testing.assert_allclose(relaxed.lattice.matrix, perovskite.lattice.matrix @ STRETCH)
    expected = (perovskite.cart_coords + moves) @ STRETCH
    np.testing.assert_allclose(relaxed.cart_coords, expected, atol=1e-12)


def test_immutable_structure_stays_one(perovskite):
    fixed = IStructure.from_sites(perovskite)
    relaxed = read_structure(fixed).with_relaxed(displacements(5), STRETCH)
    assert type(relaxed) is IStructure
    assert fixed.lattice == perovskite.lattice


def test_sites_outside_the_cell_stay_there():
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.positions[1] += 3 * atoms.cell[0] - atoms.cell[2]
    relaxed = read_structure(atoms).with_relaxed(np.zeros((2, 3)), np.eye(3))
    np.testing.assert_allclose(relaxed.positions, atoms.positions)


@pytest.mark.parametrize("kind", ["sheet", "boxed sheet", "split sheet", "tilted sheet"])
def test_sheets(kind):
    atoms = mx2("MoS2", a=3.2)
    if kind != "sheet":
        atoms.center(vacuum=9.0, axis=2)
        atoms.pbc = True
    if kind == "split sheet":
        atoms.positions[:, 2] -= atoms.positions[:, 2].mean()
        atoms.wrap()
    if kind == "tilted sheet":
        atoms.cell[2, 0] = 4.0
    read = read_structure(atoms)
    assert read.crystal.pbc.tolist() == [True, True, False]
    assert bool(read.notes) == (kind != "sheet")
    projector = read.crystal.strain_projector()
    strain = projector @ np.diag([0.03, 0.03, 0.5]) @ projector
    moves = displacements(3)
    relaxed = read.with_relaxed(moves, np.eye(3) + strain)
    np.testing.assert_allclose(relaxed.cell[2], atoms.cell[2], atol=1e-12)
    np.testing.assert_allclose(relaxed.cell[:2], 1.03 * atoms.cell[:2], atol=1e-12)
    assert relaxed.pbc.tolist() == atoms.pbc.tolist()
    # Nothing was torn apart: neighbours across the boundary stay neighbours.
    apart = relaxed.get_all_distances(mic=True) - atoms.get_all_distances(mic=True)
    assert np.abs(apart).max() < 0.3


def test_vacuum_can_be_strained_on_request():
    atoms = fcc111("Cu", (1, 1, 3), vacuum=9.0)
    atoms.pbc = True
    assert read_structure(atoms, vacuum="none").crystal.pbc.all()
    with pytest.raises(ValueError, match="choose from auto, none"):
        read_structure(atoms, vacuum="maybe")


def test_wires_molecules_and_gaps():
    wire = Atoms("C2", [[0, 0, 0], [0, 0, 1.3]], cell=[0, 0, 2.6], pbc=[False, False, True])
    projector = read_structure(wire).crystal.strain_projector()
    np.testing.assert_allclose(projector, np.diag([0, 0, 1]))
    water = read_structure(molecule("H2O"))
    np.testing.assert_allclose(water.crystal.strain_projector(), 0)
    boxed = molecule("H2O", vacuum=6.0)
    boxed.pbc = True
    assert read_structure(boxed).crystal.pbc.tolist() == [False] * 3
    wide = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    assert read_structure(wide).crystal.pbc.all()


def test_pymatgen_pbc_is_respected(perovskite):
    lattice = Lattice(perovskite.lattice.matrix, pbc=(True, True, False))
    sheet = Structure(lattice, perovskite.species, perovskite.frac_coords)
    assert read_structure(sheet).crystal.pbc.tolist() == [True, True, False]
    relaxed = read_structure(sheet).with_relaxed(np.zeros((5, 3)), np.diag([1.02, 0.97, 1]))
    assert relaxed.lattice.pbc == (True, True, False)


def test_left_handed_cells_work():
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    left = atoms.copy()
    left.set_cell(atoms.cell[[1, 0, 2]])
    assert np.linalg.det(left.cell) < 0
    relaxed = read_structure(left).with_relaxed(np.zeros((2, 3)), STRETCH)
    np.testing.assert_allclose(relaxed.cell[:], left.cell[:] @ STRETCH, atol=1e-12)


def test_fixed_atoms_keep_their_fractional_coordinates():
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.set_constraint(FixAtoms([0, 3]))
    moves = displacements(8)
    relaxed = read_structure(atoms).with_relaxed(moves, STRETCH)
    scaled, before = relaxed.get_scaled_positions(), atoms.get_scaled_positions()
    np.testing.assert_allclose(scaled[[0, 3]], before[[0, 3]], atol=1e-9)
    assert np.abs((scaled - before)[[1, 2, 4]]).max() > 1e-3
    assert relaxed.constraints[0].todict() == atoms.constraints[0].todict()


@pytest.mark.parametrize(
    "constraint",
    [FixAtoms([0]), FixCartesian(0), FixScaled([0]), FixScaled([0], mask=(False, False, True))],
)
def test_atoms_move_as_far_from_those_that_are_held(constraint):
    """The crystal may be anywhere: if one of two is held, the other makes the whole move."""
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)[:2]
    atoms.set_constraint(constraint)
    moves = np.array([[0.0, 0.0, -0.3], [0.0, 0.0, 0.3]])
    relaxed = read_structure(atoms).with_relaxed(moves, np.eye(3))
    np.testing.assert_allclose(
        relaxed.positions - atoms.positions, [[0] * 3, [0, 0, 0.6]], atol=1e-9
    )


def test_other_constraints_hold():
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.set_constraint([FixCartesian(1, mask=(True, False, False)), FixScaled(2)])
    moves = displacements(8)
    relaxed = read_structure(atoms).with_relaxed(moves, np.eye(3))
    assert relaxed.positions[1, 0] == pytest.approx(atoms.positions[1, 0])
    assert relaxed.positions[1, 1] != pytest.approx(atoms.positions[1, 1])
    np.testing.assert_allclose(relaxed.positions[2], atoms.positions[2], atol=1e-9)


def test_fix_symmetry_takes_large_deformations():
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.set_constraint(FixSymmetry(atoms))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        relaxed = read_structure(atoms).with_relaxed(displacements(8), np.diag([1.5, 1.3, 1.4]))
    np.testing.assert_allclose(np.diff(relaxed.cell.lengths()), 0, atol=1e-6)
    assert relaxed.cell.lengths()[0] > 1.3 * 5.6


def test_selective_dynamics_are_held(perovskite):
    flags = [[True] * 3] * 4 + [[False, True, False]]
    perovskite.add_site_property("selective_dynamics", flags)
    relaxed = read_structure(perovskite).with_relaxed(displacements(5), STRETCH)
    moved = relaxed.frac_coords - perovskite.frac_coords
    np.testing.assert_allclose(moved[4, [0, 2]], 0, atol=1e-12)
    assert abs(moved[4, 1]) > 1e-4
    assert relaxed.site_properties["selective_dynamics"] == flags


def test_isotopes_are_their_element():
    structure = Structure(Lattice.cubic(4), ["D", "Li"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    read = read_structure(structure)
    assert read.crystal.numbers.tolist() == [1, 3]
    relaxed = read.with_relaxed(np.zeros((2, 3)), np.eye(3))
    assert relaxed[0].specie is Element("D")
    heavy = bulk("LiH", "rocksalt", a=4.1)
    heavy.set_masses([7.0, 2.014])
    assert read_structure(heavy).with_relaxed(np.zeros((2, 3)), np.eye(3)).get_masses()[1] == 2.014


def bad(numbers="Cu", positions=((0, 0, 0),), cell=(3, 3, 3), pbc=True):
    return Atoms(numbers, positions, cell=cell, pbc=pbc)


@pytest.mark.parametrize(
    ("structure", "words"),
    [
        (Atoms(), "empty"),
        (bad(positions=[[0, np.nan, 0]]), "atom 0.*finite"),
        (bad(positions=[[0, np.inf, 0]]), "atom 0.*finite"),
        (bad(cell=[3, 3, np.nan]), "finite"),
        (bad(cell=[[3, 0, 0], [3, 0, 0], [0, 0, 3]]), "singular.*pbc"),
        (bad(cell=None), "singular.*pbc"),
        (bad(cell=[3, 3, 0]), "singular.*pbc"),
        (bad(cell=[[3, 0, 0], [6, 0, 0], [0, 0, 3]], pbc=False), "singular"),
        (bad("Cu2", [[0, 0, 0], [0, 0, 0.4]]), "atoms 0 and 1 share a site.*0.400 Å"),
        (bad("Cu2", [[0, 0, 0], [0, 0, 0]]), "share a site"),
        (bad("Cu2", [[0, 0, 0.1], [0, 0, 2.9]]), "share a site"),
        (bad("CuX", [[0, 0, 0], [1.5, 1.5, 1.5]]), "atom 1 is a dummy 'X'"),
        (bad(cell=[3000, 3000, 3000]), "3000 Å long.*is the cell in Å"),
        (object(), "ase.Atoms or a pymatgen Structure"),
        ("POSCAR", "ase.Atoms or a pymatgen Structure"),
        (None, "ase.Atoms or a pymatgen Structure"),
    ],
)
def test_bad_input(structure, words):
    with pytest.raises(StructureError, match=words):
        read_structure(structure)


def test_disorder_names_the_way_out():
    disordered = Structure(Lattice.cubic(3), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    partial = Structure(Lattice.cubic(3), [{"Cu": 0.9}], [[0, 0, 0]])
    atoms = bad()
    atoms.info["occupancy"] = {"0": {"Cu": 0.7, "Ni": 0.3}}
    for structure in (disordered, partial, atoms):
        with pytest.raises(StructureError, match="OrderDisorderedStructureTransformation"):
            read_structure(structure)


def test_dummy_species():
    structure = Structure(Lattice.cubic(3), [DummySpecies("Xa")], [[0, 0, 0]])
    with pytest.raises(StructureError, match="dummy species"):
        read_structure(structure)


@pytest.mark.parametrize(
    ("gap", "pbc", "is_sheet"),
    [
        (20.0, (True, True, True), True),
        (10.0, (True, True, True), False),  # a layered crystal
        (10.0, (True, True, False), True),
        (4.0, (True, True, True), False),
        (20.0, (True, False, False), False),
    ],
)
def test_a_sheet_is_one_by_itself(gap, pbc, is_sheet):
    sheet = mx2("MoS2", a=3.2, thickness=3.2, vacuum=gap / 2)
    sheet.pbc = pbc
    assert read_structure(sheet).is_sheet == is_sheet


def test_a_sheet_without_a_third_vector():
    assert read_structure(mx2("MoS2", a=3.2)).is_sheet


_CUTS = [
    [[1, 0, 1], [0, 1, 0], [0, 0, 1]],
    [[1, 0, 1], [1, 1, 1], [0, 0, 1]],
    [[1, 2, 1], [0, 1, 1], [1, 2, 2]],
    [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
]


@pytest.mark.parametrize("cut", _CUTS)
@pytest.mark.parametrize("kind", ["sheet", "wire", "molecule"])
def test_vacuum_is_found_whichever_cell_was_given(cut, kind, rng):
    """The same crystal in another cell is strained and kept along the same directions."""
    if kind == "sheet":
        atoms = mx2("MoS2", a=3.2, vacuum=9.0)
    elif kind == "wire":
        atoms = Atoms("C2", [[5, 5, 0], [5, 5, 1.3]], cell=[19, 17, 2.6])
    else:
        atoms = molecule("H2O", vacuum=9.0)
    atoms.pbc = True
    atoms.rattle(0.05, seed=2)
    other = atoms.copy()
    other.set_cell(np.array(cut) @ atoms.cell[:])
    other.wrap()
    plain, read = read_structure(atoms), read_structure(other)
    assert read.is_sheet == plain.is_sheet == (kind == "sheet")
    assert read.crystal.pbc.sum() == plain.crystal.pbc.sum()
    assert len(read.notes) == len(plain.notes) == {"sheet": 1, "wire": 2, "molecule": 3}[kind]
    projector = plain.crystal.strain_projector()
    np.testing.assert_allclose(read.crystal.strain_projector(), projector, atol=1e-9)
    deform = np.eye(3) + projector @ np.diag([0.03, 0.02, 0.01]) @ projector
    moves = rng.normal(scale=0.05, size=atoms.positions.shape)
    here, there = plain.with_relaxed(moves, deform), read.with_relaxed(moves, deform)
    assert there.get_volume() == pytest.approx(here.get_volume())
    np.testing.assert_allclose(
        there.get_all_distances(mic=True), here.get_all_distances(mic=True), atol=1e-9
    )
    strain, displacements = log_symmetric(deform), moves - moves.mean(axis=0)
    for entry, relaxed in ((plain, here), (read, there)):
        found = entry.measure(relaxed)
        np.testing.assert_allclose(found[0] - found[0].mean(axis=0), displacements, atol=1e-9)
        np.testing.assert_allclose(found[1], strain, atol=1e-9)


def test_wires_between_the_planes_of_each_other_are_not_cut():
    ring = np.array([[4.4, 0, 0], [-4.4, 0, 0], [0, 4.4, 0], [0, -4.4, 0]])
    both = np.vstack([ring, ring + np.array([14.5, 14.5, 0])])
    wires = Atoms("C8", both, cell=[29, 29, 2.6], pbc=True)
    read = read_structure(wires)  # 14.3 Å along both diagonals, 5.7 Å along both axes
    assert [note.code for note in read.notes] == ["vacuum_directions"]
    free = read.crystal.strain_freedom() @ np.ones(9)  # along the wires alone, whatever is asked
    np.testing.assert_allclose(free.reshape(3, 3), np.diag([0, 0, 1]), atol=1e-9)
    relaxed = read.with_relaxed(np.zeros((8, 3)), np.eye(3))
    np.testing.assert_allclose(relaxed.positions, wires.positions, atol=1e-9)
    np.testing.assert_allclose(relaxed.cell[:], wires.cell[:], atol=1e-9)


def test_what_does_not_repeat_stays_out_of_what_does():
    """A ribbon, in a cell with a vector along which nothing repeats, and that leans."""
    cell = np.array([[3.0, 0, 30], [0, 10, 8], [0, 0, 30]])
    ribbon = Atoms("C2", [[0, 0, 29.5], [0.8, 0, 30.6]], cell=cell, pbc=[True, False, True])
    read = read_structure(ribbon)
    np.testing.assert_allclose(read.basis[1], [0, 1, 0])
    np.testing.assert_allclose(read.basis[[0, 2], 1], 0)
    assert read.crystal.pairs_within(1.5).lengths == pytest.approx([np.hypot(0.8, 1.1)])
