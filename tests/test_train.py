import csv
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from conftest import SMALL
from datasets import write_pairs, write_relaxed
from test_cli import run

from deeprelax_ase.datasets.config import SourceConfig
from deeprelax_ase.datasets.pair_file import PairFile, collate
from deeprelax_ase.evaluation.metrics import compute_errors, concatenate, improvement
from deeprelax_ase.files.lock import locked
from deeprelax_ase.network.checkpoint import (
    load_tensors,
    load_weights,
    save_tensors,
    save_weights,
)
from deeprelax_ase.network.config import NetworkConfig
from deeprelax_ase.network.paegnn import PaEGNN
from deeprelax_ase.training.config import LossConfig, TrainConfig, read_config
from deeprelax_ase.training.loss import compute_loss
from deeprelax_ase.training.mixture import Mixture, load_batches
from deeprelax_ase.training.run_folder import RunFolder
from deeprelax_ase.training.schedule import Schedule
from deeprelax_ase.training.trainer import Trainer
from deeprelax_ase.training.validation import overall, score


@pytest.fixture
def config(tmp_path):
    sources = (
        SourceConfig(path=write_pairs(tmp_path / "pairs.parquet")),
        SourceConfig(path=write_relaxed(tmp_path / "relaxed.parquet")),
    )
    return TrainConfig(
        name="test",
        sources=sources,
        network=SMALL,
        steps=24,
        warmup_steps=4,
        edges_per_batch=300,
        validate_every=12,
        ema_decay=0.9,
        workers=0,
    )


@pytest.fixture
def batch(config):
    file = PairFile(config.sources[0].path, "train")
    return collate([file[row] for row in range(6)], SMALL)


@pytest.fixture
def float_network():
    torch.manual_seed(0)
    return PaEGNN(SMALL).double()


def test_a_run_does_not_go_on_with_files_that_changed(config, tmp_path):
    folder = tmp_path / "run"
    RunFolder(folder, config).save_state({"a": torch.zeros(1)}, {})
    assert RunFolder(folder, config).load_state() is not None
    write_pairs(config.sources[0].path, 9)
    with pytest.raises(ValueError, match=r"pairs\.parquet has changed since the run in"):
        RunFolder(folder, config).load_state()


def test_files_of_one_name_are_each_looked_at(config, tmp_path):
    (tmp_path / "other").mkdir()
    sources = (config.sources[0], SourceConfig(path=write_pairs(tmp_path / "other/pairs.parquet")))
    config, folder = config.model_copy(update={"sources": sources}), tmp_path / "run"
    RunFolder(folder, config).save_state({"a": torch.zeros(1)}, {})
    write_pairs(sources[0].path, 9)
    with pytest.raises(ValueError, match=r"1\. pairs\.parquet has changed"):
        RunFolder(folder, config).load_state()


def test_what_lies_in_a_folder_is_not_overwritten(config, tmp_path):
    mine = tmp_path / "config.json"
    mine.write_text("name: mine\n")
    with pytest.raises(ValueError, match=r"config\.json is there and not of this run"):
        Trainer(config, tmp_path)
    assert mine.read_text() == "name: mine\n"
    folder = tmp_path / "run"
    Trainer(config, folder).run()
    (folder / "state.safetensors").unlink()
    with pytest.raises(ValueError, match="is there without the state of its run"):
        Trainer(config, folder)


def test_a_run_goes_on_by_the_configuration_in_its_folder(config, tmp_path):
    Trainer(config, tmp_path / "run").save()
    again = read_config(tmp_path / "run/config.json")
    assert again.sources[0].path.resolve() == config.sources[0].path.resolve()
    Trainer(again, tmp_path / "run")


def test_a_log_that_was_cut_short_is_no_hindrance(config, tmp_path):
    config = config.model_copy(update={"log_every": 1})
    Trainer(config, tmp_path / "run").save()
    (tmp_path / "run/log.csv").write_text("")
    Trainer(config, tmp_path / "run").run()
    assert (tmp_path / "run/log.csv").read_text().startswith("step,")


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_gradients_reach_every_parameter(float_network, batch, steps):
    graph, targets = batch
    loss = compute_loss(graph, float_network(graph), targets, LossConfig(), steps)
    loss.total.backward()
    unreached = [
        name
        for name, parameter in float_network.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all()
    ]
    assert unreached == []


def test_loss_is_least_for_the_truth(float_network, batch):
    """With the targets as prediction the solved errors vanish."""
    graph, targets = batch
    prediction = float_network(graph)
    true = type(prediction)(
        **{
            field.name: getattr(targets, field.name, getattr(prediction, field.name))
            for field in fields(prediction)
        }
    )
    loss = compute_loss(graph, true, targets, LossConfig(), 1)
    for term in (loss.displacement, loss.strain, loss.volume):
        assert term.item() < 1e-4
    worse = compute_loss(graph, prediction, targets, LossConfig(), 1)
    assert worse.total.item() > loss.total.item()


def test_likelihood_is_that_of_the_paper(float_network, batch):
    """Eq. 11 at beta = 0, without its constant log 2, averaged crystal by crystal."""
    graph, targets = batch
    prediction = float_network(graph)
    loss = compute_loss(graph, prediction, targets, LossConfig(beta=0), 0)
    scales = prediction.distance_log_scales.exp()
    errors = (prediction.distances - targets.distances).abs()
    terms = errors / scales + scales.log()
    expected = np.mean(
        [terms[graph.edge_batch == k].mean().item() for k in range(graph.num_crystals)]
    )
    assert loss.distance.item() == pytest.approx(expected)


def test_bonds_are_measured_on_the_same_pairs_whatever_the_graph_of_a_network_is(config):
    file = PairFile(config.sources[0].path, "val")

    def shrink(graph):
        cells = torch.eye(3, dtype=torch.float64).expand(graph.num_crystals, 3, 3)
        return torch.zeros_like(graph.positions), 0.99 * cells

    few, many = (score(shrink, NetworkConfig(max_neighbors=k), file, limit=10) for k in (4, 30))
    assert few == many


def test_a_loss_that_weighs_nothing_is_refused():
    with pytest.raises(ValueError, match="weighs nothing"):
        LossConfig(nll=0, displacement=0, strain=0, volume=0)


def test_metrics_of_input_and_truth(batch):
    graph, targets = batch
    still = torch.eye(3, dtype=torch.float64).expand(graph.num_crystals, 3, 3)
    dummy = compute_errors(graph, torch.zeros_like(graph.positions), still, targets)
    perfect = compute_errors(graph, targets.displacements, targets.deformations, targets)
    for field in fields(perfect):
        np.testing.assert_allclose(getattr(perfect, field.name), 0, atol=1e-9)
        assert (getattr(dummy, field.name) > 0).all()
        assert improvement(perfect, dummy)[field.name] == pytest.approx(100)
        assert improvement(dummy, dummy)[field.name] == pytest.approx(0)
    assert len(concatenate([dummy, dummy]).volume) == 2 * graph.num_crystals
    volumes = np.linalg.det(graph.cells.numpy())
    true_volumes = volumes * np.linalg.det(targets.deformations.numpy())
    np.testing.assert_allclose(dummy.volume, abs(volumes - true_volumes))


def schedule_of(config):
    return Schedule(config, torch.optim.SGD([torch.zeros(1)], lr=1.0))


def test_learning_rate_warms_up_and_decays(config):
    schedule = schedule_of(config)
    rates = [schedule.rate(step) for step in range(config.steps)]
    assert rates[0] == pytest.approx(config.learning_rate / 4)
    assert max(rates) == pytest.approx(config.learning_rate)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert schedule.rate(config.steps) == pytest.approx(config.final_learning_rate)


def test_learning_rate_falls_on_a_plateau(config):
    changes = {"schedule": "plateau", "plateau_patience": 1, "plateau_factor": 0.5}
    schedule = schedule_of(config.model_copy(update=changes))
    for value in (1.0, 2.0, 1.5):
        schedule.report(value)
    assert schedule.rate(10) == pytest.approx(config.learning_rate)
    state = json.loads(json.dumps(schedule.state()))
    resumed = schedule_of(config.model_copy(update=changes))
    resumed.restore(state)
    for one in (schedule, resumed):
        one.report(1.9)
        assert one.rate(10) == pytest.approx(config.learning_rate / 2)
        assert one.rate(0) == pytest.approx(config.learning_rate / 8)


def test_training_lowers_the_loss_and_writes_weights(config, tmp_path):
    config = config.model_copy(update={"steps": 120, "learning_rate": 5e-3})
    folder = tmp_path / "run"
    trainer = Trainer(config, folder)
    file = PairFile(config.sources[0].path, "train")
    graph, targets = (part.to(torch.float32) for part in collate([file[0], file[1]], SMALL))

    def loss_now():
        with torch.no_grad():
            prediction = trainer.network.eval()(graph)
            loss = compute_loss(graph, prediction, targets, config.loss, 1)
            return (loss.displacement + loss.strain).item()

    before = loss_now()
    trainer.run()
    assert loss_now() < 0.8 * before
    weights = load_weights(folder / "best.safetensors")
    assert weights.network.config == SMALL
    assert weights.provenance["sources"]["pairs"] == {"rows": 24, "passes": 1.0}
    assert weights.provenance["elements"] == [8, 12, 22]
    assert set(weights.provenance["validation"]) == {"pairs"}
    with (folder / "validation.csv").open() as stream:
        assert [int(row["step"]) for row in csv.DictReader(stream)] == list(range(12, 121, 12))


def final_state(folder):
    tensors, metadata = load_tensors(folder / "state.safetensors")
    metadata["progress"].pop("seconds")
    return tensors, metadata["progress"]


@pytest.mark.parametrize(
    "changes", [{"workers": 0}, {"workers": 1}, {"schedule": "plateau", "plateau_patience": 0}]
)
def test_resumes_exactly(config, tmp_path, changes):
    """Interrupted at any step, a run ends with the same weights, EMA and optimizer."""
    config = config.model_copy(update=changes)
    Trainer(config, tmp_path / "whole").run()
    trainer = Trainer(config, tmp_path / "parts")
    update = trainer._update

    def interrupted(*given):
        if trainer.step == 7:
            raise KeyboardInterrupt
        return update(*given)

    trainer._update = interrupted
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    resumed = Trainer(config, tmp_path / "parts")
    assert resumed.step == 7
    resumed.run()
    (here, progress), (there, other) = (final_state(tmp_path / n) for n in ("whole", "parts"))
    assert progress == other
    assert set(here) == set(there)
    for name, tensor in here.items():
        torch.testing.assert_close(tensor, there[name], rtol=0, atol=0, msg=name)


def test_what_a_killed_run_noted_too_much_is_dropped(config, tmp_path):
    folder = tmp_path / "run"
    changes = {"validate_every": 5, "log_every": 1}
    trainer = Trainer(config.model_copy(update=changes), folder)
    update = trainer._update

    def killed(*given):
        if trainer.step == 7:
            trainer.save()
        if trainer.step == 11:
            trainer.save = lambda: None
            raise KeyboardInterrupt
        return update(*given)

    trainer._update = killed
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    Trainer(config.model_copy(update=changes), folder).run()
    for name, every in (("log", 1), ("validation", 5)):
        with (folder / f"{name}.csv").open() as stream:
            steps = [int(row["step"]) for row in csv.DictReader(stream)]
        assert steps == [
            k for k in range(1, config.steps + 1) if k % every == 0 or k == config.steps
        ]


def test_another_configuration_is_refused(config, tmp_path):
    trainer = Trainer(config, tmp_path / "run")
    trainer.save()
    with pytest.raises(ValueError, match="another configuration"):
        Trainer(config.model_copy(update={"seed": 1}), tmp_path / "run")


def test_configuration_is_read_from_json_and_yaml(config, tmp_path):
    entries = config.model_dump(mode="json")
    entries["sources"] = [{"path": "pairs.parquet"}]
    (tmp_path / "run.json").write_text(json.dumps(entries))
    assert read_config(tmp_path / "run.json").sources[0].path == tmp_path / "pairs.parquet"
    (tmp_path / "run.json").write_text(json.dumps(entries | {"start_from": "w.safetensors"}))
    assert read_config(tmp_path / "run.json").start_from == tmp_path / "w.safetensors"
    given = read_config(tmp_path / "run.json", start_from="w.safetensors").start_from
    assert given == Path("w.safetensors")
    (tmp_path / "run.yaml").write_text("name: a\nsources:\n- path: pairs.parquet\n  passes: 2\n")
    assert read_config(tmp_path / "run.yaml").sources[0].passes == 2


def test_control_c_ends_the_step_and_saves(config, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    trainer = Trainer(config, tmp_path / "run")
    update = trainer._update

    def pressed(*given):
        if trainer.step == 5:
            signal.raise_signal(signal.SIGINT)
        return update(*given)

    trainer._update = pressed
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert Trainer(config, tmp_path / "run").step == 6
    assert signal.getsignal(signal.SIGINT) is before


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_processes_train_as_one(config, tmp_path):
    """torchrun with two gloo processes, each with half of every batch: the same loss curve."""
    config = config.model_copy(update={"log_every": 1, "augmentation": config.denoising})
    path = tmp_path / "run.json"
    path.write_text(config.model_dump_json())
    Trainer(config, tmp_path / "one").run()
    script = shutil.which("deeprelax")
    assert script is not None
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    command += [script, "train", str(path), "--folder", str(tmp_path / "two")]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    curves = []
    for name in ("one", "two"):
        with (tmp_path / name / "log.csv").open() as stream:
            curves.append([float(row["total"]) for row in csv.DictReader(stream)])
    assert len(curves[0]) == config.steps
    np.testing.assert_allclose(curves[0], curves[1], atol=2e-3)
    (here, progress), (there, other) = (final_state(tmp_path / n) for n in ("one", "two"))
    assert progress["crystals"] == other["crystals"]
    for name, tensor in here.items():
        torch.testing.assert_close(tensor, there[name], rtol=0, atol=2e-3, msg=name)


def test_without_validation_the_last_weights_are_the_best(config, tmp_path):
    relaxed_only = config.model_copy(update={"sources": config.sources[1:]})
    with pytest.warns(UserWarning, match="no file of pairs has a val split"):
        Trainer(relaxed_only, tmp_path / "run").run()
    steps = [load_weights(tmp_path / "run" / f"{n}.safetensors") for n in ("best", "last")]
    assert [weights.provenance["steps"] for weights in steps] == [config.steps] * 2


def test_a_run_that_cannot_start_leaves_no_state(config, tmp_path):
    source = config.sources[0].model_copy(update={"path": tmp_path / "none.parquet"})
    with pytest.raises(ValueError, match=r"none\.parquet"):
        Trainer(config.model_copy(update={"sources": (source,)}), tmp_path / "run").run()
    assert not (tmp_path / "run").exists()
    Trainer(config.model_copy(update={"steps": 1}), tmp_path / "run").run()


def test_a_run_that_diverged_saves_no_weights(config, tmp_path):
    config = config.model_copy(update={"learning_rate": 1e30, "validate_every": 100, "steps": 100})
    with pytest.raises(ValueError, match=r"diverged: .* learning_rate below 1e\+30"):
        Trainer(config, tmp_path / "run").run()
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_strict_holds_for_validation_too(config, tmp_path):
    table = pq.read_table(config.sources[0].path).to_pylist()
    bad = next(row for row in table if row["split"] == "val")
    bad["cell"] = [0.0] * 9
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.Table.from_pylist(table), path)
    changes = {"sources": (SourceConfig(path=path),), "strict": True}
    with pytest.raises(ValueError, match="no volume"):
        Trainer(config.model_copy(update=changes), tmp_path / "run").run()


def test_files_of_one_name_are_told_apart(config, tmp_path):
    (tmp_path / "other").mkdir()
    sources = (config.sources[0], SourceConfig(path=write_pairs(tmp_path / "other/pairs.parquet")))
    scores = Trainer(config.model_copy(update={"sources": sources}), tmp_path / "run").validate()
    assert len(scores) == 2


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"freeze_trunk": True}, "freeze_trunk"),
        ({"sources": []}, "sources"),
        ({"sources": [{}]}, "path"),
        ({"sources": "pairs.parquet"}, "sources"),
        ({"sources": None}, "sources"),
        (
            {"sources": [{"path": "p", "passes": -1}]},
            r"json: sources\.0\.passes is -1: input .* 0$",
        ),
        ({"network": {"functionals": ["unknown", "SCAN"]}}, "functionals has 'SCAN': choose from"),
        ({"learning_rate": float("inf")}, "learning_rate is inf: input should be a finite number$"),
        ({"stepps": 1, "epochs": 2}, "json: epochs is no option; stepps is no option$"),
        ({1: 2}, "keys"),
    ],
)
def test_configurations_that_make_no_sense(config, tmp_path, entries, words):
    whole = config.model_dump(mode="json") | entries
    (tmp_path / "run.json").write_text(yaml.safe_dump(whole))
    with pytest.raises(ValueError, match=words):
        read_config(tmp_path / "run.json")


def test_goes_on_from_weights(config, tmp_path):
    Trainer(config, tmp_path / "first").run()
    start = tmp_path / "first" / "last.safetensors"
    network, seen = load_weights(start).network, {"elements": [8, 92], "functionals": ["r2SCAN"]}
    save_weights(start, network, {**load_weights(start).provenance, **seen})
    changes = {"start_from": start, "freeze_trunk": True, "steps": 6}
    trainer = Trainer(config.model_copy(update=changes), tmp_path / "second")
    before = load_weights(start).network.state_dict()
    for name, tensor in trainer.network.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    trainer.run()
    start.unlink()  # what a run started from is in its state
    resumed = Trainer(config.model_copy(update=changes), tmp_path / "second")
    resumed.validate()
    assert resumed.origin["name"] == "last"
    last = load_weights(tmp_path / "second" / "last.safetensors").provenance
    assert last["elements"] == [8, 12, 22, 92]
    assert "r2SCAN" in last["functionals"]
    after = trainer.network.state_dict()
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all("_head." in name for name in moved)


def test_weights_of_another_network_are_refused(config, tmp_path):
    Trainer(config, tmp_path / "first").validate()
    network = config.network.model_copy(update={"num_layers": 1})
    start = tmp_path / "first" / "last.safetensors"
    other = config.model_copy(update={"network": network, "start_from": start})
    with pytest.raises(ValueError, match="num_layers"):
        Trainer(other, tmp_path / "second")


def test_the_next_epoch_follows_in_the_same_stream(config):
    mixture = Mixture(config, "train")
    last = len(mixture) - 1
    stream = iter(load_batches(mixture, (0, last), config))
    places = [next(stream).place for _ in range(3)]
    assert places == [(0, last), (1, 0), (1, 1)]
    assert next(iter(load_batches(mixture, (1, 0), config))).place == (1, 0)


def test_a_pool_is_cut_into_batches_of_like_size(config):
    mixture = Mixture(config, "train")
    mixture.config = config.model_copy(update={"edges_per_batch": 1_000_000})
    mixture.set_epoch(0)
    pool = sorted(mixture._batches[0], key=mixture._num_atoms)
    atoms = sum(map(mixture._num_atoms, pool))
    edges = (config.network.max_neighbors + 2) * (atoms / 2 + max(map(mixture._num_atoms, pool)))
    mixture.config = config.model_copy(update={"edges_per_batch": math.ceil(edges)})
    sizes = [sum(map(mixture._num_atoms, batch)) for batch in mixture._pack(pool)]
    assert len(sizes) == 2
    assert abs(sizes[0] - sizes[1]) <= 2 * max(map(mixture._num_atoms, pool))


def test_command_line_trains_replicates_from_weights(config, tmp_path):
    Trainer(config, tmp_path / "first").run()
    start = tmp_path / "first" / "last.safetensors"
    path = tmp_path / "run.json"
    path.write_text(config.model_copy(update={"steps": 3}).model_dump_json())
    command = ["train", path, "--folder", tmp_path / "runs", "--replicates", 2]
    result = run(*command, "--from", start, "--freeze-trunk", "--strict")
    assert result.exit_code == 0, result.stderr
    states = [load_weights(tmp_path / "runs" / n / "last.safetensors") for n in ("1", "2")]
    first, second = (weights.network.state_dict() for weights in states)
    before = load_weights(start).network.state_dict()
    for name, tensor in before.items():
        if "_head." not in name:
            torch.testing.assert_close(first[name], tensor, rtol=0, atol=0)
    assert any(not torch.equal(first[name], second[name]) for name in first)
    kept = json.loads((tmp_path / "runs" / "2" / "config.json").read_text())
    assert (kept["seed"], kept["strict"]) == (1, True)
    assert (tmp_path / "runs" / "2" / kept["start_from"]).samefile(start)
    missing = run("train", path, "--folder", tmp_path / "other", "--from", "nonesuch")
    assert missing.exit_code == 2
    assert "no weights 'nonesuch'" in missing.stderr


def test_what_nothing_changes_does_not_decide():
    whole = {"crystals": 400, "displacement": 50.0, "lattice": 60.0, "volume": 70.0}
    fixed = {"crystals": 400, "displacement": 30.0, "lattice": math.nan, "volume": math.nan}
    assert overall({"whole": whole}) == pytest.approx(180)
    assert overall({"whole": whole, "fixed": fixed}) == pytest.approx(170)


def test_what_is_left_to_its_defaults_goes_on_from_the_shipped_weights():
    assert load_weights("default").network.config == NetworkConfig()


@pytest.mark.parametrize("held", [False, True])
def test_a_step_never_waits_for_its_device(config, held):
    """Tensors without values stand for those of a device: asking for a value is an error."""
    mixture = Mixture(config, "train")
    batch = mixture[0, 0]
    if held:
        told = torch.ones_like(batch.graph.told_holds)
        free = torch.zeros_like(batch.graph.free)
        batch = replace(batch, graph=replace(batch.graph, told_holds=told, free=free))
    batch = batch.to("meta")
    network = PaEGNN(config.network).to("meta")
    loss = compute_loss(batch.graph, network(batch.graph), batch.targets, config.loss, 1)
    loss.total.backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
    assert norm.is_meta
    assert not batch.graph.sizes.is_meta
    with pytest.raises(RuntimeError, match="meta"):
        norm.item()


def test_a_run_goes_on_with_its_files_and_itself_elsewhere(config, tmp_path):
    Trainer(config.model_copy(update={"steps": 4}), tmp_path / "run").run()
    (tmp_path / "elsewhere").mkdir()
    sources = []
    for source in config.sources:
        path = tmp_path / "elsewhere" / source.path.name
        shutil.copy(source.path, path)
        sources.append(source.model_copy(update={"path": path}))
    changes = {"sources": tuple(sources), "steps": 4, "workers": 2, "log_every": 2}
    moved = config.model_copy(update=changes)
    assert Trainer(moved, tmp_path / "run").step == 4
    with pytest.raises(ValueError, match="another configuration"):
        Trainer(moved.model_copy(update={"seed": 99}), tmp_path / "run")


def test_potentials_that_made_the_targets_are_named_with_the_weights(config, tmp_path):
    table = pq.read_table(config.sources[0].path).to_pylist()
    for number, row in enumerate(table):
        row["potential"] = ("Nequix", "another")[number % 2]
    path = tmp_path / "taught.parquet"
    pq.write_table(pa.Table.from_pylist(table), path)
    changes = {"sources": (*config.sources, SourceConfig(path=path)), "steps": 1}
    Trainer(config.model_copy(update=changes), tmp_path / "run").run()
    sources = load_weights(tmp_path / "run" / "last.safetensors").provenance["sources"]
    assert sources["taught"]["potentials"] == ["Nequix", "another"]
    assert "potentials" not in sources[config.sources[0].path.stem]


def test_one_training_a_folder(config, tmp_path):
    folder = RunFolder(tmp_path / "run", config)
    with folder.at_work(0, 0), pytest.raises(ValueError, match="is in use: another training"):
        Trainer(config, tmp_path / "run").run()
    assert not (tmp_path / "run" / "log.csv").exists()
    Trainer(config.model_copy(update={"steps": 2}), tmp_path / "other").run()


def test_a_run_of_before_an_option_goes_on_with_its_default(config, tmp_path):
    Trainer(config.model_copy(update={"steps": 12}), tmp_path / "run").run()
    tensors, metadata = load_tensors(tmp_path / "run" / "state.safetensors")
    for name in ("unknown_functional", "own_passes"):
        del metadata["config"][name]
    save_tensors(tmp_path / "run" / "state.safetensors", tensors, metadata)
    assert Trainer(config.model_copy(update={"steps": 12}), tmp_path / "run").step == 12
    with pytest.raises(ValueError, match=r"another configuration \(steps, seed\)"):
        Trainer(config.model_copy(update={"steps": 13, "seed": 9}), tmp_path / "run")
    save_weights(tmp_path / "run" / "state.safetensors", PaEGNN(SMALL), {})
    with pytest.raises(ValueError, match="is not the state of a run"):
        Trainer(config, tmp_path / "run")


def test_json_that_is_no_yaml(tmp_path):
    write_pairs(tmp_path / "pairs.parquet")
    entries = {"name": "a", "sources": [{"path": "pairs.parquet"}], "steps": 10}
    text = json.dumps(entries, indent="\t").replace("10", "1e1")
    (tmp_path / "run.json").write_text(text)
    assert read_config(tmp_path / "run.json").steps == 10


def test_a_second_control_c_within_a_step_saves_no_half_of_it(config, tmp_path):
    trainer = Trainer(config, tmp_path / "run")
    log = trainer._log_loss

    def pressed(terms):
        if trainer.step == 7:
            trainer._is_half = True  # as between the two updates of a step
            raise KeyboardInterrupt
        log(terms)

    trainer.config = config.model_copy(update={"log_every": 1})
    trainer._log_loss = pressed
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    saved = config.validate_every * (7 // config.validate_every)
    assert Trainer(config, tmp_path / "run").step == saved


def test_a_step_is_half_made_from_its_first_update_to_its_end(config, tmp_path):
    trainer = Trainer(config.model_copy(update={"own_outputs": 1.0}), tmp_path / "run")
    seen = []
    update = trainer._update

    def watched(*given):
        seen.append(trainer._is_half)
        return update(*given)

    trainer._update = watched
    trainer.run()
    assert seen[:4] == [False, True, False, True]
    assert not trainer._is_half


@pytest.mark.parametrize("place", [1, 2])
def test_a_validation_that_was_cut_short_is_made_up_for(config, tmp_path, monkeypatch, place):
    config = config.model_copy(update={"validate_every": 5, "steps": 10})
    Trainer(config, tmp_path / "whole").run()
    trainer, left = Trainer(config, tmp_path / "parts"), [place]
    validation = trainer._score_and_save

    def full():
        left[0] -= 1
        if not left[0]:
            msg = "the disk is full"
            raise OSError(msg)
        return validation()

    monkeypatch.setattr(trainer, "_score_and_save", full)
    with pytest.raises(OSError, match="full"):
        trainer.run()
    resumed = Trainer(config, tmp_path / "parts")
    assert not resumed.is_finished
    resumed.run()
    assert resumed.is_finished
    for name in ("best", "last"):
        here, there = (
            load_weights(tmp_path / run / f"{name}.safetensors") for run in ("whole", "parts")
        )
        assert here.provenance["steps"] == there.provenance["steps"]
        before, after = here.network.state_dict(), there.network.state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before)
    (here, progress), (there, other) = (final_state(tmp_path / n) for n in ("whole", "parts"))
    assert progress == other
    assert all(torch.equal(here[key], there[key]) for key in here)


def test_a_run_that_is_killed_after_its_first_validation_goes_on(config, tmp_path, monkeypatch):
    config = config.model_copy(update={"validate_every": 5})
    trainer = Trainer(config, tmp_path / "run")
    validate = trainer.validate

    def killed():
        validate()
        monkeypatch.setattr(trainer, "save", lambda: None)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "validate", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert Trainer(config, tmp_path / "run").step == 5


@pytest.mark.parametrize("damage", ["\n", "1", "x,y\n", "1,2"])
def test_a_damaged_row_of_a_log_is_dropped(config, tmp_path, damage):
    config = config.model_copy(update={"log_every": 1})
    Trainer(config, tmp_path / "run").save()
    log = tmp_path / "run/log.csv"
    log.write_text(f"step,total\n{damage}")
    Trainer(config, tmp_path / "run").run()
    rows = log.read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [str(k + 1) for k in range(config.steps)]


def test_the_configuration_of_a_linked_folder_leads_to_its_files(config, tmp_path):
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far/away")
    Trainer(config, tmp_path / "link").save()
    again = read_config(tmp_path / "link/config.json")
    assert again.sources[0].path.resolve() == config.sources[0].path.resolve()
    assert again.sources[0].path.exists()


def test_a_forked_process_holds_no_lock(tmp_path):
    ready, told = os.pipe()
    with locked(tmp_path, "in use"):
        child = os.fork()
        if not child:
            os.write(told, b"!")
            signal.pause()
        os.read(ready, 1)
    try:
        with locked(tmp_path, "in use"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
