"""Reading, editing and making of POSCAR texts; `test_prepare` has those of run folders."""

import numpy as np
import pytest
import spglib
from pymatgen.core import Lattice, Structure
from pymatgen.io.vasp import Poscar

from deeprelax_ase.files.new_poscar import new_poscar_text
from deeprelax_ase.files.poscar_text import read_poscar_text
from deeprelax_ase.structures.validation import StructureError

PLAIN = """  a comment, kept
SCALE
0.0 0.5 0.5
0.5 0.0 0.5
0.5 0.5 0.0
Ni Ni O
1 1 2
Direct
0 0 0 Ni_up
0.5 0.5 0.5 Ni_down
0.25 0.25 0.25
0.75 0.75 0.75
"""


@pytest.fixture
def quartz():
    structure = Structure.from_spacegroup(
        "P3_121",
        Lattice.hexagonal(4.92, 5.4),
        ["Si", "O"],
        [[0.47, 0, 1 / 3], [0.413, 0.267, 0.214]],
    )
    flags = [[True, False, True]] * 3 + [[False, True, True]] * 6
    structure.add_site_property("selective_dynamics", flags)
    return structure


def left_handed(structure):
    """The same crystal, with its first two vectors exchanged."""
    order = [1, 0, 2]
    flags = [[one[k] for k in order] for one in structure.site_properties["selective_dynamics"]]
    return Structure(
        structure.lattice.matrix[order],
        structure.species,
        structure.frac_coords[:, order],
        site_properties={"selective_dynamics": flags},
    )


def group(structure):
    cell = (structure.lattice.matrix, structure.frac_coords, structure.atomic_numbers)
    return spglib.get_symmetry_dataset(cell, symprec=1e-3).number


@pytest.mark.parametrize("change", [lambda s: s, left_handed])
def test_a_new_text_is_never_the_mirror_image(quartz, change):
    given = change(quartz)
    found = read_poscar_text(new_poscar_text(given, "two\nlines")).structure()
    assert group(given) == group(found) == 152
    assert np.linalg.det(found.lattice.matrix) > 0  # VASP takes no other
    np.testing.assert_allclose(found.cart_coords, given.cart_coords, atol=1e-12)
    np.testing.assert_array_equal(
        found.site_properties["selective_dynamics"], quartz.site_properties["selective_dynamics"]
    )
    assert new_poscar_text(given, "two\nlines").startswith("two lines\n1.0\n")


def test_a_left_handed_poscar_stays_as_it_is(quartz):
    lines = new_poscar_text(quartz).split("\n")
    lines[2], lines[3] = lines[3], lines[2]  # the mirror image, in a left-handed cell
    text = read_poscar_text("\n".join(lines))
    structure = text.structure()
    assert np.linalg.det(structure.lattice.matrix) < 0
    again = read_poscar_text(text.with_structure(structure)).structure()
    np.testing.assert_allclose(again.lattice.matrix, structure.lattice.matrix)
    assert group(again) == group(structure) == 154


def test_new_groups_are_runs_of_an_element():
    mixed = Structure(
        Lattice.cubic(5),
        ["Fe2+", "Fe3+", "O2-", "Fe3+", {"Fe2+": 0.5, "Fe3+": 0.5}],
        np.random.default_rng(0).random((5, 3)),
    )
    lines = new_poscar_text(mixed).split("\n")
    assert lines[5:7] == ["Fe O Fe", "2 1 2"]


@pytest.mark.parametrize(
    ("scale", "factors"),
    [
        ("4.50", [4.5, 4.5, 4.5]),
        ("0.45D+01 ! Angstrom", [4.5, 4.5, 4.5]),
        ("-16.0", [4, 4, 4]),
        ("4.0 4.5 5.0", [4, 4.5, 5]),
        ("  1.0  ", [1, 1, 1]),
    ],
)
def test_the_scale_stays_so_that_k_points_keep_their_unit(scale, factors):
    """VASP takes Cartesian k-points in units of 2 pi / scale."""
    text = read_poscar_text(PLAIN.replace("SCALE", scale))
    structure = text.structure()
    np.testing.assert_allclose(structure.lattice.matrix[0], [0, factors[1] / 2, factors[2] / 2])
    structure.scale_lattice(1.1 * structure.volume)
    lines = text.with_structure(structure).split("\n")
    assert lines[0] == "  a comment, kept"
    vectors = np.array([line.split() for line in lines[2:5]], dtype=float)
    np.testing.assert_allclose(vectors * factors, structure.lattice.matrix, atol=1e-12)
    again = read_poscar_text("\n".join(lines)).structure()
    np.testing.assert_allclose(again.lattice.matrix, structure.lattice.matrix, atol=1e-12)
    np.testing.assert_allclose(again.frac_coords, structure.frac_coords, atol=1e-12)
    if float(scale.split()[0].replace("D", "e")) > 0:
        assert lines[1] == scale
    else:
        assert float(lines[1]) == pytest.approx(-structure.volume)
    if len(scale.split()) == 1:  # pymatgen reads no comments and no three factors
        poscar = Poscar.from_str("\n".join(lines)).structure
        np.testing.assert_allclose(poscar.lattice.matrix, structure.lattice.matrix, atol=1e-8)


def test_groups_and_labels_stay():
    text = read_poscar_text(PLAIN.replace("SCALE", "4.2"))
    lines = text.with_structure(text.structure()).split("\n")
    assert lines[5:8] == ["Ni Ni O", "1 1 2", "Direct"]
    assert [line.split()[3:] for line in lines[8:12]] == [["Ni_up"], ["Ni_down"], [], []]


@pytest.mark.parametrize("name", ["H1.25", "H.75", "H1.25/1a2b3c", "H_h", "H"])
def test_parts_of_hydrogen(name):
    text = read_poscar_text(PLAIN.replace("SCALE", "4.2").replace("Ni Ni O", f"Ni Ni {name}"))
    assert text.symbols == ("Ni", "Ni", "H")
    assert text.with_structure(text.structure()).split("\n")[5] == f"Ni Ni {name}"


def test_remarks_behind_the_atoms_stay():
    text = read_poscar_text(PLAIN.replace("SCALE", "4.2") + "\n# made by hand\n! in May\n\n")
    assert not text.has_velocities
    assert text.with_structure(text.structure()).endswith("\n# made by hand\n! in May\n")
    assert read_poscar_text(PLAIN.replace("SCALE", "4.2") + "\n0 0 0\n").has_velocities


def test_an_old_file_says_its_elements_behind_the_atoms_or_not_at_all():
    old = PLAIN.replace("SCALE", "4.2").replace("Ni Ni O\n", "")
    assert read_poscar_text(old).symbols_behind_atoms() == ()
    named = old.replace("Ni_up", "Ni").replace("Ni_down", "Ni")
    named = named.replace("0.25 0.25 0.25", "0.25 0.25 0.25 O").replace("0.75\n", "0.75 O\n")
    assert read_poscar_text(named).symbols_behind_atoms() == ("Ni", "Ni", "O")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Ni Ni O", "Ni Q O", "names the species 'Q', which is no element"),
        ("Ni Ni O", "Ni1 Ni2 O", "names the species 'Ni1', which is no element"),
        ("1 1 2", "0 0 0", "has no atoms: its counts are 0 0 0"),
        ("SCALE", "-2 1 1", "the scale is '-2 1 1': give one number"),
        ("SCALE", "0.0", "the scale is '0.0': give one number, not zero"),
        ("SCALE", "1.0 1.0", "the scale is '1.0 1.0': give one number"),
        ("Direct\n", "", "has no line with Direct or Cartesian"),
        ("0.5 0.5 0.0", "0.5 x 0.0", "'0.5 x 0.0' holds no three coordinates"),
        ("1 1 2", "1 1 1", "lists more coordinates than the 3 atoms of its counts"),
        ("0.25 0.25 0.25", "0.25 0.25", "holds no three coordinates"),
    ],
)
def test_what_is_wrong_is_one_sentence(old, new, words):
    text = PLAIN.replace(old, new, 1).replace("SCALE", "4.2")
    with pytest.raises(StructureError, match=words):
        read_poscar_text(text).structure()
