import numpy as np
import pytest
from ase.constraints import FixAtoms, FixCartesian

from deeprelax_ase.files.castep_text import (
    has_velocities,
    read_castep_text,
    write_castep_text,
)
from deeprelax_ase.structures.validation import StructureError

CELL = """%BLOCK LATTICE_CART
bohr ! unit
 0.0 4.25 4.25
 4.25 0.0 4.25
 4.25 4.25 0.0
%ENDBLOCK LATTICE_CART

%BLOCK POSITIONS_FRAC
Mg:lbl 0.0 0.0 0.0 SPIN= 1.0
O  0.5 0.5 0.5
%ENDBLOCK POSITIONS_FRAC

KPOINTS_MP_GRID 4 4 4
%BLOCK SPECIES_POT
Mg Mg_00.usp
%ENDBLOCK SPECIES_POT
SYMMETRY_GENERATE
"""
ABC = """%block lattice_abc
3.0 3.0 3.0
60 60 60
%endblock lattice_abc
%block positions_abs
ang
mg 0 0 0
8 1.5 0.5 0.5
%endblock positions_abs
"""


def test_only_lattice_and_positions_change():
    atoms = read_castep_text(CELL)
    assert atoms.get_volume() == pytest.approx(2 * (4.25 * 0.529177210903) ** 3)
    atoms.rattle(0.02)
    atoms.set_cell(atoms.cell[:] * 1.01, scale_atoms=True)
    text = write_castep_text(CELL, atoms)
    again = read_castep_text(text)
    np.testing.assert_allclose(again.positions, atoms.positions, atol=1e-9)
    np.testing.assert_allclose(again.cell[:], atoms.cell[:], atol=1e-9)
    assert text[text.index("KPOINTS") :] == CELL[CELL.index("KPOINTS") :]
    assert "SPIN= 1.0" in text
    assert "Mg:lbl" in text


def test_lengths_and_angles_and_absolute_positions():
    atoms = read_castep_text(ABC)
    assert atoms.get_chemical_symbols() == ["Mg", "O"]
    np.testing.assert_allclose(atoms.cell.cellpar(), [3, 3, 3, 60, 60, 60])
    np.testing.assert_allclose(atoms.positions[1], [1.5, 0.5, 0.5])
    again = read_castep_text(write_castep_text(ABC, atoms))
    np.testing.assert_allclose(again.positions, atoms.positions, atol=1e-9)


def test_held_atoms():
    assert isinstance(read_castep_text(f"{CELL}FIX_ALL_IONS : TRUE\n").constraints[0], FixAtoms)
    block = "%BLOCK IONIC_CONSTRAINTS\n1 Mg 1 1 0 0\n2 Mg 1 0 0 1\n%ENDBLOCK IONIC_CONSTRAINTS\n"
    (constraint,) = read_castep_text(CELL + block).constraints
    assert isinstance(constraint, FixCartesian)
    assert constraint.mask.tolist() == [True, False, True]
    with pytest.raises(StructureError, match="more than one coordinate of one atom"):
        read_castep_text(CELL + block.replace("1 0 0\n", "1 1 0\n"))
    with pytest.raises(StructureError, match="names an atom that is not there"):
        read_castep_text(CELL + block.replace("1 Mg 1", "1 Mg 2"))


def test_velocities_go():
    text = f"{CELL}%BLOCK IONIC_VELOCITIES\n0.1 0 0\n0 0 0\n%ENDBLOCK IONIC_VELOCITIES\n"
    assert has_velocities(text)
    assert not has_velocities(write_castep_text(text, read_castep_text(text)))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("LATTICE_CART", "LATTICE", "0 of the blocks LATTICE_CART and LATTICE_ABC"),
        ("bohr", "furlong", "'furlong' is no unit"),
        ("Mg:lbl", "Qq", "'Qq' is no element"),
        (" 4.25 4.25 0.0\n", "", "LATTICE_CART holds 2 lines"),
        ("0.5 0.5 0.5", "0.5 0.5", "no three numbers"),
    ],
)
def test_what_is_wrong_is_one_sentence(old, new, words):
    with pytest.raises(StructureError, match=words):
        read_castep_text(CELL.replace(old, new))
