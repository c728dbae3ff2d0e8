import io
import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLengths, FixSymmetry
from ase.filters import (
    ExpCellFilter,
    Filter,
    FrechetCellFilter,
    OptimizableFilter,
    StrainFilter,
    UnitCellFilter,
)
from ase.io import read, write
from ase.io.trajectory import Trajectory
from ase.mep import NEB
from ase.optimize import BFGS
from ase.optimize.basin import BasinHopping

from deeprelax_ase import DeepRelaxBFGS, DeepRelaxFIRE, DeepRelaxLBFGS, DeepRelaxOptimizer, Relaxer

PRECONDITIONED = [DeepRelaxBFGS, DeepRelaxLBFGS, DeepRelaxFIRE]


@pytest.fixture(scope="module")
def mover(random_weights):
    return Relaxer(random_weights, allow_unseen=True)


def alloy(seed=0):
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[0] = "Au"
    atoms.positions += np.random.default_rng(seed).normal(scale=0.08, size=(4, 3))
    return atoms


def test_moves_atoms_and_cell_without_calculator(mover):
    atoms = alloy()
    expected = mover.relax(atoms)
    with DeepRelaxOptimizer(atoms, relaxer=mover) as optimizer:
        assert optimizer.run() is True
    np.testing.assert_allclose(atoms.positions, expected.structure.positions, atol=1e-9)
    np.testing.assert_allclose(atoms.cell[:], expected.structure.cell[:], atol=1e-9)
    assert optimizer.get_number_of_steps() == 1
    assert optimizer.converged()
    assert optimizer.forces_converged is None
    assert optimizer.result.status == "relaxed"


def test_atoms_left_as_they_were_keep_what_is_known_of_them(mover, monkeypatch):
    monkeypatch.setattr(
        "deeprelax_ase.relaxation.calibration.Calibration.gain_probability", lambda *_: 0.0
    )
    atoms = alloy()
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    before = atoms.positions.copy(), atoms.cell.copy()
    optimizer = DeepRelaxOptimizer(atoms, relaxer=mover)
    assert optimizer.run()
    assert "left as it was" in optimizer.result.message
    assert atoms.get_potential_energy() == -1.0
    assert np.array_equal(atoms.positions, before[0])
    assert np.array_equal(atoms.cell, before[1])


def test_no_steps_and_second_run(mover):
    atoms = alloy()
    before = atoms.copy()
    optimizer = DeepRelaxOptimizer(atoms, relaxer=mover)
    assert optimizer.run(steps=0) is False
    assert atoms == before
    assert optimizer.run() is True
    moved = atoms.copy()
    assert optimizer.run() is True
    assert atoms == moved
    assert optimizer.get_number_of_steps() == 1


def test_irun_yields_before_and_after(mover):
    optimizer = DeepRelaxOptimizer(alloy(), relaxer=mover)
    assert list(optimizer.irun()) == [False, True]
    assert list(optimizer.irun()) == [True]


def test_trajectory_has_the_first_and_the_last_frame(mover, tmp_path):
    atoms = alloy()
    before = atoms.copy()
    path = tmp_path / "move.traj"
    with DeepRelaxOptimizer(atoms, trajectory=str(path), relaxer=mover) as optimizer:
        optimizer.run()
    frames = read(path, ":")
    assert len(frames) == 2
    np.testing.assert_allclose(frames[0].positions, before.positions)
    np.testing.assert_allclose(frames[1].positions, atoms.positions)
    np.testing.assert_allclose(frames[1].cell[:], atoms.cell[:])
    with Trajectory(path) as trajectory:
        assert trajectory.description["optimizer"] == "DeepRelaxOptimizer"
        assert trajectory.description["functional"] == "PBE"
    with DeepRelaxOptimizer(
        atoms, trajectory=str(path), append_trajectory=True, relaxer=mover
    ) as optimizer:
        optimizer.run()
    assert len(read(path, ":")) == 4


def test_open_trajectory_is_written_to(mover, tmp_path):
    path = tmp_path / "open.traj"
    with Trajectory(path, "w") as trajectory:
        DeepRelaxOptimizer(alloy(), trajectory=trajectory, relaxer=mover).run()
    assert len(read(path, ":")) == 2


def test_log_lines(mover, tmp_path, capsys):
    path = tmp_path / "log"
    with DeepRelaxOptimizer(alloy(), logfile=str(path), relaxer=mover) as optimizer:
        optimizer.run()
    lines = path.read_text().splitlines()
    assert len(lines) == 3
    assert lines[0].split()[:2] == ["Step", "Volume"]
    assert lines[1].startswith("DeepRelaxOptimizer:    0")
    assert lines[2].endswith("relaxed")
    DeepRelaxOptimizer(alloy(), logfile="-", relaxer=mover).run()
    assert len(capsys.readouterr().out.splitlines()) == 3
    stream = io.StringIO()
    DeepRelaxOptimizer(alloy(), logfile=stream, relaxer=mover).run()
    assert len(stream.getvalue().splitlines()) == 3


def test_observers(mover):
    seen = []
    optimizer = DeepRelaxOptimizer(alloy(), relaxer=mover)
    optimizer.attach(lambda text: seen.append((text, optimizer.nsteps)), 1, "here")
    optimizer.run()
    assert seen == [("here", 0), ("here", 1)]


def test_restart_file_remembers(mover, tmp_path):
    path = tmp_path / "restart.json"
    atoms = alloy()
    DeepRelaxOptimizer(atoms, restart=str(path), relaxer=mover).run()
    assert json.loads(path.read_text())["relaxed"] is True
    moved = atoms.copy()
    again = DeepRelaxOptimizer(atoms, restart=str(path), relaxer=mover)
    assert again.run() is True
    assert atoms == moved


def test_forces_are_another_question(mover):
    atoms = alloy()
    atoms.calc = EMT()
    optimizer = DeepRelaxOptimizer(atoms, relaxer=mover)
    assert optimizer.run(fmax=1e-6) is True
    assert optimizer.forces_converged is False
    optimizer.run(fmax=1e3)
    assert optimizer.forces_converged is True


def test_fixed_cell_of_bare_atoms(random_weights):
    atoms = alloy()
    atoms.symbols[:] = "Ti"
    cell = atoms.cell.copy()
    DeepRelaxOptimizer(atoms, model=random_weights, relax_cell=False).run()
    np.testing.assert_array_equal(atoms.cell[:], cell[:])


@pytest.mark.parametrize("wrap", [UnitCellFilter, FrechetCellFilter, ExpCellFilter])
def test_cell_filters(mover, wrap):
    free, filtered = alloy(), alloy()
    DeepRelaxOptimizer(free, relaxer=mover).run()
    DeepRelaxOptimizer(wrap(filtered), relaxer=mover).run()
    np.testing.assert_allclose(filtered.cell[:], free.cell[:], atol=1e-9)
    np.testing.assert_allclose(filtered.positions, free.positions, atol=1e-9)


def test_filter_options_are_honoured(mover):
    reference = alloy()
    old = reference.cell.copy()
    volume = reference.get_volume()

    def strain(**options):
        atoms = alloy()
        DeepRelaxOptimizer(FrechetCellFilter(atoms, **options), relaxer=mover).run()
        return atoms, np.linalg.solve(old[:], atoms.cell[:])

    _, masked = strain(mask=[True, False, False, False, False, False])
    np.testing.assert_allclose(masked[1:, :], np.eye(3)[1:, :], atol=1e-12)
    assert abs(masked[0, 0] - 1) > 1e-5
    _, hydrostatic = strain(hydrostatic_strain=True)
    np.testing.assert_allclose(hydrostatic, hydrostatic[0, 0] * np.eye(3), atol=1e-12)
    atoms, _ = strain(constant_volume=True)
    assert atoms.get_volume() == pytest.approx(volume)


def test_strain_filter_moves_the_cell_alone(mover):
    atoms = alloy()
    scaled = atoms.get_scaled_positions()
    old = atoms.cell.copy()
    DeepRelaxOptimizer(StrainFilter(atoms, mask=[1, 1, 1, 0, 0, 0]), relaxer=mover).run()
    np.testing.assert_allclose(atoms.get_scaled_positions(), scaled, atol=1e-9)
    deformation = np.linalg.solve(old[:], atoms.cell[:])
    assert abs(deformation[0, 0] - 1) > 1e-6
    np.testing.assert_allclose(deformation - np.diag(deformation.diagonal()), 0, atol=1e-12)


def test_plain_filter_moves_what_it_shows(mover):
    atoms = alloy()
    before = atoms.copy()
    DeepRelaxOptimizer(Filter(atoms, indices=[1, 2]), relaxer=mover).run()
    np.testing.assert_array_equal(atoms.cell[:], before.cell[:])
    np.testing.assert_allclose(atoms.positions[[0, 3]], before.positions[[0, 3]], atol=1e-12)
    assert np.abs(atoms.positions - before.positions)[[1, 2]].max() > 1e-6


def test_constraints_hold(mover):
    atoms = alloy()
    atoms.set_constraint(FixAtoms([0]))
    scaled = atoms.get_scaled_positions()
    DeepRelaxOptimizer(atoms, relaxer=mover).run()
    np.testing.assert_allclose(atoms.get_scaled_positions()[0], scaled[0], atol=1e-9)
    assert len(atoms.constraints) == 1


def test_fix_symmetry_holds(mover):
    atoms = bulk("Cu", cubic=True)
    atoms.set_constraint(FixSymmetry(atoms))
    DeepRelaxOptimizer(atoms, relaxer=mover).run()
    assert np.ptp(atoms.cell.lengths()) < 1e-9


def test_the_move_that_was_made_is_reported(mover):
    atoms = alloy()
    optimizer = DeepRelaxOptimizer(FrechetCellFilter(atoms, mask=[False] * 6), relaxer=mover)
    optimizer.run()
    assert optimizer.result.volume_change == pytest.approx(0, abs=1e-12)
    held = alloy()
    held.set_constraint(FixAtoms(range(4)))
    optimizer = DeepRelaxOptimizer(held, relaxer=mover, relax_cell=False)
    optimizer.run()
    assert optimizer.result.largest_displacement < 1e-9


def test_bond_lengths_hold_through_a_change_of_the_cell(mover):
    atoms = alloy()
    length = atoms.get_distance(0, 1)
    constraint = FixBondLengths([[0, 1]])
    atoms.set_constraint(constraint)
    DeepRelaxOptimizer(atoms, relaxer=mover).run()
    assert atoms.get_distance(0, 1) == pytest.approx(length, abs=1e-6)
    assert constraint.bondlengths is None


def test_a_restart_file_of_another_optimizer(mover, tmp_path):
    path = tmp_path / "bfgs.json"
    atoms = alloy()
    atoms.calc = EMT()
    BFGS(atoms, restart=str(path), logfile=None).run(steps=2)
    with pytest.raises(ValueError, match="is no restart file of DeepRelaxOptimizer"):
        DeepRelaxOptimizer(atoms, restart=str(path), relaxer=mover)


def test_a_refused_move_warns_and_goes_on(mover, monkeypatch):
    monkeypatch.setattr("deeprelax_ase.relaxation.sanity_checks.LARGEST_DISPLACEMENT", 0.0)
    atoms = alloy()
    atoms.calc = EMT()
    dynamics = DeepRelaxBFGS(atoms, logfile=None, relaxer=mover)
    with pytest.warns(UserWarning, match="starts from the input itself"):
        assert dynamics.run(fmax=0.05)


def test_refusal_is_not_success(mover, monkeypatch):
    atoms = alloy()
    before = atoms.copy()
    monkeypatch.setattr("deeprelax_ase.relaxation.sanity_checks.LARGEST_DISPLACEMENT", 0.0)
    optimizer = DeepRelaxOptimizer(atoms, relaxer=mover)
    assert optimizer.run() is False
    assert optimizer.result.status == "refused"
    assert atoms == before


@pytest.mark.parametrize("optimizer", [DeepRelaxOptimizer, *PRECONDITIONED])
def test_bad_targets(optimizer, mover):
    with pytest.raises(ValueError, match="cannot relax a NEB"):
        optimizer(NEB([alloy(), alloy()]), relaxer=mover)
    with pytest.raises(ValueError, match="cannot relax a str"):
        optimizer("POSCAR", relaxer=mover)
    pressed = FrechetCellFilter(alloy(), scalar_pressure=0.01)
    with pytest.raises(ValueError, match=r"scalar_pressure=0.01"):
        optimizer(pressed, relaxer=mover)


@pytest.mark.parametrize("optimizer", PRECONDITIONED)
def test_then_relaxes_to_fmax(optimizer, mover, tmp_path):
    atoms = alloy()
    atoms.calc = EMT()
    cell = atoms.cell.copy()
    path = tmp_path / "relax.traj"
    with optimizer(atoms, logfile=None, trajectory=str(path), relaxer=mover) as dynamics:
        assert dynamics.run(fmax=0.02) is True
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 0.02
    np.testing.assert_array_equal(atoms.cell[:], cell[:])
    assert dynamics.result.status == "relaxed"
    assert len(read(path, ":")) == dynamics.get_number_of_steps() + 1


@pytest.mark.parametrize("optimizer", PRECONDITIONED)
def test_then_relaxes_the_cell_of_a_filter(optimizer, mover):
    atoms = alloy()
    atoms.calc = EMT()
    dynamics = optimizer(FrechetCellFilter(atoms), logfile=None, relaxer=mover)
    converged = list(dynamics.irun(fmax=0.05, steps=200))
    assert converged[-1]
    assert np.abs(atoms.get_stress()).max() < 0.05


def test_strain_filter_stays_consistent(mover):
    atoms = alloy()
    atoms.calc = EMT()
    dynamics = DeepRelaxBFGS(StrainFilter(atoms), logfile=None, relaxer=mover)
    assert dynamics.run(fmax=0.05, steps=100)


def test_finds_the_minimum_that_the_stock_optimizer_finds(mover):
    ours, stock = alloy(), alloy()
    ours.calc, stock.calc = EMT(), EMT()
    DeepRelaxBFGS(ours, logfile=None, relaxer=mover).run(fmax=1e-3)
    BFGS(stock, logfile=None).run(fmax=1e-3)
    assert ours.get_potential_energy() == pytest.approx(stock.get_potential_energy(), abs=1e-4)


@pytest.mark.parametrize("optimizer", PRECONDITIONED)
def test_without_calculator_nothing_moves(optimizer, mover):
    atoms = alloy()
    before = atoms.copy()
    with pytest.raises(ValueError, match=r"set atoms.calc, or use DeepRelaxOptimizer"):
        optimizer(atoms, logfile=None, relaxer=mover).run(fmax=0.05)
    assert atoms == before


def test_zero_steps_make_no_move(mover):
    atoms = alloy()
    atoms.calc = EMT()
    before = atoms.positions.copy()
    DeepRelaxBFGS(atoms, logfile=None, relaxer=mover).run(fmax=0.01, steps=0)
    np.testing.assert_array_equal(atoms.positions, before)


def test_a_restarted_relaxation_makes_no_second_move(mover, tmp_path):
    path = tmp_path / "bfgs.json"
    atoms = alloy()
    atoms.calc = EMT()
    DeepRelaxBFGS(atoms, restart=str(path), logfile=None, relaxer=mover).run(fmax=0.01, steps=3)
    again = DeepRelaxBFGS(atoms, restart=str(path), logfile=None, relaxer=mover)
    assert again.run(fmax=0.01)
    assert again.result is None


def test_molecules_relax_too(mover):
    atoms = Atoms("O2", [[0, 0, 0], [0, 0, 1.1]], calculator=LennardJones())
    DeepRelaxFIRE(atoms, logfile=None, relaxer=mover).run(fmax=0.05)
    assert not atoms.cell.any()


def test_vacuum_is_what_the_relaxer_takes_it_for(random_weights):
    relaxer = Relaxer(random_weights, vacuum="none", allow_unseen=True, always_move=True)
    atoms = alloy()
    atoms.set_cell([3.6, 3.6, 14])
    expected = relaxer.relax(atoms).structure
    assert abs(expected.cell[2, 2] - 14) > 1e-4
    DeepRelaxOptimizer(atoms, relaxer=relaxer).run()
    np.testing.assert_allclose(atoms.cell[:], expected.cell[:], atol=1e-9)
    np.testing.assert_allclose(atoms.positions, expected.positions, atol=1e-9)


def test_basin_hopping_of_ase_takes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atoms = bulk("Cu", cubic=True, a=3.7)
    atoms.calc = EMT()
    BasinHopping(atoms, optimizer=DeepRelaxFIRE, logfile=None, optimizer_logfile=None).run(1)
    filtered = OptimizableFilter(FrechetCellFilter(atoms))
    assert DeepRelaxOptimizer(filtered, logfile=None).atoms is filtered.filterobj


def test_bonds_that_cannot_all_be_kept_are_no_error():
    atoms = bulk("CsCl", "cesiumchloride", a=4.5, cubic=True) * (2, 1, 1)
    atoms.set_constraint(FixBondLengths([[0, 1], [1, 2], [2, 3], [3, 0]]))
    before = atoms.positions.copy()
    optimizer = DeepRelaxOptimizer(atoms, logfile=None)
    assert not optimizer.run()
    assert optimizer.result.status == "refused"
    assert "constraints cannot be obeyed" in optimizer.result.message
    assert (atoms.positions == before).all()


def test_a_calculator_forgets_what_it_knew_of_the_old_atoms(tmp_path):
    atoms = bulk("Cu", cubic=True, a=3.8)
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    energy = atoms.get_potential_energy()
    result = Relaxer(functional="PBE").relax(atoms)
    assert result.status == "relaxed"
    assert result.structure.calc is None
    assert atoms.calc.results["energy"] == energy
    DeepRelaxOptimizer(atoms, logfile=None, functional="PBE").run()
    assert not atoms.calc.results
    write(tmp_path / "relaxed.xyz", atoms)
    assert read(tmp_path / "relaxed.xyz").calc is None
    assert atoms.get_potential_energy() < energy


def test_a_strain_filter_goes_a_long_way_with_a_symmetry():
    atoms = bulk("MgO", "rocksalt", a=3.4)
    atoms.set_constraint(FixSymmetry(atoms))
    first = atoms.cell.array.copy()
    target = StrainFilter(atoms)
    for _ in range(2):
        DeepRelaxOptimizer(target, logfile=None, functional="PBE").run()
        assert np.abs(target.strain[:3]).max() > 0.2
        positions = target.get_positions()
        before = atoms.cell.array.copy()
        target.set_positions(positions)  # to where it is
        np.testing.assert_allclose(atoms.cell.array, before, atol=1e-9)
    assert np.linalg.det(atoms.cell.array) > 1.5 * np.linalg.det(first)


def test_a_strain_filter_of_a_slab_without_a_third_vector():
    atoms = fcc111("Al", (1, 1, 4), a=4.2)
    target = StrainFilter(atoms, mask=[1, 1, 0, 0, 0, 0])
    DeepRelaxOptimizer(target, logfile=None, functional="PBE").run()
    assert abs(target.strain[0]) > 0.001
    assert target.strain[2] == 0
