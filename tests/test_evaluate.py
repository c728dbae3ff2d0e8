import numpy as np
import pytest
from datasets import write_pairs, write_relaxed
from test_cli import run

from deeprelax_ase.checkpoint import load_weights
from deeprelax_ase.evaluate import calibrate, evaluate, markdown_table


@pytest.fixture
def weights_file(random_weights, tmp_path):
    path = tmp_path / "own.safetensors"
    path.write_bytes(random_weights.read_bytes())
    return path


def test_counts_every_crystal_of_the_split(random_weights, tmp_path):
    weights = load_weights(random_weights)
    pairs = write_pairs(tmp_path / "pairs.parquet")
    result = evaluate(pairs, weights)
    assert len(result.expected) == 8
    assert result.not_relaxed == 0
    assert len(result.bond_errors) == len(result.bond_uncertainties) > 8
    summary = result.summary()
    assert summary["crystals"] == 8
    assert summary["displacement_error"] == pytest.approx(result.errors.displacement.mean())
    assert len(evaluate(pairs, weights, limit=3).expected) == 3
    assert markdown_table([result]).splitlines()[2].startswith("| `pairs` | 8 |")


def test_refused_crystals_count_as_their_input(random_weights, tmp_path, monkeypatch):
    monkeypatch.setattr("deeprelax_ase.checks.LARGEST_DISPLACEMENT", 0.0)
    result = evaluate(write_pairs(tmp_path / "pairs.parquet"), load_weights(random_weights))
    assert result.not_relaxed == 8
    assert result.summary()["displacement_better"] == pytest.approx(0)


def test_predicted_bonds_are_compared_with_the_right_targets(random_weights, tmp_path):
    """A sheet in a box, whose atoms are shifted before its graph is built."""
    path = write_pairs(tmp_path / "sheets.parquet", sheets=True, drop=["pbc"])
    weights = load_weights(random_weights)
    result = evaluate(path, weights)
    assert np.median(result.bond_errors) < 0.5


def test_calibration_makes_expected_errors_true_on_average(weights_file, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.parquet")
    before = load_weights(weights_file)
    calibrate(weights_file, [pairs])
    after = load_weights(weights_file)
    assert after.provenance == before.provenance
    assert after.sha256 != before.sha256
    summary = evaluate(pairs, after).summary()
    expected = summary["expected_displacement_error"]
    assert expected == pytest.approx(summary["displacement_error"])
    result = evaluate(pairs, after)
    assert result.bond_uncertainties.mean() == pytest.approx(result.bond_errors.mean())


def test_command_line(weights_file, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.parquet")
    assert run("calibrate", weights_file, pairs).exit_code == 0
    result = run("evaluate", pairs, "--model", weights_file)
    assert result.exit_code == 0
    assert "| `pairs` | 8 |" in result.stdout
    assert '"crystals": 8' in run("evaluate", pairs, "--model", weights_file, "--json").stdout
    relaxed = write_relaxed(tmp_path / "relaxed.parquet")
    wrong = run("evaluate", relaxed, "--model", weights_file)
    assert wrong.exit_code == 2
    assert "not pairs" in wrong.stderr
    assert run("evaluate", tmp_path / "none.parquet", "--model", weights_file).exit_code == 2
