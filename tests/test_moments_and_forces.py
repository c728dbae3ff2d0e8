"""Magnetic moments and forces from outside: kept, honoured, or refused with a word."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import ExternalForce, Hookean, MirrorForce
from pymatgen.core import Lattice, Structure
from pymatgen.io.vasp import Incar

from deeprelax_ase import Relaxer
from deeprelax_ase.files.cif import read_cif
from deeprelax_ase.files.convert import as_atoms
from deeprelax_ase.files.moments import up_or_down
from deeprelax_ase.files.read_files import read_structures
from deeprelax_ase.files.write_files import write_structures
from deeprelax_ase.interfaces.dft_inputs.vasp import write_vasp_inputs
from deeprelax_ase.structures.validation import StructureError

HEAD = """data_x
_cell_length_a 4.4
_cell_length_b 4.4
_cell_length_c 4.4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
"""
SITES = """loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Mn1 Mn 0 0 0
O1 O 0.5 0.5 0.5
loop_
_atom_site_moment_label
_atom_site_moment_crystalaxis_x
_atom_site_moment_crystalaxis_y
_atom_site_moment_crystalaxis_z
"""
OPERATIONS = """loop_
_space_group_symop{0}operation{1}
1 x,y,z,+1
loop_
_space_group_symop{0}centering{1}
1 x,y,z,+1
2 x+1/2,y+1/2,z,-1
3 x+1/2,y,z+1/2,-1
4 x,y+1/2,z+1/2,+1
"""
SPELLINGS = [
    OPERATIONS.format("_magn_", "{}.xyz"),
    OPERATIONS.format(".magn_", "{}_xyz"),
]


def of_spelling(text):
    """Both columns of the two loops, the number and the operation."""
    lines = []
    for line in text.splitlines():
        tags = [line.replace("{}", "")]
        if "{}" in line:
            tags = [line.replace("{}.xyz", ".id").replace("{}_xyz", "_id"), *tags]
        lines += tags
    return "\n".join([*lines, ""])


@pytest.mark.parametrize("operations", map(of_spelling, SPELLINGS))
@pytest.mark.parametrize(
    ("moment", "values"),
    [("0 0 5", {5.0, -5.0, 0.0}), ("3 0 0", {(3.0, 0.0, 0.0), (-3.0, 0.0, 0.0), (0.0, 0.0, 0.0)})],
)
def test_moments_of_a_magnetic_group_are_numbers(operations, moment, values):
    structure = read_cif(HEAD + operations + SITES + f"Mn1 {moment}\n")[0][0]
    moments = structure.site_properties["magmom"]
    assert len(structure) == 8
    plain = {tuple(np.round(m, 9) + 0.0) if np.ndim(m) else round(m, 9) for m in moments}
    assert plain == values
    json.dumps(moments)


@pytest.mark.parametrize(
    "group",
    [
        "_symmetry_space_group_name_H-M 'F m -3 m'\n_symmetry_Int_Tables_number 225\n",
        "_space_group_IT_number 225\n",
        "loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\nx,y+1/2,z+1/2\n",
        "_parent_space_group.name_H-M_alt 'F m -3 m'\n",
    ],
)
def test_moments_whose_group_does_not_turn_them_are_refused(group):
    with pytest.raises(StructureError, match="which say how moments turn"):
        read_cif(HEAD + group + SITES + "Mn1 0 0 5\n")


@pytest.mark.parametrize(
    "text",
    [
        "_dft_cell_magn_moment 0.0\n{sites}",
        "_database_code_MAGNDATA 0.1\n{sites}",
        "{sites}{moments}Mn1 0.0(1) 0 0\n",
    ],
)
def test_tags_that_only_sound_magnetic(text):
    sites, moments = SITES[: SITES.rindex("loop_")], SITES[SITES.rindex("loop_") :]
    group = "_symmetry_space_group_name_H-M 'F m -3 m'\n"
    structure = read_cif(HEAD + group + text.format(sites=sites, moments=moments))[0][0]
    assert structure.composition.formula == "Mn4 O4"
    assert "magmom" not in structure.site_properties


def test_tags_of_other_spellings_without_moments():
    operations = of_spelling(SPELLINGS[1])
    structure = read_cif(HEAD + operations + SITES[: SITES.rindex("loop_")])[0][0]
    assert len(structure) == 8


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ("_space_group_magn.name_OG 'F m m'\n", "which say how moments turn"),
        ("_space_group_magn_ssg.name 'F m m(0)'\n", "a modulated structure"),
        (
            "_symmetry_space_group_name_H-M 'F m -3 m'\nloop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\n",
            "lists the operation x,y,z alone",
        ),
        ("_chemical_formula_sum 'Mn O S'\n", "has no sites of S"),
    ],
)
def test_magnetic_blocks_that_list_a_part(tags, words):
    with pytest.raises(StructureError, match=words):
        read_cif(HEAD + tags + SITES + "Mn1 0 0 5\n")


def test_moments_that_no_site_has_are_told_of():
    structures, told = read_cif(HEAD + SITES + "Fe1 0 0 5\n")
    assert "magmom" not in structures[0].site_properties
    assert "magnetic moments are left out" in told[-1]


@pytest.mark.parametrize(
    "group",
    [
        (
            "_parent_space_group.name_H-M_alt 'F m -3 m'\n_symmetry_space_group_name_H-M 'P 1'\n"
            "loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\n"
        ),
        "_space_group_magn.name_BNS 'P 1.1'\n_space_group_magn.number_BNS 1.1\n",
    ],
)
def test_moments_of_a_cell_in_p1(group):
    structure = read_cif(HEAD + group + SITES + "Mn1 0 0 5\n")[0][0]
    assert structure.site_properties["magmom"] == [5.0, 0.0]


def test_moments_of_a_cell_that_is_listed_whole():
    structures, told = read_cif(HEAD + SITES + "Mn1 0 0 5\n")
    assert structures[0].site_properties["magmom"] == [5.0, 0.0]
    assert "no space group is named" in told[0]


def magnetic():
    lattice = Lattice.cubic(4.4)
    return Structure.from_spacegroup("Fm-3m", lattice, ["Mn", "O"], [[0, 0, 0], [0.5] * 3])


def test_moments_along_one_direction_are_up_or_down_in_an_incar(tmp_path):
    structure = magnetic()
    axis = np.array([1.0, 2.0, 2.0])
    moments = [s * axis for s in (1, -1, 1, -1, 0, 0, 0, 0)]
    structure.add_site_property("magmom", [m.tolist() for m in moments])
    write_vasp_inputs(structure, tmp_path / "run", {"ISIF": 3})
    written = Incar.from_file(tmp_path / "run" / "INCAR")["MAGMOM"]
    assert written == pytest.approx([3, -3, 3, -3, 0, 0, 0, 0])
    structure[1].properties["magmom"] = [3.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="not collinear, which takes LNONCOLLINEAR"):
        write_vasp_inputs(structure, tmp_path / "other", {"ISIF": 3})
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("name", "is_kept"),
    [("a.cif", True), ("a.extxyz", True), ("a.cell", True), ("a.vasp", False), ("a.xsf", False)],
)
@pytest.mark.filterwarnings("ignore:.*CASTEP")
@pytest.mark.filterwarnings("ignore:.*symmetry")
def test_moments_stay_or_a_word_says_that_they_do_not(tmp_path, name, is_kept, recwarn):
    atoms = bulk("MnO", "rocksalt", a=4.4, cubic=True)
    moments = [3.0, -3.0, 3.0, -3.0, 0.0, 0.0, 0.0, 0.0]
    atoms.set_initial_magnetic_moments(moments)
    atoms.write(tmp_path / "a.traj")
    source = read_structures(tmp_path / "a.traj")
    write_structures(source, source.structures, tmp_path / name)
    said = any("magnetic moments that the format" in str(w.message) for w in recwarn)
    assert said != is_kept
    if is_kept:
        again = as_atoms(read_structures(tmp_path / name).structures[0])
        assert again.get_initial_magnetic_moments().tolist() == pytest.approx(moments)
        assert again.numbers.tolist() == atoms.numbers.tolist()


@pytest.mark.parametrize("cell", [[[4.3, 0, 0], [2.1, 3.7, 0], [2.2, 1.2, 3.6]], np.eye(3) * 4.4])
@pytest.mark.filterwarnings("ignore:.*CASTEP")
def test_collinear_moments_come_back_from_a_cif_whatever_its_axes(tmp_path, cell):
    places = [[0.5, 0.5, 0.5], [0, 0, 0], [0.33338, 0.66665, 0.5], [0.5, 0.5, 0]]
    atoms = Atoms("OMnOMn", scaled_positions=places, cell=cell, pbc=True)
    atoms.set_initial_magnetic_moments([0, 5, 0, -4])
    atoms.write(tmp_path / "a.traj")
    path = tmp_path / "a.traj"
    for name in ("a.cif", "a.cell", "geometry.in", "b.extxyz"):
        source = read_structures(path)
        path = tmp_path / name
        write_structures(source, source.structures, path)
        again = as_atoms(read_structures(path).structures[0])
        assert again.get_initial_magnetic_moments().tolist() == pytest.approx([0, 5, 0, -4])
        assert again.numbers.tolist() == atoms.numbers.tolist()
        assert again.get_scaled_positions()[2] == pytest.approx([0.33338, 0.66665, 0.5], abs=1e-6)


@pytest.mark.filterwarnings("ignore:.*CASTEP")
def test_moments_of_several_directions(tmp_path):
    atoms = bulk("MnO", "rocksalt", a=4.4, cubic=True)
    moments = np.zeros((8, 3))
    moments[0], moments[2] = [3, 0, 0], [0, 3, 0]
    atoms.set_initial_magnetic_moments(moments)
    atoms.write(tmp_path / "a.traj")
    source = read_structures(tmp_path / "a.traj")
    with pytest.warns(UserWarning, match="magnetic moments that the format 'castep-cell' cannot"):
        write_structures(source, source.structures, tmp_path / "a.cell")
    write_structures(source, source.structures, tmp_path / "a.cif")
    again = read_structures(tmp_path / "a.cif").structures[0].site_properties["magmom"]
    np.testing.assert_allclose(again, moments, atol=1e-6)


def test_moments_beside_numbers_and_nothing():
    assert up_or_down([[0, 0, 2.0], None, -1.0]) == pytest.approx([2, 0, -1])
    assert up_or_down([1.0, None]) == [1.0, 0.0]
    assert up_or_down([[0, 1.0, 0], -1.0]) is None


def test_forces_from_outside(random_weights):
    relaxer = Relaxer(model=random_weights, always_move=True)
    atoms = bulk("MgO", "rocksalt", a=4.4, cubic=True)
    atoms.rattle(0.05, seed=3)
    for constraint in (ExternalForce(0, 1, 3.0), MirrorForce(0, 1)):
        atoms.set_constraint(constraint)
        result = relaxer.relax(atoms)
        assert result.status == "refused"
        assert "asks for forces from outside" in result.message
        np.testing.assert_array_equal(result.structure.positions, atoms.positions)
    atoms.set_constraint(Hookean(0, 1, k=3.0, rt=1.5))
    taut = relaxer.relax(atoms)
    assert taut.status == "refused"
    assert "Hookean would pull atom" in taut.message
    assert [note.code for note in taut.notes] == ["force_from_outside"]
    atoms.set_constraint(Hookean(0, tuple(atoms.positions[0]), k=0.001, rt=0.0))
    assert relaxer.relax(atoms).status == "relaxed", "less than any relaxation stops at"
    atoms.set_constraint(Hookean(0, 1, k=3.0, rt=2.9))
    assert relaxer.relax(atoms).status == "relaxed"
