import json
import multiprocessing
import pickle
import warnings

import numpy as np
import pytest
from monty.json import MontyDecoder, MontyEncoder
from pymatgen.alchemy.materials import TransformedStructure
from pymatgen.alchemy.transmuters import StandardTransmuter
from pymatgen.core import Lattice, Structure
from pymatgen.transformations.standard_transformations import SupercellTransformation

from deeprelax_ase import DeepRelaxTransformation
from deeprelax_ase.network.checkpoint import load_weights, save_weights
from deeprelax_ase.relaxation.relaxer import Relaxer


@pytest.fixture
def transformation(random_weights):
    return DeepRelaxTransformation(str(random_weights))


def volume_after(transformation, structure):
    return transformation.apply_transformation(structure).volume


def test_structure_apply_works_as_written(transformation, perovskite, random_weights):
    before = perovskite.copy()
    relaxed = perovskite.apply(transformation)
    assert perovskite == before
    expected = Relaxer(random_weights).relax(perovskite).structure
    np.testing.assert_allclose(relaxed.lattice.matrix, expected.lattice.matrix)
    np.testing.assert_allclose(relaxed.frac_coords, expected.frac_coords)
    assert relaxed.site_properties == perovskite.site_properties
    assert transformation(perovskite) == relaxed


def test_default_weights(perovskite):
    assert perovskite.apply(DeepRelaxTransformation()) != perovskite


def test_round_trip_through_a_dict(transformation, perovskite):
    stored = json.loads(json.dumps(transformation, cls=MontyEncoder))
    assert stored["model"] == transformation.model
    assert len(stored["sha256"]) == 64
    again = DeepRelaxTransformation.from_dict(stored)
    assert perovskite.apply(again) == perovskite.apply(transformation)
    assert isinstance(MontyDecoder().process_decoded(stored), DeepRelaxTransformation)


def test_other_weights_under_the_same_name_are_noticed(perovskite):
    stored = DeepRelaxTransformation().as_dict() | {"sha256": "0" * 64}
    with pytest.raises(ValueError, match="install the version of deeprelax-ase it was made with"):
        perovskite.apply(DeepRelaxTransformation.from_dict(stored))


def test_a_pickle_knows_its_weights_and_those_of_sheets(perovskite):
    of_sheets = DeepRelaxTransformation()
    stored = pickle.loads(pickle.dumps(of_sheets))  # noqa: S301 - our own
    assert len(stored.sha256) == len(stored.sheets_sha256) == 64
    assert perovskite.apply(stored)
    sheet = Structure(
        Lattice.from_parameters(3.0, 3.0, 20, 90, 90, 120),
        ["Ti", "Ti", "C"],
        [[0, 0, 0.44], [1 / 3, 2 / 3, 0.56], [2 / 3, 1 / 3, 0.5]],
    )
    assert sheet.apply(stored)
    stored.sheets_sha256 = "0" * 64
    assert perovskite.apply(stored)
    with pytest.raises(ValueError, match="the weights 'sheets' have the SHA-256"):
        sheet.apply(stored)


def test_history_undo_and_json(transformation, perovskite):
    history = TransformedStructure(perovskite)
    assert history.apply(transformation) is history
    history.append_transformation(SupercellTransformation([2, 1, 1]))
    relaxed = perovskite.apply(transformation)
    assert len(history.final_structure) == 10
    assert len(history.history) == 2
    again = TransformedStructure.from_dict(json.loads(json.dumps(history.as_dict())))
    np.testing.assert_allclose(
        again.final_structure.lattice.matrix, history.final_structure.lattice.matrix
    )
    assert again.history[0]["@class"] == "DeepRelaxTransformation"
    again.undo_last_change()
    again.undo_last_change()
    np.testing.assert_allclose(again.final_structure.lattice.matrix, perovskite.lattice.matrix)
    again.redo_next_change()
    np.testing.assert_allclose(
        again.final_structure.lattice.matrix, relaxed.lattice.matrix, atol=1e-6
    )


def test_transmuter(transformation, perovskite):
    other = perovskite.copy()
    other.scale_lattice(1.1 * other.volume)
    transmuter = StandardTransmuter.from_structures([perovskite, other], [transformation])
    relaxed = [t.final_structure for t in transmuter.transformed_structures]
    assert relaxed == [s.apply(transformation) for s in (perovskite, other)]
    assert not transformation.is_one_to_many
    assert transformation.inverse is None


def test_pickling_holds_no_weights(transformation, perovskite):
    perovskite.apply(transformation)
    stored = pickle.dumps(transformation)
    assert len(stored) < 1000
    again = pickle.loads(stored)  # noqa: S301 - our own
    assert perovskite.apply(again) == perovskite.apply(transformation)


def test_multiprocessing(transformation, perovskite):
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        (volume,) = pool.starmap(volume_after, [(transformation, perovskite)])
    assert volume == pytest.approx(volume_after(transformation, perovskite))


def test_annotations_are_plain(random_weights, perovskite):
    transformation = DeepRelaxTransformation(str(random_weights), annotate=True)
    relaxed = perovskite.apply(transformation)
    assert all(type(value) is float for value in relaxed.site_properties["expected_error"])
    assert set(relaxed.properties) == {"origin", "deeprelax"}
    again = Structure.from_dict(json.loads(json.dumps(relaxed.as_dict())))
    assert again.properties["deeprelax"]["expected_error"] > 0
    assert "expected_error" not in perovskite.site_properties


def test_annotations_of_an_earlier_move_go(random_weights, perovskite, monkeypatch):
    annotated = perovskite.apply(DeepRelaxTransformation(str(random_weights), annotate=True))
    again = annotated.apply(DeepRelaxTransformation(str(random_weights)))
    assert set(again.properties) == {"origin"}
    assert "expected_error" not in again.site_properties
    assert "deeprelax" in annotated.properties
    refuse = "deeprelax_ase.relaxation.passes.reason_to_refuse"
    monkeypatch.setattr(refuse, lambda *_: "input kept: it was asked for")
    with pytest.warns(UserWarning, match="input kept"):
        kept = annotated.apply(DeepRelaxTransformation(str(random_weights), annotate=True))
    assert kept.properties["deeprelax"]["status"] == "refused"
    assert kept.properties["deeprelax"]["message"] == "input kept: it was asked for"
    assert kept.lattice == annotated.lattice


def test_what_is_left_as_it_was_is_a_copy(random_weights, perovskite, monkeypatch):
    monkeypatch.setattr(
        "deeprelax_ase.relaxation.calibration.Calibration.gain_probability", lambda *_: 0.0
    )
    before = perovskite.copy()
    kept = perovskite.apply(DeepRelaxTransformation(str(random_weights), annotate=True))
    assert kept.lattice == before.lattice
    assert "expected_error" in kept.site_properties
    kept.remove_sites([0])
    assert perovskite == before
    assert perovskite.properties == before.properties
    assert perovskite.site_properties == before.site_properties


def test_refusal_warns_and_copies(transformation, perovskite, monkeypatch):
    monkeypatch.setattr("deeprelax_ase.relaxation.sanity_checks.LARGEST_DISPLACEMENT", 0.0)
    with pytest.warns(UserWarning, match="input kept"):
        relaxed = perovskite.apply(transformation)
    assert relaxed == perovskite
    assert relaxed is not perovskite


def test_disordered_structures_name_the_way_out(transformation):
    disordered = Structure(Lattice.cubic(3), [{"Mg": 0.5, "Ti": 0.5}], [[0, 0, 0]])
    with pytest.raises(ValueError, match="OrderDisorderedStructureTransformation"):
        disordered.apply(transformation)


def test_building_one_reads_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "nonesuch" in repr(DeepRelaxTransformation("nonesuch"))
    with pytest.raises(ValueError, match="no weights 'nonesuch'"):
        DeepRelaxTransformation("nonesuch").as_dict()


def test_what_pymatgen_relaxed_with_does_not_stay(perovskite):
    given = perovskite.copy()
    given.calc, given.dynamics = "a calculator", {"nsteps": 2}
    result = Relaxer(always_move=True).relax(given)
    assert not hasattr(result.structure, "calc")
    assert not hasattr(result.structure, "dynamics")
    assert "calc, dynamics" in result.message
    assert given.calc == "a calculator"


def test_a_file_of_weights_that_changed_is_told(perovskite, random_weights, tmp_path):
    path = tmp_path / "mine.safetensors"
    path.write_bytes(random_weights.read_bytes())
    known = DeepRelaxTransformation(path, allow_unseen=True).as_dict()
    save_weights(path, load_weights(random_weights).network, {"name": "trained on"})
    with pytest.raises(ValueError, match="put the file back that was there then"):
        DeepRelaxTransformation.from_dict(known).apply_transformation(perovskite)
