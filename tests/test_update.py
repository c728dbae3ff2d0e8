"""`python -m benchmarks all`: what is out of date is measured, and published numbers are those."""

import copy
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk, mx2
from datasets import rows, write_pairs
from test_harness import adapters, calls, morse  # noqa: F401 - fixtures
from typer.testing import CliRunner

from benchmarks import (
    accuracy,
    dft,
    figures,
    plan,
    publish,
    rival,
    run_tables,
    store,
    update,
)
from benchmarks.__main__ import app


def test_published_numbers_are_those_of_their_files():
    for page, text in publish.pages().items():
        assert page.read_text() == text, f"{page.name}: run python -m benchmarks publish"


def test_results_of_other_weights_are_named_as_such():
    pages = "".join(publish.pages().values())
    for name, weights in publish.of_other_weights().items():
        assert f"earlier weights ({weights[:8]})" in pages, name


def test_pages_name_only_numbers_that_something_makes(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("<!-- numbers: nothing -->\n1\n<!-- end of numbers -->\n")
    with pytest.raises(ValueError, match="no numbers 'nothing': choose from test-summary"):
        publish.pages(tmp_path)


def test_a_number_that_was_changed_by_hand_is_put_right(tmp_path):
    results = tmp_path / "results"
    ratio = {"single": 150.4, "batched": 700.0}
    store.write("speed", {"ratios": {"m3gnet": ratio}}, results)
    assert "150 times as fast as M3GNet one by one, 700 times" in run_tables.speed_sentence(results)


def test_weights_are_found_in_every_part():
    ours, rivals = "a" * 64, "nequix-oam-1.nqx"
    found = {"set": {"input": {}, "ours": {store.MADE_WITH: {"weights": ours}}}}
    found["set"]["rival"] = {store.MADE_WITH: {"weights": rivals}}
    assert store.weights_of(found) == {ours}


@pytest.fixture
def bench(adapters, tmp_path, monkeypatch):  # noqa: F811
    write_pairs(tmp_path / "hypothetical.parquet", 40)
    pbe = plan.Set("hypothetical", "PBE")
    (adapters / "morse.txt").write_text("# python: 3.11\nmorse==1.0\n")
    for name, value in {
        "DFT_SETS": (pbe, plan.Set("battery", "PBE")),
        "TAUGHT_SETS": {},
        "STEP_SETS": (pbe,),
        "STEP_RIVALS": ("morse",),
        "KNOWN": {"morse": ("PBE",)},
        "JUDGE": "morse",
        "JUDGED": (pbe,),
    }.items():
        monkeypatch.setattr(plan, name, value)
    made = update.Bench(tmp_path, tmp_path, results=tmp_path / "results")
    yield made
    made.close()


def test_what_is_up_to_date_is_not_measured_again(bench, adapters, capsys, monkeypatch):  # noqa: F811
    for _ in range(2):
        update.update_accuracy(bench)
        update.update_steps(bench)
    said = capsys.readouterr().err
    assert said.count("accuracy of input, DeepRelax, morse on hypothetical (PBE)") == 1
    assert said.count("steps of morse on hypothetical (PBE)") == 1
    assert "left out: battery (PBE): " in said
    found = store.read("accuracy", bench.results)["hypothetical (PBE)"]
    assert list(found) == [accuracy.INPUT, accuracy.OURS, "morse"]
    for entry in found.values():
        assert 0 <= entry["energy"]["close"] <= 100
        assert entry["rmsd"]["mean"] >= 0
    assert found["input"]["symmetry"]["0.01"]["kept"] == 100
    made = calls(adapters)
    shipped = {**store.shipped(), "default": "0" * 64}
    monkeypatch.setattr(store, "shipped", lambda: shipped)
    update.update_accuracy(bench)
    assert "accuracy of DeepRelax on hypothetical (PBE)" in capsys.readouterr().err
    assert calls(adapters) == made  # the ends are the same, and their energies are kept
    (adapters / "morse.txt").write_text("# python: 3.11\nmorse==2.0\n")
    update.update_accuracy(bench)
    assert "accuracy of morse on hypothetical (PBE)" in capsys.readouterr().err
    assert "2.0" in json.dumps(store.read("accuracy", bench.results)["hypothetical (PBE)"]["morse"])


def test_a_trial_measures_nothing(bench, adapters, capsys):  # noqa: F811
    bench.is_trial = True
    for name in ("accuracy", "steps", "clients", "dft"):
        update.UPDATES[name](bench)
    assert "out of date: accuracy of" in capsys.readouterr().err
    assert calls(adapters) == 0
    assert not bench.results.exists()


def test_a_rival_that_cannot_start_does_not_stop_the_others(bench, adapters, capsys, monkeypatch):  # noqa: F811
    (adapters / "broken.py").write_text("raise SystemExit('it is not installed')\n")
    (adapters / "broken.txt").write_text("# python: 3.11\nbroken==1.0\n")
    monkeypatch.setattr(plan, "KNOWN", {"broken": ("PBE",), "morse": ("PBE",)})
    update.update_accuracy(bench)
    assert "broken: its process ended: it is not installed" in capsys.readouterr().err
    assert "morse" in store.read("accuracy", bench.results)["hypothetical (PBE)"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--only", "speeed"], "no measurement 'speeed': choose from evaluations"),
        (["--weights", "m3gnet"], "--weights m3gnet: give RIVAL=PATH"),
        (["--data", "nowhere"], "no folder nowhere"),
    ],
)
def test_bad_arguments_of_all(tmp_path, arguments, sentence):
    given = ["all", "--data", str(tmp_path), "--work", str(tmp_path), "--dry-run", *arguments]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2
    assert sentence in re.sub(r"\s+", " ", result.stderr)


def write_layered(path):
    """Sheets of MoS2 and WS2 on top of each other, 8 Å apart, relaxed to 7 Å."""
    made = []
    for name, repeat in (("MoS2", (2, 1, 1)), ("WS2", (1, 1, 1))):
        relaxed = mx2(name, a=3.2, vacuum=None) * repeat
        relaxed.pbc = True
        relaxed.cell[2, 2] = 7.0
        cell = relaxed.cell.array.copy()
        cell[2, 2] = 8.0
        row = next(rows(1))
        made.append(
            row
            | {
                "id": name,
                "functional": "PBE-D3",
                "split": "val",
                "numbers": relaxed.numbers.tolist(),
                "cell": cell.ravel().tolist(),
                "positions": relaxed.positions.ravel().tolist(),
                "relaxed_cell": relaxed.cell.array.ravel().tolist(),
                "relaxed_positions": relaxed.positions.ravel().tolist(),
            }
        )
    pq.write_table(pa.Table.from_pylist(made), path)


def test_energies_by_dft_and_their_table(morse, tmp_path, monkeypatch):  # noqa: F811
    write_pairs(tmp_path / "hypothetical.parquet", 60)
    write_layered(tmp_path / "layered.parquet")
    monkeypatch.setattr(dft, "GROUPS", {"bulk": ("hypothetical", "PBE")})
    monkeypatch.setattr(dft, "RELAXATIONS", {"bulk": 2})
    monkeypatch.setattr(dft, "ENERGIES", 9)
    kept = []
    dft.measure(tmp_path, morse, lambda part: kept.append(copy.deepcopy(part)))
    found = kept[-1]
    names = [entry["name"] for entry in found["energies"]["bulk"]]
    grown = [len(part["energies"]["bulk"]) for part in kept[: len(names)]]
    assert grown == list(range(1, len(names) + 1))
    later = [sorted(part) for part in kept[len(names) :]]
    assert later == [
        ["energies", "fine", "whole"],
        ["energies", "fine", "layers", "whole"],
        *2 * [["energies", "fine", "layers", "relaxations", "whole"]],
        ["energies", "fine", "layers", "relaxations", "whole"],
    ]
    relaxed = [part["relaxations"]["bulk"] for part in kept if "relaxations" in part]
    done = [len(group["crystals"]) + group["failures"] for group in relaxed]
    assert done == [1, 2, 2]
    assert [part["whole"] for part in kept] == [False] * (len(kept) - 1) + [True]
    cases = dft.choose_cases(tmp_path / "hypothetical.parquet", None, functional="PBE")
    formulas = {case.name: case.atoms.get_chemical_formula() for case in cases}
    assert sorted(formulas[name] for name in names) == sorted(set(formulas.values()))
    assert len(found["fine"]) == dft.CONVERGED
    for entry, fine in zip(found["energies"]["bulk"], found["fine"], strict=False):
        assert [entry[g] for g in dft.GEOMETRIES] == [fine[g] for g in dft.GEOMETRIES]
    store.write("dft", found, tmp_path)
    said = run_tables.dft_energies(tmp_path)
    assert "change by 0.0 meV/atom at most, inputs by 0 %, and the order is the same" in said
    assert dft.table(found).count("\n") == 2


def test_dft_goes_on_where_it_was(morse, adapters, tmp_path, monkeypatch):  # noqa: F811
    write_pairs(tmp_path / "hypothetical.parquet", 60)
    write_layered(tmp_path / "layered.parquet")
    monkeypatch.setattr(dft, "GROUPS", {"bulk": ("hypothetical", "PBE")})
    monkeypatch.setattr(dft, "RELAXATIONS", {"bulk": 2})
    kept = []
    dft.measure(tmp_path, morse, lambda part: kept.append(copy.deepcopy(part)))
    (tmp_path / "morse.jsonl").unlink()
    fresh = rival.Rival("morse", tmp_path, record=tmp_path / "morse.jsonl")
    already = calls(adapters)
    relaxed = kept[-1]["relaxations"]["bulk"]
    before = kept[-1] | {
        "energies": {"bulk": kept[-1]["energies"]["bulk"][1:]},
        "relaxations": {"bulk": relaxed | {"crystals": relaxed["crystals"][:-1]}},
    }
    again = []
    dft.measure(tmp_path, fresh, lambda part: again.append(copy.deepcopy(part)), before)
    fresh.close()
    steps = sum(relaxed["crystals"][-1]["steps"]) + 2
    assert 0 < calls(adapters) - already <= 2 * (1 + len(dft.GEOMETRIES)) + 2 * steps
    ends = [
        [(e["name"], e["steps"], e["ends_above"]) for e in part["relaxations"]["bulk"]["crystals"]]
        for part in (kept[-1], again[-1])
    ]
    assert ends[0] == ends[1]
    by_name = [{e["name"]: e for e in part["energies"]["bulk"]} for part in (kept[-1], again[-1])]
    assert by_name[0] == by_name[1]
    assert again[-1]["layers"] == kept[-1]["layers"]


def test_distances_between_layers(morse, tmp_path, monkeypatch):  # noqa: F811
    write_layered(tmp_path / "layered.parquet")
    cases = dft.layered_cases(tmp_path)
    assert sorted(case.name for case in cases) == ["MoS2", "WS2"]
    found = {entry["formula"]: entry for entry in dft.layers(cases, morse)}
    assert "three is too many" in found["S2W"]["error"]
    assert found["MoS2"]["error"] == "it ends without these layers"  # to Morse, all atoms attract
    monkeypatch.setattr(dft, "_layers_of", lambda _: ((0, 0, 1), 1))
    found = {entry["formula"]: entry for entry in dft.layers(cases, morse)}
    mos2 = found["MoS2"]
    assert mos2["input"] == pytest.approx(8.0)
    assert mos2["data"] == pytest.approx(7.0)
    assert mos2["steps"] > 0
    table = dft.layers_table(list(found.values())).splitlines()
    assert table[-1].startswith("| S2W |")
    assert "three is too many" in table[-1]
    off = abs(mos2["data"] - mos2["relaxed"])
    assert f"{off:.3f}" in table[-2]
    assert table[-2].startswith("| mean error of 1")


def test_stacked_crystals_that_are_no_layers_are_left_out(tmp_path):
    write_pairs(tmp_path / "layered.parquet", 60)
    with pytest.raises(ValueError, match="no crystal of 2 to 16 atoms relaxed with PBE-D3"):
        dft.layered_cases(tmp_path)
    assert dft._layers_of(bulk("MgO", "rocksalt", a=4.2)) is None


def test_k_points_are_not_spent_on_vacuum():
    sheet = mx2("MoS2", a=3.2, vacuum=8.0)
    sheet.pbc = [True, True, False]
    assert dft.mesh(sheet) == [5, 5, 1]
    assert dft.mesh(bulk("MgO", "rocksalt", a=4.2)) == [5, 5, 5]
    needle = Atoms("Bi", cell=[[2.5, 0, 10], [-1.25, 2.165, 10], [-1.25, -2.165, 10]], pbc=True)
    assert dft.mesh(needle) == [3, 3, 3], "axes are long, and planes are close"


def test_figures_are_drawn_of_what_there_is(tmp_path):
    results, docs = tmp_path / "results", tmp_path / "docs"
    docs.mkdir()
    figures.draw(results, docs)
    assert list(docs.iterdir()) == []
    figures.draw(store.RESULTS, docs)
    drawn = {path.name for path in docs.iterdir()}
    assert drawn == {"accuracy.png", "steps.png", "speed.png", "tradeoff.png"}
