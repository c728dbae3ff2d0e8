"""The parts of the benchmarks that can be wrong without anybody seeing it in a table."""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import SMALL
from datasets import write_pairs

from benchmarks import ablation, baselines, kinds, transfer
from deeprelax_ase.datasets.pair_file import PairFile, collate
from deeprelax_ase.training.config import LossConfig

_NOT_OF_CONFIGURATION = {"is_told_functional": True, "denoises_first": False}


@pytest.fixture
def batch(tmp_path):
    file = PairFile(write_pairs(tmp_path / "pairs.parquet"), "train")
    return collate([file[row] for row in range(4)], SMALL)


@pytest.mark.parametrize("name", baselines.NETWORKS)
def test_networks_to_compare_with_learn_and_move_no_centre(batch, name):
    graph, targets = (part.to(torch.float32) for part in batch)
    torch.manual_seed(0)
    network = baselines.NETWORKS[name](SMALL)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)

    def apart():
        with torch.no_grad():
            moves, deformations = network.relax(batch[0])
        assert graph.mean(moves.float()).abs().max() < 1e-5
        cells = (deformations - batch[1].deformations).abs().mean()
        return float((moves - batch[1].displacements).abs().mean() + cells)

    before = apart()
    for _ in range(150):
        optimizer.zero_grad()
        network.loss(graph, targets, LossConfig()).backward()
        optimizer.step()
    assert apart() < 0.5 * before


@pytest.mark.parametrize("name", baselines.NETWORKS)
def test_displacements_of_networks_to_compare_with_turn_with_the_crystal(batch, name):
    """Not the lattices of all: in the paper's reference they come from the numbers of the cell."""
    graph = batch[0]
    torch.manual_seed(0)
    network = baselines.NETWORKS[name](SMALL)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turned = type(graph)(
        **{
            **vars(graph),
            "positions": graph.positions @ turn,
            "cells": graph.cells @ turn,
            "edge_vectors": graph.edge_vectors @ turn,
        }
    )
    with torch.no_grad():
        if name == "pairwise":  # Adam, in the paper's solver, knows the axes: what it is given
            distances, turned_distances = (
                network.of_pairs(g.to(torch.float32))[3] for g in (graph, turned)
            )
            torch.testing.assert_close(turned_distances, distances, rtol=0, atol=1e-4)
            return
        moves, _ = network.relax(graph)
        turned_moves, _ = network.relax(turned)
    torch.testing.assert_close(turned_moves, moves @ turn, rtol=0, atol=1e-4)


def test_every_variant_is_a_valid_configuration(tmp_path):
    base = ablation.variant_config(ablation.Variant(), 3, tmp_path)
    assert base.seed == 3
    for variant in ablation.VARIANTS.values():
        config = ablation.variant_config(variant, 3, tmp_path)
        changes_nothing = ablation.Variant(**{**vars(variant), **_NOT_OF_CONFIGURATION})
        assert (config == base) == (changes_nothing == ablation.Variant())


def test_table_is_the_mean_of_the_seeds(tmp_path):
    for seed, value in enumerate((10.0, 20.0)):
        folder = ablation.run_folder(tmp_path, "control", seed)
        folder.mkdir()
        (folder / "config.json").write_text('{"steps": 4000}')
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


def test_hydrides_are_split_by_formula_and_defects_held_out(tmp_path):
    pairs = pq.read_table(write_pairs(tmp_path / "pairs.parquet")).to_pylist()[:1]
    numbers = pairs[0]["numbers"]

    def row(source, first, split="train"):
        return {**pairs[0], "source": source, "split": split, "numbers": [first, *numbers[1:]]}

    rows = [row("Sr-Nb-H hydrides", z) for z in range(3, 13) for _ in range(3)]
    rows += [row("Sr-Nb-H hydrides", 13, "test"), row("doped MgO defects", 3)]
    rows += [row("ShakeNBreak CdTe defects", 3), row("workflow tests", 3)]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "all.parquet")
    files = transfer.split_hydrides(tmp_path / "all.parquet", tmp_path)
    assert set(files) == {"hydrides", "MgO", "CdTe"}
    splits = {}
    for kept in pq.read_table(files["hydrides"]).to_pylist():
        splits.setdefault(kept["split"], []).append(kept["numbers"][0])
    assert sorted(splits["train"] + splits["val"]) == sorted(3 * list(range(3, 13)))
    assert len(splits["val"]) == 6
    assert not set(splits["train"]) & set(splits["val"])
    for label in ("MgO", "CdTe"):
        (kept,) = pq.read_table(files[label]).to_pylist()
        assert kept["split"] == "val"
        assert label in kept["source"]


def test_a_kind_that_is_left_out_is_not_fitted_on():
    rng = np.random.default_rng(0)

    def kind(error):
        scales = tuple(rng.uniform(0.5, 2.0, size=6) for _ in range(40))
        signs = np.array([[*np.log([s.mean(), 1.0, 1.0, 1.0]), 0.0] for s in scales])
        errors = error * np.array([s.mean() for s in scales])
        return kinds.Kind(errors, signs, scales, 0.0, 10.0)

    found = kinds.leave_out({"a": kind(0.1), "b": kind(0.1), "odd": kind(1.0)})
    assert found["odd"]["ratio_left_out"] == pytest.approx(0.1, rel=0.05)
    assert found["odd"]["ratio"] > 2 * found["odd"]["ratio_left_out"]
    assert found["odd"]["spearman_left_out"] > 0.95
    assert len(kinds.table(found).splitlines()) == 5
