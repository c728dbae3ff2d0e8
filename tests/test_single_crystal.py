"""The numpy way of single crystals gives what torch gives of a batch."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms
from hypothesis import given
from hypothesis import strategies as st

from deeprelax_ase import solver
from deeprelax_ase.network.checkpoint import load_weights
from deeprelax_ase.network.graph import build_graph
from deeprelax_ase.network.numpy_forward import OneCrystal, Output
from deeprelax_ase.network.paegnn import PaEGNN
from deeprelax_ase.network.prediction import Prediction
from deeprelax_ase.relaxation.inference import Predictor
from deeprelax_ase.relaxation.relaxer import Relaxer
from deeprelax_ase.relaxation.single_crystal import SingleCrystal
from deeprelax_ase.solver.numpy_step import one_step
from deeprelax_ase.solver.status import LEAST_STRETCH
from deeprelax_ase.structures.crystal import Crystal
from deeprelax_ase.structures.held import Held
from deeprelax_ase.structures.read_structure import read_structure
from tests.conftest import SMALL
from tests.strategies import crystals

FIELDS = ("displacements", "deformation", "displacement_scales", "strain_scale", "lengths")
OF_PAIRS = ("distances", "distance_scales")


@pytest.fixture(scope="module")
def predictor():
    return Predictor([load_weights("default")], torch.device("cpu"), "joint")


@pytest.fixture(scope="module")
def single(predictor):
    return single_of(predictor.batches.networks[0])


def single_of(network):
    return SingleCrystal(network.config, network.arrays())


def batch(predictor, crystal, functional="PBE"):
    return predictor.predict([crystal, crystal], [functional] * 2)[0]


def check_same(found, expected):
    assert found.status == expected.status
    np.testing.assert_array_equal(found.edge_index, expected.edge_index)
    np.testing.assert_array_equal(found.offsets, expected.offsets)
    for name in (*FIELDS, *OF_PAIRS):
        one, other = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5, err_msg=name)


@given(crystals(max_atoms=8))
def test_same_as_in_a_batch(predictor, single, crystal):
    found, expected = single(crystal, "PBEsol"), batch(predictor, crystal, "PBEsol")
    if found is None:  # an atom without neighbours, or a step that does not count
        return
    check_same(found, expected)


@pytest.mark.parametrize("hold", [None, "cell", "volume", "a,positions"])
def test_same_where_something_is_held(predictor, single, hold):
    slab = fcc111("Al", (1, 2, 4), a=4.2, vacuum=8.0)
    slab.set_constraint(FixAtoms(indices=range(4)))
    slab.rattle(0.05, seed=0)
    crystal = read_structure(slab, held=Held.of(hold)).crystal
    found = single(crystal, "PBE")
    assert found is not None
    check_same(found, batch(predictor, crystal))
    assert not found.displacements[:4].any()


def test_real_crystals_are_not_left_to_the_general_way(single):
    for name, structure, a in (
        ("Cu", "fcc", 3.7),
        ("MgO", "rocksalt", 4.3),
        ("GaN", "wurtzite", 3.3),
    ):
        assert single(read_structure(bulk(name, structure, a=a)).crystal, "PBE") is not None


def test_what_is_left_to_the_general_way(single):
    assert single(read_structure(bulk("Cu") * (6, 6, 6)).crystal, "PBE") is None
    lonely = bulk("Cu", a=20.0)
    assert single(read_structure(lonely).crystal, "PBE") is None


def test_what_is_not_finite_is_left_to_the_general_way(predictor):
    crystal = read_structure(bulk("MgO", "rocksalt", a=4.3)).crystal
    for layer in ("edge_head.out", "displacement_head.gates.2", "strain_head.atoms.2"):
        single = single_of(predictor.batches.networks[0])
        network = load_weights("default").network
        network.get_submodule(layer).weight.fill_(np.nan)
        assert single(crystal, "PBE") is not None
        assert single_of(network)(crystal, "PBE") is None


def test_networks_that_it_does_not_know_go_the_general_way(random_weights):
    relaxer = Relaxer(random_weights)
    copper = read_structure(bulk("TiO", "rocksalt", a=4.2)).crystal
    assert single_of(relaxer._general.batches.networks[0])(copper, "PBE") is not None
    config = relaxer.config.model_copy(update={"solver_steps": 2})
    network = PaEGNN(config)
    assert single_of(network)(copper, "PBE") is None


def test_can_be_pickled(single):
    crystal = read_structure(bulk("MgO", "rocksalt", a=4.3)).crystal
    copied = pickle.loads(pickle.dumps(single))  # noqa: S301 - its own
    check_same(copied(crystal, "PBE"), single(crystal, "PBE"))


def test_one_by_one_and_in_a_batch_agree(rng):
    atoms = bulk("TiO", "rocksalt", a=4.4, cubic=True)
    atoms.rattle(0.1, rng=rng)
    relaxer = Relaxer()
    alone = relaxer.relax(atoms)
    together, _ = relaxer.relax_many([atoms, bulk("Cu", a=3.7)])
    np.testing.assert_allclose(alone.structure.positions, together.structure.positions, atol=1e-5)
    np.testing.assert_allclose(alone.strain, together.strain, atol=1e-6)
    held = relaxer.relax(atoms, relax_cell=False)
    np.testing.assert_array_equal(held.structure.cell, atoms.cell)


def test_a_relaxer_can_be_sent_to_another_process(random_weights):
    atoms = bulk("TiO", "rocksalt", a=4.4)
    relaxer = Relaxer(random_weights)
    first = relaxer.relax(atoms)
    other = pickle.loads(pickle.dumps(relaxer))  # noqa: S301 - its own
    np.testing.assert_allclose(other.relax(atoms).strain, first.strain, atol=1e-6)
    copy.deepcopy(relaxer).relax(atoms)


@given(crystals(max_atoms=6), st.integers(0, 2**32 - 1), st.floats(0.02, 1.0))
def test_a_step_is_made_exactly_where_the_general_solve_makes_it(crystal, seed, strength):
    """Whatever a network might say: also what makes things worse, or the cell collapse."""
    rng = np.random.default_rng(seed)
    if len(crystal) > 2 and rng.random() < 0.5:
        crystal = replace(crystal, fixed=np.arange(len(crystal)) < 2)
    graph = build_graph([crystal], ["PBE"], SMALL)
    pairs = len(graph.edge_lengths)
    if not pairs:
        return
    known = OneCrystal(
        crystal,
        crystal.strain_freedom(),
        *graph.edge_index.numpy(),
        graph.edge_vectors.numpy(),
        graph.edge_lengths.numpy(),
    )
    strain = rng.normal(scale=strength / 2, size=(3, 3))
    strain = (known.freedom @ (strain + strain.T).ravel()).reshape(3, 3)
    atoms = len(crystal)
    output = Output(
        distances=known.lengths * np.exp(rng.normal(scale=strength, size=pairs)),
        distance_log_scales=np.zeros(pairs),
        distance_weights=rng.uniform(0.01, 1.0, size=pairs),
        displacements=crystal.settled(rng.normal(scale=strength, size=(atoms, 3))),
        displacement_log_scales=np.zeros(atoms),
        displacement_weights=rng.uniform(0.01, 2.0, size=atoms),
        strain=strain,
        strain_log_scale=0.0,
        strain_weight=float(rng.uniform(0.1, 20.0)),
    )
    of_crystal = {"strain": "strains", "strain_log_scale": "strain_log_scales"}
    of_crystal["strain_weight"] = "strain_weights"
    prediction = Prediction(
        **{
            of_crystal.get(name, name): torch.tensor([value] if name in of_crystal else value)
            for name, value in output._asdict().items()
        }
    )
    solution = solver.solve(graph, prediction, max_steps=1)
    with np.errstate(all="ignore"):
        found = one_step(known, output)
    is_made = bool(solution.steps) and int(solution.status) == solver.SolveStatus.SOLVED
    # A strain so large that the cell may collapse is left to the general way.
    assert (found is not None) == (is_made and np.linalg.norm(strain) < -np.log(LEAST_STRETCH))
    if found is not None:
        np.testing.assert_allclose(found[0], solution.displacements, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(found[1], solution.deformations[0], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(("distance", "is_made"), [(0.45, False), (0.55, True)])
def test_a_step_that_puts_atoms_on_each_other_is_left_to_the_general_solve(distance, is_made):
    places = np.array([[0, 0, 0], [0, 0, 1.2]])
    pair = Crystal(np.array([8, 8]), places, np.eye(3), np.zeros(3, dtype=bool))
    known = OneCrystal(
        pair, pair.strain_freedom(), np.array([0]), np.array([1]), places[1:], np.array([1.2])
    )
    one, none = np.ones(1), np.zeros(1)
    output = Output(
        distances=np.array([distance]),
        distance_log_scales=none,
        distance_weights=one,
        displacements=np.zeros((2, 3)),
        displacement_log_scales=np.zeros(2),
        displacement_weights=np.full(2, 1e-6),
        strain=np.zeros((3, 3)),
        strain_log_scale=0.0,
        strain_weight=1.0,
    )
    assert (one_step(known, output) is not None) == is_made
