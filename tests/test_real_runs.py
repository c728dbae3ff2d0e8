"""The relaxations of `benchmarks/real_runs`: where they are from, and the table of them."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks import real, store
from benchmarks.cases import choose_cases
from benchmarks.real_runs import collect


@pytest.fixture(scope="module")
def cases():
    return choose_cases(real.PAIRS, None, "test", strict=True)


def test_every_case_has_a_source_with_an_allowed_licence(cases):
    sources = real.read_sources()
    assert [case.name for case in cases] == pq.read_table(real.PAIRS)["id"].to_pylist()
    assert {case.name for case in cases} == sources.keys()
    for name, source in sources.items():
        assert source.license in real.LICENSES
        sdist = f"{source.package}-{source.version}"
        assert source.license == collect.PACKAGES[sdist]
        assert name == f"{sdist}/{source.path}"
        assert all((source.version, source.code, source.functional, source.held, source.kind))


def test_no_case_stands_still_or_is_there_twice(cases):
    keys = set()
    for case in cases:
        pair = case.pair
        move = np.linalg.norm(pair.displacements, axis=1).max()
        assert max(move, np.abs(pair.deformation - np.eye(3)).max()) > 1e-5
        keys.add((case.atoms.get_chemical_formula(), round(float(move), 5), pair.deformation[0, 0]))
    assert len(keys) == len(cases)


def test_the_set_is_small():
    assert real.PAIRS.stat().st_size < 300_000


def test_the_table_has_a_row_for_each_case_and_one_of_totals(cases):
    small = sorted(cases, key=lambda case: len(case.atoms))[:3]
    found = json.loads(json.dumps(real.relax_cases(small)))
    assert [entry["name"] for entry in found["cases"]] == [case.name for case in small]
    assert len(found["made_with"]["weights"]) == 64
    lines = real.table(found).splitlines()
    assert len(lines) == 2 + 3 + 1
    assert len({line.count("|") for line in lines}) == 1
    assert "all 3, mean" in lines[-1]


def test_the_stored_results_are_of_this_set(cases):
    found = store.read("real_runs")
    assert [entry["name"] for entry in found["cases"]] == [case.name for case in cases]
    assert found["totals"] == real.totals(found["cases"])


@pytest.mark.parametrize(
    ("before", "after", "status", "what"),
    [
        (0.1, 0.05, "relaxed", "nearer"),
        (0.1, 0.104, "relaxed", "about equal"),
        (0.2, 0.208, "relaxed", "about equal"),
        (0.1, 0.12, "relaxed", "harmed"),
        (0.1, 0.1, "unchanged", "unchanged"),
    ],
)
def test_harm_is_more_than_noise(before, after, status, what):
    entry = {"input": {"bonds": before}, "result": {"bonds": after}, "status": status}
    assert real.verdict(entry) == what
