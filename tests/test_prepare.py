import gzip
import json
import os
import re
import shutil
import time

import numpy as np
import pytest
from ase.build import fcc111
from ase.constraints import FixAtoms
from ase.io import read
from pymatgen.core import Lattice, Structure
from pymatgen.io.vasp import Incar, Poscar
from typer.testing import CliRunner

from deeprelax_ase.cli import app
from deeprelax_ase.datasets.importers.ended_runs import END_OF_OUTCAR
from deeprelax_ase.files.poscar_text import read_poscar_text
from deeprelax_ase.files.pw_text import read_pw_text
from deeprelax_ase.interfaces.dft_inputs import swap_and_undo as swap
from deeprelax_ase.interfaces.dft_inputs.vasp import read_vasp_folder
from deeprelax_ase.relaxation.relaxer import Relaxer

# Two groups of Ti, as two potentials or two values of LDAUU ask for.
POSCAR = """my own comment, kept
2.0
2.1 0.0 0.0
0.0 2.1 0.0
0.0 0.0 4.2
Ti_pv Ti O
1 1 4
Selective dynamics
Cartesian
0.0 0.0 0.0 T T T first
0.0 0.0 2.1 F F F
1.05 1.05 0.0 T T F
1.05 0.0 1.15 T T T
0.0 1.05 1.05 T T T
1.05 1.05 2.1 T T T
"""
VELOCITIES = "\n" + "0.01 0.0 0.0\n" * 6
POTCAR = """  TITEL  = PAW_PBE Ti_pv 07Sep2000
  TITEL  = PAW_PBE Ti 08Apr2002
  TITEL  = PAW_PBE O 08Apr2002
"""
INCAR = (
    "NSW = 99\nIBRION = 2\nISIF = 3\nMAGMOM = 1 -1 4*0\nLDAU = .TRUE.\n"
    "LDAUU = 3 4 0\nLDAUL = 2 2 -1\nLDAUJ = 0 0 0\n"
)
PW = """&CONTROL
  calculation = 'vc-relax', prefix = 'A = 3' ! A comment
/
&SYSTEM
  ibrav = 0, input_dft = 'A = 1', celldm(1) = 8.2, nat = 2, ! celldm(1) = 3
  ntyp = 2, ecutwfc = 60
/
&ELECTRONS
/
ATOMIC_SPECIES
Mg 24.305 Mg.upf
O 15.999 O.upf
ATOMIC_POSITIONS {crystal}
Mg 0.00 0.01 0.00 0 0 0
O  0.50 0.50 0.50
K_POINTS automatic
4 4 4 0 0 0
CELL_PARAMETERS alat
0.0 0.5 0.5
0.5 0.0 0.5
0.5 0.5 0.0
"""
runner = CliRunner()


@pytest.fixture
def call(random_weights):
    def command(name, *arguments):
        arguments = [str(one) for one in arguments]
        return runner.invoke(app, [name, *arguments, "--model", str(random_weights)])

    return command


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "POSCAR").write_text(POSCAR)
    (folder / "POTCAR").write_text(POTCAR)
    (folder / "INCAR").write_text(INCAR)
    return folder


def listing(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("points", "isif", "is_told"),
    [
        ("k\n4\nCartesian\n0 0 0 1\n.5 0 0 1\n0 .5 0 1\n0 0 .5 1\n", 3, True),
        ("k\n4\nCartesian\n0 0 0 1\n.5 0 0 1\n0 .5 0 1\n0 0 .5 1\n", 2, False),
        ("k\n20\nLine-mode\ncart\n0 0 0\n0 0 .5\n", 3, True),
        ("k\n20\nLine-mode\nrec\n0 0 0\n0 0 .5\n", 3, False),
        ("k\n0\nCartesian\n.25 0 0\n0 .25 0\n0 0 .25\n0 0 0\n", 3, True),
        ("k\n1\nCartesian\n0 0 0 1\n", 3, False),
        ("k\n0\nGamma\n4 4 4\n", 3, False),
        ("k\n0\nGamma\n", 3, False),
        ("k\n0\n", 3, False),
        ("", 3, False),
    ],
)
def test_k_points_that_are_others_in_another_cell(folder, points, isif, is_told):
    (folder / "KPOINTS").write_text(points)
    (folder / "INCAR").write_text(INCAR.replace("ISIF = 3", f"ISIF = {isif}"))
    told = [word for word in read_vasp_folder(folder).warnings if "Cartesian" in word]
    assert bool(told) == is_told


def test_vasp_keeps_all_that_is_not_geometry(call, folder, random_weights):
    result = call("vasp", folder)
    assert result.exit_code == 0, result.output
    assert (folder / "POSCAR.unrelaxed").read_text() == POSCAR
    lines = (folder / "POSCAR").read_text().splitlines()
    assert lines[0] == "my own comment, kept"
    assert lines[5:8] == ["Ti_pv Ti O", "1 1 4", "Selective dynamics"]
    tails = [line.split()[3:] for line in lines[9:]]
    assert tails[0] == ["T", "T", "T", "first"]
    assert tails[1] == ["F", "F", "F"]
    structure = read_poscar_text(POSCAR).structure()
    expected = Relaxer(random_weights).relax(structure).structure
    written = read_poscar_text((folder / "POSCAR").read_text()).structure()
    np.testing.assert_allclose(written.lattice.matrix, expected.lattice.matrix, atol=1e-9)
    np.testing.assert_allclose(written.frac_coords, expected.frac_coords, atol=1e-9)
    assert np.abs(written.frac_coords - structure.frac_coords).max() > 1e-4
    np.testing.assert_allclose(written.frac_coords[1], [0, 0, 0.5], atol=1e-9)  # it was held
    facts = json.loads((folder / "POSCAR.deeprelax.json").read_text())
    assert facts["weights_sha256"] == Relaxer(random_weights).weights.sha256


def test_vasp_reads_as_pymatgen_does():
    plain = POSCAR.replace("Ti_pv Ti O", "Ti V O")
    ours = read_poscar_text(plain).structure()
    theirs = Poscar.from_str(plain).structure
    assert ours.matches(theirs)
    np.testing.assert_array_equal(ours.cart_coords, theirs.cart_coords)
    again = read_poscar_text(read_poscar_text(plain).with_structure(ours)).structure()
    np.testing.assert_allclose(again.cart_coords, theirs.cart_coords, atol=1e-9)
    np.testing.assert_array_equal(
        again.site_properties["selective_dynamics"], theirs.site_properties["selective_dynamics"]
    )


def test_vasp_undo_restores_every_byte(call, folder):
    before = listing(folder)
    call("vasp", folder)
    assert listing(folder) != before
    again = call("vasp", folder)
    assert again.exit_code == 1
    assert "is prepared already" in again.stderr
    assert "--undo restores it" in again.stderr
    prepared = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "would be restored" in call("vasp", folder, "--undo", "--dry-run").stdout
    assert prepared == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert call("vasp", folder, "--undo").exit_code == 0
    assert listing(folder) == before
    assert "was not prepared" in call("vasp", folder, "--undo").stderr


def test_vasp_undo_does_not_lose_later_work(call, folder):
    call("vasp", folder)
    (folder / "POSCAR").write_text("the CONTCAR of a long run")
    result = call("vasp", folder, "--undo")
    assert "was changed since it was prepared: pass --force" in result.stderr
    assert (folder / "POSCAR").read_text() == "the CONTCAR of a long run"
    assert call("vasp", folder, "--undo", "--force").exit_code == 0
    assert (folder / "POSCAR").read_text() == POSCAR


@pytest.mark.parametrize("option", [("--dry-run",), ("--max-error", "0")])
def test_vasp_can_leave_everything(call, folder, option):
    before = listing(folder)
    result = call("vasp", folder, *option)
    assert result.exit_code == 0
    assert "expected error" in result.stdout
    assert listing(folder) == before


def test_vasp_warns_of_what_no_longer_belongs(call, folder):
    (folder / "POSCAR").write_text(POSCAR + VELOCITIES)
    (folder / "WAVECAR").write_bytes(b"x")
    (folder / "CHGCAR").touch()
    result = call("vasp", folder)
    assert result.exit_code == 0
    assert "velocities are dropped" in result.stderr
    assert "WAVECAR belong to the old cell" in result.stderr
    assert "CHGCAR" not in result.stderr.replace("ICHARG", "")
    assert (folder / "POSCAR.unrelaxed").read_text() == POSCAR + VELOCITIES
    assert len((folder / "POSCAR").read_text().splitlines()) == 15


def test_vasp_keeps_line_ends_and_bytes_of_no_utf8(call, folder):
    old = POSCAR.replace("kept", "Ångström").encode("latin-1").replace(b"\n", b"\r\n")
    (folder / "POSCAR").write_bytes(old)
    assert call("vasp", folder).exit_code == 0
    new = (folder / "POSCAR").read_bytes()
    assert new.splitlines()[0] == old.splitlines()[0]
    assert new.count(b"\r\n") == new.count(b"\n") == old.count(b"\n")
    assert (folder / "POSCAR.unrelaxed").read_bytes() == old


def test_vasp_reads_compressed_files_beside(call, folder):
    for name, text in (("POTCAR", POTCAR.replace("PBE O", "PBE Mg")), ("INCAR", INCAR)):
        (folder / name).unlink()
        (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    assert "bring them into the same" in call("vasp", folder).stderr
    (folder / "POTCAR.gz").write_bytes(gzip.compress(POTCAR.encode()))
    (folder / "INCAR.gz").write_bytes(gzip.compress(INCAR.replace("4*0", "5*0").encode()))
    assert "MAGMOM has 7 values" in call("vasp", folder).stderr


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ("GGA = PS", "PBEsol"),
        ("METAGGA = R2SCAN\nGGA = PS", "r2SCAN"),
        ("GGA = BO\nLUSE_VDW = .TRUE.", "optB88-vdW"),
        ("GGA = PE", None),
        ("", None),
    ],
)
def test_vasp_says_if_incar_names_another_functional(call, folder, tags, named):
    (folder / "INCAR").write_text(f"{INCAR}{tags}\n")
    said = call("vasp", folder, "--dry-run").stderr
    if named is None:
        assert "functional" not in said
    else:
        assert f"relaxed to {named}, the functional of the calculation" in said
        said = call("vasp", folder, "--dry-run", "--functional", "unknown").stderr
        assert f"the calculation is with {named}, and the prediction is for unknown" in said


def test_vasp_4_takes_species_from_potcar(call, folder):
    old = POSCAR.replace("Ti_pv Ti O\n", "")
    (folder / "POSCAR").write_text(old)
    assert call("vasp", folder).exit_code == 0
    assert (folder / "POSCAR").read_text().splitlines()[5] == "1 1 4"
    call("vasp", folder, "--undo")
    (folder / "POTCAR").unlink()
    result = call("vasp", folder)
    assert "names no species (VASP 4) and there is no POTCAR" in result.stderr


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("POSCAR", None, "holds no POSCAR"),
        ("POSCAR", "a\n1.0\n", "is no POSCAR, or breaks off"),
        ("POSCAR", POSCAR[:-40], "is no POSCAR, or breaks off"),
        ("POSCAR", POSCAR.replace("Ti_pv Ti O", "Ti O"), "names 2 species and 3 counts"),
        ("POSCAR", POSCAR.replace("0.0 2.1 0.0", "nan 2.1 0.0"), "have to be finite"),
        ("POTCAR", POTCAR.replace("PBE O", "PBE Mg"), "POTCAR Ti Ti Mg: bring them into the same"),
        ("INCAR", INCAR.replace("4*0", "5*0"), "MAGMOM has 7 values for 6 atoms"),
        ("INCAR", INCAR.replace("4*0", "4*x"), "MAGMOM has '4*x', which is no number"),
        ("INCAR", INCAR.replace("3 4 0", "3 4"), "LDAUU has 2 values for 3 groups"),
        ("OUTCAR", "still going", "is VASP running there? Pass --force"),
    ],
)
def test_vasp_refuses_what_does_not_fit(call, folder, name, text, message):
    (folder / name).unlink(missing_ok=True)
    if text is not None:
        (folder / name).write_text(text)
    before = listing(folder)
    result = call("vasp", folder)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert listing(folder) == before


def test_vasp_goes_on_where_a_job_has_ended(call, folder):
    (folder / "OUTCAR").write_text("...")
    assert call("vasp", folder, "--force", "--dry-run").exit_code == 0
    (folder / "OUTCAR").write_text(" General timing and accounting informations for this job:\n")
    assert call("vasp", folder, "--dry-run").exit_code == 0
    (folder / "OUTCAR").write_text("...")
    os.utime(folder / "OUTCAR", (time.time() - 1e6,) * 2)
    assert call("vasp", folder, "--dry-run").exit_code == 0


def test_vasp_where_nothing_can_be_written(call, folder, monkeypatch):
    before = listing(folder)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("shutil.copy2", refuse)
    result = call("vasp", folder)
    assert result.exit_code == 1
    assert "Permission denied; nothing was changed" in result.stderr
    assert listing(folder) == before


def test_one_bad_folder_leaves_the_others_alone(call, folder, tmp_path):
    result = call("vasp", tmp_path / "nowhere", folder)
    assert result.exit_code == 1
    assert "is no folder: name a run folder" in result.stderr
    assert (folder / "POSCAR.unrelaxed").exists()


def test_a_cif_becomes_a_run_folder(call, tmp_path, random_weights):
    structure = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(4.4), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    structure.to(str(tmp_path / "MgO.cif"), fmt="cif")
    result = call("vasp", tmp_path / "MgO.cif")
    assert result.exit_code == 0, result.output
    made = tmp_path / "MgO"
    assert {path.name for path in made.iterdir()} >= {"INCAR", "KPOINTS", "POSCAR", "POTCAR.spec"}
    expected = Relaxer(random_weights).relax(structure).structure
    assert Structure.from_file(made / "POSCAR").volume == pytest.approx(expected.volume, rel=1e-5)
    assert "MgO exists" in call("vasp", tmp_path / "MgO.cif").stderr
    before = (made / "POSCAR").read_text(), (made / "POSCAR.deeprelax.json").read_text()
    assert "is a prediction already, and was made with its folder" in call("vasp", made).stderr
    assert before == ((made / "POSCAR").read_text(), (made / "POSCAR.deeprelax.json").read_text())


@pytest.mark.parametrize(
    ("options", "tags"),
    [
        ((), {"ISIF": 3}),
        (("--functional", "PBEsol", "--hold", "cell"), {"ISIF": 2, "GGA": "Ps"}),
        (("--functional", "r2SCAN", "--hold", "volume"), {"ISIF": 4, "METAGGA": "R2scan"}),
        (("--functional", "optB88-vdW", "--hold", "positions"), {"ISIF": 6, "LUSE_VDW": True}),
        (("--functional", "PBE-D3", "--hold", "shape"), {"ISIF": 8, "IVDW": 12}),
    ],
)
def test_inputs_made_of_a_cif_are_those_of_the_prediction(call, tmp_path, options, tags):
    Structure(Lattice.cubic(4.4), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to(
        str(tmp_path / "a.cif"), fmt="cif"
    )
    result = call("vasp", tmp_path / "a.cif", *options)
    assert result.exit_code == 0, result.output
    incar = Incar.from_file(tmp_path / "a" / "INCAR")
    assert {name: incar[name] for name in tags} == tags


@pytest.mark.parametrize(("options", "isif"), [((), 2), (("--hold", "nothing"), 3)])
def test_inputs_of_a_slab_with_fixed_atoms_keep_its_cell(call, tmp_path, options, isif):
    slab = fcc111("Ti", (1, 1, 4), a=4.1, vacuum=9.0)
    slab.pbc = True
    slab.set_constraint(FixAtoms([0, 1]))
    slab.write(tmp_path / "a.xyz", format="extxyz")
    result = call("vasp", tmp_path / "a.xyz", *options)
    assert result.exit_code == 0, result.output
    assert Incar.from_file(tmp_path / "a" / "INCAR")["ISIF"] == isif


def test_what_no_isif_holds_is_refused(call, tmp_path):
    Structure(Lattice.cubic(4.4), ["Mg"], [[0, 0, 0]]).to(str(tmp_path / "a.cif"), fmt="cif")
    assert "no ISIF of VASP holds c: hold" in call("vasp", tmp_path / "a.cif", "--hold", "c").stderr
    assert not (tmp_path / "a").exists()


def test_qe_changes_cell_and_positions_alone(call, tmp_path, random_weights):
    path = tmp_path / "pw.in"
    path.write_text(PW)
    result = call("qe", path)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "pw.in.unrelaxed").read_text() == PW
    text = path.read_text()
    # What its input_dft names is nothing that weights know.
    expected = Relaxer(random_weights, "unknown").relax(read_pw_text(PW)).structure
    written = read(path, format="espresso-in")
    np.testing.assert_allclose(written.cell[:], expected.cell[:], atol=1e-8)
    np.testing.assert_allclose(written.positions, expected.positions, atol=1e-8)
    assert "calculation = 'vc-relax', prefix = 'A = 3' ! A comment" in text
    assert "  ibrav = 0, input_dft = 'A = 1',  nat = 2, ! celldm(1) = 3" in text.splitlines()
    kept = ["&ELECTRONS", "Mg 24.305 Mg.upf", "K_POINTS automatic", "4 4 4 0 0 0"]
    assert all(line in text.splitlines() for line in kept)
    assert next(line for line in text.splitlines() if line.startswith("Mg  ")).split()[4:] == [
        "0",
        "0",
        "0",
    ]
    assert call("qe", path, "--undo").exit_code == 0
    assert path.read_text() == PW


def test_qe_says_what_it_cannot_read(call, tmp_path):
    (tmp_path / "pw.in").write_text("nothing")
    assert "cannot be read as an input of pw.x" in call("qe", tmp_path / "pw.in").stderr
    assert "no file" in call("qe", tmp_path / "other.in").stderr
    (tmp_path / "pw.in").write_text(PW.replace("ibrav = 0", "ibrav = 15"))
    assert "ibrav is 15: pw.x knows 0 and" in call("qe", tmp_path / "pw.in").stderr


ROCKSALT = """NaCl
SCALE
1.0 0.0 0.0 ! a
0.0 1.0d0 0.0
0.0 0.0 1.0
Na Cl # two
1 1 ! of each
MODE
0.0 0.0 0.0
0.5 0.5 0.5
"""


@pytest.mark.parametrize(
    ("scale", "mode", "lengths", "second"),
    [
        ("-64.0", "Cartesian", [4, 4, 4], [2, 2, 2]),
        ("-64.0", "direct", [4, 4, 4], [2, 2, 2]),
        ("2.0 3.0 4.0", "k", [2, 3, 4], [1, 1.5, 2]),
        ("4.0 ! Angstrom", "Direct", [4, 4, 4], [2, 2, 2]),
    ],
)
def test_every_scale_of_a_poscar(scale, mode, lengths, second):
    text = read_poscar_text(ROCKSALT.replace("SCALE", scale).replace("MODE", mode))
    structure = text.structure()
    np.testing.assert_allclose(structure.lattice.abc, lengths)
    np.testing.assert_allclose(structure.cart_coords[1], second)
    again = read_poscar_text(text.with_structure(structure)).structure()
    np.testing.assert_allclose(again.cart_coords, structure.cart_coords, atol=1e-12)


def test_an_interrupted_swap_leaves_the_users_file(call, folder, monkeypatch):
    before = listing(folder)

    def interrupted(source, target):
        target.write_bytes(source.read_bytes()[:7])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copy2", interrupted)
        with pytest.raises(KeyboardInterrupt):
            swap.swap(folder / "POSCAR", "new", {})
    assert listing(folder) == before
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            swap.swap(folder / "POSCAR", "new", {})
    assert listing(folder) == before
    assert call("vasp", folder).exit_code == 0


def interrupt(*_):
    raise KeyboardInterrupt


def test_two_runs_at_once_keep_the_users_file(folder):
    swap.swap(folder / "POSCAR", "first", {})
    with pytest.raises(ValueError, match="is prepared already"):
        swap.swap(folder / "POSCAR", "second", {})
    assert (folder / "POSCAR").read_text() == "first"
    assert (folder / "POSCAR.unrelaxed").read_text() == POSCAR


@pytest.mark.parametrize("record", ["", "{}", "[]"])
def test_a_damaged_record_does_not_keep_the_file_from_its_user(call, folder, record):
    call("vasp", folder)
    (folder / "POSCAR.deeprelax.json").write_text(record)
    result = call("vasp", folder, "--undo")
    assert "pass --force" in result.stderr
    assert call("vasp", folder, "--undo", "--force").exit_code == 0
    assert (folder / "POSCAR").read_text() == POSCAR


def test_a_linked_poscar_is_kept_as_bytes(call, folder, tmp_path):
    (tmp_path / "shared").write_text(POSCAR)
    (folder / "POSCAR").unlink()
    (folder / "POSCAR").symlink_to(tmp_path / "shared")
    assert call("vasp", folder).exit_code == 0
    assert (tmp_path / "shared").read_text() == POSCAR
    assert call("vasp", folder, "--undo").exit_code == 0
    assert (folder / "POSCAR").readlink() == tmp_path / "shared"
    assert not list(folder.glob("POSCAR?*"))
    assert call("vasp", folder).exit_code == 0
    (tmp_path / "shared").write_text("changed")
    call("vasp", folder, "--undo")
    assert not (folder / "POSCAR").is_symlink()
    assert (folder / "POSCAR").read_text() == POSCAR


def test_what_a_folder_says_of_its_job(call, folder):
    (folder / "INCAR").write_text(
        "SYSTEM = M\xfcller\nNSW = 9\nIBRION = 1\nISIF = 2\nMAGMOM = 18*1\n", "latin-1"
    )
    assert "MAGMOM has 18 values for 6 atoms" in call("vasp", folder).stderr
    (folder / "INCAR").write_text(
        "SYSTEM = M\xfcller\nNSW = 9\nIBRION = 1\nISIF = 2\nLSORBIT = T\nMAGMOM = 18*1\n",
        "latin-1",
    )
    (folder / "POTCAR").write_text("TITEL =  \n")
    result = call("vasp", folder, "--dry-run")
    assert result.exit_code == 0
    assert "ISIF = 2: the cell is kept" in result.stderr
    assert "no TITEL lines: its order was not checked" in result.stderr
    hydrogen = POTCAR.replace("PBE O", "PBE O.75")
    (folder / "POTCAR").write_text(hydrogen)
    assert call("vasp", folder, "--dry-run").exit_code == 0


@pytest.mark.parametrize(
    ("incar", "sentence"),
    [
        ("", "no ISIF in INCAR (ISIF = 2): the cell is kept"),
        ("LHFCALC = T", "no ISIF in INCAR (ISIF = 0): the cell is kept"),
        ("ISIF = 3", ""),
        ("ISIF = 3\nMETAGGA = SCAN", "a functional that the weights do not know"),
        ("ISIF = 3\nGGA = PE\nIVDW = 20", "a functional that the weights do not know"),
        ("ISIF = 3\nGGA = PE\nIVDW = 12", "relaxed to PBE-D3, the functional of the calculation"),
        ("ISIF = 3\nGGA = PS\nIVDW = 12", "a functional that the weights do not know"),
        *(
            (f"ISIF = 3\n{tags}", "a functional that the weights do not know")
            for tags in (
                "GGA = PE\nLHFCALC = T",
                "METAGGA = R2SCAN\nLUSE_VDW = .TRUE.",
                "GGA = BO",
                "GGA = BO\nLUSE_VDW = F",
                "GGA = PE\nLUSE_VDW = .TRUE.",
                "LVDW = .TRUE.",
            )
        ),
    ],
)
def test_what_an_incar_goes_on_with(call, folder, incar, sentence):
    (folder / "INCAR").write_text(f"NSW = 50\nIBRION = 2\n{incar}\n")
    said = call("vasp", folder, "--dry-run").stderr
    assert sentence in said if sentence else "note" not in said


@pytest.mark.parametrize(
    ("exchange", "tags", "is_known"),
    [("PE", "", True), ("CA", "", False), ("91", "", False), ("CA", "GGA = PE", True),
     ("CA", "IVDW = 0", False)],
)  # fmt: skip
def test_potentials_say_the_functional_where_incar_does_not(call, folder, exchange, tags, is_known):
    potentials = POTCAR.replace("TITEL", f"LEXCH  = {exchange}\n  TITEL")
    (folder / "POTCAR").write_text(potentials)
    (folder / "INCAR").write_text(f"{INCAR}{tags}\n")
    said = call("vasp", folder, "--dry-run").stderr
    assert ("a functional that the weights do not know" not in said) == is_known


def test_an_element_without_inputs_does_not_stop_the_others(call, tmp_path):
    for name, element in (("a", "Po"), ("b", "Mg")):
        Structure(Lattice.cubic(3.4), [element], [[0, 0, 0]]).to(f"{tmp_path}/{name}.cif", "cif")
    files = [tmp_path / "a.cif", tmp_path / "b.cif"]
    result = call("vasp", *files, "--allow-unseen", "--always-move")
    assert result.exit_code == 1
    assert "MPRelaxSet has no inputs for Po1" in result.stderr
    assert not (tmp_path / "a").exists()
    assert (tmp_path / "b" / "POSCAR").exists()


QE_LAYOUTS = {
    "occupations": PW.replace("&SYSTEM\n", "&SYSTEM\n  occupations = 'smearing', degauss = 0.01\n"),
    "small": PW.replace("ATOMIC_POSITIONS {crystal}", "atomic_positions (Crystal) ! here"),
    "cell first": PW.replace("CELL_PARAMETERS alat", "cell_parameters { ALAT }"),
    "comments": PW.replace("O  0.50 0.50 0.50", "# a line\nO  0.50d0 0.5 0.5 ! corner"),
    "one line": PW.replace("&ELECTRONS\n/", "&ELECTRONS conv_thr = 1d-8 /"),
}


@pytest.mark.parametrize("name", QE_LAYOUTS)
def test_qe_in_any_layout(call, tmp_path, name):
    path = tmp_path / "pw.in"
    path.write_text(QE_LAYOUTS[name])
    before = read_pw_text(PW)
    np.testing.assert_allclose(read_pw_text(QE_LAYOUTS[name]).positions, before.positions)
    result = call("qe", path)
    assert result.exit_code == 0, result.output
    text = path.read_text()
    assert not re.search(r"celldm.*=", text.replace("! celldm(1) = 3", ""))
    assert len(read_pw_text(text)) == 2
    assert "Mg.upf" in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("K_POINTS automatic\n4 4 4 0 0 0", "K_POINTS\n1\n0 0 0 1", "k-points in tpiba"),
        (
            "4 4 4 0 0 0",
            "4 4 4 0 0 0\nADDITIONAL_K_POINTS tpiba\n1\n0 0 0.1 0",
            "k-points in tpiba",
        ),
        ("nat = 2", "nat = 1", "nat is 1, and there are 2 positions"),
        ("&CONTROL", "BEGIN\n&CONTROL", "several engine inputs"),
    ],
)
def test_qe_refuses_what_would_not_be_right(call, tmp_path, old, new, message):
    path = tmp_path / "pw.in"
    path.write_text(PW.replace(old, new))
    result = call("qe", path)
    assert result.exit_code == 1
    assert message in result.stderr
    assert path.read_text() == PW.replace(old, new)
    assert [entry.name for entry in tmp_path.iterdir()] == ["pw.in"]


def test_moments_that_are_not_collinear_are_counted_as_they_stand(call, folder):
    incar = INCAR.replace("MAGMOM = 1 -1 4*0", "LSORBIT = T\nMAGMOM = 6*1")
    (folder / "INCAR").write_text(incar)
    assert "MAGMOM has 6 values for 18 (3 for each of 6 atoms)" in call("vasp", folder).stderr
    (folder / "INCAR").write_text(incar.replace("6*1", "2*1 19*0"))
    assert "MAGMOM has 21 values for 18" in call("vasp", folder).stderr
    (folder / "INCAR").write_text(incar.replace("6*1", "18*1"))
    assert call("vasp", folder).exit_code == 0


def test_a_finished_run_is_left_as_it_is(call, folder):
    (folder / "CONTCAR").write_text(POSCAR)
    (folder / "OUTCAR").write_text(f"a run\n{END_OF_OUTCAR}\n")
    before = listing(folder)
    result = call("vasp", folder)
    assert result.exit_code == 0
    assert "finished already, left as it is" in result.stdout
    assert listing(folder) == before
    later = (folder / "OUTCAR").stat().st_mtime + 10
    os.utime(folder / "POSCAR", (later, later))  # another one, to go on from
    assert "finished already" not in call("vasp", folder).stdout
    assert (folder / "POSCAR.unrelaxed").exists()


def test_undo_of_several_passes_over_those_that_were_left_alone(call, folder):
    other = folder.with_name("other")
    shutil.copytree(folder, other)
    assert call("vasp", folder).exit_code == 0
    result = call("vasp", folder, other, "--undo")
    assert result.exit_code == 0
    assert "nothing to restore" in result.stdout
    assert (folder / "POSCAR").read_text() == POSCAR
    assert call("vasp", other, "--undo").exit_code == 1
    assert call("vasp", folder).exit_code == 0
    (folder / "POSCAR.unrelaxed").unlink()  # what it was is lost, and that is no success
    result = call("vasp", folder, other, folder.with_name("nowhere"), "--undo")
    assert result.exit_code == 1
    assert len(re.findall("there is no POSCAR.unrelaxed to restore", result.stderr)) == 2
