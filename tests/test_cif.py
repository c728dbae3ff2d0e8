import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from deeprelax_ase.files.cif import read_cif
from deeprelax_ase.files.cif_symmetry import (
    _HALL_NUMBERS,
    _database,
    _operation,
    _type,
    text_of,
)
from deeprelax_ase.structures.validation import StructureError

MGO = "Mg1 Mg 0 0 0\nO1 O 0.5 0.5 0.5"
BI2TE3 = "Bi1 Bi 0 0 0.4\nTe1 Te 0 0 0\nTe2 Te 0 0 0.209"
HEXAGONAL = {"a": 4.4, "c": 30.5, "gamma": 120}
SPINEL = "Mg Mg 0.125 0.125 0.125\nAl Al 0.5 0.5 0.5\nO O 0.2624 0.2624 0.2624"
OPERATIONS = "loop_\n_symmetry_equiv_pos_as_xyz\n{}\n"


def cif(sites=MGO, more="", a=4.2, b=None, c=None, gamma=90, columns=""):
    return (
        f"data_x\n_cell_length_a {a}\n_cell_length_b {b or a}\n_cell_length_c {c or a}\n"
        f"_cell_angle_alpha 90\n_cell_angle_beta 90\n_cell_angle_gamma {gamma}\n{more}"
        "loop_\n_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n"
        f"_atom_site_fract_y\n_atom_site_fract_z\n{columns}{sites}\n"
    )


def named(name):
    return f"_symmetry_space_group_name_H-M '{name}'\n"


def formula(text):
    structures, _ = read_cif(text)
    return [structure.composition.formula for structure in structures]


@pytest.mark.parametrize(
    "name",
    ["R -3 m :H", "R -3 m", "R-3m:H", "R -3 m H", "R -3 m (H)", "R -3 m :h", "R -3 2/m :H",
     "R -3 m HR", "R -3 m (hexagonal axes)", "R_-3_m", "r -3 M"],
)  # fmt: skip
def test_every_spelling_of_a_setting(name):
    assert formula(cif(BI2TE3, named(name), **HEXAGONAL)) == ["Bi6 Te9"]


def test_axes_of_a_rhombohedral_group_go_by_the_cell():
    rhombohedral = cif("Bi1 Bi 0.25 0.25 0.25", named("R -3 m"), a=4.4)
    assert formula(rhombohedral) == ["Bi2"]
    with pytest.raises(StructureError, match="which its space group 'R -3 m :H' cannot have"):
        read_cif(cif("Bi1 Bi 0.25 0.25 0.25", named("R -3 m :H"), a=4.4))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (named("F d -3 m :2"), "Mg8 Al16 O32"),
        (named("F d -3 m Z"), "Mg8 Al16 O32"),
        (named("F 41/d -3 2/m :2"), "Mg8 Al16 O32"),
        (named("Fd-3m (origin choice 2)"), "Mg8 Al16 O32"),
        ("_space_group_name_Hall '-F 4vw 2vw 3'\n", "Mg8 Al16 O32"),
        (named("F d -3 m") + "_chemical_formula_sum 'Al2 Mg O4'\n", "Mg8 Al16 O32"),
    ],
)
def test_the_origin_is_what_the_file_says(more, expected):
    assert formula(cif(SPINEL, more, a=8.08)) == [expected]


def test_an_origin_that_nobody_chose_is_asked_for():
    with pytest.raises(StructureError, match=r"two origin choices.*write 'F d -3 m :1' or"):
        read_cif(cif("C1 C 0 0 0", named("F d -3 m"), a=3.57))
    columns = "_atom_site_symmetry_multiplicity\n"
    assert formula(cif("C1 C 0 0 0 8", named("F d -3 m"), a=3.57, columns=columns)) == ["C8"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (named("Fm3m"), "Mg4 O4"),
        (named("F 4/m -3 2/m"), "Mg4 O4"),
        ("_symmetry_Int_Tables_number 225\n", "Mg4 O4"),
        ("_space_group_IT_number 225\n", "Mg4 O4"),
        (named("F m -3 m").upper(), "Mg4 O4"),
        (named("P 1"), "Mg1 O1"),
        (named("?"), "Mg1 O1"),
        ("", "Mg1 O1"),
        (OPERATIONS.format("x,y,z\n'x, y+1/2, z+1/2'\nX+0.5,Y,Z+0.5\n1/2+x,1/2+y,z"), "Mg4 O4"),
        ("_publ_section_title\n;\ndata_reduction was done by hand\n;\n", "Mg1 O1"),
    ],
)
def test_names_numbers_and_operations(more, expected):
    assert formula(cif(more=more)) == [expected]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (cif(more=named("Q 4 4")), "names the space group 'Q 4 4' and gives no operations"),
        (cif(more=named("F m -3 m"), c=5), "c = 5 Å, which its space group 'F m -3 m' cannot"),
        (cif(more=named("P 1") + "_space_group_IT_number 225\n"), "number 225, which differ"),
        (cif(more=named("F m -3 m") + OPERATIONS.format("x,y,z")), "lists the operation x,y,z alo"),
        (cif(more=OPERATIONS.format("x,y,z\nfoo,y,z")), "operation 'foo,y,z', which cannot be rea"),
        (cif("Mg1 Mg 0 0 0.05", OPERATIONS.format("x,y,z\n-x,-y,-z")), "contradict its sites"),
        (cif(MGO + "\nMg2 Mg 0.5 0.5 0", named("F m -3 m")), "does it list atoms that its symmetr"),
        (cif(more="_chemical_formula_sum 'Mg O H2'\n"), "no sites of H, which its formula names"),
        (cif("W1 Wat 0 0 0"), "'Wat', which is more than one atom"),
        (cif("X1 ? 0 0 0"), r"the site '\?', which names no element"),
        (cif("Mg1 Mg ? ? ?"), "which is no number"),
        (cif(MGO + "\nH1 H 0.25 . 0"), "site 'H1' that its _atom_site_fract_y is '.'"),
        (cif("Mg1 Mg 0 0").replace("_atom_site_fract_z\n", ""), r"\(_atom_site_fract_z\)"),
        (cif("Mg1 Mg 0 0"), "do not fill its columns"),
        (cif("Mg1 Mg 0 0 0 2", columns="_atom_site_attached_hydrogens\n"), "leaves out hydrogen"),
        (cif().replace("fract", "Cartn"), "gives no fractional coordinates"),
        (cif().replace("_cell_length_c", "_cell_no"), "has atom sites and no _cell_length_c"),
        (cif(c=-4.2), "has _cell_length_c = -4.2, which has to be above 0 Å"),
        (cif(gamma=190), "has _cell_angle_gamma = 190, .* above 0 and below 180 degrees"),
        (cif("Mg1 Mg 0 0 0 -1", columns="_atom_site_occupancy\n"), "occupancy is -1"),
        (cif("Va1 Va 0 0 0"), "the site 'Va', which is a vacancy"),
        (cif("Vac Vac 0 0 0"), "the site 'Vac', which is a vacancy"),
        (cif(more=f"{named('F 4/m m m')}_symmetry_Int_Tables_number 139\n"), "no operations"),
        (cif(more=f"{named('C 4/m m m')}_space_group_IT_number 123\n"), "no operations"),
        ("data_global\n_journal_year 2001\n", "no block has atom sites"),
    ],
)
def test_what_would_be_lost_is_one_sentence(text, words):
    with pytest.raises(StructureError, match=words) as caught:
        read_cif(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [".", "?", "1.0", "1.000(2)"])
def test_an_occupancy_that_is_not_given_is_one(value):
    sites = f"Mg1 Mg 0 0 0 1\nO1 O 0.5 0.5 0.5 {value}"
    text = cif(sites, named("F m -3 m"), columns="_atom_site_occupancy\n")
    assert formula(text) == ["Mg4 O4"]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("P m -3 m (221)", 221),
        ("Pm-3m(No. 221)", 221),
        ("Pm\\-3m", 221),
        ("P m \\bar{3} m", 221),
        ("P m -3 m O1", 221),
        ("221", 221),
        ("unknown", 221),
    ],
)
def test_names_with_what_journals_and_programs_add(name, number):
    more = f"{named(name)}_symmetry_Int_Tables_number {number}\n"
    assert formula(cif(more=more)) == ["Mg1 O1"]


@pytest.mark.parametrize(
    "name", ["P 63/m m c", "P6(3)/mmc", "P 6~3~/m m c", "P6<sub>3</sub>/mmc", "P 63/m m c H"]
)
def test_names_of_screw_axes(name):
    more = f"{named(name)}_symmetry_Int_Tables_number 194\n"
    text = cif("Mg1 Mg 0 0 0\nO1 O 0.3333 0.6667 0.25", more, a=3.0, c=5.0, gamma=120)
    assert formula(text) == ["Mg2 O2"]


def test_a_hexagonal_setting_that_is_written_small_or_without_a_space():
    for name in ("R -3 m h", "R-3mH", "R -3 m H"):
        more = f"{named(name)}_symmetry_Int_Tables_number 166\n"
        assert formula(cif("Mg1 Mg 0 0 0\nO1 O 0 0 0.5", more, **HEXAGONAL)) == ["Mg3 O3"]


def test_an_empty_site_is_left_out_with_a_word():
    sites = "Mg1 Mg 0 0 0 1\nO1 O 0.5 0.5 0.5 1\nLi1 Li 0.5 0.5 0 0.0"
    structures, told = read_cif(cif(sites, named("P 1"), columns="_atom_site_occupancy\n"))
    assert structures[0].composition.formula == "Mg1 O1"
    assert told == ("site 'Li1' is left out: its occupancy is 0.0",)


@pytest.mark.parametrize("shares", [(0.6, 0.4), (0.5, 0.5)])
def test_isotopes_that_share_a_site_are_one_hydrogen(shares):
    sites = "Mg1 Mg 0 0 0 1\nD1 D 0.5 0.5 0.5 {}\nH1 H 0.5 0.5 0.5 {}\nD2 D 0.5 0.5 0 1"
    text = cif(sites.format(*shares), named("P 1"), columns="_atom_site_occupancy\n")
    structure = read_cif(text)[0][0]
    assert [str(site.specie) for site in structure] == ["Mg", "H", "H"]


def test_sites_of_p1_stay_in_the_order_of_the_file():
    sites = "O O 0 0 0\nMg Mg 0.5 0.5 0.5\nO O 1.5 0 -0.5\nMg Mg -0.5 1.0 -1e-20"
    for more in (named("P 1"), "", OPERATIONS.format("x,y,z")):
        ((structure,), _) = read_cif(cif(sites, more).replace("loop_", "LOOP_"))
        assert [str(site.specie) for site in structure] == ["O", "Mg", "O", "Mg"]
        assert structure[2].frac_coords % 1.0 == pytest.approx([0.5, 0.0, 0.5])


def test_identity_alone_is_right_where_all_atoms_are_listed():
    text = cif("Cs1 Cs 0 0 0\nCl1 Cl 0.5 0.5 0.5", named("P m -3 m") + OPERATIONS.format("x,y,z"))
    assert formula(text) == ["Cs1 Cl1"]


@pytest.mark.parametrize(("x", "y"), [("0.333", "0.667"), ("0.33333", "0.66667"), ("1/3", "2/3")])
def test_coordinates_of_few_digits_are_special_positions(x, y):
    text = cif(f"Mg1 Mg {x} {y} 0.25", named("P 63/m m c"), a=3.2, c=5.2, gamma=120)
    if "/" in x:
        with pytest.raises(StructureError, match="could not convert"):
            read_cif(text)
    else:
        assert formula(text) == ["Mg2"]


def test_coordinates_in_p1_are_not_rounded():
    structure = read_cif(cif("Mg1 Mg 0.33336 0.66664 0.1", named("P 1")))[0][0]
    np.testing.assert_allclose(structure.frac_coords, [[0.33336, 0.66664, 0.1]], atol=1e-12)


def test_blocks_of_one_name_are_all_read():
    assert len(read_cif(cif() + cif(a=4.4))[0]) == 2


def test_two_oxidation_states_and_rounded_occupancies():
    columns = "_atom_site_occupancy\n"
    sites = "Fe1 Fe2+ 0 0 0 0.5\nFe2 Fe3+ 0 0 0 0.5\nO1 O 0.5 0.5 0.5 0.9995"
    structure = read_cif(cif(sites, columns=columns))[0][0]
    assert len(structure) == 2
    assert structure[-1].is_ordered


@pytest.mark.parametrize("hall", [1, 2, 63, 90, 115, 228, 334, 420, 433, 434, 459, 488, 523, 526])
def test_settings_are_those_of_the_tables(hall, rng):
    """Atoms of a CIF that names a setting are where its operations put them."""
    operations, entry = _database(hall), _type(hall)
    basis = np.diag([90.0, 100, 110]) + 10 * rng.normal(size=(3, 3))
    metric = np.mean([w.T @ basis @ basis.T @ w for w, _ in operations], axis=0)
    lengths = np.sqrt(np.diag(metric))
    angles = [
        np.degrees(np.arccos(metric[i, j] / lengths[i] / lengths[j]))
        for i, j in ((1, 2), (0, 2), (0, 1))
    ]
    place = np.array([0.0713, 0.1934, 0.4127])
    choice = f" :{entry.choice}" if entry.choice[:1] in ("1", "2", "H", "R") else ""
    text = cif(f"Si1 Si {' '.join(map(str, place))}", named(entry.international_full + choice))
    for key, value in zip(("length_a", "length_b", "length_c"), lengths, strict=True):
        text = text.replace(f"_cell_{key} 4.2\n", f"_cell_{key} {value:.9f}\n")
    for key, value in zip(("alpha", "beta", "gamma"), angles, strict=True):
        text = text.replace(f"_cell_angle_{key} 90\n", f"_cell_angle_{key} {value:.9f}\n")
    found = read_cif(text)[0][0].frac_coords
    expected = np.array([w @ place + t for w, t in operations])
    difference = found[:, None] - expected
    difference -= np.round(difference)
    assert len(found) == len(expected)
    assert np.abs(difference).max(axis=2).min(axis=1).max() < 1e-3


def test_operations_are_written_as_they_are_read():
    for hall in _HALL_NUMBERS[::10]:
        for operation in _database(hall):
            rotation, shift = _operation(text_of(operation))
            np.testing.assert_allclose(rotation, operation[0])
            np.testing.assert_allclose(shift, operation[1], atol=1e-3)


def test_what_pymatgen_writes_is_read(perovskite):
    rocksalt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    for structure, options in ((rocksalt, {"symprec": 0.01}), (rocksalt, {}), (perovskite, {})):
        again = read_cif(structure.to(fmt="cif", **options))[0][0]
        assert again.composition.reduced_formula == structure.composition.reduced_formula
        assert again.volume == pytest.approx(structure.volume)
