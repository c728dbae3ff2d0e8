import csv
import json
from dataclasses import fields

import numpy as np
import pytest
import torch
from conftest import SMALL
from datasets import write_pairs, write_relaxed

from deeprelax_ase.checkpoint import load_tensors, load_weights
from deeprelax_ase.config import LossConfig, SourceConfig, TrainConfig
from deeprelax_ase.data.dataset import PairFile, collate
from deeprelax_ase.metrics import compute_errors, concatenate, improvement
from deeprelax_ase.model import PaEGNN
from deeprelax_ase.train.loop import Trainer, learning_rate, read_config
from deeprelax_ase.train.loss import compute_loss


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


def test_learning_rate_warms_up_and_decays(config):
    rates = [learning_rate(config, step) for step in range(config.steps)]
    assert rates[0] == pytest.approx(config.learning_rate / 4)
    assert max(rates) == pytest.approx(config.learning_rate)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert learning_rate(config, config.steps) == pytest.approx(config.final_learning_rate)


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
    assert weights.provenance["sources"]["pairs.parquet"] == {"rows": 24, "passes": 1.0}
    assert weights.provenance["elements"] == [8, 12, 22]
    assert set(weights.provenance["validation"]) == {"pairs"}
    with (folder / "validation.csv").open() as stream:
        assert [int(row["step"]) for row in csv.DictReader(stream)] == list(range(12, 121, 12))


def final_state(folder):
    tensors, metadata = load_tensors(folder / "state.safetensors")
    metadata["progress"].pop("seconds")
    return tensors, metadata["progress"]


@pytest.mark.parametrize("workers", [0, 1])
def test_resumes_exactly(config, tmp_path, workers):
    """Interrupted at any step, a run ends with the same weights, EMA and optimizer."""
    config = config.model_copy(update={"workers": workers})
    Trainer(config, tmp_path / "whole").run()
    trainer = Trainer(config, tmp_path / "parts")
    update = trainer._update

    def interrupted(graph, targets):
        if trainer.step == 7:
            raise KeyboardInterrupt
        return update(graph, targets)

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
    (tmp_path / "run.yaml").write_text("name: a\nsources:\n- path: pairs.parquet\n  passes: 2\n")
    assert read_config(tmp_path / "run.yaml").sources[0].passes == 2
