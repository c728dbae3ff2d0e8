"""Network and solve in C give what torch gives."""

import copy
import pickle
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms
from hypothesis import given
from hypothesis import strategies as st

from deeprelax_ase import solver
from deeprelax_ase.compiled import IS_COMPILED
from deeprelax_ase.network.checkpoint import load_weights
from deeprelax_ase.network.graph import build_graph
from deeprelax_ase.network.prediction import Prediction
from deeprelax_ase.relaxation.compiled_weights import LIMITS, layout_of, weights_block
from deeprelax_ase.relaxation.inference import Predictor
from deeprelax_ase.relaxation.relaxer import Relaxer
from deeprelax_ase.relaxation.small_crystals import CompiledNetwork, SmallCrystals
from deeprelax_ase.solver.status import LEAST_STRETCH
from deeprelax_ase.structures.crystal import Crystal
from deeprelax_ase.structures.held import Held
from deeprelax_ase.structures.read_structure import read_structure
from tests.conftest import SMALL
from tests.strategies import crystals

pytestmark = pytest.mark.skipif(not IS_COMPILED, reason="nothing compiled it")
FIELDS = ("displacements", "deformation", "displacement_scales", "strain_scale", "lengths")
OF_PAIRS = ("distances", "distance_scales")


@pytest.fixture(scope="module")
def predictor():
    return Predictor([load_weights("default")], torch.device("cpu"), "joint")


@pytest.fixture(scope="module")
def compiled(predictor):
    return compiled_of(predictor.batches.networks[0])


def compiled_of(network):
    return CompiledNetwork(network.config, network.arrays())


def run(compiled, given, functional="PBE"):
    known = SmallCrystals.of(given, load_weights("default").config)
    return compiled(known, [functional] * len(given))


def by_torch(predictor, given, functional="PBE"):
    return [parts[0] for parts in predictor.batches.predict(given, [functional] * len(given))]


def check_same(found, expected):
    assert found.status == expected.status
    np.testing.assert_array_equal(found.edge_index, expected.edge_index)
    np.testing.assert_array_equal(found.offsets, expected.offsets)
    for name in (*FIELDS, *OF_PAIRS):
        one, other = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5, err_msg=name)


@given(st.lists(crystals(max_atoms=8), min_size=1, max_size=4))
def test_same_as_in_torch(predictor, compiled, given):
    found, expected = run(compiled, given, "PBEsol"), by_torch(predictor, given, "PBEsol")
    for one, other in zip(found, expected, strict=True):
        if one is not None:  # a step that does not count
            check_same(one, other)


def test_groups_do_not_matter(compiled):
    names = (("Cu", "fcc", 3.7), ("MgO", "rocksalt", 4.3), ("GaN", "wurtzite", 3.3))
    given = [read_structure(bulk(*name) * (2, 2, 1)).crystal for name in names] * 5
    for one, alone in zip(run(compiled, given), given, strict=True):
        assert one is not None
        check_same(one, run(compiled, [alone])[0])


@pytest.mark.parametrize("hold", [None, "cell", "volume", "a,positions"])
def test_same_where_something_is_held(predictor, compiled, hold):
    slab = fcc111("Al", (1, 2, 4), a=4.2, vacuum=8.0)
    slab.set_constraint(FixAtoms(indices=range(4)))
    slab.rattle(0.05, seed=0)
    crystal = read_structure(slab, held=Held.of(hold)).crystal
    found = run(compiled, [crystal])[0]
    assert found is not None
    check_same(found, by_torch(predictor, [crystal])[0])
    assert not found.displacements[:4].any()


def test_atoms_without_neighbours(predictor, compiled):
    lonely = bulk("Cu", a=20.0)
    apart = bulk("MgO", "rocksalt", a=4.3, cubic=True)
    apart.center(vacuum=8.0)
    apart.append("He")
    apart.positions[-1] = 0.5
    given = [read_structure(atoms).crystal for atoms in (lonely, apart)]
    for one, other in zip(run(compiled, given), by_torch(predictor, given), strict=True):
        assert one is not None
        check_same(one, other)


def test_what_is_not_finite_is_left_to_the_general_way(predictor):
    crystal = read_structure(bulk("MgO", "rocksalt", a=4.3)).crystal
    for layer in ("edge_head.out", "displacement_head.gates.2", "strain_head.atoms.2"):
        assert run(compiled_of(predictor.batches.networks[0]), [crystal])[0] is not None
        network = load_weights("default").network
        network.get_submodule(layer).weight.fill_(np.nan)
        assert run(compiled_of(network), [crystal])[0] is None


@pytest.mark.parametrize(
    "change", [{"solver_steps": 2}, {"ucoe": True}, {"num_tensors": 0}, {"num_layers": 17}]
)
def test_networks_that_it_does_not_know_go_the_general_way(change):
    assert CompiledNetwork.can_run(SMALL)
    assert not CompiledNetwork.can_run(SMALL.model_copy(update=change))


def test_large_crystals_and_small_ones_in_one_batch(monkeypatch):
    relaxer = Relaxer()
    sizes = []
    run_torch = relaxer._general.batches.predict

    def counted(crystals, functionals):
        sizes.extend(map(len, crystals))
        return run_torch(crystals, functionals)

    monkeypatch.setattr(relaxer._general.batches, "predict", counted)
    copper, large = bulk("Cu", a=3.7), bulk("MgO", "rocksalt", a=4.3) * (7, 6, 6)
    results = list(relaxer.relax_many([copper, large, copper]))
    assert sizes == [504]
    assert [len(result.structure) for result in results] == [1, 504, 1]
    assert results[0].strain == pytest.approx(results[2].strain)


def test_can_be_pickled(compiled):
    crystal = read_structure(bulk("MgO", "rocksalt", a=4.3)).crystal
    copied = pickle.loads(pickle.dumps(compiled))  # noqa: S301 - its own
    check_same(run(copied, [crystal])[0], run(compiled, [crystal])[0])


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


def test_batches_need_no_torch():
    code = (
        "import sys; from ase.build import bulk; from deeprelax_ase import Relaxer; "
        "list(Relaxer(device='cpu').relax_many([bulk('Cu', a=a) for a in (3.5, 3.7)])); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_a_compiler_torch_does_all_of_it():
    code = (
        "import sys; sys.modules['deeprelax_ase.compiled._core'] = None; "
        "from ase.build import bulk; from deeprelax_ase import Relaxer; "
        "from deeprelax_ase.compiled import IS_COMPILED; assert not IS_COMPILED; "
        "print(Relaxer().relax(bulk('Cu', a=3.7)).volume_change)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    expected = Relaxer().relax(bulk("Cu", a=3.7)).volume_change
    assert float(done.stdout) == pytest.approx(expected, abs=1e-5)


def test_arrays_that_do_not_belong_together_are_refused(compiled):
    from deeprelax_ase.compiled import core

    config = load_weights("default").config
    crystal = read_structure(bulk("MgO", "rocksalt", a=4.3)).crystal
    known = SmallCrystals.of([crystal], config)
    good = known.pairs.first
    for first in (good[:-1], good + 2, good - 1):
        wrong = known._replace(pairs=known.pairs._replace(first=first))
        with pytest.raises((ValueError, IndexError), match=r"belong together|out of bounds|shapes"):
            compiled(wrong, ["PBE"])
    with pytest.raises(ValueError, match="18 arrays are needed"):
        core.predict(layout_of(config), LIMITS, 8, ())
    with pytest.raises(ValueError, match="too many layers"):
        core.predict((8, 4, 99, *layout_of(config)[3:]), LIMITS, 8, ())
    one, two = np.zeros(1), np.zeros((2, 3))
    ends = np.zeros(1, dtype=np.int64)
    rest = (two[:1].copy(), one, np.eye(9), np.zeros(2, np.uint8), one, np.ones(2), np.eye(3), one)
    for first in (ends - 1, ends + 2):
        with pytest.raises(ValueError, match="of atoms that are not there"):
            core.step(LIMITS, 1.0, (first, ends, *rest, two, np.eye(3)))
    with pytest.raises(ValueError, match="12 arrays are needed"):
        core.step(LIMITS, 1.0, ())
    with pytest.raises(KeyError):
        weights_block(config.model_copy(update={"num_layers": 4}), load_weights("default").arrays)


def make_step(known, said):
    """Displacements and deformation after the compiled step, or None."""
    from deeprelax_ase.compiled import core

    fixed = known.crystal.fixed
    moves, deformation = said["displacements"].copy(), np.empty((3, 3))
    arrays = (
        known.first,
        known.second,
        known.vectors,
        known.lengths,
        known.crystal.strain_freedom(),
        np.zeros(len(moves), dtype=np.uint8) if fixed is None else fixed.astype(np.uint8),
        said["distance_weights"],
        said["displacement_weights"],
        said["strain"],
        said["distances"],
        moves,
        deformation,
    )
    is_made = core.step(LIMITS, said["strain_weight"], arrays)
    return (moves, deformation) if is_made else None


@given(crystals(max_atoms=6), st.integers(0, 2**32 - 1), st.floats(0.02, 1.0))
def test_a_step_is_made_exactly_where_the_general_solve_makes_it(crystal, seed, strength):
    """Whatever a network might say: also what makes things worse, or the cell collapse."""
    rng = np.random.default_rng(seed)
    if len(crystal) > 2 and rng.random() < 0.5:
        crystal = replace(crystal, fixed=np.arange(len(crystal)) < 2)
    graph = build_graph([crystal], ["PBE"], SMALL)
    pairs, atoms = len(graph.edge_lengths), len(crystal)
    if not pairs:
        return
    first, second = graph.edge_index.numpy()
    known = SimpleNamespace(
        crystal=crystal,
        first=first.copy(),
        second=second.copy(),
        vectors=graph.edge_vectors.numpy(),
        lengths=graph.edge_lengths.numpy(),
    )
    strain = rng.normal(scale=strength / 2, size=(3, 3))
    strain = (crystal.strain_freedom() @ (strain + strain.T).ravel()).reshape(3, 3)
    said = {
        "distances": known.lengths * np.exp(rng.normal(scale=strength, size=pairs)),
        "distance_weights": rng.uniform(0.01, 1.0, size=pairs),
        "displacements": crystal.settled(rng.normal(scale=strength, size=(atoms, 3))),
        "displacement_weights": rng.uniform(0.01, 2.0, size=atoms),
        "strain": strain,
        "strain_weight": float(rng.uniform(0.1, 20.0)),
    }
    prediction = Prediction(
        **{
            name: torch.from_numpy(said[name])
            for name in (
                "distances",
                "distance_weights",
                "displacements",
                "displacement_weights",
            )
        },
        strains=torch.from_numpy(strain[None]),
        strain_weights=torch.tensor([said["strain_weight"]], dtype=torch.float64),
        distance_log_scales=torch.zeros(pairs, dtype=torch.float64),
        displacement_log_scales=torch.zeros(atoms, dtype=torch.float64),
        strain_log_scales=torch.zeros(1, dtype=torch.float64),
    )
    solution = solver.solve(graph, prediction, max_steps=1)
    found = make_step(known, said)
    begun = int(solver.solve(graph, prediction, max_steps=0).status)
    is_made = bool(solution.steps) and int(solution.status) == solver.SolveStatus.SOLVED
    is_made &= begun == solver.SolveStatus.SOLVED  # the other begins at the input as well
    # A strain so large that the cell may collapse is left to the general way.
    assert (found is not None) == (is_made and np.linalg.norm(strain) < -np.log(LEAST_STRETCH))
    if found is not None:
        np.testing.assert_allclose(found[0], solution.displacements, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(found[1], solution.deformations[0], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(("distance", "is_made"), [(0.45, False), (0.55, True)])
def test_a_step_that_puts_atoms_on_each_other_is_left_to_the_general_solve(distance, is_made):
    places = np.array([[0, 0, 0], [0, 0, 1.2]])
    known = SimpleNamespace(
        crystal=Crystal(np.array([8, 8]), places, np.eye(3), np.zeros(3, dtype=bool)),
        first=np.array([0]),
        second=np.array([1]),
        vectors=places[1:].copy(),
        lengths=np.array([1.2]),
    )
    said = {
        "distances": np.array([distance]),
        "distance_weights": np.ones(1),
        "displacements": np.zeros((2, 3)),
        "displacement_weights": np.full(2, 1e-6),
        "strain": np.zeros((3, 3)),
        "strain_weight": 1.0,
    }
    assert (make_step(known, said) is not None) == is_made
