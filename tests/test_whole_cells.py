import pytest
from ase.build import bulk
from ase.io import write

from deeprelax_ase.files.left_out_holds import HOLDS
from deeprelax_ase.files.read_files import read_structures
from deeprelax_ase.structures.validation import StructureError

RES = (
    "TITL x\nCELL 1.54 4.2 4.2 4.2 90 90 90\n{}SFAC Mg O\nMg 1 0.0 0.0 0.0 {}\n"
    "O 2 0.5 0.5 0.5 1.0\nEND\n"
)
PDB = (
    "CRYST1    4.200    4.200    4.200  90.00  90.00  90.00 {}\n"
    "ATOM      1 Mg   MOL     1       0.000   0.000   0.000{}  0.00          Mg  \n"
    "ATOM      2  O   MOL     1       2.100   2.100   2.100  1.00  0.00           O  \nENDMDL\n"
)
CSSR = "4.2 4.2 4.2\n90.00 90.00 90.00 {}\n2 0\n0 Mg1 O1\n1 Mg 0.0 0.0 0.0\n2 O 0.5 0.5 0.5\n"
CRYSTAL = (
    "3 1 1\n 4.2 0 0\n 0 4.2 0\n 0 0 4.2\n {}\n 1 0 0\n 0 1 0\n 0 0 1\n 0 0 0\n 2\n"
    " 12 0 0 0\n 8 2.1 2.1 2.1\n"
)


AIMS = (
    "lattice_vector 0 2.1 2.1\nlattice_vector 2.1 0 2.1\nlattice_vector 2.1 2.1 0\n{}\n"
    "atom_frac 0 0 0 Mg\natom_frac .5 .5 .5 O\n{}\n"
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.res", RES.format("LATT -1\n", "1.0")),
        ("a.res", RES.format(" LATT -1\nZERR 1 0 0 0 0 0 0\nDFIX_2 1 .1 .1 .1 .5\n", "11.0000")),
        ("a.pdb", PDB.format("P 1", "  1.00")),
        ("a.pdb", PDB.format("", "      ")),
        ("a.pdb", PDB.format("P 1           1", "  1.00")),
        ("a.cssr", CSSR.format("SPGR =  1 P 1    OPT = 1")),
        ("fort.34", CRYSTAL.format("1")),
        ("a.in", AIMS.format("# mine", "")),
        ("a.in", AIMS.format("", "constrain_relaxation .true.")),
    ],
)
def test_a_file_that_lists_all_atoms_is_read(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    file_format = "crystal" if name == "fort.34" else None
    assert len(read_structures(tmp_path / name, file_format).structures[0]) == 2


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.res", RES.format("LATT 4\nSYMM -X,Y,Z\n", "1.0"), "the operation -X,Y,Z"),
        ("a.res", RES.format("LATT 4\n", "1.0"), "the lattice LATT 4"),
        ("a.res", RES.format("LATT 1\n", "1.0"), "the lattice LATT 1"),
        ("a.res", RES.format("LATT -1\n", "0.5"), "the occupancy 0.5 of Mg"),
        ("a.res", RES.format("LATT -1\n", "10.25"), "the occupancy 10.25 of Mg"),
        ("a.pdb", PDB.format("F m -3 m", "  1.00"), "the space group F m -3 m"),
        ("a.pdb", PDB.format("P 1", "  0.50"), "the occupancy 0.50 of Mg"),
        ("a.cssr", CSSR.format("SPGR = 225 F m -3 m    OPT = 1"), "the space group 225 F m -3 m"),
        ("a.cssr", CSSR.format("SPGR = 225 F m -3 m"), "the space group 225 F m -3 m"),
        ("fort.34", CRYSTAL.format("48"), "48 symmetry operations"),
        ("a.in", AIMS.format("constrain_relaxation .true.", ""), "of a lattice vector"),
        ("a.in", AIMS.format("", "homogeneous_field 0 0 0.1"), "the entry homogeneous_field"),
    ],
)
def test_a_file_that_lists_some_of_them_is_refused(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    file_format = "crystal" if name == "fort.34" else None
    with pytest.raises(StructureError, match=f"{words}, which the reader of the format .* CIF"):
        read_structures(tmp_path / name, file_format)


def test_the_group_of_an_xsd(tmp_path):
    write(tmp_path / "a.xsd", bulk("MgO", "rocksalt", a=4.2))
    assert len(read_structures(tmp_path / "a.xsd").structures[0]) == 2
    text = (tmp_path / "a.xsd").read_text()
    assert 'GroupName="GroupName"' in text
    (tmp_path / "a.xsd").write_text(text.replace('GroupName="GroupName"', 'GroupName="FM-3M"'))
    with pytest.raises(StructureError, match="the space group FM-3M"):
        read_structures(tmp_path / "a.xsd")


PWMAT = (
    "2 atoms\nLattice vector\n 4 0 0\n 0 4 0\n 0 0 4\nPosition\n 12 0 0 0 {}\n 8 .5 .5 .5 1 1 1\n"
)
ABINIT = (
    "{}\nacell 8 8 8\nrprim 1 0 0 0 1 0 0 0 1\nntypat 2\nznucl 12 8\nnatom 2\ntypat 1 2\n"
    "xred 0 0 0 .5 .5 .5\n"
)
DFTB = (
    "Geometry = GenFormat {{\n2 F\nMg O\n1 1 0 0 0\n2 2 .5 .5 .5\n0 0 0\n4 0 0\n0 4 0\n0 0 4\n}}\n"
    "Driver = ConjugateGradient {{ {} }}\n"
)
V_SIM = "# v\n4 0 4\n0 0 4\n0 0 0 Mg {}\n2 2 2 O\n"


@pytest.mark.parametrize(
    ("name", "text", "free", "held", "words"),
    [
        ("atom.config", PWMAT, "1 1 1", "1 0 1", "the flags 1 0 1 of its atom 1"),
        ("run.abi", ABINIT, "optcell 2", "natfix 1 iatfix 1", "natfix 1"),
        ("run.abi", ABINIT, "strtarget 6*0.0", "strtarget 0 0 1d-4", "strtarget 1d-4"),
        ("run.abi", ABINIT, "natfix2 0", "natfixx 1 iatfixx 1", "natfixx 1"),
        ("run.abi", ABINIT, "optcell1 2", "optcell1 0", "optcell1 0"),
        (
            "dftb_in.hsd",
            DFTB,
            "MovedAtoms = 1:-1; MaxSteps = 9",
            "MovedAtoms = 1",
            "MovedAtoms = 1",
        ),
        ("dftb_in.hsd", DFTB, "MovedAtoms = { 1:2 }", "MovedAtoms = 1:1", "MovedAtoms = 1:1"),
        ("dftb_in.hsd", DFTB, "Pressure [Pa] = 0.0E0", "Pressure [Pa] = 1E9", "Pressure = 1E9"),
        ("atom.config", PWMAT, "1 1 1 0.5", "1 0 1 0.5", "the flags 1 0 1 of its atom 1"),
        ("dftb_in.hsd", DFTB, "MovedAtoms = 1:-1", "MovedAtoms = 2:-1", "MovedAtoms = 2:-1"),
        ("dftb_in.hsd", DFTB, "LatticeOpt = Yes", "Isotropic = Yes", "Isotropic = Yes"),
        ("in.ascii", V_SIM, "", "fx", "the flag fx of an atom Mg"),
    ],
)
def test_what_holds_atoms_and_is_not_read_is_refused(tmp_path, name, text, free, held, words):
    path = tmp_path / name
    file_format = {"run.abi": "abinit-in", "in.ascii": "v-sim", "dftb_in.hsd": "dftb"}.get(name)
    path.write_text(text.format(free))
    assert len(read_structures(path, file_format).structures[0]) == 2
    path.write_text(text.format(held))
    with pytest.raises(StructureError, match=f"has {words}, which .* selective dynamics"):
        read_structures(path, file_format)


def test_locks_of_exciting_hold(tmp_path):
    text = (
        '<input><title>MgO</title><structure><crystal scale="8"><basevect>1 0 0</basevect>'
        "<basevect>0 1 0</basevect><basevect>0 0 1</basevect></crystal>"
        '<species speciesfile="Mg.xml"><atom coord="0 0 0" lockxyz="true true false"/></species>'
        '<species speciesfile="O.xml"><atom coord=".5 .5 .5"/></species></structure></input>'
    )
    path = tmp_path / "input.xml"
    path.write_text(text)
    (structure,) = read_structures(path).structures
    flags = structure.site_properties["selective_dynamics"]
    assert [list(one) for one in flags] == [[False, False, True], [True, True, True]]
    path.write_text(text.replace(' lockxyz="true true false"', ""))
    (structure,) = read_structures(path).structures
    assert "selective_dynamics" not in structure.site_properties


def test_other_blocks_hold_no_atoms(tmp_path):
    blocks = "%Occupations\n 2 | 2 | 2 | 1 | 0\n%\n%KPointsPath\n 10 | 10 | 15 | 5 | 0\n%\n"
    assert HOLDS["octopus-in"](blocks) == ""
    atoms = "%Coordinates\n 'Mg' | 0 | 0 | 0 | no\n%\n"
    assert HOLDS["octopus-in"](blocks + atoms) == "the flag no of an atom Mg"
    text = PWMAT.format("1 1 1") + "Weight\n 12 0 0 0 0 0 0\n"
    (tmp_path / "atom.config").write_text(text)
    assert len(read_structures(tmp_path / "atom.config").structures[0]) == 2


ONETEP = "%block species_constraints\nMg {}\nO NONE ! free\n%endblock species_constraints\n"
CP2K = "&MOTION\n &CONSTRAINT\n{} &END CONSTRAINT\n &CELL_OPT\n{} &END CELL_OPT\n&END MOTION\n"


@pytest.mark.parametrize(
    ("file_format", "text", "words"),
    [
        ("onetep-in", ONETEP.format("NONE"), ""),
        ("onetep-in", ONETEP.format("FIXED"), "the constraint FIXED of Mg"),
        ("onetep-in", ONETEP.format("plane 0 0 1"), "the constraint PLANE of Mg"),
        ("onetep-in", "", ""),
        ("cp2k-restart", CP2K.format("", ""), ""),
        ("cp2k-restart", CP2K.format("&FIXED_ATOMS\nLIST 1..8\n&END\n", ""), "&FIXED_ATOMS"),
        ("cp2k-restart", "&CONSTRAINT\n&FIXED_ATOMS\nLIST 1\n&END\n&END\n", "&FIXED_ATOMS"),
        ("cp2k-restart", CP2K.format("", "KEEP_ANGLES N\nKEEP_SYMMETRY .FALSE.\n"), ""),
        ("cp2k-restart", CP2K.format("", "KEEP_ANGLES 0\nKEEP_SYMMETRY off\n"), ""),
        ("cp2k-restart", CP2K.format("", "KEEP_SYMMETRY\n"), "the entry KEEP_SYMMETRY"),
        ("cp2k-restart", CP2K.format("", "KEEP_ANGLES F\n CONSTRAINT NONE\n"), ""),
        ("cp2k-restart", CP2K.format("", "KEEP_ANGLES T\n"), "the entry KEEP_ANGLES T"),
        ("cp2k-restart", CP2K.format("", "CONSTRAINT XY\n"), "the entry CONSTRAINT XY"),
        ("xsd", '<Atom3d ID="1" Name="Mg"/>', ""),
        ("xsd", '<Atom3d RestrictedProperties="FractionalXYZ"/>', "the restriction of Frac"),
    ],
)
def test_holds_of_other_codes_are_found(file_format, text, words):
    found = HOLDS[file_format](text)
    assert found.startswith(words) if words.startswith("the") else words in found
    assert bool(found) == bool(words)
