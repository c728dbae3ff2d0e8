"""What is held stays, whichever front-end says so; what belonged to the old geometry goes."""

import multiprocessing as mp

import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk, fcc111, molecule, mx2
from ase.constraints import (
    FixAtoms,
    FixBondLength,
    FixBondLengths,
    FixCartesian,
    FixCom,
    FixedLine,
    FixedPlane,
    FixScaled,
)
from ase.filters import Filter, FrechetCellFilter
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure
from pymatgen.core.surface import SlabGenerator
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from deeprelax_ase import DeepRelaxOptimizer, DeepRelaxTransformation, Relaxer
from deeprelax_ase.relaxation.options import RelaxOptions
from deeprelax_ase.structures.held import HOLDS
from deeprelax_ase.structures.stale import stale_names
from deeprelax_ase.structures.validation import StructureError


def rocksalt():
    atoms = bulk("MgO", "rocksalt", a=4.4, cubic=True)
    atoms.set_cell(atoms.cell[:] * [1.0, 1.02, 0.98], scale_atoms=True)
    atoms.rattle(0.05, seed=3)
    return atoms


SOME = [hold for hold in HOLDS if hold != "nothing"]


def obeys(hold, before, after):
    """Whether a move leaves what is held."""
    old, new = np.array(before.cell), np.array(after.cell)
    volume = np.linalg.det(new) / np.linalg.det(old)
    if hold == "cell":
        return np.abs(new - old).max() < 1e-12
    if hold == "volume":
        return abs(volume - 1) < 1e-12
    if hold == "shape":
        return np.abs(new / volume ** (1 / 3) - old).max() < 1e-9
    if hold == "positions":
        return np.abs(after.get_scaled_positions() - before.get_scaled_positions()).max() < 1e-9
    rows = ["abc".index(letter) for letter in hold]
    return np.abs(new - old)[rows].max() < 1e-9


@pytest.mark.parametrize("hold", SOME)
def test_relaxer_holds(random_weights, hold):
    atoms = rocksalt()
    free = Relaxer(random_weights).relax(atoms)
    result = Relaxer(random_weights, hold=hold).relax(atoms)
    assert free.status == result.status == "relaxed"
    assert not obeys(hold, atoms, free.structure)
    assert obeys(hold, atoms, result.structure)


def test_what_is_not_held_moves_as_far_as_without(random_weights):
    free, held = (
        Relaxer(random_weights, hold=hold).relax(rocksalt()) for hold in (None, "positions")
    )
    assert held.volume_change == pytest.approx(free.volume_change, rel=0.2)


def test_nothing_held_is_as_before(random_weights):
    one, two = (
        Relaxer(random_weights, hold=hold).relax(rocksalt()).structure for hold in (None, "")
    )
    np.testing.assert_array_equal(one.positions, two.positions)


def test_everything_held_is_unchanged(random_weights):
    result = Relaxer(random_weights, hold="cell,positions").relax(rocksalt())
    assert result.status == "unchanged"
    assert [note.code for note in result.notes] == ["all_held"]
    atoms = rocksalt()
    atoms.set_constraint(FixAtoms(range(len(atoms))))
    assert Relaxer(random_weights, relax_cell=False).relax(atoms).status == "unchanged"


def test_batches_hold_as_single_crystals_do(random_weights):
    relaxer = Relaxer(random_weights, hold="volume")
    many = list(relaxer.relax_many([rocksalt()] * 3))
    alone = relaxer.relax(rocksalt())
    for result in many:
        # Both are in single precision, each in its own order of operations.
        np.testing.assert_allclose(result.structure.cell, alone.structure.cell, atol=1e-6)
        assert result.volume_change == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("mask", "hold"),
    [
        ([1, 1, 0, 0, 0, 1], "c"),
        ([0, 0, 1, 0, 0, 0], "ab"),
        ([0] * 6, "cell"),
    ],
)
def test_masks_of_filters_go_the_same_way(random_weights, mask, hold):
    by_mask, by_hold = rocksalt(), rocksalt()
    relaxer = Relaxer(random_weights)
    optimizer = DeepRelaxOptimizer(FrechetCellFilter(by_mask, mask=mask), relaxer=relaxer)
    assert optimizer.run()
    DeepRelaxOptimizer(by_hold, model=random_weights, hold=hold).run()
    np.testing.assert_allclose(by_mask.cell, by_hold.cell, atol=1e-9)
    np.testing.assert_allclose(by_mask.positions, by_hold.positions, atol=1e-9)
    np.testing.assert_allclose(optimizer.result.structure.cell, by_mask.cell, atol=1e-12)
    np.testing.assert_allclose(optimizer.result.structure.positions, by_mask.positions, atol=1e-12)


@pytest.mark.parametrize(
    ("option", "hold"), [("constant_volume", "volume"), ("hydrostatic_strain", "shape")]
)
def test_filters_that_keep_volume_or_shape(random_weights, option, hold):
    atoms, before = rocksalt(), rocksalt()
    target = FrechetCellFilter(atoms, **{option: True})
    DeepRelaxOptimizer(target, model=random_weights).run()
    assert obeys(hold, before, atoms)


@pytest.mark.parametrize("option", [*({"hold": hold} for hold in SOME), {"relax_cell": False}])
def test_what_is_named_stays_under_a_filter_too(random_weights, option):
    atoms, before = rocksalt(), rocksalt()
    DeepRelaxOptimizer(FrechetCellFilter(atoms), model=random_weights, **option).run()
    assert obeys(option.get("hold", "cell"), before, atoms)


def test_filter_and_hold_both_hold(random_weights):
    atoms, before = rocksalt(), rocksalt()
    relaxer = Relaxer(random_weights, hold="c")
    DeepRelaxOptimizer(FrechetCellFilter(atoms, mask=[0, 1, 1, 1, 1, 1]), relaxer=relaxer).run()
    assert obeys("c", before, atoms)
    assert atoms.cell[0, 0] == pytest.approx(before.cell[0, 0], abs=1e-8)
    assert not obeys("cell", before, atoms)


def test_transformation_and_optimizer_take_any_option(random_weights, perovskite):
    held = DeepRelaxTransformation(str(random_weights), hold="c", always_move=True)
    relaxed = held.apply_transformation(perovskite)
    np.testing.assert_allclose(relaxed.lattice.matrix[2], perovskite.lattice.matrix[2], atol=1e-9)
    again = DeepRelaxTransformation.from_dict(held.as_dict())
    assert again.options == held.options
    with pytest.raises(ValueError, match="unknown option 'holding'"):
        DeepRelaxTransformation(holding="c")
    with pytest.raises(ValueError, match="beside a relaxer"):
        DeepRelaxOptimizer(rocksalt(), relaxer=Relaxer(random_weights), vacuum="none")


@pytest.mark.parametrize("hold", ["a", "c", "ab", "volume", "shape"])
def test_a_symmetric_crystal_holds_as_a_lopsided_one_does(random_weights, hold):
    """Symmetry that what is held breaks is not averaged over: it would take from what is free."""
    relaxers = [
        Relaxer(random_weights, hold=hold, keep_symmetry=keep, always_move=True)
        for keep in (True, False)
    ]
    for atoms in (bulk("MgO", "rocksalt", a=4.4), bulk("MgO", "wurtzite", a=3.3, c=5.0)):
        kept, plain = (relaxer.relax(atoms).structure for relaxer in relaxers)
        np.testing.assert_allclose(kept.cell, plain.cell, atol=1e-6)
        doubled = relaxers[0].relax(atoms * (1, 1, 2)).structure
        np.testing.assert_allclose(doubled.cell[:] / [[1], [1], [2]], kept.cell, atol=1e-6)


def test_the_shape_of_a_sheet_is_that_of_its_plane(random_weights):
    sheet = mx2("MoS2", vacuum=10.0)
    relaxer = Relaxer(random_weights, hold="shape", allow_unseen=True, always_move=True)
    areas = []
    for pbc in (True, (True, True, False)):
        sheet.pbc = pbc
        relaxed = relaxer.relax(sheet).structure
        change = relaxed.cell.cellpar() - sheet.cell.cellpar()
        assert change[0] == pytest.approx(change[1], abs=1e-9)
        np.testing.assert_allclose(change[2:], 0, atol=1e-6)
        areas.append(change[0])
    assert abs(areas[0]) > 1e-4
    assert areas[0] == pytest.approx(areas[1], abs=1e-6)


# Constraints in combination


def test_bonds_of_a_result_are_those_of_the_atoms(random_weights):
    atoms = rocksalt()
    atoms.set_constraint(FixAtoms([0, 1]))
    result = Relaxer(random_weights).relax(atoms)
    i, j = result.bonds.edge_index
    moved = result.structure
    vectors = moved.positions[j] + result.bonds.offsets @ np.array(moved.cell) - moved.positions[i]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), result.bonds.lengths, atol=1e-9)


def test_a_fixed_atom_in_a_fixed_bond_is_where_it_was_or_refused(random_weights):
    for constraints in (
        [FixAtoms([0]), FixBondLength(0, 1)],
        [FixBondLength(0, 1), FixAtoms([0])],
        [FixAtoms([0, 2]), FixBondLengths([[0, 1], [1, 2]])],
    ):
        atoms = rocksalt()
        atoms.set_constraint(constraints)
        result = Relaxer(random_weights, relax_cell=False).relax(atoms)
        if result.status == "refused":
            assert [note.code for note in result.notes] == ["constraints_contradict"]
            assert result.structure == rocksalt()
        else:
            held = result.structure.positions[0] - atoms.positions[0]
            assert np.abs(held).max() < 1e-8
            for constraint in constraints:
                for i, j in getattr(constraint, "pairs", ()):
                    new, old = (a.get_distance(i, j, mic=True) for a in (result.structure, atoms))
                    assert new == pytest.approx(old, abs=1e-6)


SKEW = np.array([[0, 0.2, 0], [0, 0, 0.1], [0.3, 0, 0]])
PARTIAL = [FixCartesian([0, 1], (True, False, False)), FixScaled([0], (True, True, False))]
PARTIAL += [FixedPlane([0], [1, 1, 0]), FixedLine([0, 3], [1, 1, 0])]


def still_obeys(constraint, before, after):
    """Whether a constraint leaves atoms where they are, seen from the deformed cell."""
    start, positions = before.copy(), after.positions.copy()
    start.set_constraint()
    start.set_cell(after.cell, scale_atoms=True)
    constraint.copy().adjust_positions(start, positions)
    return np.abs(positions - after.positions).max() < 1e-8


@pytest.mark.parametrize("constraint", PARTIAL, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("passes", [1, 3])
def test_what_is_fixed_in_part_is_fixed_while_the_cell_changes(random_weights, constraint, passes):
    atoms = rocksalt()
    atoms.set_cell(atoms.cell[:] + SKEW, scale_atoms=True)
    atoms.set_constraint(constraint.copy())
    result = Relaxer(random_weights, passes=passes, always_move=True).relax(atoms)
    assert result.status == "relaxed"
    assert abs(result.volume_change) > 1e-4
    assert still_obeys(constraint, atoms, result.structure)


@pytest.mark.parametrize(
    "constraints",
    [
        [FixedPlane([0], [1, 1, 0]), FixedLine([0], [0, 1, 0])],
        [FixedLine([0], [1, 1, 0]), FixBondLength(0, 1)],
        [FixCartesian([0], (True, True, False)), FixBondLength(0, 1)],
        [FixBondLength(0, 1), FixCartesian([0, 1], (True, True, False))],
        [FixCartesian([0], (False, True, False)), FixScaled([0], (True, False, False))],
        [FixAtoms([0]), FixCom()],
    ],
)
def test_every_constraint_holds_or_the_structure_is_refused(random_weights, constraints):
    for relax_cell in (False, True):
        atoms = rocksalt()
        atoms.set_cell(atoms.cell[:] + SKEW, scale_atoms=True)
        atoms.set_constraint(constraints)
        relaxer = Relaxer(random_weights, relax_cell=relax_cell, always_move=True)
        result = relaxer.relax(atoms)
        if result.status == "refused":
            assert [note.code for note in result.notes] == ["constraints_contradict"]
            np.testing.assert_array_equal(result.structure.positions, atoms.positions)
            continue
        for constraint in constraints:
            if not isinstance(constraint, FixBondLengths):
                assert still_obeys(constraint, atoms, result.structure)


@pytest.mark.parametrize(
    "constraint",
    [
        FixCartesian([0], (True, True, False)),
        FixCartesian([0], (False, False, True)),
        FixScaled([0], (True, True, False)),
        FixedPlane([0], [1, 1, 0]),
        FixedLine([0], [1, 1, 0]),
    ],
    ids=str,
)
def test_one_fixed_atom_changes_nothing_but_where_the_crystal_is(random_weights, constraint):
    relaxer = Relaxer(random_weights, relax_cell=False, always_move=True)
    atoms = rocksalt()
    free = relaxer.relax(atoms).structure
    atoms.set_constraint(constraint.copy())
    fixed = relaxer.relax(atoms).structure
    shifts = fixed.positions - free.positions
    np.testing.assert_allclose(shifts, np.broadcast_to(shifts[:1], (8, 3)), atol=1e-9)


@pytest.mark.parametrize("flag", [["T", "F", "T"], "F", [True, False], [[True]], [0.5, 1, 1]])
def test_flags_that_cannot_be_read_are_not_taken_for_free(random_weights, flag):
    structure = Structure(Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    structure.add_site_property("selective_dynamics", [flag, [True] * 3])
    if flag == [[True]]:
        assert Relaxer(random_weights).relax(structure).is_sound
        return
    with pytest.raises(StructureError, match="selective_dynamics of site 0 is"):
        Relaxer(random_weights).relax(structure)


def test_a_constraint_on_an_atom_that_is_not_there(random_weights):
    atoms = rocksalt()
    atoms.set_constraint(FixAtoms([20]))
    with pytest.raises(StructureError, match="none of the 8"):
        Relaxer(random_weights).relax(atoms)


@pytest.mark.parametrize("lean", [0.0, 1.2])
def test_fixed_atoms_of_a_slab_whose_vacuum_leans(random_weights, lean):
    slab = fcc111("Al", (1, 1, 4), vacuum=9.0)
    slab.pbc = True
    slab.rattle(0.05, seed=1)
    slab.cell[2] += [lean, lean / 2, 0]
    flags = [[False] * 3, [False, False, True], [True] * 3, [True] * 3]
    properties = {"selective_dynamics": flags}
    structure = Structure(
        slab.cell[:], ["Al"] * 4, slab.get_scaled_positions(False), site_properties=properties
    )
    relaxer = Relaxer(random_weights, allow_unseen=True, always_move=True)
    result = relaxer.relax(structure, relax_cell=True)
    assert result.status == "relaxed"
    assert result.strain.any()
    moved = result.structure.frac_coords - structure.frac_coords
    assert np.abs(moved * ~np.array(flags)).max() < 1e-12
    height = [
        abs(np.linalg.det(s.lattice.matrix)) / np.linalg.norm(np.cross(*s.lattice.matrix[:2]))
        for s in (structure, result.structure)
    ]
    assert height[0] == pytest.approx(height[1], abs=1e-9)


def test_a_filter_around_a_filter_is_refused():
    for outer in (FrechetCellFilter, Filter):
        arguments = {"indices": [0]} if outer is Filter else {}
        with pytest.raises(ValueError, match="put one filter around the atoms"):
            DeepRelaxOptimizer(outer(FrechetCellFilter(rocksalt()), **arguments))


@pytest.mark.parametrize("hold", [["c"], ("a", "b"), 5, True])
def test_hold_is_a_text(hold):
    with pytest.raises(ValueError, match="with commas between"):
        RelaxOptions(hold=hold)


# Stale data


@pytest.mark.parametrize(
    "name",
    [
        "energy", "REF_energy", "REF_forces", "mace_forces", "MACE_stress", "dft_virials",
        "free_energy", "freeEnergy", "momenta", "velocities", "e_above_hull", "pressure", "stress",
        "magforces", "density", "volume", "ehull", "Efermi", "etotal",
        "total_energy", "node_energy", "atomic_dipole",
    ],
)  # fmt: skip
def test_names_that_belong_to_a_geometry(name):
    assert stale_names({name: 1.0}) == [name]


@pytest.mark.parametrize(
    "name",
    [
        "magmom", "initial_magmoms", "charges", "tags", "masses", "name", "config_type",
        "spacegroup", "energy_cutoff", "volume_id", "target_pressure", "energy_rank",
    ],
)  # fmt: skip
def test_names_that_stay(name):
    assert stale_names({name: 1.0}) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("force_field", "UFF"), ("dipole_correction", True), ("low-energy phase", "beta"),
     ("volume", None), ("stress", np.array(["a", "b"]))],
)  # fmt: skip
def test_texts_and_truth_values_stay(name, value):
    assert stale_names({name: value}) == []


def test_what_belongs_to_the_old_geometry_is_dropped(random_weights):
    atoms = rocksalt()
    atoms.info |= {"REF_energy": -1.0, "config_type": "bulk"}
    atoms.arrays["REF_forces"] = np.ones((8, 3))
    atoms.set_initial_magnetic_moments([1.0] * 8)
    atoms.set_momenta(np.ones((8, 3)))
    result = Relaxer(random_weights).relax(atoms)
    assert result.structure.info == {"config_type": "bulk"}
    assert set(result.structure.arrays) == {"numbers", "positions", "initial_magmoms"}
    assert ("stale_dropped", True) in [(n.code, "REF_forces" in n.text) for n in result.notes]
    assert "REF_energy" in atoms.info
    DeepRelaxOptimizer(atoms, model=random_weights).run()
    assert "REF_energy" not in atoms.info
    assert "REF_forces" not in atoms.arrays


def test_what_belongs_to_the_old_geometry_of_a_structure_is_dropped(random_weights, perovskite):
    perovskite.add_site_property("forces", [[0.1, 0, 0]] * 5)
    perovskite.properties["energy"] = -3.0
    relaxed = Relaxer(random_weights, always_move=True).relax(perovskite)
    assert set(relaxed.structure.site_properties) == {"magmom", "tag"}
    assert relaxed.structure.properties == {"origin": "test"}


def test_what_is_stale_inside_of_what_stays_is_dropped(random_weights, perovskite):
    inside = {"calc": {"energy": 1, "code": "VASP", "ionic": {"forces": [1]}}, 3: {"stress": 1}}
    atoms = rocksalt()
    atoms.info |= inside
    perovskite.properties |= {"calc": inside["calc"]}
    kept = {"code": "VASP", "ionic": {}}
    relaxer = Relaxer(random_weights, always_move=True)
    result = relaxer.relax(atoms)
    assert result.structure.info == {"calc": kept, 3: {}}
    assert "calc.energy, calc.ionic.forces, 3.stress" in result.message
    assert relaxer.relax(perovskite).structure.properties["calc"] == kept
    assert atoms.info["calc"]["energy"] == 1
    assert perovskite.properties["calc"]["energy"] == 1


def test_the_energy_of_a_slab_is_dropped(random_weights):
    bulk_mgo = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(4.3), ["Mg", "O"], [[0] * 3, [0.5] * 3]
    )
    slab = SlabGenerator(bulk_mgo, (1, 0, 0), 6, 14).get_slab()
    slab.energy = -5.0
    result = Relaxer(random_weights, always_move=True).relax(slab)
    assert result.status == "relaxed"
    assert result.structure.energy is None
    assert "dropped, being of the unrelaxed atoms: energy" in result.message
    assert slab.energy == -5.0


def test_what_is_unchanged_keeps_what_is_known_of_it(random_weights):
    atoms = rocksalt()
    atoms.info["energy"] = -1.0
    kept = Relaxer(random_weights, hold="cell,positions").relax(atoms)
    assert kept.structure.info == {"energy": -1.0}


def test_a_subclass_that_derives_from_its_sites_is_consistent(random_weights):
    plain = Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.7, 3.1), ["Mg", "O"], [[0, 0, 0], [0.31, 0.31, 0]]
    )
    symmetrized = SpacegroupAnalyzer(plain).get_symmetrized_structure()
    relaxed = Relaxer(random_weights, always_move=True).relax(symmetrized).structure
    assert type(relaxed) is type(symmetrized)
    own = {id(site) for site in relaxed}
    assert all(id(site) in own for group in relaxed.equivalent_sites for site in group)
    assert relaxed.find_equivalent_sites(relaxed[0])


# Symmetry beside vacuum


@settings(max_examples=12)
@given(
    lengths=st.tuples(*[st.floats(11.0, 19.0)] * 3),
    centring=st.sampled_from(
        [[[-1, 1, 1], [1, -1, 1], [1, 1, -1]], [[0, 1, 1], [1, 0, 1], [1, 1, 0]]]
    ),
    shift=st.tuples(*[st.floats(0, 3)] * 3),
    reach=st.floats(1.2, 3.0),
)
def test_the_space_group_is_kept_where_there_is_vacuum(lengths, centring, shift, reach):
    """Molecules far apart on a centred lattice: directions across vacuum are equivalent."""
    cell = np.array(centring) * lengths / 2
    places = np.array([[0, 0, -reach - 1.2], [0, 0, -1.2], [0, 0, 1.2], [0, 0, reach + 1.2]])
    atoms = Atoms("OMg2O", positions=places + shift, cell=cell, pbc=True)
    result = _any_move().relax(atoms)
    assert result.is_sound
    assert _space_group(result.structure) == _space_group(atoms)


def _space_group(atoms):
    cell = atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers
    return spglib.get_symmetry_dataset(cell, symprec=1e-3).number


_MOVERS = []


def _any_move():
    if not _MOVERS:
        _MOVERS.append(Relaxer(always_move=True))
    return _MOVERS[0]


# Notes, processes


def test_a_full_cell_that_does_not_repeat_is_told_of(random_weights):
    atoms = rocksalt()
    atoms.pbc = False
    assert "molecule_in_cell" in [n.code for n in Relaxer(random_weights).relax(atoms).notes]
    water = molecule("H2O")
    codes = [n.code for n in Relaxer(random_weights, allow_unseen=True).relax(water).notes]
    assert "molecule_in_cell" not in codes


def test_a_slab_keeps_its_fixed_bottom(random_weights):
    slab = fcc111("Al", (2, 2, 4), vacuum=8.0)
    slab.pbc = True
    slab.rattle(0.05, seed=1)
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 2))
    relaxer = Relaxer(random_weights, allow_unseen=True, hold="cell", always_move=True)
    result = relaxer.relax(slab)
    fixed = slab.get_tags() > 2
    assert result.status == "relaxed"
    assert np.abs(result.structure.positions - slab.positions)[fixed].max() < 1e-8
    assert np.abs(result.structure.positions - slab.positions)[~fixed].max() > 1e-4


def _volume(weights):
    return Relaxer(weights).relax(rocksalt()).volume_change


@pytest.mark.skipif("fork" not in mp.get_all_start_methods(), reason="no fork on this system")
def test_a_forked_process_answers(random_weights):
    expected = _volume(random_weights)
    with mp.get_context("fork").Pool(1) as pool:
        answer = pool.apply_async(_volume, (random_weights,)).get(60)
    assert answer == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("hold", ["cell", "volume,shape"])
def test_what_symmetry_and_holds_together_leave_nothing_has_no_error(hold):
    relaxer = Relaxer(functional="PBE", hold=hold, always_move=True)
    result = relaxer.relax(bulk("MgO", "rocksalt", a=4.5))
    assert (result.status, result.expected_error) == ("unchanged", 0.0)
    assert "symmetry keeps every atom where it is" in result.message
    rattled = bulk("MgO", "rocksalt", a=4.5, cubic=True)
    rattled.rattle(0.05, seed=1)
    assert relaxer.relax(rattled).expected_error > 0
