"""A molecule that lies the wrong way round is left as it is, not pushed together."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atom, Atoms
from ase.build import add_adsorbate, bcc110, bulk, fcc111, molecule, surface
from ase.constraints import FixAtoms, FixCartesian
from ase.data import covalent_radii
from ase.spacegroup import crystal

from deeprelax_ase import Relaxer
from deeprelax_ase.relaxation.bonds_to_hydrogen import with_bonds_to_hydrogen
from deeprelax_ase.relaxation.passes import Move, Relaxation, _is_no_gain, _loose
from deeprelax_ase.relaxation.prediction import CrystalPrediction
from deeprelax_ase.relaxation.sanity_checks import crushed_bond
from deeprelax_ase.solver.status import SolveStatus
from deeprelax_ase.structures.read_structure import read_structure


def wrong_way_round(metal, name, height, site):
    slab = fcc111(metal, (2, 2, 3), vacuum=10)
    adsorbate = molecule(name)
    if name == "CO":
        adsorbate.rotate(180, "x")
    add_adsorbate(slab, adsorbate, height, site)
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 1))
    return slab


def test_a_crushed_molecule_is_refused():
    atoms = wrong_way_round("Cu", "CO", 1.8, "fcc")
    result = Relaxer(functional="PBE").relax(atoms)
    assert result.status == "refused"
    assert "would be crushed from" in result.message
    np.testing.assert_array_equal(result.structure.positions, atoms.positions)


@pytest.mark.parametrize("passes", [1, 3])
def test_hydrogen_goes_along_with_its_oxygen(passes):
    atoms = wrong_way_round("Al", "OH", 1.8, "hcp")
    result = Relaxer(functional="PBE", passes=passes).relax(atoms)
    assert result.status == "relaxed", result.message
    oxygen, hydrogen = np.flatnonzero(atoms.numbers < 10)
    assert 0.94 < result.structure.get_distance(oxygen, hydrogen, mic=True) < 1.03
    # It is pushed through: the molecule turns round.
    assert result.structure.positions[hydrogen, 2] > result.structure.positions[oxygen, 2]
    bond = [sorted(pair) == [oxygen, hydrogen] for pair in result.bonds.edge_index.T]
    np.testing.assert_allclose(result.bonds.lengths[bond].min(), 0.97, atol=0.06)


@pytest.mark.parametrize(("metal", "height"), [("Ni", 1.6), ("Al", 1.8), ("Ag", 2.0), ("W", 2.0)])
def test_no_hydrogen_is_driven_into_a_metal(metal, height):
    slab = (bcc110 if metal == "W" else fcc111)(metal, (2, 2, 3), vacuum=8)
    slab.pbc = True
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 1))
    add_adsorbate(slab, Atoms("HO", [[0, 0, 0], [0, 0, 0.97]]), height, "ontop")
    result = Relaxer(functional="PBE").relax(slab)
    near = result.structure.get_distances(12, np.arange(12), mic=True).min()
    before = slab.get_distances(12, np.arange(12), mic=True).min()
    least = 0.93 * (covalent_radii[1] + covalent_radii[slab.numbers[0]])
    assert near >= min(before, least)


def test_a_bond_of_hydrogen_that_the_move_makes_is_not_crushed():
    sites = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)]
    atoms = crystal(["Sr", "Ti", "O"], sites, spacegroup=221, cellpar=[3.92] * 3 + [90] * 3)
    atoms = atoms.repeat((2, 2, 2)) + Atoms("H", [[0.245, 0.735, 1.715]])
    result = Relaxer(functional="PBE").relax(atoms)
    distances = result.structure.get_distances(40, np.arange(40), mic=True)
    assert result.status == "relaxed"
    assert 0.92 < distances.min() < 1.1


def test_hydrogen_that_is_held_stays_and_moves_nothing_else():
    """Its bond is not lengthened by a shift of all that is free."""
    for constraint in (FixAtoms([13]), FixCartesian([13], (False, False, True))):
        atoms = wrong_way_round("Al", "OH", 1.8, "hcp")
        atoms.set_constraint([*atoms.constraints, constraint])
        entry = read_structure(atoms)
        assert not _loose(entry)[13]
        assert _loose(entry)[[8, 12]].all()
        assert not _loose(entry)[0]


def test_passes_end_before_one_that_crushes():
    slab = fcc111("Al", (2, 2, 3), vacuum=8)
    slab.pbc = True
    water = molecule("H2O")
    add_adsorbate(slab, water, 2.3 - water.positions[:, 2].min() + water.positions[0, 2], "ontop")
    slab.set_constraint(FixAtoms(mask=slab.get_tags() == 3))
    for passes in (1, 2, 3):
        result = Relaxer(functional="PBE", always_move=True, passes=passes).relax(slab)
        assert result.status == "relaxed", (passes, result.message)
        assert result.structure.get_distances(12, [13, 14], mic=True).min() > 0.92


def hydroxyl(apart, symbols, wanted):
    """A prediction that leaves the two atoms of a molecule so far apart."""
    crystal = read_structure(
        Atoms(symbols, [(0, 0, 0), (0, 0, 1)], cell=[8, 8, 8], pbc=True)
    ).crystal
    index = np.array([[0], [1]])
    prediction = CrystalPrediction(
        displacements=np.array([[0, 0, 0.3], [0, 0, apart + 0.3 - 1.0]]),
        deformation=np.diag([1.02, 0.99, 1.0]),
        status=SolveStatus.SOLVED,
        displacement_scales=np.full(2, 0.1),
        strain_scale=0.01,
        edge_index=index,
        offsets=np.zeros((1, 3), dtype=int),
        lengths=np.array([1.0]),
        distances=np.array([wanted]),
        distance_scales=np.array([0.05]),
    )
    return crystal, prediction


@pytest.mark.parametrize(
    ("symbols", "apart", "wanted", "length"),
    [
        ("OH", 0.6, 0.99, 0.99),
        ("HO", 0.6, 0.99, 0.99),
        ("OH", -0.5, 0.99, 0.99),  # pressed through it
        ("OH", 0.6, 0.7, 0.97),  # the sum of the radii
        ("OH", 0.6, 1.4, 1.4),
        ("NH", 0.9, 1.03, 1.03),
        ("OH", 0.95, 0.99, 0.95),  # is short, and no more
        ("SH", 0.6, 0.99, 0.6),  # for others to judge
        ("CO", 0.6, 1.15, 0.6),
        ("HH", 0.6, 0.75, 0.6),
    ],
)
def test_only_crushed_bonds_of_hydrogen_get_their_length_back(symbols, apart, wanted, length):
    crystal, prediction = hydroxyl(apart, symbols, wanted)
    given = prediction.displacements.copy()
    deformation, everyone = prediction.deformation, np.full(2, True)
    moved = with_bonds_to_hydrogen(crystal, prediction, given, deformation, everyone)
    places = (crystal.positions + moved) @ prediction.deformation
    np.testing.assert_allclose(np.linalg.norm(places[1] - places[0]), length, atol=1e-9)
    heavy = crystal.numbers != 1
    np.testing.assert_array_equal(moved[heavy], prediction.displacements[heavy])
    np.testing.assert_array_equal(given, prediction.displacements)
    held = with_bonds_to_hydrogen(crystal, prediction, given, deformation, ~everyone)
    np.testing.assert_array_equal(held, given)


def test_hydrogen_stays_where_others_are_in_its_way():
    """What it would go away from is not in its way."""
    for height, length in ((-1.4, 0.6), (-2.7, 0.99), (-0.9, 0.99)):
        crystal, prediction = hydroxyl(-0.6, "OH", 0.99)
        numbers = np.append(crystal.numbers, 28)
        places = np.vstack([crystal.positions, [0, 0, height]])
        first = np.array([0.0, 0.0, 0.45 if height > -1 else 0.3])
        crystal = replace(crystal, numbers=numbers, positions=places)
        prediction = replace(
            prediction,
            displacements=np.vstack([prediction.displacements, first]),
            displacement_scales=np.full(3, 0.1),
            edge_index=np.array([[0, 1], [1, 2]]),
            offsets=np.zeros((2, 3), dtype=int),
            lengths=np.array([1.0, 1 - height]),
            distances=np.array([0.99, 1.6]),
            distance_scales=np.full(2, 0.05),
        )
        given, deformation = prediction.displacements, prediction.deformation
        moved = with_bonds_to_hydrogen(crystal, prediction, given, deformation, np.full(3, True))
        places = (crystal.positions + moved) @ deformation
        np.testing.assert_allclose(np.linalg.norm(places[1] - places[0]), length, atol=1e-9)


def test_no_pass_is_made_that_crushes_a_bond():
    _, prediction = hydroxyl(0.6, "OH", 0.99)
    calibration = Relaxer()._general.calibration
    bonds = np.array([1.0])
    first = Relaxation(
        prediction,
        Move(np.zeros((2, 3)), np.eye(3)),
        bonds,
        np.zeros(0),
        0.01,
        0.01,
        0.5,
        None,
        None,
        1,
    )
    second = replace(first, lengths=bonds + 0.5, passes=2)
    assert not _is_no_gain(first, second, calibration, 0.65)
    crushed = replace(second, crushed="a bond")
    assert _is_no_gain(first, crushed, calibration, 0.65)
    assert not _is_no_gain(replace(first, crushed="a bond"), crushed, calibration, 0.65)


def test_bonds_that_are_short_or_were_are_no_matter():
    def of(symbols, before, after, predicted=None):
        pairs = np.arange(2 * len(before)).reshape(-1, 2).T
        numbers = Atoms(symbols).numbers
        wanted = np.array(predicted or after)
        return crushed_bond(numbers, pairs, np.array(before), wanted, np.array(after))

    assert of("NN", [1.3], [1.10]) is None  # N2 that was too long
    assert of("HH", [0.9], [0.74]) is None
    assert of("CO", [1.0], [0.98]) is None  # so it came
    assert of("OHNH", [1.0, 1.05], [0.97, 1.0]) is None
    assert "atoms 0 and 1 would be crushed" in of("OH", [0.97], [0.90])
    assert "from 2.00 to 0.80 Å" in of("OH", [2.0], [0.80])  # no bond was there
    assert of("HBrHI", [1.50, 1.69], [1.414, 1.609]) is None  # as they are
    assert "would be 1.00 Å apart, which is too near" in of("CK", [0.8], [1.0])
    assert of("ZnZn", [2.6], [2.05], [2.3]) is None
    assert "would be 1.90 Å apart" in of("ZnZn", [2.6], [1.9], [2.3])
    ions = [3.8, 3.9, 3.4], [2.7, 2.8, 3.26], [3.5, 3.3, 4.06]
    assert of("KKRbRbCsCsSb3", *ions) is None
    assert "which is too near" in of("KKRbRbCsCsSb", *ions)  # a metal
    assert "would be 2.20 Å apart" in of("KKSb", [3.8], [2.2], [3.5])
    assert of("OO", [2.4], [0.9]) is None  # no bond was there
    said = of("CONN", [1.15, 1.1], [0.95, 0.6])
    assert "atoms 2 and 3" in said
    assert of("NN", [1.13], [0.99])
    assert "from 1.10 to 0.60 Å" in said


def test_two_potassium_atoms_at_a_site_are_no_ions():
    atoms = bulk("K", a=5.28, cubic=True) * 3
    atoms.append(Atom("K", atoms.positions[0] + [0, 0, 1.584]))
    assert Relaxer(functional="PBE").relax(atoms).status == "refused"


@pytest.mark.parametrize(("metal", "constant"), [("Cu", 3.63), ("Ni", 3.52), ("Ag", 4.15)])
def test_two_metal_atoms_at_a_site_are_not_pressed_together(metal, constant):
    atoms = bulk(metal, a=constant, cubic=True) * 2
    apart = 0.325 * constant
    atoms[0].position = [apart, 0, 0]
    atoms.append(Atom(metal, (-apart, 0, 0)))
    result = Relaxer(functional="PBE", hold="cell").relax(atoms)
    assert result.status == "refused"
    assert "is one of them where the other belongs?" in result.message


def test_a_molecule_on_an_oxide_is_not_squeezed():
    slab = surface(bulk("MgO", "rocksalt", a=4.25, cubic=True), (1, 0, 0), 2, vacuum=10)
    slab *= (2, 1, 1)
    water = molecule("H2O")
    x, y, z = slab[slab.positions[:, 2].argmax()].position
    water.translate([x, y, z + 2.4 - water.positions[:, 2].min()])
    result = Relaxer(functional="PBE-D3", hold="cell").relax(slab + water)
    assert result.structure.get_distance(-3, -2) > 0.95


def test_crystals_with_molecules_in_them_are_relaxed():
    carbon = bulk("C", "diamond", a=4.2)
    assert Relaxer(functional="PBE").relax(carbon).status == "relaxed"
