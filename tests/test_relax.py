import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, make_supercell, mx2
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.mep import NEB
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.io.ase import AseAtomsAdaptor
from scipy.spatial.transform import Rotation

from deeprelax_ase import solver
from deeprelax_ase.network.checkpoint import load_weights, save_weights
from deeprelax_ase.network.paegnn import PaEGNN
from deeprelax_ase.relaxation.options import RelaxOptions
from deeprelax_ase.relaxation.relaxer import Relaxer, shared_relaxer
from deeprelax_ase.structures.read_structure import HeldStructure

ELEMENTS = [8, 12, 22, 38]


@pytest.fixture(scope="module")
def random_relaxer(random_weights):
    return Relaxer(random_weights)


def rutile(rng=None, scale=0.05):
    atoms = Atoms(
        "Ti2O4",
        scaled_positions=[
            [0, 0, 0],
            [0.5, 0.5, 0.5],
            [0.3, 0.3, 0],
            [0.7, 0.7, 0],
            [0.8, 0.2, 0.5],
            [0.2, 0.8, 0.5],
        ],
        cell=[4.7, 4.7, 3.1],
        pbc=True,
    )
    if rng is not None:
        atoms.positions += rng.normal(scale=scale, size=(6, 3))
    return atoms


def test_result_says_what_happened(random_relaxer, rng):
    atoms = rutile(rng)
    result = random_relaxer.relax(atoms)
    assert result.status == "relaxed"
    assert result.message == ""
    assert result.formula in ("TiO2", "O2Ti")
    assert result.num_atoms == 6
    assert result.displacement.shape == (6, 3)
    np.testing.assert_allclose(result.displacement.mean(axis=0), 0, atol=1e-12)
    deformation = torch.linalg.matrix_exp(torch.from_numpy(result.strain)).numpy()
    np.testing.assert_allclose(result.structure.cell[:], atoms.cell[:] @ deformation, atol=1e-9)
    expected = (atoms.positions + result.displacement) @ deformation
    np.testing.assert_allclose(result.structure.positions, expected, atol=1e-9)
    ratio = result.structure.get_volume() / atoms.get_volume()
    assert result.volume_change == pytest.approx(ratio - 1)
    # The calibration of these weights: 2 for displacements, 0.001 for distances.
    assert result.expected_error == pytest.approx(result.bonds.uncertainties.mean())
    assert result.expected_error == pytest.approx(0.001 * result.uncertainty)
    assert result.site_errors.shape == (6,)
    assert len(result.weights.sha256) == 64
    assert result.seconds > 0


def test_bonds_are_counted_in_the_users_cell(random_relaxer):
    atoms = mx2("MoS2", a=3.2, vacuum=9.0)
    atoms.set_atomic_numbers([22, 8, 8])
    atoms.pbc = True
    atoms.positions[:, 2] -= atoms.positions[:, 2].mean()
    atoms.wrap()
    result = random_relaxer.relax(atoms)
    i, j = result.bonds.edge_index
    vectors = atoms.positions[j] + result.bonds.offsets @ atoms.cell[:] - atoms.positions[i]
    assert np.linalg.norm(vectors, axis=1).max() < 6.0
    relaxed = result.structure
    vectors = relaxed.positions[j] + result.bonds.offsets @ relaxed.cell[:] - relaxed.positions[i]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), result.bonds.lengths)
    assert (result.bonds.distances > 0).all()


def test_type_in_is_type_out(random_relaxer):
    atoms = rutile()
    structure = AseAtomsAdaptor.get_structure(atoms)
    from_atoms, from_structure = (random_relaxer.relax(s).structure for s in (atoms, structure))
    assert type(from_atoms) is type(atoms)
    assert type(from_structure) is type(structure)
    np.testing.assert_allclose(from_structure.lattice.matrix, from_atoms.cell[:], atol=1e-9)
    np.testing.assert_allclose(from_structure.cart_coords, from_atoms.positions, atol=1e-9)


@given(seed=st.integers(0, 10_000), mirrored=st.booleans())
@settings(max_examples=10)
def test_rotation_reflection_translation_permutation(random_relaxer, seed, mirrored):
    rng = np.random.default_rng(seed)
    atoms = rutile(rng)
    rotation = Rotation.random(random_state=seed).as_matrix() * (-1 if mirrored else 1)
    order = rng.permutation(len(atoms))
    turned = atoms[order]
    turned.set_cell(atoms.cell[:] @ rotation)
    turned.set_positions(atoms.positions[order] @ rotation + [0.3, -1.2, 5.0])
    here, there = random_relaxer.relax(atoms), random_relaxer.relax(turned)
    np.testing.assert_allclose(there.displacement, here.displacement[order] @ rotation, atol=2e-5)
    np.testing.assert_allclose(there.strain, rotation.T @ here.strain @ rotation, atol=2e-5)


@pytest.mark.parametrize(
    "change",
    [np.diag([2, 1, 1]), [[1, 1, 0], [0, 1, 0], [0, 0, 1]], [[0, 1, 1], [1, 0, 1], [1, 1, 0]]],
)
def test_cells_and_supercells(random_relaxer, rng, change):
    """The relaxed supercell is the supercell of the relaxed cell."""
    atoms = rutile(rng)
    result = random_relaxer.relax(atoms)
    larger = make_supercell(atoms, change)
    larger_result = random_relaxer.relax(larger)
    np.testing.assert_allclose(larger_result.strain, result.strain, atol=2e-5)
    expected = make_supercell(result.structure, change)
    np.testing.assert_allclose(larger_result.structure.cell[:], expected.cell[:], atol=2e-4)
    apart = larger_result.structure.positions[:, None] - expected.positions[None]
    scaled = apart @ np.linalg.inv(expected.cell[:])
    distances = np.linalg.norm((scaled - np.rint(scaled)) @ expected.cell[:], axis=-1)
    shift = larger_result.structure.positions[0] - expected.positions[distances[0].argmin()]
    assert np.linalg.norm(shift) < 1e-3
    assert distances.min(axis=1).max() < 1e-3


def test_space_group_is_kept_from_rounded_coordinates(relaxer):
    """Four decimals, as in many CIF files."""
    structure = AseAtomsAdaptor.get_structure(rutile())
    hexagonal = bulk("ZnO", "wurtzite", a=3.4, c=5.3)
    hexagonal.set_scaled_positions(np.round(hexagonal.get_scaled_positions(), 4))
    for crystal in (structure, AseAtomsAdaptor.get_structure(hexagonal)):
        before = crystal.get_space_group_info(symprec=1e-3)
        relaxed = relaxer.relax(crystal).structure
        assert relaxed.get_space_group_info(symprec=1e-3) == before
        assert relaxed.get_space_group_info(symprec=1e-6)[1] >= 100


def test_many_equals_one(random_relaxer, rng):
    some = [rutile(rng), bulk("MgO", "rocksalt", a=4.3), rutile(rng) * (2, 1, 1), Atoms("O")]
    for size in (1, 100, 10_000):
        many = Relaxer(load_weights(random_relaxer.weights.name), edges_per_batch=size)
        for atoms, result in zip(some, many.relax_many(some), strict=True):
            single = random_relaxer.relax(atoms)
            np.testing.assert_allclose(
                result.structure.positions, single.structure.positions, atol=1e-4
            )
            assert result.formula == single.formula


def test_many_is_lazy_and_goes_on(random_relaxer):
    taken = []

    def stream():
        for number in range(8):
            taken.append(number)
            yield Atoms() if number == 2 else rutile() * (4, 4, 4)

    results = random_relaxer.relax_many(stream())
    first = next(results)
    assert first.status == "relaxed"
    assert len(taken) < 8
    rest = list(results)
    assert [r.status for r in rest] == ["relaxed", "failed", *["relaxed"] * 5]
    assert "empty" in rest[1].message
    assert rest[1].bonds is None
    assert len(rest[1].structure) == 0


class Stubborn(FixAtoms):
    """A constraint that cannot be met."""

    def adjust_positions(self, *_args):
        message = "not with me"
        raise RuntimeError(message)


def test_one_failure_in_a_batch_costs_one_structure(random_relaxer, rng):
    some = [rutile(rng) for _ in range(5)]
    some[3].set_constraint(Stubborn([0]))
    results = list(random_relaxer.relax_many(some))
    assert [r.status for r in results] == ["relaxed"] * 3 + ["failed", "relaxed"]
    assert results[3].message == "RuntimeError: not with me"
    with pytest.raises(RuntimeError, match="not with me"):
        random_relaxer.relax(some[3])


def test_displacement_of_held_atoms_is_zero(random_relaxer, rng):
    atoms = rutile(rng)
    atoms.set_constraint(FixAtoms([1, 4]))
    result = random_relaxer.relax(atoms)
    np.testing.assert_allclose(result.displacement[[1, 4]], 0, atol=1e-12)
    assert result.largest_displacement > 0


def test_fixed_cell(random_weights, rng):
    atoms = rutile(rng)
    result = Relaxer(random_weights, relax_cell=False).relax(atoms)
    np.testing.assert_array_equal(result.structure.cell[:], atoms.cell[:])
    assert result.largest_displacement > 0
    assert result.volume_change == 0


def test_sheets_keep_their_thickness_of_vacuum(random_relaxer):
    sheet = mx2("MoS2", a=3.2, vacuum=10)
    sheet.set_atomic_numbers([22, 8, 8])
    bare = sheet.copy()
    sheet.pbc = True
    there, here = random_relaxer.relax(sheet), random_relaxer.relax(bare)
    assert "axis c is vacuum" in there.message
    np.testing.assert_allclose(there.structure.cell[2], sheet.cell[2], atol=1e-12)
    np.testing.assert_allclose(there.structure.positions, here.structure.positions, atol=1e-5)


def test_a_sheet_is_the_same_in_a_cell_that_leans(random_relaxer):
    sheet = mx2("MoS2", a=3.2, vacuum=10)
    sheet.set_atomic_numbers([22, 8, 8])
    sheet.pbc = True
    leaning = sheet.copy()
    leaning.set_cell([sheet.cell[0] + sheet.cell[2], sheet.cell[1], sheet.cell[2]])
    there, here = random_relaxer.relax(leaning), random_relaxer.relax(sheet)
    assert "normal to (1 0 1) is vacuum" in there.message
    np.testing.assert_allclose(there.strain, here.strain, atol=1e-6)
    np.testing.assert_allclose(there.structure.cell[2], sheet.cell[2], atol=1e-12)
    for result in (there, here):  # bonds are between cells of what was given
        i, j = result.bonds.edge_index
        structure = result.structure
        vectors = structure.positions[j] + result.bonds.offsets @ structure.cell[:]
        lengths = np.linalg.norm(vectors - structure.positions[i], axis=1)
        np.testing.assert_allclose(lengths, result.bonds.lengths, atol=1e-6)


@pytest.mark.parametrize(
    "atoms",
    [Atoms("O"), Atoms("O", cell=[20] * 3, pbc=True), Atoms("O2", [[0, 0, 0], [9, 0, 0]])],
)
def test_nothing_to_relax(random_relaxer, atoms):
    result = random_relaxer.relax(atoms)
    np.testing.assert_allclose(result.structure.positions, atoms.positions)
    np.testing.assert_allclose(result.structure.cell[:], atoms.cell[:])
    assert result.status == "unchanged"
    assert np.isnan(result.expected_error)


@pytest.mark.parametrize(
    "atoms",
    [
        bulk("MgO", "rocksalt", a=42.1),
        bulk("TiO", "zincblende", a=54.0),
        Atoms("Ti2", [[0, 0, 0], [50, 0, 0]], cell=[100, 50, 50], pbc=True),
        Atoms("MgO", [[0, 0, 0], [0, 0, 7]], cell=[7, 7, 14], pbc=[True, True, False]),
    ],
    ids=str,
)
def test_a_cell_in_the_wrong_unit_is_refused(random_relaxer, atoms):
    result = random_relaxer.relax(atoms)
    assert result.status == "refused"
    assert "is the cell in Å?" in result.message
    assert np.isnan(result.expected_error)


def test_one_atom_cells_and_thin_cells(random_relaxer):
    for atoms in (
        Atoms("Ti", cell=[2.6] * 3, pbc=True),
        Atoms("TiO", [[0, 0, 0], [0, 0, 2]], cell=[5, 5, 20], pbc=[True, True, False]),
        rutile() * (1, 1, 12),
    ):
        assert random_relaxer.relax(atoms).status == "relaxed"


def test_large_crystals(random_relaxer):
    assert random_relaxer.relax(rutile() * (4, 4, 5)).status == "relaxed"


def test_refusal_keeps_the_input(random_relaxer, monkeypatch, rng):
    atoms = rutile(rng)
    sound = solver.solve

    def exploding(*args, **kwargs):
        solution = sound(*args, **kwargs)
        return replace(solution, displacements=solution.displacements * 1e5)

    # What is compiled has a solve of its own.
    monkeypatch.setattr(random_relaxer._general, "_compiled", [])
    monkeypatch.setattr("deeprelax_ase.solver.solve", exploding)
    result = random_relaxer.relax(atoms)
    assert result.status == "refused"
    assert "input kept: an atom would move by" in result.message
    assert result.structure is atoms
    assert result.largest_displacement == 0
    assert np.isfinite(result.expected_error)

    def swelling(*args, **kwargs):
        solution = sound(*args, **kwargs)
        return replace(solution, deformations=solution.deformations * 2)

    monkeypatch.setattr("deeprelax_ase.solver.solve", swelling)
    assert "volume would change" in random_relaxer.relax(atoms).message

    def failing(*args, **kwargs):
        solution = sound(*args, **kwargs)
        status = torch.full_like(solution.status, solver.SolveStatus.NOT_FINITE)
        return replace(solution, status=status)

    monkeypatch.setattr("deeprelax_ase.solver.solve", failing)
    assert "not finite" in random_relaxer.relax(atoms).message


def test_a_crystal_without_neighbours_is_refused(random_relaxer):
    """A lattice read in the wrong unit: nothing is known of it, and nothing is claimed."""
    result = random_relaxer.relax(bulk("MgO", "rocksalt", a=13.5))
    assert result.status == "refused"
    assert "no two atoms are within 6 Å; is the cell in Å?" in result.message


def test_unseen_elements(random_weights):
    gold = bulk("Au")
    with pytest.raises(ValueError, match=r"never saw Au: pass allow_unseen=True"):
        Relaxer(random_weights).relax(gold)
    assert Relaxer(random_weights, allow_unseen=True).relax(gold).status == "relaxed"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"functional": "LDA"}, "'LDA': choose from unknown, PBE, PBEsol, r2SCAN, optB88-vdW"),
        ({"device": "tpu7"}, "'tpu7': choose 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'"),
        ({"device": "meta"}, "choose 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"method": "magic"}, "choose from joint, bed"),
        ({"edges_per_batch": 0}, "positive"),
        ({"model": []}, "a name, a path"),
        ({"vacuum": "some"}, "choose from auto, none"),
        ({"device": 7.5}, "choose 'auto', 'cpu'"),
        ({"hold": "d"}, "unknown hold 'd': choose from cell, volume, shape, a, b, c, ab"),
        ({"hlod": "cell"}, "unknown option 'hlod': choose from model, functional"),
        ({"model": "nonesuch"}, "choose from .*default"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        Relaxer(**options)


@pytest.mark.parametrize("thing", [NEB([bulk("Cu"), bulk("Cu")]), 7, [bulk("Cu")]])
def test_not_a_structure(random_relaxer, thing):
    with pytest.raises(ValueError, match=r"give an ase.Atoms or a pymatgen Structure"):
        random_relaxer.relax(thing)


@pytest.mark.parametrize("method", ["bed"])
def test_other_methods(random_weights, rng, method):
    result = Relaxer(random_weights, method=method).relax(rutile(rng))
    assert result.status == "relaxed"


def test_shared_relaxers_are_loaded_once(random_weights):
    first, second = (RelaxOptions(str(random_weights), hold=h) for h in ("c", "c"))
    assert shared_relaxer(first) is shared_relaxer(second)


def test_shared_relaxers_are_loaded_again_where_their_file_changed(random_weights, tmp_path):
    path, other = tmp_path / "mine.safetensors", tmp_path / "other.safetensors"
    weights_like(random_weights, tmp_path, "other", seed=5)
    shutil.copy(random_weights, path)
    options = RelaxOptions(path, allow_unseen=True)
    before = shared_relaxer(options).weights.sha256
    shutil.copy(other, path)
    os.utime(path, ns=(1, 1))  # whatever the resolution of its time
    assert shared_relaxer(options).weights.sha256 == load_weights(other).sha256 != before


def weights_like(path, folder, name, seed=None, calibration=None):
    """A copy of a weights file, perhaps with other random weights or another calibration."""
    weights = load_weights(path)
    network = weights.network
    if seed is not None:
        torch.manual_seed(seed)
        network = PaEGNN(network.config)
    calibration = weights.calibration if calibration is None else calibration
    save_weights(folder / f"{name}.safetensors", network, weights.provenance, calibration)
    return folder / f"{name}.safetensors"


def rattled():
    atoms = bulk("MgO", "rocksalt", a=4.3, cubic=True)
    atoms.rattle(0.05, seed=1)
    return atoms


def test_a_move_within_the_expected_error_is_not_made(random_weights, tmp_path):
    sure = Relaxer(random_weights).relax(rattled())
    unsure = weights_like(random_weights, tmp_path, "unsure", calibration={"distance": 50.0})
    result = Relaxer(unsure).relax(rattled())
    assert result.status == "unchanged"
    assert result.is_sound
    assert [note.code for note in result.notes] == ["within_error"]
    assert "left as it was: a move of" in result.message
    assert result.gain_probability < 0.65
    assert result.expected_gain < 0
    assert result.structure == rattled()
    mine = rattled()
    mine.calc = SinglePointCalculator(mine, energy=-1.0)
    kept = Relaxer(unsure).relax(mine).structure
    assert kept.get_potential_energy() == -1.0
    kept.info["mine"] = True
    kept.positions[0] += 1.0
    assert mine == rattled()
    assert not mine.info
    assert result.largest_displacement == result.volume_change == 0
    assert result.expected_error == pytest.approx(50 * result.uncertainty)
    moved = Relaxer(unsure, always_move=True).relax(rattled())
    assert moved.message == ""
    np.testing.assert_allclose(moved.structure.positions, sure.structure.positions)
    asked = Relaxer(unsure, min_gain=0).relax(rattled())
    np.testing.assert_allclose(asked.structure.positions, sure.structure.positions)
    kept = Relaxer(random_weights, min_gain=1).relax(rattled())
    assert kept.status == "unchanged"
    assert "and 1 is asked for" in kept.message


def test_an_ensemble_is_the_mean_of_its_replicates(random_weights, tmp_path):
    first = weights_like(random_weights, tmp_path, "own")
    paths = [first, *(weights_like(first, tmp_path, f"own-{k}", seed=k) for k in (2, 3))]
    alone = [Relaxer(path).relax(rattled()) for path in paths]
    together = Relaxer(first, ensemble=True).relax(rattled())
    for name in ("displacement", "strain"):
        mean = np.mean([getattr(result, name) for result in alone], axis=0)
        np.testing.assert_allclose(getattr(together, name), mean, atol=1e-9)
    distances = np.array([result.bonds.distances for result in alone])
    np.testing.assert_allclose(together.bonds.distances, distances.mean(axis=0))
    # Eq. 21-24: what the data leave, and how far the replicates are apart.
    apart = np.abs(distances - distances.mean(axis=0)).mean()
    data = np.mean([result.uncertainty for result in alone])
    assert together.uncertainty == pytest.approx(data + apart)
    assert together.weights == alone[0].weights


def test_an_ensemble_needs_replicates_of_one_network(random_weights, tmp_path):
    alone = weights_like(random_weights, tmp_path, "alone")
    with pytest.raises(ValueError, match="has no replicates"):
        Relaxer(alone, ensemble=True)
    config = load_weights(alone).network.config.model_copy(update={"num_layers": 1})
    save_weights(tmp_path / "alone-2.safetensors", PaEGNN(config), {})
    with pytest.raises(ValueError, match="another network"):
        Relaxer(alone, ensemble=True)


def test_an_ensemble_is_of_a_list_or_a_name(random_weights):
    weights = load_weights(random_weights)
    with pytest.raises(ValueError, match="needs replicates"):
        Relaxer(weights, ensemble=True)
    with pytest.raises(ValueError, match="empty"):
        Relaxer([])
    assert Relaxer([weights, weights]).relax(rattled()).status == "relaxed"


@pytest.mark.parametrize("order", [1, -1])
def test_a_replicate_that_fails_is_not_hidden(random_weights, order):
    """What it says is part of no mean: the ensemble fails as it would by itself."""
    sound, broken = (load_weights(random_weights) for _ in range(2))
    with torch.no_grad():
        for parameter in broken.network.parameters():
            parameter.fill_(torch.nan)
    assert Relaxer([sound, sound]).relax(rattled()).status == "relaxed"
    results = [Relaxer([sound, broken][::order]).relax(rattled())]
    results += Relaxer([sound, broken][::order]).relax_many([rattled(), rattled()])
    for result in results:
        assert result.status == "refused"
        assert "not finite" in result.message


def test_intervals_widen_with_their_coverage(random_weights):
    bonds = Relaxer(random_weights).relax(rattled()).bonds
    assert list(bonds.intervals) == [0.5, 0.8, 0.9]
    narrow, middle, wide = bonds.intervals.values()
    assert (narrow < middle).all()
    assert (middle < wide).all()


def test_default_takes_the_specialist_for_sheets(random_weights, tmp_path, monkeypatch):
    weights_like(random_weights, tmp_path, "default", calibration={"distance": 0.001})
    weights_like(random_weights, tmp_path, "sheets", seed=9)
    monkeypatch.setattr("deeprelax_ase.network.weights_registry._INSTALLED", tmp_path)
    relaxer = Relaxer(allow_unseen=True)
    sheet = mx2("NTi2", "1T", a=3.0, thickness=2.4, vacuum=8.0)
    mixed = [rattled(), sheet, rattled(), sheet]
    results = list(relaxer.relax_many(mixed))
    assert [r.weights.name for r in results] == ["default", "sheets", "default", "sheets"]
    special = Relaxer("sheets", allow_unseen=True).relax(sheet)
    np.testing.assert_allclose(results[1].displacement, special.displacement, atol=1e-6)
    general = Relaxer(tmp_path / "default.safetensors", allow_unseen=True)
    assert general.relax(sheet).weights.name.endswith("default.safetensors")
    # It is better at MXenes with PBE alone.
    assert relaxer.relax(mx2("MoS2", a=3.2, vacuum=8.0)).weights.name == "default"
    for functional in ("optB88-vdW", "unknown"):
        other = Relaxer(functional=functional, allow_unseen=True)
        assert other.relax(sheet).weights.name == "default"
    # It saw fewer elements.
    known = load_weights(tmp_path / "sheets.safetensors")
    save_weights(tmp_path / "sheets.safetensors", known.network, {"elements": [7, 40]})
    known = load_weights(tmp_path / "default.safetensors")
    save_weights(tmp_path / "default.safetensors", known.network, {"elements": [7, 22, 40]})
    other = mx2("NZr2", "1T", a=3.2, thickness=2.6, vacuum=8.0)
    results = Relaxer(allow_unseen=True).relax_many([sheet, other])
    assert [result.weights.name for result in results] == ["default", "sheets"]


def test_a_functional_that_was_never_seen_is_told(random_weights, tmp_path):
    weights = load_weights(random_weights)
    path = tmp_path / "mine.safetensors"
    save_weights(path, weights.network, {"functionals": ["unknown", "PBE"]})
    crystal = bulk("MgO", "rocksalt", a=4.6)
    assert "never saw" not in Relaxer(path, "PBE").relax(crystal).message
    message = Relaxer(path, "PBEsol").relax(crystal).message
    assert f"the weights {str(path)!r} never saw PBEsol, but unknown, PBE" in message


def test_each_structure_of_a_batch_has_the_functional_of_its_calculation(random_weights):
    pbe, pbesol = (Relaxer(random_weights, name).relax(rattled()) for name in ("PBE", "PBEsol"))
    assert np.abs(pbe.strain - pbesol.strain).max() > 1e-5
    some = [rattled(), HeldStructure(rattled(), functional="PBEsol"), rattled()]
    results = Relaxer(random_weights).relax_many(some)
    for result, expected in zip(results, (pbe, pbesol, pbe), strict=True):
        np.testing.assert_allclose(result.strain, expected.strain, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"passes": 0}, "passes is 0: it has to be a whole number from 1 to 20"),
        ({"passes": 1_000_000}, "passes is 1000000: it has to be a whole number from 1 to 20"),
        ({"relax_cell": "no"}, "relax_cell is 'no': it has to be True or False"),
        ({"always_move": 1}, "always_move is 1: it has to be True or False"),
        ({"min_gain": 1.5}, "min_gain is 1.5: it has to be a probability, from 0 to 1"),
        ({"min_gain": float("nan")}, "min_gain is nan: it has to be a probability, from 0 to 1"),
        ({"min_gain": "high"}, "min_gain is 'high': it has to be a probability, from 0 to 1"),
    ],
)
def test_options_out_of_range_are_one_sentence(changes, told):
    with pytest.raises(ValueError, match=f"^{told}$"):
        RelaxOptions(**changes)


def foreign(atoms, weights, **options):
    notes = Relaxer(weights, **options).relax(atoms).notes
    return {note.code: note.text for note in notes}


def test_foreign_kinds_are_told_in_words(random_weights):
    def layer(thickness):
        height = 2.0 * np.arange(thickness)
        return Atoms("Ti" * thickness, [[0, 0, z] for z in height], cell=[2.5, 2.5, 60.0], pbc=True)

    assert "foreign_kind" not in foreign(rattled(), random_weights)
    assert "foreign_kind" not in foreign(layer(3), random_weights)
    assert "a slab of 18.0 Å" in foreign(layer(10), random_weights)["foreign_kind"]
    water = Atoms("O2", [[0, 0, 0], [0, 0, 1.2]])
    assert "a molecule" in foreign(water, random_weights)["foreign_kind"]
    chain = Atoms("TiO", [[0, 0, 0], [0, 0, 1.9]], cell=[20, 20, 3.8], pbc=[False, False, True])
    assert "a chain" in foreign(chain, random_weights)["foreign_kind"]
    told = foreign(rattled(), random_weights, functional="optB88-vdW")
    assert "a bulk crystal: the weights know optB88-vdW of layers" in told["dispersion_elsewhere"]
    told = foreign(layer(2), random_weights, functional="PBEsol")
    assert "a layer: the weights know PBEsol of bulk crystals" in told["foreign_kind"]
    open_one = Atoms("O6", [[k, 0, 0] for k in range(0, 12, 2)], cell=[12, 6, 6], pbc=True)
    assert "its atoms fill 1.7 % of it" in foreign(open_one, random_weights)["foreign_kind"]


def test_an_element_that_was_never_seen_with_a_functional_is_told(random_weights, tmp_path):
    weights, path = load_weights(random_weights), tmp_path / "mine.safetensors"
    seen = {"elements": [8, 12], "functionals": {"PBE": [8, 12], "PBEsol": [8]}}
    save_weights(path, weights.network, seen)
    crystal, code = bulk("MgO", "rocksalt", a=4.6), "element_unseen_with_functional"
    assert code not in foreign(crystal, path)
    told = foreign(crystal, path, functional="PBEsol")
    assert told[code] == f"the weights {str(path)!r} never saw Mg with PBEsol, but with PBE"
    assert "functional_unseen" in foreign(crystal, path, functional="r2SCAN")


def test_one_structure_is_not_several(random_weights, perovskite):
    relaxer = Relaxer(random_weights)
    for one in (bulk("Cu"), perovskite, HeldStructure(bulk("Cu"))):
        with pytest.raises(ValueError, match="put it into a list, or call relax"):
            relaxer.relax_many(one)


def test_a_source_of_nothing_but_failures_is_lazy_too(random_relaxer):
    given = []

    def unreadable():
        for number in range(50_000):
            given.append(number)
            yield Atoms("X", cell=[3, 3, 3], pbc=True)

    assert next(random_relaxer.relax_many(unreadable())).status == "failed"
    assert len(given) < 5_000
