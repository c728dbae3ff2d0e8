"""What programs around the relaxer may do: defaults of torch, shared properties, odd options."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import ExternalForce, FixBondLengths, FixInternals, Hookean
from ase.filters import UnitCellFilter
from pymatgen.alchemy.materials import TransformedStructure
from pymatgen.core import Lattice, Structure
from pymatgen.core.surface import Slab

from deeprelax_ase import DeepRelaxBFGS, DeepRelaxOptimizer, DeepRelaxTransformation, Relaxer
from deeprelax_ase.network.checkpoint import load_weights
from deeprelax_ase.network.weights_registry import has_specialist, weights_path, weights_sha256
from deeprelax_ase.relaxation.options import RelaxOptions
from deeprelax_ase.structures.notes import MEANINGS
from deeprelax_ase.structures.symmetry import MOST_SYMMETRIC
from deeprelax_ase.structures.validation import StructureError


def wurtzite(strained=False):
    atoms = bulk("ZnO", "wurtzite", a=3.4, c=5.0)
    if strained:
        shear = np.array([[1, 0.1, 0], [0, 1, 0.05], [0, 0, 1]])
        atoms.set_cell(atoms.cell @ shear, scale_atoms=True)
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.mark.parametrize("method", ["joint", "bed"])
def test_defaults_of_torch_are_those_of_others(method):
    options = {"method": method, "always_move": True}
    large = bulk("NaCl", "rocksalt", a=5.9, cubic=True) * (4, 4, 4)
    large.rattle(0.03)
    before = next(iter(Relaxer(**options).relax_many([large])))
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        after = next(iter(Relaxer(**options).relax_many([large])))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert before.status == after.status == "relaxed"
    assert np.abs(before.structure.positions - after.structure.positions).max() < 1e-9


def crushed():
    places = [[0, 0, 0], [0, 0, 0.22]]
    return Structure(Lattice.cubic(2.8), ["Fe", "Fe"], places, properties={"id": "mp-1"})


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_refused_structure_is_not_annotated_itself():
    given = crushed()
    made = DeepRelaxTransformation(annotate=True).apply_transformation(given)
    assert "deeprelax" in made.properties
    assert given.properties == {"id": "mp-1"}
    given.properties["deeprelax"] = {"of": "before"}
    DeepRelaxTransformation().apply_transformation(given)
    assert given.properties["deeprelax"] == {"of": "before"}
    history = TransformedStructure(crushed(), [DeepRelaxTransformation(annotate=True)])
    history.undo_last_change()
    assert history.final_structure.properties == {"id": "mp-1"}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_refused_slab_keeps_what_it_has():
    lattice = Lattice.cubic(40)
    far = Structure(lattice, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    args = (lattice, ["Na", "Cl"], far.frac_coords, (1, 0, 0), far, 0.25, np.eye(3))
    slab = Slab(*args)
    slab.properties["id"] = "mp-1"
    slab.set_charge(1)
    slab[0].label = "NaX"
    made = DeepRelaxTransformation().apply_transformation(slab)
    assert (made.properties, made.charge, made.labels) == ({"id": "mp-1"}, 1, ["NaX", "Cl"])


@pytest.mark.parametrize("seed", range(42, 47))
def test_a_bond_that_another_image_undercuts_is_held(seed):
    atoms = bulk("ZnO", "wurtzite", a=3.4, c=5.0) * (2, 1, 1)
    atoms.rattle(0.1, seed=seed)
    length = atoms.get_distance(0, 1, mic=True)
    atoms.set_constraint(FixBondLengths([[0, 1]]))
    result = Relaxer(always_move=True).relax(atoms)
    assert result.status == "relaxed"
    images = np.array([[i, j, k] for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)])
    vectors = result.structure.positions[1] - result.structure.positions[0]
    lengths = np.linalg.norm(vectors + images @ result.structure.cell.array, axis=1)
    assert np.abs(lengths - length).min() < 1e-6


def test_what_is_no_structure_fails_and_the_rest_go_on(random_weights):
    good = bulk("MgO", "rocksalt", a=4.5)
    given = [good, Atoms, np.array(None, dtype=object), good]
    found = [r.status for r in Relaxer(model=random_weights, always_move=True).relax_many(given)]
    assert found == ["relaxed", "failed", "failed", "relaxed"]


def test_hashes_are_of_all_replicates(tmp_path):
    for name, copy in (("default", "x"), ("default-2", "x-2")):
        shutil.copy(weights_path(name), tmp_path / f"{copy}.safetensors")
    options = {"model": str(tmp_path / "x.safetensors"), "ensemble": True}
    stored = DeepRelaxTransformation(**options).as_dict()
    structure = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(4.5), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    DeepRelaxTransformation.from_dict(stored).apply_transformation(structure)
    shutil.copy(weights_path("default"), tmp_path / "x-2.safetensors")
    with pytest.raises(ValueError, match="this transformation was made with"):
        DeepRelaxTransformation.from_dict(stored).apply_transformation(structure)


def test_what_is_held_is_known():
    still = Relaxer(hold="cell").relax(bulk("Cu", a=3.8))
    assert not still.bonds.uncertainties.any()
    assert not still.site_errors.any()
    for hold, held_offsets in (("cell", {(1, 0, 0), (0, 1, 0), (1, 1, 0)}), ("ab", {(1, 0, 0)})):
        bonds = Relaxer(hold=hold).relax(wurtzite()).bonds
        is_image = bonds.edge_index[0] == bonds.edge_index[1]
        offsets = [tuple(np.abs(o).tolist()) for o in bonds.offsets]
        known = np.array([is_image[k] and offsets[k] in held_offsets for k in range(len(offsets))])
        assert known.any()
        assert not bonds.uncertainties[known].any()
        assert (bonds.uncertainties[~is_image] > 0).all()
    free = Relaxer().relax(wurtzite()).bonds
    assert (free.uncertainties > 0).all()


class OwnFilter(UnitCellFilter):
    """A filter that a program derives."""


@pytest.mark.parametrize("kind", [UnitCellFilter, OwnFilter])
def test_masks_of_derived_filters_are_obeyed(kind):
    atoms = wurtzite(strained=True)
    before = atoms.cell.array.copy()
    target = kind(atoms, mask=[1, 0, 1, 1, 0, 1])
    optimizer = DeepRelaxOptimizer(target, logfile=None, always_move=True)
    optimizer.run()
    change = np.linalg.solve(before, atoms.cell.array)
    assert abs(change[0, 0] - 1) > 1e-6
    assert change[1, 1] == pytest.approx(1, abs=1e-9)
    assert change[0, 2] + change[2, 0] == pytest.approx(0, abs=1e-9)


def test_a_path_that_is_a_name():
    assert has_specialist(Path("default")) == has_specialist("default")
    assert not has_specialist(load_weights("default"))


@pytest.mark.parametrize(
    "constraint",
    [FixBondLengths([[0, 9]]), FixInternals(bonds=[[1.0, [0, 7]]]), Hookean(0, 9, rt=1.0, k=1.0)],
)
def test_constraints_of_atoms_that_are_not_there(random_weights, constraint):
    atoms = bulk("MgO", "rocksalt", a=4.5)
    atoms.set_constraint(constraint)
    with pytest.raises(StructureError, match="names an atom that is none of the 2"):
        Relaxer(model=random_weights).relax(atoms)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_gain": True}, "min_gain is True: it has to be a probability"),
        ({"passes": True}, "passes is True: it has to be a whole number from 1 to"),
        ({"edges_per_batch": True}, "edges_per_batch is True: it has to be a positive"),
        ({"hold": ","}, "hold is ',': choose from cell, volume"),
    ],
)
def test_options_that_only_look_right(options, words):
    with pytest.raises(ValueError, match=words):
        RelaxOptions(**options)


def test_options_are_equal_whatever_their_order():
    assert RelaxOptions(hold="c, volume") == RelaxOptions(hold="volume,c")


def test_a_trajectory_names_weights_that_were_given_as_such():
    atoms = bulk("MgO", "rocksalt", a=4.5)
    optimizer = DeepRelaxOptimizer(atoms, model=load_weights("default"), logfile=None)
    assert optimizer.todict()["model"] == "default"


def test_a_word_where_symmetry_is_not_looked_for():
    atoms = bulk("ZnO", "wurtzite", a=3.4, c=5.0) * (7, 6, 6)
    assert len(atoms) > MOST_SYMMETRIC
    for keep, count in ((True, 1), (False, 0)):
        result = Relaxer(keep_symmetry=keep).relax(atoms)
        assert [note.code for note in result.notes].count("symmetry_not_sought") == count


def test_codes_of_notes_have_a_meaning():
    texts = [path.read_text() for path in Path("deeprelax_ase").rglob("*.py")]
    codes = {code for text in texts for code in re.findall(r"Note\(\s*\"(\w+)\"", text)}
    assert len(codes) > 10
    assert codes <= set(MEANINGS)


def test_forces_from_outside_are_left_to_the_relaxation_that_follows():
    atoms = bulk("Cu", cubic=True, a=3.9) * (2, 1, 1)
    atoms.rattle(0.05)
    atoms.calc = EMT()
    atoms.set_constraint(ExternalForce(0, 1, 0.1))
    with pytest.warns(UserWarning, match="asks for forces from outside"):
        DeepRelaxBFGS(atoms, logfile=None, always_move=True).run(fmax=0.5, steps=5)


class OthersConstraint:
    """A constraint of someone else, that names no atoms."""

    def get_indices(self):
        raise NotImplementedError

    def adjust_positions(self, atoms, positions):
        pass

    def adjust_forces(self, atoms, forces):
        pass

    def copy(self):
        return self


def test_a_constraint_that_names_no_atoms(random_weights):
    atoms = bulk("MgO", "rocksalt", a=4.5)
    atoms.set_constraint(OthersConstraint())
    assert Relaxer(model=random_weights, always_move=True).relax(atoms).status == "relaxed"


def test_a_transformation_that_was_stored_before_replicates_were_hashed():
    stored = DeepRelaxTransformation(ensemble=True).as_dict()
    stored["sha256"] = weights_sha256("default")
    structure = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(4.5), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    DeepRelaxTransformation.from_dict(stored).apply_transformation(structure)
