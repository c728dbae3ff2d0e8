import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import spglib.error
import torch
from ase.build import bulk
from threadpoolctl import ThreadpoolController

from deeprelax_ase import Relaxer
from deeprelax_ase.cli import common
from deeprelax_ase.relaxation.one_thread import OneThread
from deeprelax_ase.structures.read_structure import plain_crystal
from deeprelax_ase.structures.symmetry import find_space_group


@pytest.mark.parametrize(
    ("variables", "cores"),
    [
        ({}, 4),
        ({"SLURM_CPUS_PER_TASK": "2"}, 2),
        ({"OMP_NUM_THREADS": "1", "SLURM_CPUS_PER_TASK": "2"}, 1),
        ({"SLURM_CPUS_PER_TASK": "64"}, 4),
        ({"OMP_NUM_THREADS": "2,1"}, 2),
        ({"OMP_NUM_THREADS": "many"}, 4),
        ({"OMP_NUM_THREADS": "0"}, 4),
    ],
)
def test_never_more_cores_than_given(monkeypatch, variables, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    for name in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert common.available_cores() == cores
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", ""))
    used = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    common.limit_threads()
    assert used == [min(3, cores)]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with ThreadpoolController().select(user_api="blas").limit(limits=2):
        yield
    torch.set_num_threads(before)


def counts():
    libraries = ThreadpoolController().select(user_api="blas").info()
    return {torch.get_num_threads(), *(entry["num_threads"] for entry in libraries)}


@pytest.mark.usefixtures("two_threads")
def test_there_is_one_thread_while_somebody_is_within():
    before = counts()
    one_thread = OneThread()
    with one_thread():
        assert counts() == {1}
        with one_thread():  # another thread, say
            assert counts() == {1}
        assert counts() == {1}
        with pytest.raises(KeyError), one_thread():
            {}["missing"]
        assert counts() == {1}
    assert counts() == before


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("repeat", "is_limited"), [(1, True), (7, False)])
def test_small_crystals_are_relaxed_by_one_thread(monkeypatch, repeat, is_limited):
    relaxer, seen = Relaxer(), []
    predict = type(relaxer._general).predict
    monkeypatch.setattr(
        type(relaxer._general), "predict", lambda *a: seen.append(counts()) or predict(*a)
    )
    crystal = bulk("MgO", "rocksalt", a=4.3) * ((repeat,) * 3)
    list(relaxer.relax_many([bulk("Cu"), crystal]))
    assert all((one == {1}) == is_limited for one in seen)
    assert seen
    assert 2 in counts()


def test_how_spglib_tells_of_errors_is_left_as_it_was(monkeypatch):
    monkeypatch.setattr(spglib.error, "OLD_ERROR_HANDLING", True, raising=False)
    crystals = [plain_crystal(bulk("Si") * (3, 3, 5)) for _ in range(24)]
    with ThreadPoolExecutor(4) as pool:
        groups = list(pool.map(find_space_group, crystals))
    assert all(group is not None for group in groups)
    assert spglib.error.OLD_ERROR_HANDLING is True
