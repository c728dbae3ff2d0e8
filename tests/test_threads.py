import os

import pytest
import torch
from threadpoolctl import ThreadpoolController

from deeprelax_ase.cli import common
from deeprelax_ase.relaxation.blas_threads import OneBlasThread


@pytest.mark.parametrize(
    ("variables", "cores"),
    [
        ({}, 4),
        ({"SLURM_CPUS_PER_TASK": "2"}, 2),
        ({"OMP_NUM_THREADS": "1", "SLURM_CPUS_PER_TASK": "2"}, 1),
        ({"SLURM_CPUS_PER_TASK": "64"}, 4),
        ({"OMP_NUM_THREADS": "2,1"}, 4),
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
    used = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    common.limit_threads()
    assert used == [min(3, cores)]


def test_blas_has_one_thread_while_somebody_is_within():
    libraries = ThreadpoolController().select(user_api="blas")

    def counts():
        return [entry["num_threads"] for entry in libraries.info()]

    with libraries.limit(limits=2):
        before = counts()
        limiter = OneBlasThread()
        with limiter:
            assert set(counts()) == {1}
            with limiter:  # another thread, say
                assert set(counts()) == {1}
            assert set(counts()) == {1}
            with pytest.raises(KeyError), limiter:
                {}["missing"]
            assert set(counts()) == {1}
        assert counts() == before
