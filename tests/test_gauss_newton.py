"""The joint fit against least squares written down a second time, in its plainest form."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_edg import CONFIG, crystals, lengths_of, prediction_of, problem

from deeprelax_ase import solver
from deeprelax_ase.network.graph import build_graph
from deeprelax_ase.solver.state import choose


def contradictory(rng, repeats, noise=0.05, **changes):
    """Crystals, and a prediction whose distances, displacements and strains disagree."""
    some = [next(crystals(1, rng, repeat))[0] for repeat in repeats]
    some = [replace(crystal, **changes) for crystal in some]
    graph = build_graph(some, ["PBE"] * len(some), CONFIG).to(torch.float64)

    def normal(*shape, scale=1.0):
        return torch.from_numpy(rng.normal(scale=scale, size=shape))

    atoms, count, pairs = len(graph.numbers), len(some), len(graph.edge_lengths)
    displacements = normal(atoms, 3, scale=noise)
    strains = normal(count, 3, 3, scale=noise)
    strains = ((strains + strains.mT) / 2).reshape(count, 9, 1)
    return graph, replace(
        prediction_of(graph, graph.edge_lengths + normal(pairs, scale=noise)),
        distance_weights=normal(pairs).exp(),
        displacements=graph.settled(displacements),
        displacement_weights=5 * normal(atoms).exp(),
        strains=(graph.strain_projectors @ strains).view(count, 3, 3),
        strain_weights=500 * normal(count).exp(),
    )


def terms(graph, prediction, displacements, deformations):
    """What is squared and summed: misfit of pairs, atoms and cells, each by its certainty."""
    heads = solver.start(prediction)
    lengths = lengths_of(graph, displacements, deformations)
    moves, strains = displacements - heads[0], deformations - heads[1]
    return torch.cat(
        [
            prediction.distance_weights.sqrt() * (lengths - prediction.distances),
            (prediction.displacement_weights.sqrt()[:, None] * moves).flatten(),
            (prediction.strain_weights.sqrt()[:, None, None] * strains).flatten(),
        ]
    )


def objectives(graph, prediction, displacements, deformations):
    squares = terms(graph, prediction, displacements, deformations) ** 2
    of_terms = [
        graph.edge_batch,
        graph.batch.repeat_interleave(3),
        torch.arange(graph.num_crystals).repeat_interleave(9),
    ]
    return torch.zeros(graph.num_crystals).double().index_add(0, torch.cat(of_terms), squares)


@pytest.mark.parametrize("kind", ["free", "sheet", "fixed atoms", "fixed cell"])
def test_a_step_is_the_least_squares_of_the_linearised_fit(rng, kind):
    repeats, changes = [(1, 1, 1), (2, 1, 1)], {}
    if kind == "sheet":
        changes["pbc"] = np.array([True, True, False])
    elif kind == "fixed atoms":
        repeats, changes["fixed"] = [(1, 1, 1)] * 2, np.arange(8) < 3
    elif kind == "fixed cell":
        changes["held_strain"] = np.eye(9)
    graph, prediction = contradictory(rng, repeats, **changes)
    state = solver.start(prediction)
    atoms, count = len(graph.numbers), graph.num_crystals

    def moved(changes):
        strains = changes[3 * atoms :].view(count, 3, 3)
        strains = ((strains + strains.mT) / 2).reshape(count, 9, 1)
        strains = (graph.strain_projectors @ strains).view(count, 3, 3)
        moves = changes[: 3 * atoms].view(atoms, 3) * graph.free[:, None]
        return state[0] + moves, state[1] + strains

    def misfits(changes):
        return terms(graph, prediction, *moved(changes))

    none = torch.zeros(3 * atoms + 9 * count, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(misfits, none)
    changes = torch.linalg.lstsq(jacobian, -misfits(none), driver="gelsd").solution
    expected = moved(changes)
    found = solver.gauss_newton_step(graph, prediction, state, state)
    torch.testing.assert_close(found[0], graph.settled(expected[0]), atol=1e-9, rtol=0)
    torch.testing.assert_close(found[1], expected[1], atol=1e-9, rtol=0)


def test_a_step_is_made_where_it_fits_better_and_only_there(rng):
    """Far from the solution a step can overshoot: that crystal stops, and the others go on."""
    graph, prediction = contradictory(rng, [(1, 1, 1)] * 12, noise=0.35)
    heads = solver.start(prediction)
    kept = torch.zeros(graph.num_crystals, dtype=torch.bool)
    solution = solver.solve(graph, prediction, max_steps=0)
    torch.testing.assert_close((solution.displacements, solution.deformations), heads)
    for count in range(1, 5):
        before = solution.displacements, solution.deformations
        step = solver.gauss_newton_step(graph, prediction, heads, before)
        better = objectives(graph, prediction, *step) <= objectives(graph, prediction, *before)
        solution = solver.solve(graph, prediction, max_steps=count, tolerance=0.0)
        expected = choose(graph, better, step, before)
        torch.testing.assert_close((solution.displacements, solution.deformations), expected)
        kept |= ~better
        assert (solution.steps == count)[~kept].all()
    assert kept.any()
    assert not kept.all()


def test_a_crystal_that_is_done_does_not_stop_the_others(rng):
    (done, *_), (other, u, f) = crystals(2, rng, repeat=(1, 1, 1))
    graph = build_graph([done, other], ["PBE"] * 2, CONFIG)
    u, f = torch.cat([torch.zeros_like(u), u]), torch.stack([torch.eye(3).double(), f])
    exact = lengths_of(graph, u, f)
    solution = solver.solve(graph, prediction_of(graph, exact))
    assert solution.steps[0] <= 1
    assert solution.steps[1] > 2
    torch.testing.assert_close(solution.displacements, u, atol=1e-6, rtol=0)


def test_a_loose_tolerance_saves_steps(rng):
    graph, displacements, deformations = problem(crystals(2, rng))
    prediction = prediction_of(graph, lengths_of(graph, displacements, deformations))
    loose, strict = (solver.solve(graph, prediction, tolerance=t) for t in (0.05, 1e-7))
    assert (loose.steps < strict.steps).all()
    torch.testing.assert_close(loose.displacements, displacements, atol=0.05, rtol=0)
