import json
from dataclasses import dataclass

import pytest

jobflow = pytest.importorskip("jobflow")

from jobflow import Flow, Maker, job, run_locally  # noqa: E402
from monty.json import MontyDecoder, MontyEncoder  # noqa: E402

from deeprelax_ase.relax import Relaxer  # noqa: E402
from deeprelax_ase.workflows import (  # noqa: E402
    DeepRelaxDocument,
    DeepRelaxMaker,
    PreconditionedMaker,
    precondition,
)


@dataclass
class VolumeMaker(Maker):
    """Stands for any relaxation of atomate2."""

    name: str = "volume"

    @job
    def make(self, structure, prev_dir=None):
        return {"volume": structure.volume, "prev_dir": prev_dir}


@dataclass
class TwiceMaker(Maker):
    """A maker of flows, such as DoubleRelaxMaker."""

    name: str = "twice"

    def make(self, structure, prev_dir=None):
        first = VolumeMaker().make(structure, prev_dir=prev_dir)
        second = VolumeMaker().make(structure)
        return Flow([first, second], output=second.output)


@dataclass
class TextMaker(Maker):
    name: str = "text"

    @job
    def make(self, text):
        return text


def run(flow):
    return run_locally(flow, log=False, ensure_success=True, store=jobflow.JobStore(memory()))


def memory():
    from maggma.stores import MemoryStore

    return MemoryStore()


def through_json(thing):
    return json.loads(json.dumps(thing, cls=MontyEncoder), cls=MontyDecoder)


def test_job_relaxes_as_the_relaxer_does(perovskite, random_weights):
    made = through_json(DeepRelaxMaker(model=str(random_weights)).make(perovskite))
    document = run(made)[made.uuid][1].output
    assert isinstance(document, DeepRelaxDocument)
    expected = Relaxer(random_weights).relax(perovskite)
    assert document.structure == expected.structure
    assert document.moved
    assert document.expected_error == expected.expected_error
    assert document.weights_sha256 == expected.weights.sha256
    again = DeepRelaxDocument.model_validate_json(document.model_dump_json())
    assert again.structure == document.structure


def test_an_uncertain_structure_is_handed_on_as_it_came(perovskite, random_weights):
    maker = DeepRelaxMaker(model=str(random_weights), max_error=0.0, bond_limit=0.0)
    made = maker.make(perovskite)
    document = run(made)[made.uuid][1].output
    assert document.structure == perovskite
    assert not document.moved
    assert "above max_error=0 Å" in document.message
    assert document.volume_change == 0
    assert document.uncertain_bonds[0].uncertainty > 0


@pytest.mark.parametrize("maker", [VolumeMaker(), TwiceMaker()])
def test_precondition_goes_in_front(perovskite, random_weights, maker):
    made = precondition(maker, DeepRelaxMaker(model=str(random_weights)))
    again = through_json(made)
    assert isinstance(again, PreconditionedMaker)
    flow = through_json(again.make(perovskite, prev_dir="/some/run"))
    responses = run(flow)
    outputs = [answer[1].output for answer in responses.values()]
    expected = Relaxer(random_weights).relax(perovskite).structure.volume
    volumes = [output["volume"] for output in outputs if isinstance(output, dict)]
    assert volumes == pytest.approx([expected] * len(volumes))
    assert len(volumes) == (2 if isinstance(maker, TwiceMaker) else 1)
    assert "/some/run" in [o["prev_dir"] for o in outputs if isinstance(o, dict)]
    assert flow.output.uuid in responses


def test_what_cannot_be_preconditioned():
    with pytest.raises(ValueError, match=r"TextMaker.make takes text, and no structure"):
        precondition(TextMaker())
    with pytest.raises(ValueError, match="takes a jobflow Maker, made with its options"):
        precondition(VolumeMaker)
