"""The command that makes the weights, and its steps."""

import hashlib
import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from conftest import SMALL
from datasets import write_pairs, write_relaxed

import recipes.__main__ as command
from deeprelax_ase import Relaxer
from deeprelax_ase.datasets.pair_file import PairFile, collate
from deeprelax_ase.datasets.write_pairs import reduced_composition
from deeprelax_ase.evaluation import fit_calibration
from deeprelax_ase.network.checkpoint import load_weights
from deeprelax_ase.network.paegnn import PaEGNN
from deeprelax_ase.training.config import TrainConfig
from recipes import distill, scales

RECIPE = Path(command.__file__).with_name("default.yaml")


def small_recipe(teacher):
    return {
        "distill": {
            "distilled": {"inputs": "relaxed", "swaps": 1, "seed": 1, "teachers": [str(teacher)]}
        },
        "train": {
            "name": "small",
            "sources": [
                {"path": "pairs.parquet", "passes": 1},
                {"path": "distilled.parquet", "passes": 1},
            ],
            "start_from": str(teacher),
            "network": SMALL.model_dump(mode="json"),
            "steps": 6,
            "edges_per_batch": 800,
            "warmup_steps": 1,
            "validate_every": 3,
        },
        "stages": [
            {},
            {"train": {"seed": 5, "steps": 2}},
            {"starts_from": [1, 2], "train": {"seed": 6, "steps": 1}},
        ],
        "average": [3, [1, 2], 0],
        "scales": {"files": ["pairs"], "split": "train", "limit": 20, "steps": 3},
        "calibrate": {"files": ["pairs"], "limit": 20},
    }


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder of files, and no taught ones."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setattr(command, "_TAUGHT", tmp_path / "none")
    write_pairs(folder / "pairs.parquet")
    table = pq.read_table(write_relaxed(folder / "relaxed.parquet")).to_pylist()
    for row in table[::2]:
        row["numbers"] = [20 if z == 12 else z for z in row["numbers"]]  # like magnesium
    pq.write_table(pa.Table.from_pylist(table), folder / "relaxed.parquet")
    return folder


@pytest.mark.filterwarnings("ignore:calibrated on")
def test_one_command_makes_weights_and_goes_on_where_it_stopped(
    data, tmp_path, random_weights, monkeypatch
):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(small_recipe(random_weights)))
    arguments = ["--data", str(data), "--work", str(tmp_path / "work"), "--recipe", str(recipe)]

    def full(*_, **__):
        msg = "the disk is full"
        raise OSError(msg)

    monkeypatch.setattr(command, "calibrate", full)
    with pytest.raises(SystemExit, match="error: the disk is full"):
        command.main(arguments)
    assert not (tmp_path / "work" / "small.safetensors").exists()
    distilled = (tmp_path / "work" / "pairs" / "distilled.parquet").stat().st_mtime_ns
    monkeypatch.setattr(command, "calibrate", fit_calibration.calibrate)
    monkeypatch.setattr(command.Trainer, "run", lambda _: pytest.fail("trained twice"))
    command.main([*arguments, "--workers", "0"])
    out = tmp_path / "work" / "small.safetensors"
    assert (tmp_path / "work" / "pairs" / "distilled.parquet").stat().st_mtime_ns == distilled
    weights = load_weights(out)
    assert weights.provenance["steps"] == 1
    first = weights.provenance["start_from"]
    assert first["steps"] == 6
    assert first["start_from"]["sha256"] == load_weights(random_weights).sha256
    assert weights.calibration["crystal"]
    files = [tmp_path / "work" / f"stage-{k}" / "last.safetensors" for k in (1, 2, 3)]
    mean = tmp_path / "work" / "mean-of-1-2.safetensors"
    known = {path: load_weights(path) for path in [*files, mean]}
    start = load_weights(random_weights)
    expected = [known[files[2]].sha256, known[mean].sha256, start.sha256]
    assert weights.provenance["average_of"] == expected
    one, two, three = (known[path].network.elements.weight for path in files)
    zero = start.network.elements.weight
    mean_of_all = (three + (one + two) / 2 + zero) / 3
    assert torch.allclose(weights.network.elements.weight, mean_of_all)
    hashes = json.loads((tmp_path / "work" / "hashes.json").read_text())
    assert hashes["small.safetensors"] == hashlib.sha256(out.read_bytes()).hexdigest()
    names = {"pairs/pairs.parquet", "pairs/distilled.parquet", "stage-1/last.safetensors"}
    assert names < set(hashes)
    Relaxer(out)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"distil": {}}, "distil"),
        ({"train": {"name": "x"}}, "sources is missing"),
        ({"scales": {"files": []}}, "at least 1 item"),
        ({"stages": [{}, {"starts_from": [3]}]}, "stage 3 is none of those"),
        ({"distill": {"d": {"inputs": "none", "swaps": 1, "seed": 0, "teachers": ["x"]}}}, "none"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(data, tmp_path, random_weights, change, words):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(small_recipe(random_weights) | change))
    with pytest.raises(SystemExit, match=words):
        command.main(
            ["--data", str(data), "--work", str(tmp_path / "work"), "--recipe", str(recipe)]
        )


def test_no_data_is_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match="holds no parquet file"):
        command.main(["--data", str(tmp_path), "--work", str(tmp_path / "work")])
    assert not (tmp_path / "work").exists()


def test_the_shipped_recipe_is_valid_and_names_every_taught_file():
    recipe = command.Recipe.model_validate(yaml.safe_load(RECIPE.read_text()))
    configs = [TrainConfig.model_validate(recipe.train | stage.train) for stage in recipe.stages]
    config = configs[-1]
    named = {source.path.stem for source in config.sources}
    assert {path.stem for path in RECIPE.parent.glob("data/*.parquet")} <= named
    assert set(recipe.distill) <= named


def test_scales_are_fitted_and_predictions_stay(tmp_path, random_weights):
    path = write_pairs(tmp_path / "pairs.parquet")
    out = tmp_path / "scaled.safetensors"
    scales.fit(out, random_weights, [path], "train", 100, 60)
    known = (load_weights(random_weights), load_weights(out))
    assert known[1].provenance["scales_of"] == ["pairs.parquet (train)"]
    file = PairFile(path, "train")
    graph = collate([file[row] for row in range(4)], SMALL)[0].to(torch.float32)
    with torch.no_grad():
        before, after = (weights.network(graph) for weights in known)
    for field in fields(before):
        is_equal = torch.equal(getattr(before, field.name), getattr(after, field.name))
        assert is_equal != field.name.endswith("log_scales"), field.name
    batches = list(scales.encoded(known[0].network, path, "train", 100))
    first, last = scales.fit_scales(known[0].network, batches, 60)
    assert last < first - 0.1


def test_distilled_targets_are_the_mean_of_the_teachers(tmp_path, random_weights):
    first = load_weights(random_weights).network
    torch.manual_seed(5)
    second = PaEGNN(first.config).eval()
    table = pq.read_table(write_relaxed(tmp_path / "relaxed.parquet")).to_pylist()
    for row in table[::2]:
        row["numbers"] = [20 if z == 12 else z for z in row["numbers"]]  # calcium is like magnesium
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "relaxed.parquet")
    file = PairFile(tmp_path / "relaxed.parquet", "train")
    rng = np.random.default_rng(0)
    held_back = {reduced_composition(file[0].crystal.numbers)}
    inputs = list(distill.swaps_of(file, 3, 0.5, held_back, rng))
    assert inputs
    for entry in inputs:
        assert reduced_composition(entry.pair.crystal.numbers) not in held_back
    one, other, both = (
        {row.id: row.pair for row in distill.label(inputs, networks)}
        for networks in ([first], [second], [first, second])
    )
    assert one.keys() == other.keys() == both.keys()
    for name, pair in both.items():
        mean = (one[name].displacements + other[name].displacements) / 2
        np.testing.assert_allclose(pair.displacements, mean, atol=1e-12)
        volumes = [np.linalg.det(p.deformation) for p in (one[name], other[name], pair)]
        assert volumes[2] == pytest.approx(np.sqrt(volumes[0] * volumes[1]))


def test_nothing_is_exchanged_for_what_is_there_or_not_like_it():
    similar = distill.similar_elements({3, 11, 19, 22, 23, 8, 16})
    assert set(similar[3]) == {3, 11, 19}
    assert set(similar[22]) == {22, 23}
    assert set(similar[8]) == {8, 16}
    assert similar[11][19] > similar[3][19]
    rng = np.random.default_rng(1)
    for _ in range(20):
        swapped = distill._swapped(np.array([3, 3, 11, 8]), 0.9, similar, rng)
        assert swapped[0] == swapped[1]
        assert len({swapped[0], swapped[2], swapped[3]}) == 3


def test_compositions_held_back_are_of_all_but_training(tmp_path):
    path = write_pairs(tmp_path / "pairs.parquet")
    expected = {
        reduced_composition(PairFile(path, split)[row].crystal.numbers)
        for split in ("val", "test")
        for row in range(len(PairFile(path, split)))
    }
    assert distill.compositions_held_back([path]) == expected


def begun(data, tmp_path, entries):
    """Arguments of a recipe of these entries."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(entries))
    return ["--data", str(data), "--work", str(tmp_path / "work"), "--recipe", str(recipe)]


def nothing_but_distilling(monkeypatch):
    def stop(*_, **__):
        msg = "enough"
        raise ValueError(msg)

    monkeypatch.setattr(command, "Trainer", stop)


def test_what_a_killed_run_left_of_a_file_is_no_hindrance(
    data, tmp_path, random_weights, monkeypatch
):
    nothing_but_distilling(monkeypatch)
    left = tmp_path / "work/pairs/.123.partial.distilled.parquet"
    left.parent.mkdir(parents=True)
    left.write_text("P")
    with pytest.raises(SystemExit, match="enough"):
        command.main(begun(data, tmp_path, small_recipe(random_weights)))


def test_a_folder_of_another_recipe_or_other_files_is_refused(
    data, tmp_path, random_weights, monkeypatch
):
    nothing_but_distilling(monkeypatch)
    entries = small_recipe(random_weights)
    for _ in range(2):
        with pytest.raises(SystemExit, match="enough"):
            command.main(begun(data, tmp_path, entries))
    changed = entries | {"scales": entries["scales"] | {"steps": 4}}
    with pytest.raises(SystemExit, match="is of another recipe"):
        command.main(begun(data, tmp_path, changed))
    write_pairs(data / "pairs.parquet", seed=5)
    with pytest.raises(SystemExit, match=r"pairs.parquet has changed since"):
        command.main(begun(data, tmp_path, entries))


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        ({}, ["--workers", "-1"], "stage 1 of the recipe: workers is -1"),
        ({}, ["--device", "cuda"], "torch sees no CUDA device"),
        ({"stages": [{}, {"train": {"steps": 0}}]}, [], "stage 2 of the recipe: steps is 0"),
    ],
)
def test_what_no_training_would_begin_with_is_told_first(
    data, tmp_path, random_weights, monkeypatch, change, arguments, words
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    entries = small_recipe(random_weights) | change
    with pytest.raises(SystemExit, match=words):
        command.main([*begun(data, tmp_path, entries), *arguments])
    assert not (tmp_path / "work").exists()


def test_control_c_is_answered_in_a_line(data, tmp_path, random_weights, monkeypatch, capsys):
    def pressed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "Trainer", pressed)
    with pytest.raises(SystemExit) as stopped:
        command.main(begun(data, tmp_path, small_recipe(random_weights)))
    assert stopped.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err
