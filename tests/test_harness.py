"""The harness of rivals, with a rival that is ASE's own Morse potential in this environment."""

import json
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase.build import bulk
from datasets import write_pairs
from pymatgen.core import Lattice, Structure
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from benchmarks import accuracy, cases, check, clients, environments, plots, rival, speed, steps
from benchmarks.__main__ import app
from benchmarks.environments import RivalError

ADAPTER = """
import os
from pathlib import Path

from ase.calculators.morse import MorsePotential


def calculator(weights, **options):
    class Counted(MorsePotential):
        def calculate(self, atoms=None, *arguments, **others):
            print("to stdout, where only answers belong")
            if len(atoms) == 3:
                raise RuntimeError("three is too many")
            if len(atoms) == 5:
                os._exit(1)
            with Path(__file__).with_suffix(".calls").open("a") as stream:
                stream.write("x")
            super().calculate(atoms, *arguments, **others)

    return Counted(epsilon=1.0, r0=2.2, rho0=4.0)
"""


@pytest.fixture
def adapters(tmp_path, monkeypatch):
    folder = tmp_path / "rivals"
    folder.mkdir()
    (folder / "morse.py").write_text(textwrap.dedent(ADAPTER))
    monkeypatch.setattr(rival, "_ADAPTERS", folder)
    monkeypatch.setattr(rival, "interpreter", lambda *_: sys.executable)
    (folder / "morse.txt").write_text("# python: 3.11\nase==3.23.0\n")
    monkeypatch.setattr(environments, "_PINS", folder)
    return folder


@pytest.fixture
def morse(adapters, tmp_path):
    assert adapters.is_dir()
    found = rival.Rival("morse", tmp_path, record=tmp_path / "morse.jsonl")
    yield found
    found.close()


@pytest.fixture
def some_cases(tmp_path):
    path = write_pairs(tmp_path / "pairs.parquet", 40)
    return cases.choose_cases(path, 4)


def calls(adapters):
    path = adapters / "morse.calls"
    return len(path.read_text()) if path.exists() else 0


def test_a_rival_relaxes_and_is_asked_once(morse, adapters, tmp_path):
    copper = bulk("Cu", a=3.3)
    answer = morse.relax(copper)
    assert answer["converged"]
    assert answer["steps"] == len(answer["energies"]) - 1 > 0
    assert answer["energies"][-1] < answer["energies"][0]
    assert abs(np.linalg.det(answer["cell"]) - copper.get_volume()) > 0.1
    made = calls(adapters)
    morse.close()
    assert morse.relax(copper) == answer
    with (tmp_path / "morse.jsonl").open("a") as stream:
        stream.write('{"key": "cut sho')
    again = rival.Rival("morse", tmp_path, record=tmp_path / "morse.jsonl")
    assert again.relax(copper) == answer
    assert calls(adapters) == made
    again.close()


def test_an_adapter_that_repeats_everything_sees_no_vacuum(adapters, tmp_path):
    flat = bulk("Cu", a=3.3)
    flat.pbc = [True, True, False]
    answers = []
    for line in ("", "PERIODIC = True\n"):
        (adapters / "morse.py").write_text(textwrap.dedent(ADAPTER) + line)
        started = rival.Rival("morse", tmp_path)
        answers.append((started.ask("energy", flat)["energy"], started.relax(flat)["energies"][0]))
        started.close()
    whole = flat.copy()
    whole.pbc = True
    started = rival.Rival("morse", tmp_path)
    asked = started.ask("energy", whole)["energy"]
    started.close()
    assert answers[0] != answers[1]
    assert answers[1] == pytest.approx((asked, asked))


def test_a_failing_task_is_an_answer_and_the_next_goes_on(morse):
    assert morse.relax(bulk("Cu") * (3, 1, 1))["error"] == "RuntimeError: three is too many"
    assert morse.ask("energy", bulk("Cu", a=3.3))["energy"] < 0


def test_a_rival_that_dies_is_named(morse):
    with pytest.raises(RivalError, match="morse: its process ended"):
        morse.relax(bulk("Cu") * (5, 1, 1))
    assert "error" not in morse.relax(bulk("Cu", a=3.3))


@pytest.mark.usefixtures("adapters")
def test_what_keeps_a_rival_out(tmp_path, capsys):
    nowhere = {"morse": tmp_path / "none"}
    assert rival.start_rivals(["morse"], tmp_path, nowhere, recorded=True) == {}
    assert f"morse: no weights in {tmp_path / 'none'}" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no rival 'unheard': choose from morse"):
        rival.start_rivals(["morse", "unheard"], tmp_path, {}, recorded=True)


@pytest.mark.parametrize(
    ("pins", "reason"),
    [
        ("# python: 3.99\n", "needs Python 3.99, and none is on the PATH"),
        ("{here}\n--no-index\nno-such-package==1\n", "no-such-package"),
    ],
)
def test_environments_that_cannot_be_made(tmp_path, monkeypatch, pins, reason):
    here = f"# python: {sys.version_info.major}.{sys.version_info.minor}"
    (tmp_path / "some.txt").write_text(pins.format(here=here))
    monkeypatch.setattr(environments, "_PINS", tmp_path)
    with pytest.raises(RivalError, match=reason):
        environments.interpreter("some", tmp_path / "environments")
    with pytest.raises(RivalError, match="no rival 'other': choose from some"):
        environments.interpreter("other", tmp_path)


def test_every_adapter_has_pins():
    assert rival.known_rivals() == environments.known_environments()


def test_a_move_is_what_it_was_made_of(some_cases):
    pair = some_cases[0].pair
    target = some_cases[0].target
    turn = Rotation.from_rotvec([0.3, -0.2, 0.9]).as_matrix()
    cell = np.array(target.cell) @ turn
    images = np.arange(3 * len(target)).reshape(-1, 3) % 2
    positions = (target.positions + np.array([0.1, 0.2, 0.3])) @ turn + images @ cell
    displacements, deformation = cases.move_of(pair, positions, cell)
    np.testing.assert_allclose(displacements, pair.displacements, atol=1e-6)
    np.testing.assert_allclose(deformation, pair.deformation, atol=1e-6)
    perfect = cases.measure([pair], [(displacements, deformation)])
    assert perfect.matched.all()
    assert max(values.max() for values in perfect.measures().values()) < 1e-5


def test_minimum_image_is_never_further(some_cases):
    pairs = [case.pair for case in some_cases]
    far = [(p.displacements + p.crystal.cell[0] * 0.9, p.deformation) for p in pairs]
    measured = cases.measure(pairs, far)
    assert (measured.minimum_image < 0.5 * measured.errors.coordinates).all()


def test_accuracy_of_all_contenders(some_cases, morse, tmp_path):
    found = accuracy.compare(some_cases, {"morse": morse})
    assert list(found) == [accuracy.INPUT, accuracy.OURS, "morse"]
    for entry in found.values():
        low, high = entry["bonds"]["interval"]
        assert low <= entry["bonds"]["mean"] <= high
        assert entry["failures"] == 0
    assert len(accuracy.table(found).splitlines()) == 5
    plots.plot_accuracy({"pairs": found}, tmp_path / "accuracy.png")
    assert (tmp_path / "accuracy.png").stat().st_size > 10_000


def test_a_failure_counts_as_the_input(some_cases, morse, monkeypatch):
    monkeypatch.setattr(morse, "relax", lambda *_, **__: {"error": "none"})
    found = accuracy.compare(some_cases, {"morse": morse})
    assert found["morse"]["failures"] == len(some_cases)
    assert found["morse"]["bonds"] == found[accuracy.INPUT]["bonds"]


def test_steps_from_input_and_prediction(some_cases, morse, tmp_path):
    found = steps.compare(some_cases, morse)
    assert len(found["crystals"]) == len(some_cases)
    for entry in found["crystals"]:
        assert min(entry["above"]) > -1e-6
    summary = steps.summarise(found)
    assert summary["steps_total"] == [
        sum(entry["steps"][k] for entry in found["crystals"]) for k in (0, 1)
    ]
    none = {"failures": 3, "crystals": []}
    assert steps.table({"morse": found, "other": none}).count("\n") == 3
    plots.plot_steps({"morse": found, "other": none}, tmp_path / "steps.png")


def test_ratios_are_theirs_over_ours():
    crystals = [
        {"seconds": {accuracy.OURS: 0.01, "other": 1.0 + k}, "batched": 0.001 + 0.002 * k}
        for k in range(3)
    ]
    del crystals[2]["seconds"]["other"]
    found = speed.ratios({"crystals": crystals})["other"]
    assert found["crystals"] == 2
    assert found["single"] == pytest.approx(150)
    assert found["single_total"] == pytest.approx(150)
    assert found["batched"] == pytest.approx(750)
    assert found["batched_total"] == pytest.approx(750)
    assert found["each_5"] < found["each"] < found["each_95"]


def test_speed_measures_all_contenders(some_cases, morse, tmp_path):
    found = speed.compare(some_cases[:2], {"morse": morse})
    assert [set(c["seconds"]) for c in found["crystals"]] == [{accuracy.OURS, "morse"}] * 2
    parts = found["parts"]["batched"]
    assert sum(v for k, v in parts.items() if k != "all") == pytest.approx(parts["all"])
    assert all(value > 0 for value in parts.values())
    assert found["peak_memory"][accuracy.OURS] > 1e8
    assert "ratio of medians" in speed.table(found)
    growth = {"sizes": [1, 2], "seconds": {accuracy.OURS: [0.01, 0.02], "morse": [1.0]}}
    plots.plot_growth(growth, tmp_path / "speed.png")


@pytest.mark.parametrize("count", [1, 6, 500])
def test_supercells_have_so_many_cells(count):
    assert len(speed._supercell(count)) == 2 * count


def test_worse_ratios_are_named():
    baseline = {"a": 100.0, "b": 10.0, "c": 1.0}
    assert check.worsened(baseline, {"a": 81.0, "b": 12.0, "c": 0.9}) == []
    worse = check.worsened(baseline, {"a": 79.0, "b": 10.0})
    assert worse == ["a: was 100, is 79", "c: was 1, and could not be measured"]


def test_command_line_names_what_is_wrong(tmp_path):
    runner = CliRunner()
    path = write_pairs(tmp_path / "pairs.parquet", 40, drop=["relaxed_cell"])
    result = runner.invoke(app, ["accuracy", str(path), "--rival", "chgnet"])
    assert result.exit_code == 2
    assert "no column relaxed_cell" in result.stderr
    table = pq.read_table(write_pairs(path, 40)).to_pylist()
    for row in table:
        row["positions"][0] = float("nan")
    pq.write_table(type(pq.read_table(path)).from_pylist(table), path)
    result = runner.invoke(app, ["steps", str(path)])
    assert result.exit_code == 2
    assert "positions has NaN" in result.stderr


@pytest.mark.usefixtures("adapters")
def test_command_line_writes_table_json_and_figure(tmp_path):
    path = write_pairs(tmp_path / "pairs.parquet", 40)
    out = tmp_path / "out"
    arguments = [str(path), "--rival", "morse", "--limit", "3", "--work", str(tmp_path)]
    for command in ("accuracy", "steps"):
        result = CliRunner().invoke(app, [command, *arguments, "--out", str(out)])
        assert result.exit_code == 0, result.stderr
        found = json.loads((out / f"{command}.json").read_text())
        assert found["made_with"]["weights"]
        assert found["made_with"]["rivals"] == {"morse": {"ase": "3.23.0"}}
        assert (out / f"{command}.md").read_text().strip() in result.stdout
        assert (out / f"{command}.png").exists()


def test_sizes_that_no_crystal_has(tmp_path):
    with pytest.raises(ValueError, match="no crystal of 50 to 60 atoms"):
        cases.choose_cases(write_pairs(tmp_path / "p.parquet"), 3, sizes=(50, 60))


def test_clients_are_counted_honestly():
    def answer(name, optimizer, energy, calls):
        return {
            "key": name,
            "optimizer": optimizer,
            "energy": energy,
            "calls": calls,
            "seconds": 0.5 * calls,
        }

    answers = [
        *(answer("a", "FIRE", -3.0, 30), answer("a", "DeepRelaxFIRE", -3.001, 10)),
        *(answer("b", "FIRE", -3.0, 20), answer("b", "DeepRelaxFIRE", -3.1, 12)),
        *(answer("c", "FIRE", -3.0, 40), answer("c", "DeepRelaxFIRE", -2.9, 80)),
        *(answer("d", "FIRE", -3.0, 40), {"key": "d", "optimizer": "DeepRelaxFIRE", "error": "x"}),
        answer("e", "FIRE", -3.0, 40),
    ]
    summary = clients.summarise(answers)
    assert (summary["crystals"], summary["failed"]) == (3, 1)
    assert (summary["same"], summary["lower"], summary["higher"]) == (1, 1, 1)
    assert summary["calls_stock"] == {"median": 30, "all": 90}
    assert summary["calls_ours"] == {"median": 12, "all": 102}
    text = clients.table({"matcalc FIRE free": {"hypothetical": summary}})
    assert (
        "| matcalc 0.7.0, FIRE, `hypothetical` | 3 (1) | 30, 12 | 90, 102 | 45, 51 | 1 | 1, 1 |"
        in text
    )


def test_an_unknown_client_is_left_out(capsys, tmp_path):
    assert clients.run_clients(["nonesuch"], {"file": []}, tmp_path) == {}
    assert "no client 'nonesuch': choose from matcalc" in capsys.readouterr().err
    for way, sentence in (
        (clients.Way("CG"), "no way 'CG free': optimizers are FIRE, BFGS, LBFGS"),
        (clients.Way(cell="symmetric"), "pymatgen has no option for 'symmetric'"),
    ):
        assert clients.run_clients(["pymatgen"], {"file": []}, tmp_path, [way]) == {}
        assert sentence in capsys.readouterr().err


def test_structures_without_targets_are_cases_too(tmp_path, capsys):
    for number, atoms in enumerate((bulk("MgO", "rocksalt", a=4.3), bulk("Cu"))):
        atoms.write(tmp_path / f"{number}.cif")
    (tmp_path / "2.cif").write_text("nothing")
    found = cases.find_cases([str(tmp_path)], None, "val")
    assert [case.name for case in found] == ["0.cif", "1.cif"]
    assert "left out: 2.cif" in capsys.readouterr().err
    assert len(steps.predicted(found[0])) == 2
    assert [case.name for case in cases.find_cases([f"{tmp_path}/0*"], 1, "val")] == [
        f"{tmp_path}/0.cif"
    ]
    with pytest.raises(ValueError, match="no structure of 3 to 4 atoms"):
        cases.find_cases([str(tmp_path)], None, "val", sizes=(3, 4))
    pairs = write_pairs(tmp_path / "pairs.parquet")
    assert len(cases.find_cases([str(pairs)], 3, "val")) == 3


def test_a_rival_without_a_record_is_asked_every_time(adapters, tmp_path):
    unrecorded = rival.Rival("morse", tmp_path)
    unrecorded.relax(bulk("Cu", a=3.3))
    made = calls(adapters)
    unrecorded.relax(bulk("Cu", a=3.3))
    unrecorded.close()
    assert calls(adapters) > made


def test_answers_of_other_geometries_cells_and_weights_are_asked_for_anew(some_cases):
    case, other = some_cases[:2]
    keys = {
        clients._key(case, clients.USUAL, "f" * 64),
        clients._key(replace(other, name=case.name), clients.USUAL, "f" * 64),
        clients._key(case, clients.Way(cell="fixed"), "f" * 64),
        clients._key(case, clients.USUAL, "0" * 64),
    }
    assert len(keys) == 4


def test_ends_of_which_pymatgen_finds_no_reduced_cell_are_compared(monkeypatch):
    def lost(*_args, **_others):
        msg = "can't find niggli"
        raise ValueError(msg)

    lattice, places = Lattice.hexagonal(4.07, 23.98), [[0, 0, 0.4], [1 / 3, 2 / 3, 0.47]]
    one, other = (Structure(lattice, symbols, places) for symbols in (["Zn", "Te"], ["Zn", "Se"]))
    monkeypatch.setattr(Lattice, "get_niggli_reduced_lattice", lost)
    with pytest.raises(ValueError, match="niggli"):
        steps.StructureMatcher().fit(one, one.copy())
    assert steps._is_one(one, one.copy())
    assert not steps._is_one(one, other)
