import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import SMALL
from datasets import rows, write_pairs, write_relaxed

from deeprelax_ase.datasets.augment import disturb
from deeprelax_ase.datasets.config import NoiseConfig, SourceConfig
from deeprelax_ase.datasets.pair_file import PairFile, collate
from deeprelax_ase.training.config import TrainConfig
from deeprelax_ase.training.mixture import Mixture


@pytest.fixture
def pairs(tmp_path):
    return write_pairs(tmp_path / "pairs.parquet")


@pytest.fixture
def config(tmp_path, pairs):
    relaxed = write_relaxed(tmp_path / "relaxed.parquet")
    sources = (SourceConfig(path=pairs, passes=1.5), SourceConfig(path=relaxed))
    return TrainConfig(name="t", sources=sources, network=SMALL, edges_per_batch=200)


def relaxed_side(pair):
    crystal = pair.crystal
    positions = (crystal.positions + pair.displacements) @ pair.deformation
    return positions, crystal.cell @ pair.deformation


def lengths(positions, cell):
    """What no rotation and no translation changes: distances, and the metric of the cell."""
    scaled = positions @ np.linalg.inv(cell)
    apart = scaled[:, None] - scaled[None]
    return np.einsum("ijk,kl,ijl->ij", apart, cell @ cell.T, apart), cell @ cell.T


def test_pairs_reproduce_the_relaxed_crystal(pairs):
    file = PairFile(pairs, "train")
    stored = [row for row in rows(40) if row["split"] == "train"]
    assert len(file) == len(stored)
    for pair, row in zip((file[k] for k in range(len(file))), stored, strict=True):
        positions, cell = relaxed_side(pair)
        np.testing.assert_allclose(cell, np.reshape(row["relaxed_cell"], (3, 3)), atol=1e-5)
        apart = positions - np.reshape(row["relaxed_positions"], (-1, 3))
        np.testing.assert_allclose(apart - apart.mean(axis=0), 0, atol=1e-5)
        assert pair.functional in ("PBE", "r2SCAN", "unknown")
        assert pair.crystal.positions.dtype == np.float64
    assert file.elements == {8, 12, 22}
    assert set(file.elements_with) == {"PBE", "r2SCAN", "unknown"}


def test_sheets_have_two_periodic_axes(tmp_path):
    file = PairFile(write_pairs(tmp_path / "s.parquet", sheets=True), "train")
    assert file[0].crystal.pbc.tolist() == [True, True, False]
    np.testing.assert_allclose(file[0].deformation[2], [0, 0, 1], atol=1e-6)


def test_targets_are_consistent(pairs):
    file = PairFile(pairs, "train")
    graph, targets = collate([file[k] for k in range(6)], SMALL)
    i, j = graph.edge_index
    vectors = graph.edge_vectors + targets.displacements[j] - targets.displacements[i]
    relaxed = (vectors[:, None] @ targets.deformations[graph.edge_batch])[:, 0]
    torch.testing.assert_close(targets.distances, relaxed.norm(dim=1))
    torch.testing.assert_close(torch.linalg.matrix_exp(targets.strains), targets.deformations)


@pytest.mark.parametrize("sheets", [False, True])
def test_disturbing_keeps_the_relaxed_crystal(tmp_path, sheets, rng):
    file = PairFile(write_pairs(tmp_path / "p.parquet", sheets=sheets), "train")
    noise = NoiseConfig(untouched=0.0)
    for row in range(10):
        pair = file[row]
        disturbed = disturb(pair, noise, rng)
        assert np.abs(disturbed.crystal.positions - pair.crystal.positions).max() > 1e-4
        np.testing.assert_allclose(disturbed.deformation, disturbed.deformation.T, atol=1e-12)
        for here, there in zip(
            lengths(*relaxed_side(disturbed)), lengths(*relaxed_side(pair)), strict=True
        ):
            np.testing.assert_allclose(here, there, atol=1e-8)
        if sheets:
            np.testing.assert_allclose(disturbed.crystal.cell[2], pair.crystal.cell[2])
            np.testing.assert_allclose(disturbed.deformation[2], [0, 0, 1], atol=1e-6)


def test_noise_stays_within_its_bounds(tmp_path, rng):
    file = PairFile(write_relaxed(tmp_path / "r.parquet"), "train")
    noise = NoiseConfig(untouched=0.5, max_log_volume=0.25, max_strain=0.0, max_rattle=0.0)
    changes = []
    for _ in range(400):
        disturbed = disturb(file[0], noise, rng)
        changes.append(np.log(np.linalg.det(disturbed.deformation)))
    changes = np.abs(changes)
    assert 0.15 < changes.max() <= 0.25
    assert 0.4 < (changes < 1e-12).mean() < 0.6


def test_epochs_are_reproducible_and_differ(config):
    first, second = Mixture(config, "train"), Mixture(config, "train")
    first.set_epoch(3)
    for number in (0, len(first) - 1):
        a, b = first[3, number], second[3, number]
        torch.testing.assert_close(a.graph.positions, b.graph.positions, rtol=0, atol=0)
        here, there = a.targets.displacements, b.targets.displacements
        torch.testing.assert_close(here, there, rtol=0, atol=0)
    before = first._batches
    assert first[4, 0].place == (4, 0)
    assert first._batches != before


def test_an_epoch_passes_over_each_file_as_often_as_asked(config):
    mixture = Mixture(config, "train")
    references = [reference for batch in mixture._batches for reference in batch]
    pairs = [row for number, row in references if number == 0]
    relaxed = [row for number, row in references if number == 1]
    assert len(pairs) == round(1.5 * len(mixture.files[0]))
    assert set(pairs) == set(range(len(mixture.files[0])))
    assert sorted(relaxed) == list(range(len(mixture.files[1])))


def test_a_share_of_a_file_is_always_the_same(config):
    source = config.sources[0].model_copy(update={"share": 0.25, "passes": 2.5})
    mixture = Mixture(config.model_copy(update={"sources": (source,)}), "train")
    chosen = set()
    for epoch in range(3):
        mixture.set_epoch(epoch)
        rows = [row for batch in mixture._batches for _, row in batch]
        assert len(rows) == round(2.5 * 6)
        chosen |= set(rows)
    assert len(chosen) == 6


def test_batches_keep_to_their_size(config):
    mixture = Mixture(config, "train")
    largest = config.edges_per_batch / (SMALL.max_neighbors + 2)
    for batch in mixture._batches:
        atoms = [mixture._num_atoms(reference) for reference in batch]
        assert sum(atoms) <= largest or len(batch) == 1


def test_missing_column_and_empty_split(tmp_path):
    path = write_pairs(tmp_path / "p.parquet", drop=["cell"])
    with pytest.raises(ValueError, match="no column cell"):
        PairFile(path, "train")
    small = write_pairs(tmp_path / "q.parquet", count=3)
    with pytest.raises(ValueError, match="no row with split 'test'"):
        PairFile(small, "test")


def test_processes_share_every_batch(config):
    whole = Mixture(config, "train")
    parts = [Mixture(config, "train", rank, 3) for rank in range(3)]
    for number in range(len(whole)):
        batch = whole[0, number]
        shares = [part[0, number] for part in parts]
        assert batch.share == 1
        assert sum(share.share for share in shares) == pytest.approx(1)
        kept = [share for share in shares if not share.is_filler]
        cells = torch.cat([share.graph.cells for share in kept])
        assert sorted(cells.sum((1, 2)).tolist()) == pytest.approx(
            sorted(batch.graph.cells.sum((1, 2)).tolist())
        )


def rotated(row):
    turn = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    return {
        name: (np.reshape(row[name], (-1, 3)) @ turn).ravel().tolist()
        for name in ("relaxed_cell", "relaxed_positions")
    }


def turned_over(row):
    cell = np.reshape(row["cell"], (3, 3)) @ np.diag([-1.01, -1, 1])
    return {"relaxed_cell": cell.ravel().tolist()}


def scattered(row):
    far = np.reshape(row["relaxed_positions"], (-1, 3))
    far = far + 9 * np.arange(len(far))[:, None]
    return {"relaxed_positions": far.ravel().tolist()}


BOX = [3.0, 0, 0, 0, 3.0, 0, 0, 0]
SPOILT = {
    "nan": lambda row: {"positions": [float("nan"), *row["positions"][1:]]},
    "flat": lambda row: {"cell": [*row["cell"][:6], 0.0, 0.0, 0.0]},
    "counts": lambda row: {"relaxed_positions": row["relaxed_positions"][3:]},
    "element": lambda row: {"numbers": [0, *row["numbers"][1:]]},
    "rotated": rotated,
    "over": turned_over,
    "order": scattered,
    "vacuum": lambda _: {
        "pbc": [True, True, False],
        "cell": [*BOX, 20.0],
        "relaxed_cell": [*BOX, 22.0],
    },
    "pbc": lambda _: {"pbc": [True, True]},
    "near": lambda row: {"positions": [*row["positions"][3:6], *row["positions"][3:]]},
    "near after": lambda row: {
        "relaxed_positions": [*row["relaxed_positions"][3:6], *row["relaxed_positions"][3:]]
    },
    "image": lambda row: {
        "positions": [
            *np.add(row["positions"][3:6], np.dot([1, -2, 0], np.reshape(row["cell"], (3, 3)))),
            *row["positions"][3:],
        ]
    },
    "empty": lambda _: {"numbers": [], "positions": [], "relaxed_positions": []},
}


def spoil(row, how):
    return row | SPOILT[how](row)


FAULTS = {
    "over": "turns it over",
    "vacuum": "differs in its vacuum",
    "pbc": "pbc has the wrong count",
    "nan": "positions has NaN",
    "flat": "cell has no volume",
    "counts": "wrong count of values",
    "element": "outside 1 to 118",
    "rotated": "rotated",
    "order": "another order",
    "empty": "no atoms",
    "near": r"positions has two atoms less than 0\.5",
    "near after": r"relaxed_positions has two atoms less than 0\.5",
    "image": r"positions has two atoms less than 0\.5",
}


@pytest.mark.parametrize("how", FAULTS)
def test_rows_that_cannot_be_used_are_named_and_skipped(tmp_path, how):
    table = list(rows(20))
    table[2] = spoil(table[2], how)
    path = tmp_path / "p.parquet"
    if how in ("vacuum", "pbc"):
        table = [{"pbc": [True] * 3} | row for row in table]
    pq.write_table(pa.Table.from_pylist(table), path)
    with pytest.warns(UserWarning, match=rf"skipped 1 rows.*row 2 \(id row-2\).*{FAULTS[how]}"):
        file = PairFile(path, "train")
    assert len(file) == sum(row["split"] == "train" for row in table) - 1
    assert "row-2" not in {file.id(row) for row in range(len(file))}
    with pytest.raises(ValueError, match=FAULTS[how]):
        PairFile(path, "train", strict=True)


@pytest.mark.parametrize("form", ["fixed", "nested", "integers"])
def test_other_layouts_of_lists_are_read(tmp_path, form):
    table = pa.Table.from_pylist(list(rows(20)))
    path = tmp_path / "p.parquet"
    for name in ("cell", "relaxed_cell", "positions"):
        place, values = table.column_names.index(name), table[name].to_pylist()
        if form == "nested":
            values = [np.reshape(row, (-1, 3)).tolist() for row in values]
        kind = None
        if form == "fixed" and name != "positions":
            kind = pa.list_(pa.float64(), 9)
        if form == "integers" and name == "positions":
            values = [[round(x) for x in row] for row in values]
        table = table.set_column(place, name, pa.array(values, type=kind))
    pq.write_table(table, path)
    pair = PairFile(path, "train")[0]
    assert pair.crystal.positions.dtype == np.float64
    collate([pair], SMALL)


def test_functionals_nobody_knows_are_named(tmp_path):
    table = list(rows(20))
    table[0]["functional"], table[1]["functional"] = "pbe", None
    path = tmp_path / "p.parquet"
    pq.write_table(pa.Table.from_pylist(table), path)
    with pytest.warns(UserWarning, match="functional pbe is taken for unknown; known are") as told:
        file = PairFile(path, "train")
    assert len(told) == 1
    assert [file[row].functional for row in range(2)] == ["unknown"] * 2
    assert set(file.elements_with) == {"PBE", "r2SCAN", "unknown"}


def test_columns_of_another_kind_are_named(tmp_path):
    table = [row | {"numbers": ["x"] * len(row["numbers"])} for row in rows(20)]
    path = tmp_path / "p.parquet"
    pq.write_table(pa.Table.from_pylist(table), path)
    with pytest.raises(ValueError, match=r"p\.parquet: column numbers holds list<.*string>"):
        PairFile(path, "train")


def test_a_pair_needs_both_halves_of_its_target(tmp_path):
    path = write_pairs(tmp_path / "p.parquet", drop=["relaxed_positions"])
    with pytest.raises(ValueError, match="no column relaxed_positions"):
        PairFile(path, "train")


def test_an_epoch_without_crystals_is_refused(config):
    source = config.sources[0].model_copy(update={"passes": 0.001})
    with pytest.raises(ValueError, match="not a single crystal"):
        Mixture(config.model_copy(update={"sources": (source,)}), "train")


def test_another_order_of_the_relaxed_atoms_is_found(tmp_path):
    table = list(rows(20))
    for row in table:
        row["relaxed_numbers"] = list(row["numbers"])
    table[1]["relaxed_numbers"] = table[1]["numbers"][::-1]
    path = tmp_path / "p.parquet"
    pq.write_table(pa.Table.from_pylist(table), path)
    with pytest.raises(ValueError, match=r"row 1 .*another order"):
        PairFile(path, "train", strict=True)


def test_a_file_without_a_single_good_row_is_refused(tmp_path):
    path = tmp_path / "p.parquet"
    table = [spoil(row, "nan") for row in rows(10)]
    pq.write_table(pa.Table.from_pylist(table), path)
    with pytest.raises(ValueError, match="6 of 6 rows"):
        PairFile(path, "train")


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("fixed", [True], "fixed has the wrong count of values"),
        ("fixed", None, "an atom moves that is fixed"),
        ("cell_free", False, "relaxed_cell differs from cell, and cell_free is false"),
    ],
)
def test_what_is_held_and_moves_is_told(tmp_path, column, value, words):
    table = pq.read_table(write_pairs(tmp_path / "pairs.parquet")).to_pylist()
    row = next(row for row in table if row["split"] == "train")
    for each in table:
        count = len(each["numbers"])
        each["fixed"], each["cell_free"] = [False] * count, True
    row[column] = [True] * len(row["numbers"]) if value is None else value
    if column == "fixed":
        row["relaxed_cell"] = row["cell"]
        row["relaxed_positions"] = [x + 0.05 * (k == 0) for k, x in enumerate(row["positions"])]
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "held.parquet")
    with pytest.raises(ValueError, match=words):
        PairFile(tmp_path / "held.parquet", "train", strict=True)
