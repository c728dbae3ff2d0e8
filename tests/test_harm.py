"""Harm that users of textbook structures would meet: left alone, or told of."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bcc100, bulk, fcc111, molecule, mx2, surface
from ase.constraints import FixAtoms
from pymatgen.core import Lattice, Structure

from deeprelax_ase import Relaxer
from deeprelax_ase.relaxation.sanity_checks import stretched_bond


def codes(result):
    return [note.code for note in result.notes]


def graphite():
    lattice = Lattice.hexagonal(2.461, 6.708)
    return Structure.from_spacegroup(194, lattice, ["C", "C"], [[0, 0, 0.25], [1 / 3, 2 / 3, 0.25]])


@pytest.mark.parametrize("passes", [1, 3])
def test_dispersion_of_another_kind_moves_only_what_is_nearly_certain(passes):
    result = Relaxer(functional="optB88-vdW", passes=passes).relax(graphite())
    assert result.status == "unchanged"
    assert "dispersion_elsewhere" in codes(result)
    moved = Relaxer(functional="optB88-vdW", passes=passes, min_gain=0.65).relax(graphite())
    assert moved.status == "relaxed", "who names a probability has it"


def test_a_molecule_is_not_pulled_onto_a_metal_by_dispersion_of_layers():
    slab = fcc111("Ag", (3, 3, 4), a=4.07, vacuum=9)
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 2))
    add_adsorbate(slab, molecule("C6H6"), 3.0, "ontop")
    result = Relaxer(functional="PBE-D3", hold="cell").relax(slab)
    assert result.status == "unchanged"
    assert "dispersion_elsewhere" in codes(result)


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        (bulk("MgO", "rocksalt", a=4.3), ["foreign_kind"]),
        (graphite().to_ase_atoms(), []),
        (mx2("MoS2", vacuum=10), ["foreign_kind"]),
        (
            Atoms("Xe", cell=np.full((3, 3), 3.1) - 3.1 * np.eye(3), pbc=True),
            ["dispersion_elsewhere"],
        ),
    ],
)
def test_what_is_a_stack_of_layers(atoms, expected):
    atoms.pbc = True
    result = Relaxer(functional="PBE-D3").relax(atoms)
    kinds = {"foreign_kind", "dispersion_elsewhere"}
    assert [code for code in codes(result) if code in kinds] == expected


def test_magnetic_elements_with_pbesol_are_told_of():
    manganese = bulk("MnS", "rocksalt", a=5.224, cubic=True)
    assert "low_spin" in codes(Relaxer(functional="PBEsol").relax(manganese))
    assert "low_spin" not in codes(Relaxer(functional="r2SCAN").relax(manganese))
    calcium = bulk("CaS", "rocksalt", a=5.7, cubic=True)
    assert "low_spin" not in codes(Relaxer(functional="PBEsol").relax(calcium))


def test_fixed_atoms_that_move_with_the_plane_are_told_of():
    slab = bcc100("W", (2, 2, 4), a=3.18, vacuum=8)
    slab.pbc = True
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 2))
    result = Relaxer(functional="PBE", hold="nothing").relax(slab)
    assert abs(result.strain[0, 0]) > 0.01
    assert "fixed_atoms_strained" in codes(result)
    held = Relaxer(functional="PBE", hold="cell", always_move=True).relax(slab)
    assert held.status == "relaxed"
    assert "fixed_atoms_strained" not in codes(held)


def test_a_molecule_on_an_oxide_that_is_torn_is_told_of():
    slab = surface(bulk("MgO", "rocksalt", a=4.25, cubic=True), (0, 0, 1), 2, vacuum=9) * (2, 2, 1)
    slab.pbc = True
    heights = slab.positions[:, 2]
    top = next(k for k in np.argsort(-heights) if slab.symbols[k] == "Mg")
    methanol = molecule("CH3OH")
    methanol.rotate(np.delete(methanol.positions, 1, 0).mean(0) - methanol.positions[1], "z")
    methanol.translate(slab.positions[top] - methanol.positions[1] + [0, 0, 2.3])
    both = slab + methanol
    both.set_constraint(FixAtoms(indices=np.flatnonzero(heights < heights.mean())))
    result = Relaxer(functional="PBE", hold="cell").relax(both)
    assert result.status == "relaxed"
    assert "bond_stretched" in codes(result)
    assert "from 1.42 Å: too long for one of a molecule" in result.message


def test_bonds_that_part_or_are_of_carbides_are_no_matter():
    def of(symbols, before, after):
        pairs = np.arange(2 * len(before)).reshape(-1, 2).T
        return stretched_bond(Atoms(symbols).numbers, pairs, np.array(before), np.array(after))

    assert of("COOH", [1.42, 0.97], [1.45, 1.0]) is None
    assert "atoms 0 and 1 comes out at 1.63 Å" in of("COOH", [1.42, 0.97], [1.63, 1.0])
    assert "atoms 2 and 3 comes out at 1.16 Å" in of("COOH", [1.42, 0.97], [1.45, 1.16])
    assert of("COOH", [1.42, 0.97], [1.45, 1.58]) is None  # parted
    assert of("COOH", [1.60, 1.09], [1.66, 1.12]) is None  # as long before
    assert of("CCFFOO", [1.5, 1.04, 1.3], [2.0, 1.5, 1.6]) is None


def test_what_would_stay_anyway_is_not_refused():
    rng = np.random.default_rng(6)
    box = Atoms(cell=[9.3] * 3, pbc=True)
    for k in range(27):
        gas = molecule("CO")
        gas.rotate(rng.random() * 360, rng.normal(size=3))
        gas.translate(np.array([k // 9, k // 3 % 3, k % 3]) * 3.1 + 0.8)
        box += gas
    assert Relaxer(functional="PBE").relax(box).status == "unchanged"
    assert Relaxer(functional="PBE", always_move=True).relax(box).status == "refused"
