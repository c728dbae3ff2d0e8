"""`python -m benchmarks all`: what is out of date is measured, and published numbers are those."""

import json
import re

import pytest
from ase.build import mx2
from datasets import write_pairs
from test_harness import adapters, calls, morse  # noqa: F401 - fixtures
from typer.testing import CliRunner

from benchmarks import (
    accuracy,
    dft,
    figures,
    plan,
    publish,
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


def test_energies_by_dft_and_their_table(morse, tmp_path, monkeypatch):  # noqa: F811
    write_pairs(tmp_path / "hypothetical.parquet", 60)
    monkeypatch.setattr(dft, "GROUPS", {"bulk": ("hypothetical", "PBE")})
    monkeypatch.setattr(dft, "ENERGIES", 9)
    kept = []
    found = dft.measure(tmp_path, morse, lambda part: kept.append(sorted(part)))
    assert kept == [["energies", "fine"], ["energies", "fine", "relaxations", "whole"]]
    names = [entry["name"] for entry in found["energies"]["bulk"]]
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


def test_k_points_are_not_spent_on_vacuum():
    sheet = mx2("MoS2", a=3.2, vacuum=8.0)
    sheet.pbc = [True, True, False]
    assert dft.mesh(sheet) == [5, 5, 1]


def test_figures_are_drawn_of_what_there_is(tmp_path):
    results, docs = tmp_path / "results", tmp_path / "docs"
    docs.mkdir()
    figures.draw(results, docs)
    assert list(docs.iterdir()) == []
    figures.draw(store.RESULTS, docs)
    drawn = {path.name for path in docs.iterdir()}
    assert drawn == {"accuracy.png", "steps.png", "speed.png", "tradeoff.png"}
