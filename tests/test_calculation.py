"""What INCAR, pw.x inputs and CASTEP inputs say is obeyed."""

import gzip
import lzma
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from typer.testing import CliRunner

from deeprelax_ase.cli import app
from deeprelax_ase.files.aims_calculation import read_aims_calculation
from deeprelax_ase.files.calculation import apply_calculation
from deeprelax_ase.files.castep_calculation import read_castep_calculation, read_param_beside
from deeprelax_ase.files.incar_text import read_tags
from deeprelax_ase.files.poscar_text import read_poscar_text
from deeprelax_ase.files.pw_calculation import read_pw_calculation
from deeprelax_ase.files.pw_text import notes_of_dropped, read_pw_text
from deeprelax_ase.files.vasp_calculation import read_vasp_calculation
from deeprelax_ase.relaxation.relaxer import Relaxer
from deeprelax_ase.structures.exact_holds import HeldComponents, HeldStrains
from deeprelax_ase.structures.held import COMPONENTS, Held, held_strain, strain_freedom
from deeprelax_ase.structures.validation import StructureError

PERIODIC = np.ones(3, dtype=bool)
CELL = np.array([[4.0, 0, 0], [0, 5.0, 0], [0, 0, 6.0]])
RELAXATION = "NSW = 50\nIBRION = 2\n"
runner = CliRunner()


def tetragonal():
    """MgO, strained and rattled, in an orthorhombic cell."""
    atoms = bulk("MgO", "rocksalt", a=4.4, cubic=True)
    atoms.set_cell(atoms.cell[:] * [1.0, 1.02, 0.98], scale_atoms=True)
    atoms.rattle(0.05, seed=3)
    return atoms


def change(before, after):
    """What of a cell and of fractional coordinates changed."""
    old, new = np.array(before.lattice.matrix), np.array(after.lattice.matrix)
    volume = np.linalg.det(new) / np.linalg.det(old)
    moves = after.frac_coords - before.frac_coords
    return {
        "cell": np.abs(new - old).max() > 1e-9,
        "volume": abs(volume - 1) > 1e-9,
        "shape": np.abs(new / volume ** (1 / 3) - old).max() > 1e-9,
        "positions": np.abs(moves - np.rint(moves)).max() > 1e-9,
        "c": np.abs(new[2] - old[2]).max() > 1e-9,
        "ab": np.abs(new[:2] - old[:2]).max() > 1e-9,
    }


ALL = {"cell", "volume", "shape", "positions", "c", "ab"}
VASP = {
    # In the style of atomate2, pymatgen's MPRelaxSet, AiiDA, custodian and by hand.
    "MPRelaxSet": ("ALGO = Fast\nIBRION = 2\nISIF = 3\nNSW = 99\nPREC = Accurate\n", ALL),
    "atomate2": ("EDIFF = 1e-05\nIBRION = 2\nISIF = 3\nNSW = 99\nGGA = Ps\nLASPH = True\n", ALL),
    "AiiDA": ("ibrion = 2\nnsw = 50\nisif = 3\nencut = 520\nismear = -5\n", ALL),
    "custodian": ("SYSTEM = run; NSW = 60 ; IBRION = 1 ; ISIF = 3 # restarted\n", ALL),
    "hand": ("  NSW=20 ! steps\n  IBRION=3\n  ISIF=3\n  POTIM=0.1\n", ALL),
    "continued": ("NSW = \\\n 40\nIBRION = 2\nISIF = 3\n", ALL),
    "manual": (
        " NSW = 9 number of steps\n IBRION = 2 ionic relax: 0-MD\n ISIF = 3 stress, relaxation\n",
        ALL,
    ),
    "tags in a text": (
        f'{RELAXATION}ISIF = 3\nWANNIER90_WIN = "\nNSW = 0\nISIF = 2 # no\n"\n',
        ALL,
    ),
    "inches": (f'SYSTEM = 5" wafer\n{RELAXATION}ISIF = 3\n', ALL),
    "tabs": ("nsw\t=\t5;\tIbrion=1;ISIF\t= 4 ! kept\n", ALL - {"volume"}),
    "Fortran": ("NSW = 5d1\nIBRION = 2.\nISIF = 3\nPSTRESS = 0.d0\n", ALL),
    "old Mac": ("NSW=3\rIBRION=2\rISIF=8\r", ALL - {"shape"}),
    "images 0": (f"{RELAXATION}IMAGES = 0\nISIF = 3", ALL),
    "isif 0": (f"{RELAXATION}ISIF = 0\n", {"positions"}),
    "isif 1": (f"{RELAXATION}ISIF = 1\n", {"positions"}),
    "isif 2": (f"{RELAXATION}ISIF = 2\n", {"positions"}),
    "no isif": (RELAXATION, {"positions"}),
    "hybrid without isif": (f"{RELAXATION}LHFCALC = .TRUE.\n", {"positions"}),
    "isif 4": (f"{RELAXATION}ISIF = 4\n", ALL - {"volume"}),
    "isif 5": (f"{RELAXATION}ISIF = 5\n", ALL - {"volume", "positions"}),
    "isif 6": (f"{RELAXATION}ISIF = 6\n", ALL - {"positions"}),
    "isif 7": (f"{RELAXATION}ISIF = 7\n", ALL - {"shape", "positions"}),
    "isif 8": (f"{RELAXATION}ISIF = 8\n", ALL - {"shape"}),
    "c free": (f"{RELAXATION}ISIF = 3\nLATTICE_CONSTRAINTS = F F T\n", ALL - {"ab"}),
    "c held": (
        f"{RELAXATION}ISIF = 3\nLATTICE_CONSTRAINTS = .TRUE. .t. .False. not along z\n",
        ALL - {"c"},
    ),
    "pressure on a held cell": (f"{RELAXATION}ISIF = 2\nPSTRESS = 500\n", {"positions"}),
}
VASP_REFUSED = {
    "static": ("NSW = 0\nISIF = 3\n", "no atom moves"),
    "static by default": ("ENCUT = 520\nISMEAR = 0\n", "no NSW"),
    "IBRION -1": ("IBRION = -1\nNSW = 10\n", "no relaxation|static"),
    "molecular dynamics": ("IBRION = 0\nNSW = 1000\nISIF = 3\n", "molecular dynamics"),
    "MD by default": ("NSW = 1000\nISIF = 3\n", "molecular dynamics"),
    "phonons 5": ("IBRION = 5\nNSW = 1\n", "phonons"),
    "phonons 6": ("IBRION = 6\nNSW = 1\n", "phonons"),
    "phonons 7": ("IBRION = 7\nNSW = 1\n", "phonons"),
    "phonons 8": ("IBRION = 8\nNSW = 1\n", "phonons"),
    "dimer": ("IBRION = 44\nNSW = 100\n", "saddle point"),
    "pressure": (f"{RELAXATION}ISIF = 3\nPSTRESS = 500\n", "PSTRESS = 500 kB"),
    "path": (f"IMAGES = 3\n{RELAXATION}ISIF = 2\n", "IMAGES = 3"),
    "unreadable": ("NSW = many\nIBRION = 2\n", "NSW = many has to be one number"),
    "twice": (f"{RELAXATION}ISIF = 2\nISIF = 3\n", "ISIF = 2 and ISIF = 3"),
    "no equals sign": ("NSW 50\nIBRION = 2\n", "put = after NSW"),
    "no value": ("NSW =\nIBRION = 2\n", "NSW has no value"),
    "isif 9": (f"{RELAXATION}ISIF = 9\n", "none of 0 to 8"),
    "odd constraints": (f"{RELAXATION}ISIF = 3\nLATTICE_CONSTRAINTS = T F\n", "three of .TRUE."),
    "dimer of VTST": ("NSW = 50\nIBRION = 3\nISIF = 2\nICHAIN = 2\n", "saddle point"),
    "negative": ("NSW = -5\nIBRION = 2\nISIF = 3\n", "no atom moves"),
    "endless": ("NSW = 1e400\nIBRION = 2\n", "NSW = 1e400 has to be one number"),
    "nan": ("NSW = nan\nIBRION = 2\n", "NSW = nan has to be one number"),
    "two numbers": (f"{RELAXATION}ISIF = 3 2\n", "ISIF = 3 2 has to be one number"),
    "half a step": ("NSW = 2.5\nIBRION = 2\n", "whole number"),
}


@pytest.fixture
def call(random_weights):
    def command(name, *arguments):
        options = ["--model", str(random_weights), "--always-move"]
        return runner.invoke(app, [name, *map(str, arguments), *options])

    return command


def run_folder(path, incar):
    path.mkdir(parents=True)
    write(path / "POSCAR", tetragonal(), format="vasp", direct=True)
    (path / "INCAR").write_text(incar)
    return path


def poscar(path):
    return read_poscar_text(path.read_text()).structure()


@pytest.mark.parametrize("name", VASP)
def test_vasp_moves_what_the_run_would_move(call, tmp_path, name):
    incar, moved = VASP[name]
    folder = run_folder(tmp_path / "run", incar)
    before = poscar(folder / "POSCAR")
    result = call("vasp", folder)
    assert result.exit_code == 0, result.output
    changed = change(before, poscar(folder / "POSCAR"))
    assert {part for part, did in changed.items() if did} == moved
    if moved != ALL:
        assert "is kept" in result.stderr or "are kept" in result.stderr


@pytest.mark.parametrize("name", VASP_REFUSED)
def test_vasp_leaves_what_is_no_relaxation(call, tmp_path, name):
    incar, why = VASP_REFUSED[name]
    folder = run_folder(tmp_path / "run", incar)
    before = (folder / "POSCAR").read_bytes()
    result = call("vasp", folder)
    assert result.exit_code == 1
    assert any(word in result.stderr for word in why.split("|")), result.stderr
    assert result.stderr.count("\n") == 1
    assert (folder / "POSCAR").read_bytes() == before
    assert not list(folder.glob("POSCAR.*"))


def test_vasp_force_goes_on_all_the_same(call, tmp_path):
    folder = run_folder(tmp_path / "run", "NSW = 0\n")
    assert "--force" in call("vasp", folder).stderr
    assert call("vasp", folder, "--force").exit_code == 0
    assert (folder / "POSCAR.unrelaxed").exists()


@pytest.mark.parametrize(
    ("incar", "held"),
    [
        ("NSW = 9\nIBRION = 2\nISIF = 4\nPSTRESS = 10\nMETAGGA = R2SCAN\n", {"volume"}),
        ("NSW = 0\nISIF = 4\nMETAGGA = R2SCAN\n", set()),
        ("NSW = 9\nIBRION = 0\nISIF = 2\nMETAGGA = R2SCAN\n", set()),
        ("NSW = 0\nISIF = 3\nLATTICE_CONSTRAINTS = 3*.FALSE.\nMETAGGA = R2SCAN\n", set()),
    ],
)
def test_vasp_force_heeds_the_functional_and_what_a_relaxation_holds(tmp_path, incar, held):
    (tmp_path / "INCAR").write_text(incar)
    calculation = read_vasp_calculation(tmp_path)
    assert calculation.refusal
    structure = apply_calculation(bulk("MgO", "rocksalt", a=4.3), calculation, None, force=True)
    assert structure.functional == "r2SCAN"
    assert structure.held.names == held
    assert not len(structure.held.rows)


def test_castep_holds_nothing_of_what_is_no_relaxation():
    text = (
        "FIX_ALL_CELL : true\n%BLOCK CELL_CONSTRAINTS\n1 1 1\n0 0 0\n%ENDBLOCK CELL_CONSTRAINTS\n"
    )
    calculation = read_castep_calculation(text, CELL, "task : phonon\nxc_functional : PBESOL\n")
    assert calculation.refusal
    assert not calculation.held
    assert calculation.functional == "PBEsol"


def test_an_image_of_a_path_is_forced_as_its_own_input_says(tmp_path):
    (tmp_path / "INCAR").write_text("IMAGES = 1\nNSW = 10\nIBRION = 3\nGGA = PS\n")
    (tmp_path / "01").mkdir()
    calculation = read_vasp_calculation(tmp_path / "01")
    assert "is an image of a path" in calculation.refusal
    assert (calculation.functional, calculation.held.names) == ("PBEsol", {"cell"})


@pytest.mark.parametrize(
    ("inputs", "nearest"), [("scan", "r2SCAN"), ("rpbe", "PBE"), ("pbesol", "PBEsol")]
)
def test_dispersion_leaves_the_nearest_of_a_functional(inputs, nearest):
    text = pw(system=f"input_dft = '{inputs}', vdw_corr = 'grimme-d3'")
    found = read_pw_calculation(text, CELL)
    assert (found.functional, found.nearest) == ("unknown", nearest)


def test_pw_force_heeds_the_functional():
    calculation = read_pw_calculation(pw(control="calculation = 'scf'"), CELL)
    assert calculation.refusal
    assert not calculation.held
    pressed = read_pw_calculation(pw(cell="press = 10, cell_dofree = 'shape'"), CELL)
    assert "external pressure" in pressed.refusal
    assert pressed.held.names == {"volume"}


def test_vasp_images_of_a_path_are_left_alone(call, tmp_path):
    for name in ("00", "01", "special"):
        folder = run_folder(tmp_path / "neb" / name, RELAXATION)
        (folder / "INCAR").unlink()
    (tmp_path / "neb" / "INCAR").write_text("IMAGES = 1\nIBRION = 3\nNSW = 50\n")
    for name in ("00", "01", "special"):
        result = call("vasp", tmp_path / "neb" / name)
        assert result.exit_code == 1
        assert "IMAGES = 1 in the INCAR of the folder above" in result.stderr


def test_vasp_reads_a_compressed_incar(tmp_path):
    folder = run_folder(tmp_path / "run", RELAXATION)
    (folder / "INCAR").unlink()
    (folder / "INCAR.gz").write_bytes(gzip.compress(b"NSW = 5\nIBRION = 2\nISIF = 4\n"))
    assert read_vasp_calculation(folder).held.names == {"volume"}
    (folder / "INCAR.gz").write_bytes(gzip.compress(b"NSW = 5")[:9])
    with pytest.raises(StructureError, match=r"INCAR.gz cannot be read"):
        read_vasp_calculation(folder)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "latin-1"])
def test_vasp_reads_an_incar_in_any_encoding(tmp_path, encoding):
    folder = run_folder(tmp_path / "run", "")
    (folder / "INCAR").write_bytes("NSW = 5\nIBRION = 2\nISIF = 4 # für\n".encode(encoding))
    assert read_vasp_calculation(folder).held.names == {"volume"}


def test_vasp_an_incar_that_is_there_and_cannot_be_read(call, tmp_path):
    """One that leads nowhere is not the same as none."""
    for name, make in {
        "link": lambda incar: incar.symlink_to("nowhere"),
        "folder": lambda incar: incar.mkdir(),
        "binary": lambda incar: incar.write_bytes(bytes(range(256))),
    }.items():
        folder = run_folder(tmp_path / name, "")
        (folder / "INCAR").unlink()
        make(folder / "INCAR")
        before = (folder / "POSCAR").read_bytes()
        for command in ("vasp", "relax"):
            result = call(command, folder if command == "vasp" else folder / "POSCAR")
            assert result.exit_code == 1
            assert result.stderr.count("INCAR cannot be read") == 1, result.stderr
        assert [file.name for file in sorted(folder.iterdir())] == ["INCAR", "POSCAR"]
        assert (folder / "POSCAR").read_bytes() == before


def test_vasp_an_image_by_any_path(tmp_path, monkeypatch):
    folder = run_folder(tmp_path / "neb" / "03", RELAXATION)
    (tmp_path / "neb" / "INCAR").write_text("IMAGES = 4\n")
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    assert "IMAGES = 4" in read_vasp_calculation(Path("..")).refusal
    monkeypatch.chdir(folder)
    assert "IMAGES = 4" in read_vasp_calculation(Path()).refusal


def test_vasp_a_folder_above_that_cannot_be_read_is_named(tmp_path):
    folder = run_folder(tmp_path / "above" / "run", RELAXATION)
    (tmp_path / "above" / "INCAR").write_text("IMAGES 4\n")
    with pytest.raises(StructureError, match=r"above/INCAR has the line 'IMAGES 4'"):
        read_vasp_calculation(folder)


def test_relax_takes_the_incar_of_the_same_ending(call, tmp_path):
    """What custodian keeps of each step of a run."""
    folder = run_folder(tmp_path / "run", f"{RELAXATION}ISIF = 3\n")
    (folder / "INCAR.relax1.gz").write_bytes(gzip.compress(f"{RELAXATION}ISIF = 2\n".encode()))
    (folder / "INCAR.relax2").write_text("NSW = 0\n")
    for ending in (".relax1", ".relax2", ".orig"):
        (folder / f"POSCAR{ending}").write_bytes((folder / "POSCAR").read_bytes())
    assert "ISIF = 2: the cell is kept" in call("relax", folder / "POSCAR.relax1").output
    assert "INCAR.relax2 asks for a static" in call("relax", folder / "POSCAR.relax2").output
    free = call("relax", folder / "POSCAR.orig")
    assert free.exit_code == 0
    assert "kept" not in free.output


def test_vasp_optcell_holds_what_is_not_read(tmp_path):
    folder = run_folder(tmp_path / "run", f"{RELAXATION}ISIF = 3\n")
    (folder / "OPTCELL").write_text("110\n")
    assert "OPTCELL holds part of the cell" in read_vasp_calculation(folder).refusal
    (folder / "OPTCELL").unlink()
    incar = (folder / "INCAR").read_text()
    for value in ("1 1 0 1 1 0 0 0 0", "6*1 3*0", "1,1,0,1,1,0,0,0,0", "110 110 000", "110110000"):
        (folder / "INCAR").write_text(f"{incar}\nIOPTCELL = {value}\n")
        assert "holds part of the cell by IOPTCELL" in read_vasp_calculation(folder).refusal
    (folder / "INCAR").write_text(f"{incar}\nIOPTCELL = 9*1\n")
    assert not read_vasp_calculation(folder).refusal
    (folder / "INCAR").write_text(f"{RELAXATION}ISIF = 2\n")
    assert read_vasp_calculation(folder).held.names == {"cell"}


def test_tags_are_read_as_vasp_reads_them():
    text = "system = a # NSW = 1\nNSW = 2; ISIF = 3 ! ISIF = 2\nMAGMOM = 1 \\\n 2\nNSW = 2\n"
    assert read_tags(text) == {"SYSTEM": "a", "NSW": "2", "ISIF": "3", "MAGMOM": "1   2"}


PW = """&control
 {control}
/
&SYSTEM
 ibrav = 0, nat = 8, ntyp = 2, ecutwfc = 60 {system}
/
&electrons
/
{cell}
ATOMIC_SPECIES
Mg 24.305 {mg}
O 15.999 {o}
K_POINTS automatic
4 4 4 0 0 0
CELL_PARAMETERS angstrom
4.4 0 0
0 4.488 0
0 0 4.312
ATOMIC_POSITIONS crystal
Mg 0.01 0.00 0.00
Mg 0.00 0.50 0.51
Mg 0.50 0.00 0.50
Mg 0.50 0.51 0.00
O 0.50 0.00 0.01
O 0.50 0.50 0.50
O 0.00 0.00 0.50
O 0.00 0.49 0.00
"""


def pw(control="calculation = 'vc-relax'", cell="", system="", mg="Mg.UPF", o="O.UPF"):
    given = f"&cell\n {cell}\n/" if cell else ""
    return PW.format(control=control, cell=given, system=system, mg=mg, o=o)


QE = {
    "relax": (pw("calculation='relax'"), {"positions"}),
    "vc-relax": (pw(), ALL),
    "upper case": (pw("CALCULATION = 'VC-RELAX'"), ALL),
    "all": (pw(cell="cell_dofree = 'all', press = 0.0d0"), ALL),
    "volume": (pw(cell="cell_dofree='volume'"), ALL - {"shape"}),
    "shape": (pw(cell="cell_dofree='shape'"), ALL - {"volume"}),
    "z": (pw(cell="cell_dofree='z'"), ALL - {"ab"}),
    "xy": (pw(cell="cell_dofree = 'xy' ! in the plane"), ALL - {"c"}),
    "2Dxy": (pw(cell="cell_dofree = '2Dxy'"), ALL - {"c"}),
    "2Dshape": (pw(cell="cell_dofree = '2Dshape'"), ALL - {"c", "volume"}),
    "c": (pw(cell='cell_dofree = "c"'), ALL),
    "ibrav and a": (pw(cell="cell_dofree = 'ibrav+a'"), ALL),
    "fixc": (pw(cell="cell_dofree = 'fixc'"), ALL - {"c"}),
    "epitaxial_ab": (pw(cell="cell_dofree = 'epitaxial_ab'"), ALL - {"ab"}),
    "ibrav": (pw(cell="cell_dofree = 'ibrav'"), ALL),
    "default": (pw(cell="cell_dofree = 'default'"), ALL),
    "ibrav and z": (pw(cell="cell_dofree = 'ibrav+z'"), ALL - {"ab"}),
    "one line": (pw("calculation='vc-relax', nstep = 50, title = 'press = 5 / x'"), ALL),
    "over lines": (pw(cell="cell_dofree =\n  'z' press\n = 0"), ALL - {"ab"}),
    "comments": (pw(cell="! cell_dofree = 'x'\n press = 0.d0 ! / press = 5\n"), ALL),
    "elsewhere": (pw(control="calculation = 'vc-relax'", system=", press = 3"), ALL),
}
QE_REFUSED = {
    "scf": (pw("calculation = 'scf'"), "a single point"),
    "by default": (pw(""), "calculation = 'scf'"),
    "md": (pw("calculation = 'md'"), "molecular dynamics"),
    "vc-md": (pw("calculation='vc-md'"), "molecular dynamics"),
    "bands": (pw("calculation='bands'"), "bands"),
    "pressure": (pw(cell="press = 50.0"), "press = 50.0 asks for an external pressure"),
    "no number": (pw(cell="press = high"), "press = high has to be a number"),
    "two freedoms": (pw(cell="cell_dofree = 'xy+z'"), "is unknown: pw.x takes"),
    "no steps": (pw("calculation = 'vc-relax', nstep = 0"), "nstep = 0"),
    "unknown freedom": (
        pw(cell="cell_dofree = 'sideways'"),
        "is unknown: pw.x takes all",
    ),
    "bond held": (f"{pw()}constraints\n1\n'distance' 1 2 2.1\n", "the card CONSTRAINTS"),
}


@pytest.mark.parametrize(("freedom", "axis"), [("a", 0), ("b", 1), ("ibrav+c", 2)])
def test_qe_fixes_one_component_of_an_axis(call, tmp_path, freedom, axis):
    text = pw(cell=f"cell_dofree = '{freedom}'")
    path = tmp_path / "pw.in"
    path.write_text(text)
    assert call("qe", path).exit_code == 0
    moved = np.abs(np.diag(read_pw_text(path.read_text()).cell - read_pw_text(text).cell)) > 1e-6
    assert moved.tolist() == [one != axis for one in range(3)]


@pytest.mark.parametrize("name", QE)
def test_qe_moves_what_the_run_would_move(call, tmp_path, name):
    text, moved = QE[name]
    path = tmp_path / "pw.in"
    path.write_text(text)
    result = call("qe", path)
    assert result.exit_code == 0, result.output
    from pymatgen.io.ase import AseAtomsAdaptor

    before, after = (
        AseAtomsAdaptor.get_structure(read_pw_text(t)) for t in (text, path.read_text())
    )
    changed = change(before, after)
    assert {part for part, did in changed.items() if did} == moved


def test_qe_says_that_a_skewed_cell_is_kept_as_a_whole(call, tmp_path):
    """No symmetric strain changes the x of the first vector alone: that is not told as a part."""
    text = pw(cell="cell_dofree = 'x'").replace("0 4.488 0", "0.3 4.488 0.2")
    (tmp_path / "pw.in").write_text(text)
    result = call("qe", tmp_path / "pw.in")
    assert result.exit_code == 0
    assert "what is held leaves no strain: the cell is kept" in result.stderr
    cell = read_pw_text((tmp_path / "pw.in").read_text()).cell
    np.testing.assert_allclose(cell, read_pw_text(text).cell, atol=1e-9)


@pytest.mark.parametrize("name", QE_REFUSED)
def test_qe_leaves_what_is_no_relaxation(call, tmp_path, name):
    text, why = QE_REFUSED[name]
    path = tmp_path / "pw.in"
    path.write_text(text)
    result = call("qe", path)
    assert result.exit_code == 1
    assert why in result.stderr
    assert path.read_text() == text
    assert [file.name for file in tmp_path.iterdir()] == ["pw.in"]


@pytest.mark.parametrize(
    ("mg", "o", "system", "functional"),
    [
        ("Mg.pbesol-n-kjpaw_psl.0.3.0.UPF", "O.pbesol-n-kjpaw_psl.0.1.UPF", "", "PBEsol"),
        ("Mg_ONCV_PBE-1.2.upf", "o_pbe_v1.2.uspp.F.UPF", "", "PBE"),
        ("Mg.pz-n-vbc.UPF", "O.pz-rrkjus.UPF", "", "unknown"),
        ("Mg.pbe.UPF", "O.pbesol.UPF", "", "unknown"),
        ("Mg.UPF", "O.UPF", "", None),
        ("Mg.pbe.UPF", "O.pbe.UPF", ", input_dft = 'PBEsol'", "PBEsol"),
        ("Mg.pbe.UPF", "O.pbe.UPF", ", input_dft = 'vdw-df-ob88'", "optB88-vdW"),
        ("Mg.pbe.UPF", "O.pbe.UPF", ", input_dft = 'B3LYP'", "unknown"),
        ("Mg.pbe.UPF", "O.pbe.UPF", ", vdw_corr = 'grimme-d3'", "PBE-D3"),
        ("Mg.pbe.UPF", "O.pbe.UPF", ", vdw_corr = 'DFT-D3', input_dft = 'PBEsol'", "unknown"),
        ("Mg.pbe.UPF", "O.pbe.UPF", ", vdw_corr = 'ts-vdw'", "unknown"),
    ],
)
def test_qe_functional(mg, o, system, functional):
    text = pw(mg=mg, o=o, system=system)
    assert read_pw_calculation(text, CELL).functional == functional


CASTEP = "%BLOCK LATTICE_CART\n4 0 0\n0 5 0\n0 0 6\n%ENDBLOCK LATTICE_CART\n"


@pytest.mark.parametrize(
    ("added", "free"),
    [
        ("", 6),
        ("FIX_ALL_CELL : true\n", 0),
        ("fix_all_cell = TRUE ! here\n", 0),
        ("FIX_ALL_CELL : false\n", 6),
        ("FIX_VOL : true\n", 5),
        ("%BLOCK CELL_CONSTRAINTS\n1 2 3\n0 0 0\n%ENDBLOCK CELL_CONSTRAINTS\n", 3),
        ("%block cell_constraints\n1 1 2\n0 0 0\n%endblock cell_constraints\n", 2),
        ("%BLOCK CELL_CONSTRAINTS\n0 0 1 # c\n0 0 0\n%ENDBLOCK CELL_CONSTRAINTS\n", 1),
        ("%BLOCK CELL_CONSTRAINTS\n1 2 3\n4 5 6\n%ENDBLOCK CELL_CONSTRAINTS\n", 6),
    ],
)
def test_castep_holds(added, free):
    held = read_castep_calculation(CASTEP + added, CELL).held
    freedom = strain_freedom(held.strain_rows(CELL, CELL), CELL, PERIODIC)
    assert np.linalg.matrix_rank(freedom) == (9 if free == 6 and not held else free)


@pytest.mark.parametrize(
    ("cell", "param", "why"),
    [
        (
            "%BLOCK EXTERNAL_PRESSURE\n5 0 0\n5 0\n5\n%ENDBLOCK EXTERNAL_PRESSURE\n",
            None,
            "pressure",
        ),
        ("", "task : SinglePoint\n", "TASK : SinglePoint"),
        ("", "cut_off_energy : 500\n", "TASK : singlepoint"),
        ("", "task : MolecularDynamics\n", "TASK : MolecularDynamics"),
    ],
)
def test_castep_refuses(cell, param, why):
    assert why in read_castep_calculation(CASTEP + cell, CELL, param).refusal


def test_castep_task_and_functional():
    param = "task : Geometry Optimization\nxc_functional : PBEsol\n"
    found = read_castep_calculation(CASTEP + "FIX_ALL_IONS : true\n", CELL, param)
    assert not found.refusal
    assert found.functional == "PBEsol"
    assert found.held.positions


@pytest.mark.parametrize(
    ("tags", "functional"),
    [
        ("XC_FUNCTIONAL : PBE\nSEDC_APPLY : false\nSEDC_SCHEME : TS\n", "PBE"),
        ("XC_FUNCTIONAL : PBE\nSEDC_APPLY : true\nSEDC_SCHEME : TS\n", "unknown"),
        ("XC_FUNCTIONAL : PBE\nSEDC_APPLY\n", "unknown"),
        ("xc_functional pbe\nsedc_apply T\nsedc_scheme d3-bj\n", "PBE-D3"),
        ("XC_FUNCTIONAL : PBEsol\nSEDC_APPLY : true\nSEDC_SCHEME : D3\n", "unknown"),
        ("", "unknown"),  # CASTEP takes LDA
    ],
)
def test_castep_dispersion(tags, functional):
    param = f"task : Geometry Optimization\n{tags}"
    assert read_castep_calculation(CASTEP, CELL, param).functional == functional


def test_castep_pressure_of_zero_has_a_unit(tmp_path):
    rows = "eV/ang**3\n0.0E+00 0 0\n0 0\n0.0d0"
    block = f"%BLOCK EXTERNAL_PRESSURE\n{rows}\n%ENDBLOCK EXTERNAL_PRESSURE\n"
    assert not read_castep_calculation(CASTEP + block, CELL).refusal
    block = block.replace("0.0d0", "1e-3")
    assert read_castep_calculation(CASTEP + block, CELL).refusal
    (tmp_path / "MgO.param").write_text("task : GeometryOptimization\n")
    for name in ("MgO.cell", "MgO.cell.gz"):
        assert "Geometry" in (read_param_beside(tmp_path / name) or "")


def test_castep_block_that_cannot_be_read():
    block = "%BLOCK CELL_CONSTRAINTS\n1 2\n%ENDBLOCK CELL_CONSTRAINTS\n"
    with pytest.raises(StructureError, match="two lines of three whole numbers"):
        read_castep_calculation(CASTEP + block, CELL)


@pytest.mark.parametrize("hold", ["cell", "volume", "shape", "a", "bc", "volume,c"])
def test_constraints_are_kept_under_any_strain(hold, rng):
    freedom = strain_freedom(Held.of(hold).strain_rows(CELL, CELL), CELL, PERIODIC)
    np.testing.assert_allclose(freedom @ freedom, freedom, atol=1e-12)
    strain = rng.normal(size=(3, 3))
    strain = (freedom @ (strain + strain.T).ravel()).reshape(3, 3)
    np.testing.assert_allclose(strain, strain.T, atol=1e-12)
    for name in hold.split(","):
        if name == "volume":
            assert np.trace(strain) == pytest.approx(0, abs=1e-12)
        elif set(name) <= set("abc"):
            rows = ["abc".index(letter) for letter in name]
            np.testing.assert_allclose(CELL[rows] @ strain, 0, atol=1e-9)


@pytest.mark.parametrize(
    ("tags", "nearest"),
    [
        ("METAGGA = SCAN", "r2SCAN"),
        ("METAGGA = R2SCAN\nIVDW = 13", "r2SCAN"),
        ("IVDW = 13", "PBE-D3"),
        ("IVDW = 20\nGGA = PE", "PBE-D3"),
        ("LVDW = .TRUE.", "PBE-D3"),
        ("GGA = RP", "PBE"),
        ("GGA = CA", "unknown"),
        ("LHFCALC = .TRUE.", "unknown"),
        ("XC = SCAN", "unknown"),
        ("GGA = PS\nIVDW = 12", "PBEsol"),
        ("METAGGA = R2SCAN\nLUSE_VDW = T", "r2SCAN"),
        ("GGA = MK\nLUSE_VDW = T\nAGGAC = 0", "unknown"),
    ],
)
def test_vasp_takes_the_nearest_of_a_functional_that_is_unknown(tmp_path, tags, nearest):
    (tmp_path / "INCAR").write_text(f"NSW = 9\nIBRION = 2\nISIF = 3\n{tags}\n")
    found = read_vasp_calculation(tmp_path)
    assert (found.functional, found.nearest) == ("unknown", nearest)
    (structure,) = [apply_calculation(bulk("MgO", "rocksalt", a=4.3), found, None)]
    assert structure.functional == nearest
    named = "none in particular" if nearest == "unknown" else nearest
    assert f"the prediction is for {named}" in structure.notes[-1].text
    assert apply_calculation(bulk("MgO", "rocksalt", a=4.3), found, "PBE").functional == "PBE"


@pytest.mark.parametrize(
    ("system", "nearest"),
    [
        (", input_dft = 'scan'", "r2SCAN"),
        (", input_dft = 'rpbe'", "PBE"),
        (", input_dft = 'hse'", "unknown"),
        (", input_dft = 'pbe', vdw_corr = 'mbd'", "PBE-D3"),
        (", input_dft = 'pbesol', vdw_corr = 'mbd'", "PBEsol"),
    ],
)
def test_qe_takes_the_nearest_as_well(system, nearest):
    found = read_pw_calculation(pw(system=system), CELL)
    assert (found.functional, found.nearest) == ("unknown", nearest)


@pytest.mark.parametrize("tag", ["EFIELD = 0.1", "EFIELD_PEAD = 0 0 0.2", "EFOR = 1 0 0"])
def test_vasp_refuses_fields(tmp_path, tag):
    start = "NSW = 9\nIBRION = 2\nISIF = 2\n"
    (tmp_path / "INCAR").write_text(f"{start}{tag}\n")
    assert "a field or forces from outside" in read_vasp_calculation(tmp_path).refusal
    (tmp_path / "INCAR").write_text(f"{start}EFIELD = 0.0\n")
    assert not read_vasp_calculation(tmp_path).refusal


@pytest.mark.parametrize("ending", ["", ".gz", ".xz"])
def test_vasp_an_incar_of_any_packing(tmp_path, ending):
    data = b"NSW = 9\nIBRION = 2\nISIF = 2\n"
    packed = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[ending](data)
    (tmp_path / f"INCAR{ending}").write_bytes(packed)
    assert read_vasp_calculation(tmp_path).held.names == {"cell"}


def test_qe_refuses_fields_and_forces_from_outside():
    forces = f"{pw()}ATOMIC_FORCES\nMg 0 0 0.1\nO 0 0 -0.1\n"
    assert "ATOMIC_FORCES" in read_pw_calculation(forces, CELL).refusal
    field = pw(control="calculation = 'relax', tefield = .true.", system=", eamp = 0.01")
    assert "electric field: eamp = 0.01" in read_pw_calculation(field, CELL).refusal
    assert not read_pw_calculation(field.replace("0.01", "0.0"), CELL).refusal


def test_qe_says_what_becomes_of_an_ibrav_that_is_to_stay():
    text = pw(cell="cell_dofree = 'ibrav'").replace("ibrav = 0", "ibrav = 2, A = 4.2")
    assert "ibrav = 2" in text
    assert any("ibrav = 0 in place of 2" in note for note in notes_of_dropped(text))


AIMS = "species Mg\n  nucleus 12\n"


@pytest.mark.parametrize(
    ("control", "free", "functional"),
    [
        ("xc pbe\nrelax_geometry bfgs 1e-2\n", 0, "PBE"),
        ("xc pbesol\nrelax_geometry bfgs 1e-2\nrelax_unit_cell full\n", 6, "PBEsol"),
        ("relax_geometry trm 1e-2\nrelax_unit_cell fixed_angles # c\n", 3, None),
    ],
)
def test_aims_holds(tmp_path, control, free, functional):
    (tmp_path / "control.in").write_text(control + AIMS)
    found = read_aims_calculation(tmp_path / "geometry.in", CELL)
    rows = found.held.strain_rows(CELL, CELL)
    freedom = strain_freedom(rows, CELL, PERIODIC)
    assert round(np.trace(COMPONENTS @ freedom @ COMPONENTS.T)) == free
    assert found.functional == functional


@pytest.mark.parametrize(
    ("control", "why"),
    [
        ("xc pbe\n", "no relaxation (relax_geometry none)"),
        ("relax_geometry trm 1e-2\nMD_run 1 NVE\n", "molecular dynamics"),
        ("relax_geometry trm 1e-2\nrelax_unit_cell full\nexternal_pressure 0.1\n", "pressure"),
    ],
)
def test_aims_refuses(tmp_path, control, why):
    (tmp_path / "control.in").write_text(control + AIMS)
    assert why in read_aims_calculation(tmp_path / "geometry.in", CELL).refusal


@pytest.mark.parametrize(
    "numbers", ["0 0 0\n1 2 3", "1 2 3\n0 0 0", "0 2 3\n0 5 6", "1 1 1\n4 5 6"]
)
def test_what_is_held_of_a_skewed_cell_stays_exactly(random_weights, numbers):
    """Rows are so to first order, and the strains of this network are not small."""
    atoms = bulk("MgO", "rocksalt", a=4.4)
    atoms.set_cell(atoms.cell @ [[1, 0.1, 0.05], [0.1, 1.05, 0], [0.05, 0, 0.95]], scale_atoms=True)
    block = f"%BLOCK CELL_CONSTRAINTS\n{numbers}\n%ENDBLOCK CELL_CONSTRAINTS\n"
    held = read_castep_calculation(CASTEP + block, np.array(atoms.cell)).held
    result = Relaxer(random_weights, always_move=True).relax(atoms, held=held)
    assert np.abs(result.strain).max() > 1e-3
    before, after = atoms.cell.cellpar(), result.structure.cell.cellpar()
    kinds = [int(word) for word in numbers.split()]
    for k, kind in enumerate(kinds):
        if kind == 0:
            assert after[k] == pytest.approx(before[k], abs=1e-10)
    ratios = after[:3] / before[:3]
    if kinds[:3] == [1, 1, 1]:
        np.testing.assert_allclose(ratios, ratios[0], rtol=1e-10)


def test_lengths_and_volume_of_a_right_angled_cell_leave_no_strain(random_weights, rng):
    """To first order they leave the angles, and no other cell of this volume has these lengths."""
    atoms = bulk("MgO", "rocksalt", a=4.4, cubic=True)
    atoms.rattle(0.1, rng=rng)
    block = "%BLOCK CELL_CONSTRAINTS\n0 0 0\n1 2 3\n%ENDBLOCK CELL_CONSTRAINTS\nFIX_VOL : true\n"
    held = read_castep_calculation(CASTEP + block, np.array(atoms.cell)).held
    result = Relaxer(random_weights, always_move=True, keep_symmetry=False).relax(atoms, held=held)
    np.testing.assert_allclose(result.structure.cell, atoms.cell, atol=1e-9)
    assert result.largest_displacement > 1e-4


@pytest.mark.parametrize("tag", ["EFIELD_PEAD = 3*0", "EFOR = 6*0.0", "EFIELD = 0.0E+01"])
def test_vasp_fields_of_zero_are_none(tmp_path, tag):
    (tmp_path / "INCAR").write_text(f"NSW = 9\nIBRION = 2\nISIF = 2\n{tag}\n")
    assert not read_vasp_calculation(tmp_path).refusal


def test_qe_fields_of_zero_are_none():
    assert not read_pw_calculation(f"{pw()}ATOMIC_FORCES\nMg 0 0 0.0\nO 0 0 0\n", CELL).refusal
    assert not read_pw_calculation(
        pw(control="calculation = 'relax', lelfield = .true."), CELL
    ).refusal


def test_aims_reads_geometry_in_alone(tmp_path):
    (tmp_path / "control.in").write_text("xc pbe\n")
    assert not read_aims_calculation(tmp_path / "mgo.in", CELL).refusal
    (tmp_path / "control.in").write_text("relax_geometry none\n")
    assert read_aims_calculation(tmp_path / "geometry.in", CELL).refusal


def test_holds_of_several_kinds_go_together():
    rows = held_strain(np.eye(3, dtype=bool))
    both = Held(parts=(HeldStrains(rows[:1]),)) | Held(parts=(HeldComponents(rows[1:]),))
    deformation = np.diag([1.1, 1.2, 1.3])
    found = np.concatenate([one(deformation) for one in both.exact])
    np.testing.assert_allclose(found, [np.log(1.1), 0.2, 0.3])
    assert not (Held.of("a") | Held.of("volume")).exact
