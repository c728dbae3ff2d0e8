"""The parts of the benchmarks that can be wrong without anybody seeing it in a table."""

import csv

import pytest
import torch
import typer
from conftest import SMALL
from datasets import write_pairs

from benchmarks import ablation, average, baselines
from deeprelax_ase.checkpoint import load_weights, save_weights
from deeprelax_ase.data.dataset import PairFile, collate
from deeprelax_ase.model import PaEGNN


@pytest.fixture
def batch(tmp_path):
    file = PairFile(write_pairs(tmp_path / "pairs.parquet"), "train")
    return collate([file[row] for row in range(4)], SMALL)


@pytest.mark.parametrize("name", baselines.NETWORKS)
def test_baselines_learn_and_move_no_centre(batch, name):
    graph, targets = (part.to(torch.float32) for part in batch)
    torch.manual_seed(0)
    network = baselines.NETWORKS[name](SMALL)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = baselines.loss(graph, *network(graph), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    moves, cells = network(graph)
    assert graph.mean(moves).abs().max() < 1e-5
    assert cells.shape == (4, 3, 3)


@pytest.mark.parametrize("name", baselines.NETWORKS)
def test_displacements_of_baselines_turn_with_the_crystal(batch, name):
    """Not their lattices: as in the paper's reference, they come from the numbers of the cell."""
    graph = batch[0]
    torch.manual_seed(0)
    network = baselines.NETWORKS[name](SMALL).double()
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turned = type(graph)(
        **{
            **vars(graph),
            "positions": graph.positions @ turn,
            "cells": graph.cells @ turn,
            "edge_vectors": graph.edge_vectors @ turn,
        }
    )
    torch.testing.assert_close(network(turned)[0], network(graph)[0] @ turn)


def test_every_variant_is_a_valid_configuration(tmp_path):
    base = ablation.variant_config({}, 3, tmp_path)
    assert base.seed == 3
    for name, changes in ablation.VARIANTS.items():
        config = ablation.variant_config(changes, 3, tmp_path)
        assert (config == base) == (name == "control")


def test_table_is_the_mean_of_the_seeds(tmp_path):
    for seed, value in enumerate((10.0, 20.0)):
        folder = ablation.run_folder(tmp_path, "control", seed)
        folder.mkdir()
        with (folder / "validation.csv").open("w", newline="") as stream:
            columns = ["step", "set", "coordinates", "displacement", "bonds", "lattice", "volume"]
            writer = csv.writer(stream)
            writer.writerow(columns)
            for step in (2000, 4000):
                for name in ablation.SETS:
                    writer.writerow([step, name, *[value if step == 4000 else 0.0] * 5])
    rows = ablation.table(ablation.collect(tmp_path)).splitlines()
    assert (
        rows[-1] == "| control | 2 | " + " | ".join(["/".join([" 15.0 "] * 5).strip()] * 4) + " |"
    )


def test_average_is_the_mean_of_the_weights(tmp_path, random_weights):
    torch.manual_seed(3)
    other = tmp_path / "other.safetensors"
    first = load_weights(random_weights)
    save_weights(other, PaEGNN(first.network.config), {"elements": [8]})
    average.average(tmp_path / "mean.safetensors", [str(random_weights), str(other)])
    mean = load_weights(tmp_path / "mean.safetensors")
    second = load_weights(other)
    for key, value in mean.network.state_dict().items():
        expected = (first.network.state_dict()[key] + second.network.state_dict()[key]) / 2
        torch.testing.assert_close(value, expected)
    assert mean.provenance["average_of"] == [first.sha256, second.sha256]
    assert mean.provenance["elements"] == [8]


def test_average_of_different_networks_is_refused(tmp_path, random_weights, capsys):
    with pytest.raises(typer.Exit):
        average.average(tmp_path / "mean.safetensors", [str(random_weights), "default"])
    assert "are not of one configuration" in capsys.readouterr().err
    assert not (tmp_path / "mean.safetensors").exists()
