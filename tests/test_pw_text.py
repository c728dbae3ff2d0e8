import math

import numpy as np
import pytest
import spglib
from ase.constraints import FixAtoms, FixCartesian
from ase.io import read

from deeprelax_ase.files.pw_namelists import (
    _LATTICES,
    BOHR,
    cell_of_ibrav,
    lattice_parameters,
    namelists_of,
    number_of,
)
from deeprelax_ase.files.pw_text import dropped_cards, is_pw_text, read_pw_text, with_atoms
from deeprelax_ase.structures.validation import StructureError

PW = """&CONTROL
  calculation = 'vc-relax', pseudo_dir = '/home/a/pp', title = 'A = 3, nat = 9 / ibrav = 4'
/
&SYSTEM
  ibrav = 0, nat = 2, ntyp = 2 ! celldm(1) = 3
  ecutwfc = 60
/
&ELECTRONS
/
ATOMIC_SPECIES
Mg 24.3 mg.UPF
O 16.0 o.UPF
CELL_PARAMETERS angstrom
 0.0 2.25 2.25
 2.25 0.0 2.25
 2.25 2.25 0.0
ATOMIC_POSITIONS crystal
Mg 0 0 0
O 1/2 1/2 1/2
K_POINTS automatic
4 4 4 0 0 0
"""
CELL = [[0, 2.25, 2.25], [2.25, 0, 2.25], [2.25, 2.25, 0]]
CARD = PW[PW.index("CELL_PARAMETERS") : PW.index("ATOMIC_POSITIONS")]
A = 4.5 / BOHR
WAYS = {
    "as it is": PW,
    "tabs and small letters": PW.replace("ATOMIC_POSITIONS crystal", "atomic_positions\t(Crystal)")
    .replace("O 1/2 1/2 1/2", "\tO\t0.5\t5.d-1\t.5")
    .replace("&SYSTEM", "  &system"),
    "floats that are integers": PW.replace("nat = 2", "nat = 2.0").replace(
        "ntyp = 2", "ntyp=2.0D0"
    ),
    "one line": PW.replace("&ELECTRONS\n/", "&ELECTRONS conv_thr=1d-8, mixing_beta = 0.3 /"),
    "&end": PW.replace("&ELECTRONS\n/", "&ELECTRONS\n&end"),
    "comments": PW.replace("Mg 0 0 0", "# corner\nMg 0 0 0 ! here\n\n!"),
    "alat by A": PW.replace("CELL_PARAMETERS angstrom", "CELL_PARAMETERS alat")
    .replace("2.25", "0.5")
    .replace("ecutwfc", "A = 4.5\n ecutwfc"),
    "alat by celldm": PW.replace("CELL_PARAMETERS angstrom", "CELL_PARAMETERS {alat}")
    .replace("2.25", "0.5")
    .replace("ecutwfc", f"celldm(1)={A:.12f} ecutwfc"),
    "alat as pw.x prints it": PW.replace("ETERS angstrom", f"ETERS (alat= {A:.8f})")
    .replace("2.25", "0.5")
    .replace("ecutwfc", f"celldm = {A:.12f}, ecutwfc"),
    "no unit": PW.replace("CELL_PARAMETERS angstrom", "CELL_PARAMETERS")
    .replace("2.25", "0.5")
    .replace("ecutwfc", f"celldm (1) = {A:.12f},\n ecutwfc"),
    "bohr": PW.replace("CELL_PARAMETERS angstrom", "CELL_PARAMETERS bohr").replace(
        "2.25", f"{2.25 / BOHR:.12f}"
    ),
    "positions in angstrom": PW.replace("crystal\n", "{ angstrom }\n").replace("1/2", "2.25"),
    "positions in alat": PW.replace("ATOMIC_POSITIONS crystal", "ATOMIC_POSITIONS")
    .replace("1/2", "sqrt(2)/(4*sqrt(1/2))")
    .replace("ecutwfc", "A = 4.5, ecutwfc"),
    "ibrav 2": PW.replace(CARD, "")
    .replace("ibrav = 0", f"ibrav = 2, celldm(1) = {A:.12f}")
    .replace("O 1/2 1/2 1/2", "O 0.5 -0.5 0.5"),
    "ibrav 2 by A": PW.replace(CARD, "")
    .replace("ibrav = 0", "A=4.5d0, ibrav=2")
    .replace("O 1/2 1/2 1/2", "O 0.5 0.5 0.5"),
}


@pytest.mark.parametrize("name", WAYS)
def test_every_way_to_write_rocksalt(name):
    text = WAYS[name]
    assert is_pw_text(text)
    atoms = read_pw_text(text)
    assert atoms.get_chemical_symbols() == ["Mg", "O"]
    assert atoms.get_volume() == pytest.approx(4.5**3 / 4)
    assert atoms.get_distance(0, 1, mic=True) == pytest.approx(2.25)
    again = read_pw_text(with_atoms(text, atoms))
    np.testing.assert_allclose(again.positions, atoms.positions, atol=1e-9)
    if "ibrav" not in name:
        np.testing.assert_allclose(atoms.cell[:], CELL, atol=1e-9)


@pytest.mark.parametrize("name", WAYS)
def test_a_new_cell_and_all_else_as_it_was(name):
    atoms = read_pw_text(WAYS[name])
    atoms.set_cell(atoms.cell[:] * 1.02 + 0.01 * np.eye(3), scale_atoms=True)
    text = with_atoms(WAYS[name], atoms)
    again = read_pw_text(text)
    np.testing.assert_allclose(again.cell[:], atoms.cell[:], atol=1e-9)
    np.testing.assert_allclose(again.positions, atoms.positions, atol=1e-9)
    system = namelists_of(text)["system"]
    assert system["ibrav"] == "0"
    assert not {"a", "celldm(1)"} & system.keys()
    assert namelists_of(text)["control"] == namelists_of(PW)["control"]
    assert "! celldm(1) = 3" in text
    assert "Mg 24.3 mg.UPF" in text


@pytest.mark.parametrize("name", ["ibrav 2", "alat by A", "bohr"])
def test_a_cell_that_is_kept_is_kept_as_it_is_written(name):
    text = WAYS[name].replace("K_POINTS automatic\n4 4 4 0 0 0", "K_POINTS tpiba\n1\n0 0 0 1")
    atoms = read_pw_text(text)
    atoms.positions[1] += 0.05
    lines = with_atoms(text, atoms).splitlines()
    before = text[: text.index("ATOMIC_POSITIONS")].splitlines()
    assert lines[: len(before)] == before
    atoms.set_cell(atoms.cell[:] * 1.01)
    with pytest.raises(StructureError, match="k-points in tpiba"):
        with_atoms(text, atoms)


def test_labels_flags_and_order_stay():
    text = PW.replace("Mg 24.3", "Mg1 24.3").replace("Mg 0 0 0", "Mg1 0 0 0 0 0 0")
    text = text.replace("O 1/2 1/2 1/2", "O 1/2 1/2 1/2 1 0 1")
    atoms = read_pw_text(text)
    fixed, plane = sorted(atoms.constraints, key=lambda one: type(one).__name__)
    assert isinstance(fixed, FixAtoms)
    assert isinstance(plane, FixCartesian)
    assert plane.mask.tolist() == [False, True, False]
    lines = [line.split() for line in with_atoms(text, atoms).splitlines()]
    assert ["0", "0", "0"] in [words[4:] for words in lines if words[:1] == ["Mg1"]]
    assert ["1", "0", "1"] in [words[4:] for words in lines if words[:1] == ["O"]]


def test_velocities_go_and_are_named():
    text = f"{PW}ATOMIC_VELOCITIES a.u.\nMg 0.1 0 0\nO 0 0 0\n"
    assert dropped_cards(text) == ("ATOMIC_VELOCITIES",)
    assert "VELOCITIES" not in with_atoms(text, read_pw_text(text))


@pytest.mark.parametrize(
    ("label", "element"),
    [("Fe1", "Fe"), ("fe_up", "Fe"), ("O-h", "O"), ("CL", "Cl"), ("Ow", "O"), ("D1", "H")],
)
def test_labels_are_elements(label, element):
    text = PW.replace("Mg 0 0 0", f"{label} 0 0 0").replace("Mg 24.3", f"{label} 24.3")
    assert read_pw_text(text).get_chemical_symbols()[0] == element


def test_labels_that_are_no_elements():
    with pytest.raises(StructureError, match="'Qq' in ATOMIC_POSITIONS begins with no element"):
        read_pw_text(PW.replace("Mg 0", "Qq 0").replace("Mg 24.3", "Qq 24.3"))


def test_species_behind_the_last_one_are_ignored():
    text = PW.replace("O 16.0 o.UPF\n", "O 16.0 o.UPF\nFe 55.8 fe.UPF\n----\n")
    assert read_pw_text(text).get_chemical_symbols() == ["Mg", "O"]


def test_a_value_over_several_lines_is_not_rewritten():
    text = PW.replace(CARD, "").replace("ibrav = 0,", "ibrav = 8, celldm = 8, 1,\n 1\n")
    atoms = read_pw_text(text)
    atoms.set_cell(atoms.cell * 1.1, scale_atoms=True)
    with pytest.raises(StructureError, match="its layout is not followed"):
        with_atoms(text, atoms)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("nat = 2", "nat = 3", "says nat is 3, and there are 2 positions"),
        (", nat = 2", "", "does not give nat, and there are 2 positions"),
        ("nat = 2", "nat = 2.5", "nat is 2.5, and has to be an integer"),
        ("ibrav = 0", "ibrav = 99", "ibrav is 99: pw.x knows 0 and"),
        ("ibrav = 0,", "", "ibrav is missing"),
        ("ibrav = 0", "ibrav = 4, A = 3", r"neither celldm\(3\) nor C is given"),
        ("ibrav = 0", "ibrav = 1", r"neither celldm\(1\) nor A is given"),
        ("ibrav = 0", "ibrav = 0, A = 4, celldm(1) = 8", "both celldm and A"),
        ("ibrav = 0", "ibrav = 5, A = 4", r"neither celldm\(4\) nor its cosine is given"),
        ("ibrav = 0", "ibrav = 1, celldm = 3, x", "'x' is no number"),
        ("ibrav = 0", "ibrav = 5, A = 4, cosAB = -0.6", "its parameters make no cell"),
        (CARD, "", "CELL_PARAMETERS is there 0 times"),
        ("CELL_PARAMETERS angstrom", "CELL_PARAMETERS alat", "neither celldm"),
        ("2.25 2.25 0.0", "", "gives 2 of three vectors"),
        ("crystal\n", "crystal_sg\n", "are in crystal_sg"),
        ("O 1/2 1/2 1/2", "O 1/2 1/2", "are no three numbers"),
        ("O 1/2 1/2 1/2", "O 1/2 foo 1/2", "'foo' is no number"),
        ("O 1/2 1/2 1/2", "Qq 1/2 1/2 1/2", "has 'Qq' in ATOMIC_POSITIONS, and .* knows Mg, O"),
        ("ntyp = 2", "ntyp = 3", "says ntyp is 3, and ATOMIC_SPECIES has 2 species"),
        ("O 1/2 1/2 1/2", "O 1/2 1/2 1/2 0 0", "has 6 columns: write a label and three coord"),
        (
            "ibrav = 0, ",
            "ibrav = 1, A = 4.5, ",
            "ibrav = 1 and CELL_PARAMETERS give",
        ),
        ("ecutwfc", "space_group = 225, ecutwfc", "names a space_group"),
        ("&SYSTEM", "&SYSTEMS", "no namelist &SYSTEM"),
        ("&CONTROL", "BEGIN\n&CONTROL", "several engine inputs"),
    ],
)
def test_what_is_wrong_is_one_sentence(old, new, words):
    assert old in PW
    with pytest.raises(StructureError, match=words) as caught:
        read_pw_text(PW.replace(old, new, 1))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("celldm = 8, 1.1, 1.6", [8, 1.1, 1.6, 0, 0, 0]),
        ("celldm = 8 1.1 1.6d0", [8, 1.1, 1.6, 0, 0, 0]),
        ("celldm(2) = 1.1, 1.6, celldm(1) = 8", [8, 1.1, 1.6, 0, 0, 0]),
        ("celldm = 8, 1.1, 1.6, , 2*0.1", [8, 1.1, 1.6, 0, 0.1, 0.1]),
        ("celldm(1) = 8, celldm(4) = 0.0", [8, 0, 0, 0, 0, 0]),
    ],
)
def test_every_way_to_give_celldm(given, expected):
    system = namelists_of(f"&system ibrav = 14, {given} /")["system"]
    a, *others = lattice_parameters(system, 14)
    assert [a / BOHR, *others] == pytest.approx(expected)


def test_a_namelist_without_an_end():
    with pytest.raises(StructureError, match="&system has no '/' at its end"):
        namelists_of("&system\nibrav = 0\n")


@pytest.mark.parametrize(
    ("word", "value"),
    [("1/3", 1 / 3), ("sqrt(3)/2", math.sqrt(3) / 2), ("0.5d0", 0.5), ("-.5D-1", -0.05),
     ("2^0.5", 2**0.5), ("+1.", 1), ("1/3+1d-3", 1 / 3 + 1e-3), ("05", 5)],
)  # fmt: skip
def test_numbers(word, value):
    assert number_of(word) == pytest.approx(value)


@pytest.mark.parametrize(
    "word", ["", "a", "__import__('os')", "1//2", "9.0**9999", "1e999", "nan", "()", "1/0"]
)
def test_no_numbers(word):
    with pytest.raises(ValueError, match="is no number"):
        number_of(word)


# Bravais lattice, and volume in that of a x b x c; https://www.quantum-espresso.org/Doc/INPUT_PW.html
BRAVAIS = {
    1: ("Pm-3m", 1), 2: ("Fm-3m", 1 / 4), 3: ("Im-3m", 1 / 2), -3: ("Im-3m", 1 / 2),
    4: ("P6/mmm", None), 5: ("R-3m", None), -5: ("R-3m", None), 6: ("P4/mmm", 1),
    7: ("I4/mmm", 1 / 2), 8: ("Pmmm", 1), 9: ("Cmmm", 1 / 2), -9: ("Cmmm", 1 / 2),
    91: ("Cmmm", 1 / 2), 10: ("Fmmm", 1 / 4), 11: ("Immm", 1 / 2), 12: ("P2/m", None),
    -12: ("P2/m", None), 13: ("C2/m", None), -13: ("C2/m", None), 14: ("P-1", None),
}  # fmt: skip


@pytest.mark.parametrize("ibrav", _LATTICES)
def test_every_bravais_lattice(ibrav):
    names = {"a": "5.0", "b": "6.5", "c": "8.5", "cosab": "0.2", "cosac": "0.1", "cosbc": "0.3"}
    if abs(ibrav) in (1, 2, 3, 4, 5, 6, 7):
        names["b"] = "0"
    parameters = lattice_parameters(names, ibrav)
    cell = cell_of_ibrav(ibrav, parameters)
    group, share = BRAVAIS[ibrav]
    found = spglib.get_symmetry_dataset((cell, [[0, 0, 0]], [1]), symprec=1e-5)
    assert found.international == group
    assert np.linalg.det(cell) > 0
    if share is not None:
        b = 6.5 if names["b"] != "0" else 5.0
        c = 8.5 if ibrav not in (1, 2, 3, -3) else 5.0
        assert np.linalg.det(cell) == pytest.approx(5.0 * b * c * share)
    by_celldm = {f"celldm({k})": str(value) for k, value in enumerate(parameters, 1)}
    by_celldm["celldm(1)"] = str(5.0 / BOHR)
    np.testing.assert_allclose(cell_of_ibrav(ibrav, lattice_parameters(by_celldm, ibrav)), cell)


def test_reads_as_ase_does(tmp_path):
    (tmp_path / "a.pwi").write_text(PW)
    expected = read(tmp_path / "a.pwi")
    found = read_pw_text(PW)
    np.testing.assert_allclose(found.positions, expected.positions)
    np.testing.assert_allclose(found.cell[:], expected.cell[:])
