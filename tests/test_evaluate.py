import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import SMALL
from datasets import write_pairs, write_relaxed
from test_cli import run

from deeprelax_ase.datasets.pair_file import PairFile
from deeprelax_ase.evaluation.evaluate import evaluate
from deeprelax_ase.evaluation.fit_calibration import calibrate
from deeprelax_ase.evaluation.tables import as_json, as_markdown, by_element, summarise
from deeprelax_ase.network.checkpoint import load_weights, save_weights
from deeprelax_ase.network.paegnn import PaEGNN
from deeprelax_ase.relaxation.relaxer import Relaxer
from deeprelax_ase.structures.crystal import log_symmetric
from deeprelax_ase.structures.read_structure import plain_structure


@pytest.fixture
def weights_file(random_weights, tmp_path):
    path = tmp_path / "own.safetensors"
    path.write_bytes(random_weights.read_bytes())
    return path


def test_counts_every_crystal_of_the_split(random_weights, tmp_path):
    weights = load_weights(random_weights)
    pairs = write_pairs(tmp_path / "pairs.parquet")
    result = evaluate(pairs, weights)
    assert len(result) == len(result.bond_errors) == len(result.sources) == 8
    assert not result.failed.any()
    assert result.moved.all()
    summary = summarise(result)
    assert summary["crystals"] == 8
    errors, dummy = result.errors.displacement, result.dummy.displacement
    assert summary["displacement"]["mean"] == pytest.approx(errors.mean())
    assert summary["displacement"]["median"] == pytest.approx(np.median(errors))
    assert summary["displacement"]["percentile_90"] == pytest.approx(np.percentile(errors, 90))
    better = 100 * (1 - errors.mean() / dummy.mean())
    assert summary["displacement"]["better"] == pytest.approx(better)
    low, high = summary["displacement"]["better_interval"]
    assert low < better < high
    assert len(evaluate(pairs, weights, limit=3)) == 3
    assert as_markdown([result]).splitlines()[2].startswith("| `pairs` | 8 |")


def test_refused_crystals_count_as_their_input(random_weights, tmp_path, monkeypatch):
    monkeypatch.setattr("deeprelax_ase.relaxation.sanity_checks.LARGEST_DISPLACEMENT", 0.0)
    result = evaluate(write_pairs(tmp_path / "pairs.parquet"), load_weights(random_weights))
    assert result.failed.all()
    assert summarise(result)["displacement"]["better"] == pytest.approx(0)


def test_crystals_left_as_they_were_count_as_their_input(weights_file, tmp_path):
    unsure = with_calibration(weights_file, {"distance": 1e3})
    pairs = write_pairs(tmp_path / "pairs.parquet")
    result = evaluate(pairs, unsure)
    assert not result.moved.any()
    assert not result.failed.any()
    assert summarise(result)["bonds"]["better"] == pytest.approx(0)
    assert evaluate(pairs, unsure, always_move=True).moved.all()


def with_calibration(path, calibration):
    weights = load_weights(path)
    save_weights(path, weights.network, weights.provenance, calibration)
    return path


def test_perfect_predictions_match_and_are_the_best(random_weights, tmp_path, monkeypatch):
    """Against the truth itself every measure is as it should be."""
    pairs = write_pairs(tmp_path / "pairs.parquet")
    monkeypatch.setattr("deeprelax_ase.evaluation.evaluate.Relaxer", Oracle)
    Oracle.file = PairFile(pairs, "val")
    result = evaluate(pairs, random_weights, match=True)
    summary = summarise(result)
    for name in ("coordinates", "displacement", "bonds", "lattice", "volume"):
        assert summary[name]["better"] == pytest.approx(100, abs=1e-6)
    assert summary["match_rate"] == 100
    assert summary["uncertainty"]["coverage"] == {"0.5": 100.0, "0.8": 100.0, "0.9": 100.0}


class Oracle(Relaxer):
    """Knows the answers."""

    file = None

    def relax_many(self, structures):
        for structure in map(plain_structure, structures):
            result = self.relax(structure)
            found = (self.file[row] for row in range(len(self.file)))
            pair = next(
                p
                for p in found
                if p.crystal.positions.shape == structure.positions.shape
                and np.allclose(p.crystal.positions, structure.positions)
            )
            i, j = result.bonds.edge_index
            places = pair.crystal.positions + pair.displacements
            vectors = places[j] + result.bonds.offsets @ pair.crystal.cell - places[i]
            lengths = np.linalg.norm(vectors @ pair.deformation, axis=1)
            yield replace(
                result,
                displacement=pair.displacements,
                strain=log_symmetric(pair.deformation),
                bonds=replace(result.bonds, lengths=lengths),
            )


def test_by_element_and_source(random_weights, tmp_path):
    result = evaluate(write_pairs(tmp_path / "pairs.parquet"), random_weights)
    counts = {part.name: len(part) for part in by_element(result)}
    assert counts["O"] == 8
    assert 0 < counts["Ti"] < 8
    table = as_json([result])["pairs"]
    assert table["sources"]["made by the tests"]["crystals"] == 8
    assert table["elements"]["Ti"]["crystals"] == counts["Ti"]
    json.dumps(table, allow_nan=False)


def test_predicted_bonds_are_compared_with_the_right_targets(random_weights, tmp_path):
    """A sheet in a box, whose atoms are shifted before its graph is built."""
    path = write_pairs(tmp_path / "sheets.parquet", sheets=True, drop=["pbc"])
    weights = load_weights(random_weights)
    result = evaluate(path, weights)
    assert np.median(np.concatenate(result.bond_errors)) < 0.5
    assert 0 < np.median(result.distance_errors) < 0.5
    assert np.isfinite(summarise(result)["uncertainty"]["spearman_distances"])


def test_calibration_makes_expected_errors_true_on_average(weights_file, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.parquet")
    before = load_weights(weights_file)
    calibrate(weights_file, [pairs])
    after = load_weights(weights_file)
    assert after.provenance == before.provenance
    assert after.sha256 != before.sha256
    result = evaluate(pairs, after, always_move=True)
    assert result.expected_displacement.mean() == pytest.approx(result.errors.displacement.mean())
    errors, scales = (np.concatenate(e) for e in (result.bond_errors, result.bond_scales))
    assert scales.mean() == pytest.approx(errors.mean())
    for share, within in result.within.items():
        assert np.concatenate(within).mean() == pytest.approx(share, abs=0.01)


def test_what_is_held_is_calibrated_on_as_it_is_used(weights_file, tmp_path):
    table = pq.read_table(write_pairs(tmp_path / "pairs.parquet")).to_pylist()
    for row in table:
        # In fractional coordinates two atoms are where they were.
        old, new = (np.reshape(row[name], (3, 3)) for name in ("cell", "relaxed_cell"))
        inside = np.reshape(row["relaxed_positions"], (-1, 3)) @ np.linalg.inv(new)
        start = np.reshape(row["positions"], (-1, 3))
        end = np.where(np.arange(len(inside))[:, None] < 2, start, inside @ old)
        row["relaxed_cell"], row["relaxed_positions"] = row["cell"], end.ravel().tolist()
        row["fixed"], row["cell_free"] = [k < 2 for k in range(len(end))], False
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "held.parquet")
    calibration = calibrate(weights_file, [tmp_path / "held.parquet", tmp_path / "pairs.parquet"])
    assert all(map(np.isfinite, [*calibration.crystal, *calibration.intervals.values()]))
    held = evaluate(tmp_path / "held.parquet", weights_file, always_move=True)
    actual = np.mean([errors.mean() for errors in held.bond_errors])
    assert 0.3 < held.expected.mean() / actual < 3
    assert any((scales == 0).any() for scales in held.bond_scales)
    # Of the strain, crystals whose cell is held tell nothing.
    assert calibrate(weights_file, [tmp_path / "held.parquet"]).strain == calibration.strain


def test_what_counts_as_a_move_is_chosen_and_stays(weights_file, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.parquet")
    assert calibrate(weights_file, [pairs]).least_gain == 0.65
    assert run("calibrate", weights_file, pairs, "--least-gain", 1).exit_code == 0
    assert not evaluate(pairs, weights_file).moved.any()
    assert calibrate(weights_file, [pairs]).least_gain == 1
    with pytest.raises(ValueError, match="least_gain is nan"):
        calibrate(weights_file, [pairs], least_gain=float("nan"))


def test_an_ensemble_is_calibrated_beside_the_single_network(weights_file, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.parquet")
    with pytest.raises(ValueError, match="has no replicates"):
        calibrate(weights_file, [pairs], ensemble=True)
    torch.manual_seed(5)
    save_weights(tmp_path / "own-2.safetensors", PaEGNN(SMALL), {})
    calibrate(weights_file, [pairs])
    alone = load_weights(weights_file).calibration
    calibrate(weights_file, [pairs], ensemble=True)
    both = load_weights(weights_file).calibration
    assert {name: both[name] for name in alone} == alone
    assert both["ensemble"]["distance"] != alone["distance"]
    calibrate(weights_file, [pairs])
    assert load_weights(weights_file).calibration == both


def test_a_crystal_that_fails_alone_of_its_functional_is_counted(weights_file, tmp_path):
    path = write_pairs(tmp_path / "pairs.parquet")
    table = pq.read_table(path).to_pylist()
    for row in table:
        row["functional"] = "PBE"
    bad = next(row for row in table if row["split"] == "val")
    bad["functional"] = "r2SCAN"
    for name in ("cell", "positions", "relaxed_cell", "relaxed_positions"):
        bad[name] = [1e3 * value for value in bad[name]]  # a mistake of units
    shift = np.subtract(bad["relaxed_positions"], bad["positions"]) / 1e3
    bad["relaxed_positions"] = (np.array(bad["positions"]) + shift).tolist()
    bad["relaxed_cell"] = bad["cell"]
    pq.write_table(pa.Table.from_pylist(table), path)
    result = evaluate(path, weights_file)
    assert result.failed.sum() == 1
    coverage = summarise(result)["uncertainty"]["coverage"]
    assert all(0 <= value <= 100 for value in coverage.values())
    assert len(coverage) == 3
    calibrate(weights_file, [path])


def test_files_of_one_name_are_told_apart(weights_file, tmp_path):
    (tmp_path / "other").mkdir()
    first = write_pairs(tmp_path / "pairs.parquet")
    second = write_pairs(tmp_path / "other" / "pairs.parquet", count=20)
    result = run("evaluate", first, second, "--model", weights_file, "--json", "--no-match")
    assert [entry["crystals"] for entry in json.loads(result.stdout).values()] == [8, 4]


def test_a_file_given_twice_is_refused(weights_file, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.parquet")
    result = run("evaluate", pairs, pairs, "--model", weights_file)
    assert result.exit_code == 2
    assert "given 2 times" in result.stderr


def test_if_all_fail_it_is_said(weights_file, tmp_path, monkeypatch):
    monkeypatch.setattr("deeprelax_ase.structures.validation.LARGEST_COORDINATE", 0.0)
    pairs = write_pairs(tmp_path / "pairs.parquet")
    result = run("evaluate", pairs, "--model", weights_file)
    assert result.exit_code == 1
    assert "| 0 | 8 |" in result.stdout


def test_few_crystals_are_not_calibrated_on(weights_file, tmp_path):
    before = weights_file.read_bytes()
    pairs = write_pairs(tmp_path / "pairs.parquet")
    with pytest.raises(ValueError, match="1 crystals with bonds are too few to fit 6"):
        calibrate(weights_file, [pairs], limit=1)
    assert weights_file.read_bytes() == before
    with pytest.warns(UserWarning, match="calibrated on 8 crystals"):
        calibrate(weights_file, [pairs])


@pytest.mark.parametrize("limit", ["0", "-1"])
def test_limits_are_positive(weights_file, tmp_path, limit):
    pairs = write_pairs(tmp_path / "pairs.parquet")
    for command in (
        ("evaluate", pairs, "--model", weights_file),
        ("calibrate", weights_file, pairs),
    ):
        assert run(*command, "--limit", limit).exit_code == 2
    with pytest.raises(ValueError, match="positive"):
        evaluate(pairs, weights_file, limit=0)


def test_shipped_weights_are_not_calibrated_by_name(tmp_path):
    with pytest.raises(ValueError, match="name the weights file"):
        calibrate("default", [write_pairs(tmp_path / "pairs.parquet")])


def test_no_error_to_be_better_than(weights_file, tmp_path):
    path = tmp_path / "still.parquet"
    table = pq.read_table(write_pairs(tmp_path / "pairs.parquet")).to_pylist()
    for row in table:
        row |= {"relaxed_cell": row["cell"], "relaxed_positions": row["positions"]}
    pq.write_table(pa.Table.from_pylist(table), path)
    result = evaluate(path, weights_file)
    assert as_json([result])["still"]["volume"]["better"] is None
    assert "| - |" in as_markdown([result])


def test_command_line(weights_file, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.parquet")
    assert run("calibrate", weights_file, pairs).exit_code == 0
    result = run("evaluate", pairs, "--model", weights_file, "--details")
    assert result.exit_code == 0
    assert "| `pairs` | 8 |" in result.stdout
    assert "`pairs` by element" in result.stdout
    machine = run("evaluate", pairs, "--model", weights_file, "--json", "--no-match")
    assert json.loads(machine.stdout)["pairs"]["crystals"] == 8
    relaxed = write_relaxed(tmp_path / "relaxed.parquet")
    wrong = run("evaluate", relaxed, "--model", weights_file)
    assert wrong.exit_code == 2
    assert "not pairs" in wrong.stderr
    assert run("evaluate", tmp_path / "none.parquet", "--model", weights_file).exit_code == 2
