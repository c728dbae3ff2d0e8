"""What is no relaxed structure is no target, whichever file says so."""

import numpy as np
import pytest
import sources
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from typer.testing import CliRunner

from deeprelax_ase import DeepRelaxOptimizer
from deeprelax_ase.cli import app
from deeprelax_ase.datasets.import_pairs import Report, convert
from deeprelax_ase.datasets.importers.ended_runs import END_OF_OUTCAR
from deeprelax_ase.files.read_files import read_structures


def convert_all(path):
    report = Report()
    return len(list(convert(path, report))), report.first or ""


INCAR = "NSW = 5\nIBRION = 2\nISIF = 3\n"
OSZICAR = "DAV:   1\n   {} F= -.1E+02 E0= -.1E+02  d E =-.2E-01\n"


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"INCAR": INCAR}, ""),
        ({"INCAR": INCAR, "OSZICAR": OSZICAR.format(4), "OUTCAR": END_OF_OUTCAR}, ""),
        ({"INCAR": INCAR, "OSZICAR": OSZICAR.format(5)}, "it used up its 5 ionic steps"),
        ({"INCAR": INCAR, "OUTCAR": "running on 4 cores\n"}, "its OUTCAR has no end"),
        ({"INCAR": INCAR + "PSTRESS = 500\n"}, "PSTRESS = 500"),
        ({"INCAR": INCAR + "ICHAIN = 2\n"}, "ICHAIN = 2"),
        ({"INCAR": INCAR.replace("3", "7")}, "keep their fractional coordinates (ISIF = 7)"),
        ({"INCAR": INCAR.replace("3", "4")}, "its volume is held (ISIF = 4)"),
        ({"INCAR": INCAR.replace("3", "8")}, "its shape is held (ISIF = 8)"),
        ({"INCAR": INCAR + "LATTICE_CONSTRAINTS = .TRUE. .FALSE. T\n"}, "LATTICE_CONSTRAINTS"),
        ({"INCAR": INCAR + "LATTICE_CONSTRAINTS = .TRUE. T T\n"}, ""),
    ],
)
def test_runs_by_their_contcar(tmp_path, files, why):
    sources.vasp_contcar(tmp_path)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    count, said = convert_all(tmp_path)
    assert count == (not why)
    assert why in said


@pytest.mark.parametrize(
    ("tag", "why"),
    [("PSTRESS", "PSTRESS = 5 kB"), ("ICHAIN", "ICHAIN = 5"), ("ISIF", "(ISIF = 5)")],
)
def test_runs_by_their_vasprun(tmp_path, tag, why):
    sources.vasp_xml(tmp_path)
    (path,) = tmp_path.glob("vasprun.xml*")
    line = f'<incar><i type="int" name="{tag}">5</i>'
    path.write_text(path.read_text().replace("<incar>", line))
    count, said = convert_all(tmp_path)
    assert count == 0
    assert why in said


def test_the_record_of_a_prediction_and_copies_of_editors_are_no_starts(tmp_path):
    sources.vasp_contcar(tmp_path)
    (tmp_path / "INCAR").write_text(INCAR)
    (tmp_path / "POTCAR").write_text(" LEXCH  = PE\n")
    (tmp_path / "POSCAR").rename(tmp_path / "POSCAR.unrelaxed")
    (tmp_path / "POSCAR").write_bytes((tmp_path / "CONTCAR").read_bytes())
    (tmp_path / "POSCAR.deeprelax.json").write_text("{}")
    for ending in ("~", ".bak", ".swp"):
        (tmp_path / f"POSCAR{ending}").write_text("nothing\n")
    report = Report()
    (row,) = convert(tmp_path, report)
    assert row.pair.functional == "PBE"
    start = read_structures(tmp_path / "POSCAR.unrelaxed").structures[0]
    assert np.allclose(row.pair.crystal.cell, start.lattice.matrix)


def test_trajectories(tmp_path):
    copper = bulk("Cu", cubic=True)
    copper.rattle(0.1, seed=1)
    copper.calc = EMT()
    for name, fmax, steps in (("a", 0.05, 100), ("b", 1e-4, 2)):
        atoms = copper.copy()
        atoms.calc = EMT()
        BFGS(atoms, trajectory=str(tmp_path / f"{name}.traj"), logfile=None).run(fmax, steps)
    perfect = bulk("Cu", cubic=True, a=3.9)  # whose forces vanish in any cell
    perfect.calc = EMT()
    cell = FrechetCellFilter(perfect)
    BFGS(cell, trajectory=str(tmp_path / "d.traj"), logfile=None).run(fmax=0.01, steps=1)
    assert "it used up its 1 steps" in convert_all(tmp_path / "d.traj")[1]
    VelocityVerlet(copper, units.fs, trajectory=str(tmp_path / "c.traj")).run(3)
    assert convert_all(tmp_path / "a.traj") == (1, "")
    count, said = convert_all(tmp_path / "b.traj")
    assert count == 0
    assert "it used up its 2 steps" in said
    assert "it is molecular dynamics" in convert_all(tmp_path / "c.traj")[1]


def test_what_a_folder_holds_besides_is_told(tmp_path):
    sources.vasp_contcar(tmp_path)
    BFGS(Atoms("Cu", calculator=EMT()), trajectory=str(tmp_path / "a.traj"), logfile=None).run()
    result = CliRunner().invoke(app, ["data", str(tmp_path), str(tmp_path / "out.parquet")])
    assert result.exit_code == 0, result.output
    assert "1 pairs of 1, 0 left out" in result.stdout
    assert "also holds a trajectory, which was not read" in result.stderr


def test_what_was_predicted_is_no_target(tmp_path, random_weights):
    atoms = bulk("MgO", "rocksalt", a=4.5)
    path = tmp_path / "own.traj"
    options = {"model": str(random_weights), "always_move": True}
    DeepRelaxOptimizer(atoms, trajectory=str(path), logfile=None, **options).run()
    count, said = convert_all(path)
    assert count == 0
    assert "it ends where DeepRelaxOptimizer predicts" in said
