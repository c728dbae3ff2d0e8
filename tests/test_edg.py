from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk

from deeprelax_ase import solver
from deeprelax_ase.network.config import NetworkConfig
from deeprelax_ase.network.graph import build_graph
from deeprelax_ase.network.prediction import Prediction
from deeprelax_ase.structures.crystal import Crystal

CONFIG = NetworkConfig(max_neighbors=20)


def crystals(count, rng, repeat=(2, 1, 1)):
    """Rattled (0.3 Å) and strained (5 %) rock salt supercells, and how they were disturbed."""
    for _ in range(count):
        atoms = bulk("MgO", "rocksalt", a=4.2, cubic=True) * repeat
        perfect = Crystal(
            atoms.numbers.astype(np.int64), atoms.positions, np.array(atoms.cell), atoms.pbc
        )
        strain = rng.uniform(-0.05, 0.05, size=(3, 3))
        strain = (strain + strain.T) / 2
        stretches, axes = np.linalg.eigh(strain)
        deform = (axes * np.exp(stretches)) @ axes.T
        rattle = rng.normal(size=perfect.positions.shape)
        rattle *= 0.3 / np.sqrt((rattle**2).sum(axis=1).mean())
        rattle -= rattle.mean(axis=0)
        disturbed = replace(
            perfect,
            positions=(perfect.positions + rattle) @ deform,
            cell=perfect.cell @ deform,
        )
        yield disturbed, torch.from_numpy(-rattle @ deform), torch.from_numpy(np.linalg.inv(deform))


def problem(some, config=CONFIG):
    """Graph of disturbed crystals with the exact solution."""
    some = list(some)
    graph = build_graph([c for c, _, _ in some], ["PBE"] * len(some), config)
    displacements = torch.cat([u for _, u, _ in some])
    return graph, displacements, torch.stack([f for _, _, f in some])


def lengths_of(graph, displacements, deformations):
    i, j = graph.edge_index
    vectors = graph.edge_vectors + displacements[j] - displacements[i]
    return (vectors[:, None, :] @ deformations[graph.edge_batch])[:, 0].norm(dim=1)


def prediction_of(graph, distances, scale=0.1, prior=1e-9):
    """Distances alone are trusted; displacement and strain know nothing."""
    pairs, atoms, count = len(distances), len(graph.numbers), graph.num_crystals
    options = {"dtype": torch.float64}
    return Prediction(
        distances=distances,
        distance_log_scales=torch.full((pairs,), float(np.log(scale)), **options),
        distance_weights=torch.ones(pairs, **options),
        displacements=torch.zeros(atoms, 3, **options),
        displacement_log_scales=torch.full((atoms,), 2.0, **options),
        displacement_weights=torch.full((atoms,), prior, **options),
        strains=torch.zeros(count, 3, 3, **options),
        strain_log_scales=torch.zeros(count, **options),
        strain_weights=torch.full((count,), prior, **options),
    )


def test_exact_distances_are_recovered(rng):
    graph, displacements, deformations = problem(crystals(6, rng))
    exact = lengths_of(graph, displacements, deformations)
    solution = solver.solve(graph, prediction_of(graph, exact))
    assert (solution.status == solver.SolveStatus.SOLVED).all()
    assert (solution.displacements - displacements).abs().max() < 1e-4
    assert (solution.deformations - deformations).abs().max() < 1e-4
    assert (solution.residuals < 1e-5).all()
    assert (solution.steps > 1).all()


@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_noisy_distances_beat_the_hinge(rng, noise):
    """With the paper's 50 neighbours; both get the true cell and the same noisy displacements."""
    config = CONFIG.model_copy(update={"max_neighbors": 50})
    graph, displacements, deformations = problem(crystals(8, rng), config)
    exact = lengths_of(graph, displacements, deformations)
    noisy = exact + torch.from_numpy(rng.laplace(scale=noise, size=len(exact)))
    moves = displacements + torch.from_numpy(rng.laplace(scale=noise, size=displacements.shape))
    known = prediction_of(graph, noisy, scale=noise, prior=1.0)
    prediction = replace(
        known,
        strains=logarithm(deformations),
        strain_weights=torch.full_like(known.strain_weights, 1e6),
        displacements=moves,
        displacement_log_scales=torch.full_like(known.displacement_log_scales, np.log(noise)),
    )

    def mean_error(method):
        solution = solver.solve(graph, prediction, method=method)
        return (solution.displacements - displacements).norm(dim=1).mean()

    hinge = mean_error("bed")
    assert mean_error("joint") < 0.7 * hinge


def test_certainties_are_used(rng):
    """Where some distances are four times as certain as others, the hinge falls behind."""
    graph, displacements, deformations = problem(crystals(8, rng), CONFIG)
    exact = lengths_of(graph, displacements, deformations)
    scales = torch.from_numpy(rng.choice([0.02, 0.2], size=len(exact)))
    noisy = exact + torch.from_numpy(rng.laplace(size=len(exact))) * scales
    prediction = replace(
        prediction_of(graph, noisy),
        distance_log_scales=scales.log(),
        distance_weights=scales**-2,
        strains=logarithm(deformations),
    )

    def mean_error(method):
        solution = solver.solve(graph, prediction, method=method)
        return (solution.displacements - displacements).norm(dim=1).mean()

    assert mean_error("joint") < 0.8 * mean_error("bed")


def logarithm(deformations):
    stretches, axes = torch.linalg.eigh(deformations)
    return (axes * stretches.log()[:, None, :]) @ axes.transpose(1, 2)


def test_prediction_alone_without_steps(rng):
    graph, displacements, deformations = problem(crystals(1, rng))
    exact = lengths_of(graph, displacements, deformations)
    prediction = replace(prediction_of(graph, exact), displacements=0.1 * displacements)
    solution = solver.solve(graph, prediction, max_steps=0)
    torch.testing.assert_close(solution.displacements, prediction.displacements)
    assert solution.steps.tolist() == [0]


def test_certainties_decide(rng):
    """An atom whose displacement is certain stays where its head puts it."""
    graph, displacements, deformations = problem(crystals(1, rng))
    noisy = lengths_of(graph, displacements, deformations) + 0.2
    weights = torch.full((len(graph.numbers),), 1e6, dtype=torch.float64)
    prediction = replace(
        prediction_of(graph, noisy), displacements=displacements, displacement_weights=weights
    )
    solution = solver.solve(graph, prediction)
    torch.testing.assert_close(solution.displacements, displacements, atol=1e-3, rtol=0)


def test_gradients(rng):
    small = [next(crystals(1, rng, repeat=(1, 1, 1)))]
    config = CONFIG.model_copy(update={"max_neighbors": 4})
    graph = build_graph([small[0][0]], ["PBE"], config)
    distances = lengths_of(graph, small[0][1], small[0][2][None])
    fixed = prediction_of(graph, distances, prior=0.5)

    def solved(distances, distance_weights, displacements, displacement_weights, strains, weights):
        prediction = replace(
            fixed,
            distances=distances,
            distance_weights=distance_weights,
            displacements=displacements,
            displacement_weights=displacement_weights,
            strains=(strains + strains.transpose(1, 2)) / 2,
            strain_weights=weights,
        )
        state = heads = solver.start(prediction)
        for _ in range(2):
            state = solver.gauss_newton_step(graph, prediction, heads, state)
        return state

    inputs = (
        fixed.distances,
        fixed.distance_weights,
        fixed.displacements + 0.01,
        fixed.displacement_weights,
        fixed.strains + 0.01,
        fixed.strain_weights,
    )
    inputs = tuple(tensor.clone().requires_grad_() for tensor in inputs)
    assert torch.autograd.gradcheck(solved, inputs, atol=1e-6, fast_mode=True)


def test_batch_equals_single(rng):
    some = [*crystals(2, rng), *crystals(2, rng, repeat=(1, 1, 1)), *crystals(1, rng, (2, 2, 1))]
    graph, displacements, deformations = problem(some)
    noisy = lengths_of(graph, displacements, deformations) + 0.01
    batched = solver.solve(graph, prediction_of(graph, noisy, prior=0.1))
    start = 0
    for number, entry in enumerate(some):
        single_graph, u, f = problem([entry])
        single = solver.solve(
            single_graph,
            prediction_of(single_graph, lengths_of(single_graph, u, f) + 0.01, prior=0.1),
        )
        count = len(single_graph.numbers)
        torch.testing.assert_close(
            batched.displacements[start : start + count], single.displacements, atol=1e-6, rtol=0
        )
        torch.testing.assert_close(
            batched.deformations[number], single.deformations[0], atol=1e-7, rtol=0
        )
        start += count


def test_sparse_equals_dense(rng, monkeypatch):
    graph, displacements, deformations = problem(crystals(2, rng))
    noisy = lengths_of(graph, displacements, deformations) + 0.01
    prediction = prediction_of(graph, noisy, prior=0.1)
    dense = solver.solve(graph, prediction)
    monkeypatch.setattr("deeprelax_ase.solver.dense._LARGEST_DENSE", 8)
    sparse = solver.solve(graph, prediction)
    torch.testing.assert_close(sparse.displacements, dense.displacements, atol=1e-6, rtol=0)
    torch.testing.assert_close(sparse.deformations, dense.deformations, atol=1e-7, rtol=0)


def test_sparse_and_dense_in_one_batch(rng, monkeypatch):
    small, large = crystals(1, rng, repeat=(1, 1, 1)), crystals(1, rng, repeat=(2, 1, 1))
    graph, displacements, deformations = problem([*large, *small, *crystals(1, rng)])
    noisy = lengths_of(graph, displacements, deformations) + 0.01
    prediction = prediction_of(graph, noisy, prior=0.1)
    dense = solver.solve(graph, prediction)
    monkeypatch.setattr("deeprelax_ase.solver.dense._LARGEST_DENSE", 8)
    mixed = solver.solve(graph, prediction)
    torch.testing.assert_close(mixed.displacements, dense.displacements, atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed.deformations, dense.deformations, atol=1e-7, rtol=0)


def test_five_thousand_atoms(rng):
    """Without a dense matrix, which would take 1.8 GB."""
    some = list(crystals(1, rng, repeat=(9, 9, 8)))
    graph, displacements, deformations = problem(some)
    assert len(graph.numbers) > 5000
    exact = lengths_of(graph, displacements, deformations)
    prediction = prediction_of(graph, exact, prior=1e-2)
    solution = solver.solve(graph, prediction, max_steps=2)
    before = (graph.edge_lengths - exact).abs().mean()
    found = lengths_of(graph, solution.displacements, solution.deformations)
    assert (found - exact).abs().mean() < 0.05 * before
    assert (solution.status == solver.SolveStatus.SOLVED).all()


def test_vacuum_axes_stay(rng):
    disturbed, _, _ = next(crystals(1, rng))
    sheet = replace(disturbed, pbc=np.array([True, True, False]))
    graph = build_graph([sheet], ["PBE"], CONFIG)
    solution = solver.solve(graph, prediction_of(graph, 1.03 * graph.edge_lengths, prior=1e-3))
    normal = np.cross(sheet.cell[0], sheet.cell[1])
    np.testing.assert_allclose(solution.deformations[0].numpy() @ normal, normal, rtol=1e-9)
    assert abs(solution.deformations[0].trace() - 3) > 0.01


def test_two_atoms_on_top_are_refused():
    crystal = Crystal(
        np.array([8, 8]), np.array([[0, 0, 0], [0, 0, 1.2]]), np.eye(3), np.array([False] * 3)
    )
    graph = build_graph([crystal], ["PBE"], CONFIG)
    prediction = prediction_of(graph, torch.tensor([0.1], dtype=torch.float64))
    solution = solver.solve(graph, prediction)
    assert solution.status.tolist() == [solver.SolveStatus.ATOMS_OVERLAP]
    assert solver.SolveStatus.ATOMS_OVERLAP.sentence.startswith("predicted atoms")
    assert lengths_of(graph, solution.displacements, solution.deformations).min() > 0.5


def test_atoms_that_overlap_only_by_the_heads_are_parted():
    """The lengths say where they belong: hydrogen that would go through its oxygen."""
    crystal = Crystal(
        np.array([8, 1]), np.array([[0, 0, 0], [0, 0, 1.0]]), np.eye(3), np.array([False] * 3)
    )
    graph = build_graph([crystal] * 2, ["PBE"] * 2, CONFIG)
    prediction = prediction_of(graph, torch.tensor([0.97, 0.97], dtype=torch.float64), prior=0.05)
    prediction.displacements[[1, 3], 2] = torch.tensor([-0.8, 0.1], dtype=torch.float64)
    solution = solver.solve(graph, prediction, max_steps=1)
    assert solution.status.tolist() == [solver.SolveStatus.SOLVED] * 2
    lengths = lengths_of(graph, solution.displacements, solution.deformations)
    assert 0.9 < lengths[0] < 0.97
    assert 0.97 < lengths[1] < 1.0
    far = replace(prediction, distances=torch.tensor([0.1, 0.97], dtype=torch.float64))
    solution = solver.solve(graph, far, max_steps=1)
    assert solution.status[0] == solver.SolveStatus.ATOMS_OVERLAP
    assert not solution.displacements[:2].any()
    unasked = solver.solve(graph, prediction, max_steps=0)
    assert unasked.status[0] == solver.SolveStatus.ATOMS_OVERLAP


@pytest.mark.parametrize("method", ["joint", "bed"])
def test_nan_and_collapse_keep_the_input(rng, method):
    graph, displacements, deformations = problem(crystals(3, rng))
    prediction = prediction_of(graph, lengths_of(graph, displacements, deformations))
    strains = prediction.strains.clone()
    strains[1] = -3 * torch.eye(3)
    moves = prediction.displacements.clone()
    moves[-1] = torch.nan
    bad = replace(prediction, strains=strains, displacements=moves)
    solution = solver.solve(graph, bad, method=method)
    assert solution.status[1] == solver.SolveStatus.COLLAPSED_CELL
    assert solution.displacements.isfinite().all()
    assert (torch.linalg.det(solution.deformations) > 0).all()
    torch.testing.assert_close(solution.deformations[1], torch.eye(3, dtype=torch.float64))
    if method == "joint":
        assert solution.status[2] == solver.SolveStatus.NOT_FINITE


def test_bed_moves_towards_the_bounds(rng):
    graph, displacements, deformations = problem(crystals(2, rng))
    prediction = prediction_of(graph, lengths_of(graph, displacements, deformations), scale=0.02)
    informed = replace(prediction, strains=logarithm(deformations), displacements=displacements)
    solution = solver.solve(graph, informed, method="bed")
    assert solution.steps.tolist() == [100, 100]
    before = displacements.norm(dim=1).mean()
    assert (solution.displacements - displacements).norm(dim=1).mean() < 0.5 * before


def test_unknown_method(rng):
    graph, displacements, deformations = problem(crystals(1, rng))
    prediction = prediction_of(graph, lengths_of(graph, displacements, deformations))
    with pytest.raises(ValueError, match="choose from joint, bed"):
        solver.solve(graph, prediction, method="adam")
