"""What a file is taken for, in which encoding it is read, and what is written of it."""

import bz2
import gzip
import lzma
import warnings

import numpy as np
import pytest
import spglib
from ase.build import bulk, fcc100, fcc111, molecule
from ase.constraints import FixAtoms, FixCartesian, FixedLine, FixScaled
from ase.io import read as ase_read
from ase.io import write as ase_write
from pymatgen.core import Lattice, Structure
from sources import vasprun

from deeprelax_ase.files.convert import as_atoms, as_structure, warn_of_lost
from deeprelax_ase.files.file_formats import format_of, named_format
from deeprelax_ase.files.read_files import read_structures
from deeprelax_ase.files.unnamed_species import number_of_mass, parse_species
from deeprelax_ase.files.write_files import output_path, write_structures
from deeprelax_ase.structures.read_structure import plain_crystal, read_structure
from deeprelax_ase.structures.validation import StructureError

ATOMS = bulk("MgO", "rocksalt", a=4.3)
STRUCTURE = Structure.from_ase_atoms(ATOMS)
CIF = STRUCTURE.to(fmt="cif")
POSCAR = "Å\n4.3\n0 .5 .5\n.5 0 .5\n.5 .5 0\nMg O\n1 1\nDirect\n0 0 0\n.5 .5 .5\n"
XYZ = (
    '2\nLattice="0 2.15 2.15 2.15 0 2.15 2.15 2.15 0" Properties=species:S:1:pos:R:3\n'
    "Mg 0 0 0\nO 2.15 2.15 2.15\n"
)
EXCITING = (
    '<input><title>MgO</title><structure><crystal scale="8.1258"><basevect>0 .5 .5</basevect>'
    "<basevect>.5 0 .5</basevect><basevect>.5 .5 0</basevect></crystal>"
    '<species speciesfile="Mg.xml"><atom coord="0 0 0"/></species>'
    '<species speciesfile="O.xml"><atom coord=".5 .5 .5"/></species></structure></input>'
)
GRID = "\n\n 2 2 2\n 1.0 1.0 1.0 1.0 1.0\n 1.0 1.0 1.0\n"
PW = (
    "&control\n/\n&system ibrav=2, A=4.3, nat=2, ntyp=2, ecutwfc=30 /\nATOMIC_SPECIES\n"
    "Mg 24 a.upf\nO 16 b.upf\nATOMIC_POSITIONS crystal\nMg 0 0 0\nO 0.5 0.5 0.5\nK_POINTS gamma\n"
)
FILES = {
    "utf16.cif": (CIF.encode("utf-16"), "cif"),
    "latin.cif": (("# Ångström\n" + CIF).encode("latin-1"), "cif"),
    "mac.cif": (CIF.replace("\n", "\r").encode(), "cif"),
    "a@1.cif": (CIF.encode(), "cif"),
    "nameless": (CIF.encode(), "cif"),
    "bom.vasp": (POSCAR.encode("utf-8-sig"), "poscar"),
    "utf16.vasp": (POSCAR.encode("utf-16"), "poscar"),
    "a@2.vasp.bz2": (bz2.compress(POSCAR.encode()), "poscar"),
    "CONTCAR.xz": (lzma.compress(POSCAR.encode("latin-1")), "poscar"),
    "structure.txt": (POSCAR.encode(), "poscar"),
    "a@3.xyz": (XYZ.encode(), "extxyz"),
    "utf16.xyz": (XYZ.encode("utf-16"), "extxyz"),
    "b@.extxyz.gz": (gzip.compress(XYZ.encode("utf-8-sig")), "extxyz"),
    "scf": (PW.encode(), "espresso-in"),
    "pw.scf.in": (PW.encode(), "espresso-in"),
    "utf16.pwi": (PW.encode("utf-16"), "espresso-in"),
    "a.yaml": (STRUCTURE.to(fmt="yaml").encode(), "yaml"),
    "a.cssr": (STRUCTURE.to(fmt="cssr").encode(), "cssr"),
    "rndstr.in": (STRUCTURE.to(fmt="mcsqs").encode(), "mcsqs"),
    "input.xml": (EXCITING.encode(), "exciting"),
    "CHGCAR": ((STRUCTURE.to(fmt="poscar") + GRID).encode(), "chgcar"),
    "LOCPOT.gz": (gzip.compress((STRUCTURE.to(fmt="poscar") + GRID).encode()), "chgcar"),
    "vasprun.xml": (vasprun([ATOMS, ATOMS], "PE").encode(), "vasprun"),
}
READ_ONLY = ("cssr", "mcsqs", "exciting", "chgcar", "vasprun")


@pytest.mark.parametrize("name", FILES)
def test_formats_and_encodings(tmp_path, name):
    data, expected = FILES[name]
    path = tmp_path / name
    path.write_bytes(data)
    assert format_of(path) == expected
    source = read_structures(path)
    assert len(source.structures) == 1
    crystal = plain_crystal(source.structures[0])
    assert sorted(crystal.numbers) == [8, 12]
    assert abs(np.linalg.det(crystal.cell)) == pytest.approx(4.3**3 / 4, rel=1e-4)
    if expected in READ_ONLY:
        with pytest.raises(StructureError, match="can only be read: name an --output"):
            output_path(source, None)
        target = output_path(source, tmp_path / "out.cif")
    else:
        target = output_path(source, None)
    write_structures(source, source.structures, target)
    again = read_structures(target)
    assert again.format == (expected if expected not in READ_ONLY else "cif")
    np.testing.assert_allclose(
        abs(np.linalg.det(plain_crystal(again.structures[0]).cell)),
        abs(np.linalg.det(crystal.cell)),
        rtol=1e-6,
    )


def test_lines_and_bytes_of_a_poscar_stay(tmp_path):
    path = tmp_path / "POSCAR"
    path.write_bytes(POSCAR.encode("latin-1").replace(b"\n", b"\r\n"))
    source = read_structures(path)
    write_structures(source, source.structures, tmp_path / "out.vasp")
    written = (tmp_path / "out.vasp").read_bytes()
    assert written.startswith(b"\xc5\r\n4.3\r\n")
    assert written.count(b"\n") == written.count(b"\r\n")


@pytest.mark.parametrize("name", ["a.com", "a.abinit.in", "a.struct", "a.cube", "a.lammps-data"])
def test_what_else_an_input_says_is_not_lost_without_a_word(tmp_path, name):
    formats = {"com": "gaussian-in", "in": "abinit-in", "lammps-data": "lammps-data"}
    options = {"data": np.zeros((3, 3, 3))} if name == "a.cube" else {}
    kind = formats.get(name.rsplit(".", maxsplit=1)[-1])
    ase_write(tmp_path / name, ATOMS, format=kind, **options)
    source = read_structures(tmp_path / name, species=("Mg", "O"))
    with pytest.raises(StructureError, match="all but the structure would be lost in writing it"):
        output_path(source, None)
    target = output_path(source, None, "extxyz")
    assert target.name == f"{name.rsplit('.', maxsplit=1)[0]}_relaxed.xyz"
    write_structures(source, source.structures, target, "extxyz")
    assert len(read_structures(target).structures[0]) == 2


@pytest.mark.parametrize(
    "kind",
    ["cif", "mcif", "extxyz", "res", "proteindatabank", "xsd", "lammps-data", "gen", "dmol-car",
     "castep-cell", "v-sim", "xsf", "yaml"],
)  # fmt: skip
def test_no_format_mirrors_a_left_handed_crystal(tmp_path, kind):
    quartz = Structure.from_spacegroup(
        "P3_121",
        Lattice.hexagonal(4.92, 5.4),
        ["Si", "O"],
        [[0.47, 0, 1 / 3], [0.413, 0.267, 0.214]],
    )
    order = [1, 0, 2]
    left = Structure(quartz.lattice.matrix[order], quartz.species, quartz.frac_coords[:, order])
    left.to(tmp_path / "a.json")
    source = read_structures(tmp_path / "a.json")
    write_structures(source, source.structures, tmp_path / f"b.{kind}", kind)
    found = plain_crystal(
        read_structures(tmp_path / f"b.{kind}", kind, species=("Si", "O")).structures[0]
    )
    scaled = found.positions @ np.linalg.inv(found.cell)
    cell = (found.cell, scaled, found.numbers)
    assert spglib.get_symmetry_dataset(cell, symprec=0.03).number == 152


def test_formats_without_a_cell_take_no_crystal(tmp_path):
    ase_write(tmp_path / "a.extxyz", ATOMS)
    source = read_structures(tmp_path / "a.extxyz")
    for kind in ("xyz", "mol", "turbomole"):
        with pytest.raises(StructureError, match=f"the format '{kind}' holds no cell"):
            write_structures(source, source.structures, tmp_path / "b", kind)
    ase_write(tmp_path / "c.extxyz", molecule("H2O"))
    source = read_structures(tmp_path / "c.extxyz")
    write_structures(source, source.structures, tmp_path / "d", "xyz")


def test_a_writer_that_needs_more_says_so(tmp_path):
    ase_write(tmp_path / "a.extxyz", ATOMS)
    source = read_structures(tmp_path / "a.extxyz")
    for kind, words in (("espresso-in", "needs pseudopotentials"), ("mustem", "needs more than a")):
        with pytest.raises(StructureError, match=words):
            write_structures(source, source.structures, tmp_path / "b", kind)
    with pytest.raises(StructureError, match="writes no tables"):
        write_structures(source, source.structures, tmp_path / "b.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["a.extxyz"]


def test_fixed_atoms_go_into_a_poscar(tmp_path):
    atoms = ATOMS.copy()
    atoms.set_constraint(FixAtoms([1]))
    ase_write(tmp_path / "a.traj", atoms)
    source = read_structures(tmp_path / "a.traj")
    write_structures(source, source.structures, tmp_path / "b.vasp")
    assert ase_read(tmp_path / "b.vasp").constraints[0].index.tolist() == [1]


def test_names_of_formats():
    assert named_format("VASP") == "poscar"
    assert named_format(".cif") == "cif"
    assert named_format("qe") == "espresso-in"
    with pytest.raises(StructureError, match=r"no format 'foo' is read: choose one of .*poscar"):
        named_format("foo")
    with pytest.raises(StructureError, match="no format 'vasprun' is written"):
        named_format("vasprun", for_output=True)


def test_a_format_that_is_named_goes_before_the_name(tmp_path):
    (tmp_path / "a.xyz").write_text(POSCAR)
    assert len(read_structures(tmp_path / "a.xyz", "poscar").structures[0]) == 2
    with pytest.raises(StructureError, match="cannot be read"):
        read_structures(tmp_path / "a.xyz")


LAMMPS = """MgO

2 atoms
2 atom types
0 2.98 xlo xhi
0 2.98 ylo yhi
0 4.3 zlo zhi

{}Atoms # atomic

1 1 0 0 0
2 2 1.49 1.49 2.15
"""
DUMP = """ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
2
ITEM: BOX BOUNDS pp pp pp
0 2.98
0 2.98
0 4.3
ITEM: ATOMS id type{} x y z
1 1{} 0 0 0
2 2{} 1.49 1.49 2.15
"""
ASKED = "does not name the elements of its types 1 and 2: give them in order, --species Mg,O"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.data", LAMMPS.format(""), ASKED),
        ("a.lmp", LAMMPS.format("Masses\n\n1 24.3\n2 16.0\n\n"), ""),
        ("a.lammps-data", LAMMPS.format("Masses\n\n1 24.3 # Mg\n2 15.9994 # O\n\n"), ""),
        ("a.data", LAMMPS.format("Atom Type Labels\n\n1 Mg\n2 O\n\n"), ""),
        ("a.data", LAMMPS.format("Masses\n\n1 1.0\n2 1.0\n\n"), ASKED),
        ("a.data", LAMMPS.format("Masses\n\n1 24.3\n2 5.5\n\n"), ASKED),
        ("a.data", LAMMPS.format("Masses\n\n1 24.3 # O\n2 16 # Mg\n\n"), "calls type 1 O, and giv"),
        ("a.dump", DUMP.format("", "", ""), ASKED),
        ("a.lammpstrj", DUMP.format(" element", " Mg", " O"), ""),
        ("a.dump", DUMP.format(" mass", " 24.3", " 16.0"), ""),
    ],
)
def test_types_of_lammps(tmp_path, name, text, words):
    path = tmp_path / name
    path.write_text(text)
    if words:
        with pytest.raises(StructureError, match=words):
            read_structures(path)
    else:
        assert read_structures(path).structures[0].get_chemical_formula() == "MgO"
    if "element" not in text and "mass" not in text:
        (atoms,) = read_structures(path, species=("Sr", "S")).structures
        assert atoms.get_chemical_formula() == "SSr"
        with pytest.raises(StructureError, match="has 2 types of atoms, and --species names 1"):
            read_structures(path, species=("Sr",))


def test_groups_of_old_vasp_files(tmp_path):
    ase_write(tmp_path / "XDATCAR", ATOMS, format="vasp-xdatcar")
    lines = (tmp_path / "XDATCAR").read_text().split("\n")
    (tmp_path / "XDATCAR").write_text("\n".join([*lines[:5], *lines[6:]]))
    (tmp_path / "POSCAR").write_text(POSCAR.replace("Mg O\n", ""))
    for name in ("XDATCAR", "POSCAR"):
        with pytest.raises(StructureError, match="does not name the elements of its groups 1 and"):
            read_structures(tmp_path / name)
        (structure,) = read_structures(tmp_path / name, species=("Mg", "O")).structures
        assert sorted(plain_crystal(structure).numbers) == [8, 12]
        with pytest.raises(StructureError, match="2"):
            read_structures(tmp_path / name, species=("Mg",))


def test_species_that_are_none():
    assert parse_species("Mg,O") == parse_species(" Mg O ") == ("Mg", "O")
    assert parse_species(None) == parse_species("") == ()
    with pytest.raises(StructureError, match="'Q' is no element; name them as in Mg,O"):
        parse_species("Mg,Q")


@pytest.mark.parametrize(("mass", "number"), [(1.0, 1), (12, 6), (207.2, 82), (5.5, None)])
def test_elements_of_masses(mass, number):
    assert number_of_mass(mass) == number


@pytest.mark.parametrize(
    "site",
    [{"Mg": 0.99999}, {"Mg2+": 1.0}, {"Fe2+": 0.5, "Fe3+": 0.5}, {"Fe2+": 0.3333, "Fe3+": 0.6666}],
)
def test_one_atom_of_one_element(site):
    structure = Structure(Lattice.cubic(4.2), [site, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    numbers = read_structure(structure).crystal.numbers
    assert numbers.tolist() == [12 if "Mg" in str(site) else 26, 8]
    assert as_atoms(structure).numbers.tolist() == numbers.tolist()


@pytest.mark.parametrize("site", [{"Mg": 0.99}, {"Fe2+": 0.5, "Mn3+": 0.5}, {"Fe2+": 0.5}])
def test_more_or_less_than_one_atom(site):
    structure = Structure(Lattice.cubic(4.2), [site, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with pytest.raises(StructureError, match="disordered or partially occupied"):
        read_structure(structure)


def held_slab():
    atoms = fcc100("Al", (2, 1, 3), a=4.2, vacuum=6)
    atoms.pbc = True
    constraints = [FixAtoms([0]), FixScaled([1], (1, 1, 0)), FixCartesian([2], (0, 0, 1))]
    atoms.set_constraint(constraints)
    return atoms


def test_constraints_become_selective_dynamics_or_are_told_of():
    atoms = held_slab()
    flags = as_structure(atoms).site_properties["selective_dynamics"]
    assert flags[:4] == [[False] * 3, [False, False, True], [True, True, False], [True] * 3]
    atoms.set_cell(atoms.cell.array + np.eye(3)[[1, 0, 2]] * (0.1, 0.1, 0), scale_atoms=True)
    atoms.set_constraint([*atoms.constraints, FixCartesian([3], (1, 0, 0))])
    with pytest.warns(UserWarning, match="cannot hold are left out: FixCartesian"):
        flags = as_structure(atoms).site_properties["selective_dynamics"]
    assert flags[2:4] == [[True, True, False], [True] * 3]
    hexagonal = fcc111("Al", (1, 1, 3), vacuum=6)
    hexagonal.pbc = True
    hexagonal.set_constraint([FixCartesian([0], (0, 0, 1)), FixedLine([1], (0, 0, 1))])
    flags = as_structure(hexagonal).site_properties["selective_dynamics"]
    assert flags == [[True, True, False], [False, False, True], [True] * 3]
    assert "selective_dynamics" not in as_structure(bulk("Cu")).site_properties


@pytest.mark.parametrize(
    ("file_format", "lost"),
    [("extxyz", "FixScaled"), ("cif", "FixAtoms, FixCartesian, FixScaled"), ("traj", "")],
)
def test_constraints_that_a_format_cannot_hold_are_told_of(file_format, lost):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_lost([held_slab()], file_format)
    assert [lost in str(one.message) for one in caught] == ([True] if lost else [])
