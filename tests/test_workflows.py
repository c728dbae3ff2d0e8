import json
from dataclasses import dataclass
from pathlib import Path

import pytest

jobflow = pytest.importorskip("jobflow")

from jobflow import Flow, Maker, job, run_locally  # noqa: E402
from monty.io import zopen  # noqa: E402
from monty.json import MontyDecoder, MontyEncoder  # noqa: E402
from pymatgen.core import IStructure, Lattice, Structure  # noqa: E402

from deeprelax_ase.interfaces.jobflow import (  # noqa: E402
    NEEDED_JOBFLOW,
    DeepRelaxDocument,
    DeepRelaxMaker,
    PreconditionedMaker,
    check_version,
    precondition,
)
from deeprelax_ase.relaxation.relaxer import Relaxer  # noqa: E402

ROOT = Path(__file__).parents[1]


def test_an_old_client_is_named():
    """What pip resolves is what the import asks for."""
    assert f'"jobflow>={NEEDED_JOBFLOW}"' in (ROOT / "pyproject.toml").read_text()
    with pytest.raises(ImportError, match=r"jobflow .* is too old: .* needs 99 or newer; pip"):
        check_version("jobflow", "99")


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


def test_vasp_inputs_of_atomate2_are_those_of_the_relaxed_structure(
    tmp_path, random_weights, monkeypatch
):
    base = pytest.importorskip("atomate2.vasp.jobs.base")
    core = pytest.importorskip("atomate2.vasp.jobs.core")
    structure = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(4.4), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )

    def start(**_):
        msg = "VASP would start here"
        raise RuntimeError(msg)

    monkeypatch.setattr(base, "run_vasp", start)
    maker = core.RelaxMaker(write_input_set_kwargs={"potcar_spec": True})

    def inputs(made, folder):
        monkeypatch.chdir(folder)
        run_locally(made, log=False, create_folders=True, store=jobflow.JobStore(memory()))
        (poscar,) = folder.rglob("POSCAR*")
        return {
            path.name.removesuffix(".gz"): zopen(path, "rt").read()
            for path in poscar.parent.iterdir()
        }

    first, second = tmp_path / "first", tmp_path / "plain"
    first.mkdir()
    second.mkdir()
    ours = inputs(
        precondition(maker, DeepRelaxMaker(model=str(random_weights))).make(structure), first
    )
    expected = Relaxer(random_weights).relax(structure).structure
    theirs = inputs(maker.make(expected), second)
    assert {"INCAR", "POSCAR", "POTCAR.spec"} <= set(ours)
    assert ours == theirs
    written = Structure.from_str(ours["POSCAR"], fmt="poscar")
    assert written.volume == pytest.approx(expected.volume, rel=1e-6)


def test_double_relaxation_of_atomate2_takes_it_in_front(perovskite):
    flows = pytest.importorskip("atomate2.vasp.flows.core")
    flow = precondition(flows.DoubleRelaxMaker()).make(perovskite, prev_dir="/some/run")
    assert [made.name for made in flow.jobs] == ["deeprelax", "double relax"]
    first, second = flow.jobs
    relaxation = second.jobs[0]
    assert relaxation.function_args[0].uuid == first.uuid
    assert relaxation.function_kwargs["prev_dir"] == "/some/run"


@pytest.mark.parametrize(
    "wrong",
    [
        {"functional": "LDA"},
        {"hold": "foo"},
        {"passes": 0},
        {"max_error": "a"},
        {"max_error": float("nan")},
        {"bond_limit": -1.0},
        {"bond_limit": True},
        {"model": 3},
    ],
)
def test_wrong_options_are_told_before_a_job_goes_anywhere(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DeepRelaxMaker(**wrong)


def test_no_limit_lists_no_bonds_and_a_path_is_a_model(random_weights, perovskite):
    maker = DeepRelaxMaker(model=Path(random_weights), bond_limit=None)
    given = IStructure.from_sites(perovskite, charge=1, properties={"id": "a"})
    (result,) = Relaxer(model=random_weights).relax_many([perovskite])
    assert maker._document(perovskite, result).uncertain_bonds == []
    made = DeepRelaxMaker.make.original(maker, given)
    assert made.structure._charge == 1
    assert made.structure.properties["id"] == "a"


def test_precondition_takes_a_maker():
    with pytest.raises(ValueError, match="deeprelax is 3: it has to be a DeepRelaxMaker"):
        precondition(DeepRelaxMaker(), 3)
