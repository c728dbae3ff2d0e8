import numpy as np
import pytest
from ase.build import bulk, fcc111, mx2
from ase.constraints import FixAtoms
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from deeprelax_ase.datasets.match_sites import LEAST_SHEET_SPACING, make_pair
from deeprelax_ase.datasets.pair_file import PairFile
from deeprelax_ase.datasets.write_pairs import Row, write_pairs
from deeprelax_ase.structures.crystal import Crystal
from deeprelax_ase.structures.read_structure import read_structure


def crystal_of(atoms):
    return Crystal(
        atoms.numbers.astype(np.int64), atoms.positions, np.array(atoms.cell), np.array(atoms.pbc)
    )


def perovskite():
    atoms = bulk("MgO", "rocksalt", a=4.2, cubic=True) * (2, 1, 1)
    atoms.symbols[:3] = ["Ti", "Sr", "Ti"]
    return atoms


def relaxed_from(atoms, rng, move=0.1, strain=0.05):
    """A known relaxation: displacements of mean zero, and a symmetric deformation."""
    moves = rng.normal(scale=move, size=atoms.positions.shape)
    moves -= moves.mean(axis=0)
    stretch = rng.uniform(-strain, strain, size=(3, 3))
    deformation = np.eye(3) + (stretch + stretch.T) / 2
    if not atoms.pbc[2]:
        deformation[2] = deformation[:, 2] = [0, 0, 1]
    relaxed = atoms.copy()
    relaxed.set_cell(atoms.cell[:] @ deformation)
    relaxed.positions = (atoms.positions + moves) @ deformation
    return relaxed, moves, deformation


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), shuffled=st.booleans())
def test_undoes_rotation_translation_images_and_order(seed, shuffled):
    rng = np.random.default_rng(seed)
    atoms = perovskite()
    relaxed, moves, deformation = relaxed_from(atoms, rng)
    relaxed.positions += rng.integers(-2, 3, size=(len(atoms), 3)) @ relaxed.cell[:]
    relaxed.positions += rng.normal(size=3)
    turn = Rotation.random(random_state=seed).as_matrix()
    relaxed.positions = relaxed.positions @ turn
    relaxed.set_cell(relaxed.cell[:] @ turn)
    if shuffled:
        relaxed = relaxed[rng.permutation(len(atoms))]
    pair = make_pair(crystal_of(atoms), crystal_of(relaxed), "PBE")
    np.testing.assert_allclose(pair.deformation, deformation, atol=1e-9)
    np.testing.assert_allclose(pair.displacements, moves, atol=1e-9)
    np.testing.assert_array_equal(pair.crystal.numbers, atoms.numbers)
    assert pair.functional == "PBE"


def test_the_given_order_is_kept_even_where_atoms_go_far():
    """Two atoms that trade places half way are not exchanged for that alone."""
    atoms = perovskite()
    relaxed = atoms.copy()
    relaxed.positions[4] += [0.6, 0, 0]
    pair = make_pair(crystal_of(atoms), crystal_of(relaxed))
    expected = relaxed.positions - atoms.positions
    np.testing.assert_allclose(pair.displacements, expected - expected.mean(axis=0), atol=1e-9)


@pytest.mark.parametrize("axis_up", [0, 1, 2])
def test_sheets_come_out_flat_centred_and_with_one_vacuum(rng, axis_up):
    sheet = mx2("MoS2", a=3.2, vacuum=6.0) * (2, 1, 1)
    sheet.pbc = [True, True, False]
    relaxed, moves, deformation = relaxed_from(sheet, rng, move=0.05)
    turn = np.roll(np.eye(3), axis_up, axis=0)
    relaxed.positions = relaxed.positions @ turn
    relaxed.set_cell(relaxed.cell[:] @ turn)
    relaxed.cell[2] *= 1.3
    pair = make_pair(crystal_of(sheet), crystal_of(relaxed))
    np.testing.assert_allclose(pair.deformation, deformation, atol=1e-9)
    np.testing.assert_allclose(pair.displacements, moves, atol=1e-9)
    cell, z = pair.crystal.cell, pair.crystal.positions[:, 2]
    np.testing.assert_allclose(cell[2, :2], 0)
    assert cell[2, 2] >= LEAST_SHEET_SPACING
    assert (z.min() + z.max()) / 2 == pytest.approx(cell[2, 2] / 2)


def test_a_thick_sheet_in_a_low_box_stays_whole():
    sheet = mx2("MoS2", a=3.2, thickness=13.0, vacuum=1.0)
    sheet.cell[2, 2] = 12.0
    sheet.pbc = [True, True, False]
    pair = make_pair(crystal_of(sheet), crystal_of(sheet))
    np.testing.assert_allclose(np.ptp(pair.crystal.positions[:, 2]), 13.0)
    assert pair.crystal.cell[2, 2] >= 13.0 + LEAST_SHEET_SPACING


def test_a_vacuum_axis_may_point_either_way():
    sheet = mx2("MoS2", a=3.2, vacuum=6.0)
    sheet.positions[2, 2] += 0.4
    sheet.pbc = [True, True, False]
    turned = sheet.copy()
    turned.cell[2] *= -1
    pair = make_pair(crystal_of(sheet), crystal_of(turned))
    np.testing.assert_allclose(pair.displacements, 0, atol=1e-12)


def broken(how):
    atoms = perovskite()
    relaxed = atoms.copy()
    if how == "count":
        del relaxed[0]
    elif how == "species":
        relaxed.symbols[0] = "Zr"
    elif how == "nan":
        relaxed.positions[0, 0] = np.nan
    elif how == "volume":
        relaxed.set_cell(relaxed.cell[:] * 1.6, scale_atoms=True)
    elif how == "flat":
        relaxed.cell[2] = relaxed.cell[1]
    elif how == "pbc":
        relaxed.pbc = [True, True, False]
    elif how == "stretch":
        relaxed.set_cell(relaxed.cell[:] @ np.diag([2.1, 0.7, 0.8]), scale_atoms=True)
    elif how == "mirror":
        relaxed.set_cell(relaxed.cell[:] * [1, 1, -1], scale_atoms=True)
    return atoms, relaxed


BROKEN = {
    "count": "8 sites|16 sites",
    "species": "species",
    "nan": "finite",
    "volume": "volume changes by a factor of 4.10",
    "flat": "singular",
    "pbc": "pbc",
    "mirror": "left-handed",
    "stretch": "stretches by factors",
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_is_no_pair_is_refused(how):
    atoms, relaxed = broken(how)
    with pytest.raises(ValueError, match=BROKEN[how]):
        make_pair(crystal_of(atoms), crystal_of(relaxed))


def test_what_was_fixed_and_held_is_kept_with_the_pair(tmp_path):
    before = fcc111("Al", (2, 2, 3), vacuum=8.0)
    before.set_constraint(FixAtoms(indices=range(4)))
    after = before.copy()
    after.positions[4:] += np.random.default_rng(0).normal(scale=0.05, size=(8, 3))
    after.positions += 0.3  # the output of another code, that has another origin
    pair = make_pair(*(read_structure(atoms).crystal for atoms in (before, after)))
    assert not pair.displacements[:4].any()
    assert np.allclose(
        pair.displacements[4:, :2], (after.positions - before.positions - 0.3)[4:, :2]
    )
    write_pairs(tmp_path / "pairs.parquet", [Row("a", "b", "train", pair)])
    (kept,) = [PairFile(tmp_path / "pairs.parquet", "train")[0]]
    assert kept.crystal.fixed.tolist() == [True] * 4 + [False] * 8
    assert kept.crystal.held_strains() == (3, 3)
    assert np.allclose(kept.displacements, pair.displacements)
    after.positions[0] += 0.2
    with pytest.raises(ValueError, match=r"atom \d is fixed, and moves by 0\.\d\d Å"):
        make_pair(*(read_structure(atoms).crystal for atoms in (before, after)))
    after.set_cell(after.cell[:] * [[1.02], [1.0], [1.0]], scale_atoms=True)
    before.set_constraint()
    free = make_pair(*(read_structure(atoms).crystal for atoms in (before, after)))
    assert not len(free.crystal.held_strain)
    assert free.crystal.fixed is None
