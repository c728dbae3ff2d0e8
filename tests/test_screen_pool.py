"""Screenings on processes and machines that are killed."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from ase.io import write
from test_screen import crystals, rows, screen, without_seconds

from deeprelax_ase.files.records import Item
from deeprelax_ase.relaxation.relaxer import Relaxer
from deeprelax_ase.screening.chunk import Chunk, RelaxOptions, relax_chunk
from deeprelax_ase.screening.process_pool import ProcessPool
from deeprelax_ase.screening.screening import Screening
from deeprelax_ase.screening.work_folder import WorkFolder, work_path


def suicide():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_costs_one_structure(random_weights):
    items = [(k, Item(f"good-{k}", Named(atoms))) for k, atoms in enumerate(crystals(3))]
    items.insert(1, (7, Item("deadly", suicide)))
    chunk = Chunk(0, items)
    # With these options nothing would be relaxed if the processes did not know both of them.
    options = RelaxOptions(str(random_weights), min_gain=1.0, always_move=True)
    with ProcessPool(options, 1) as pool:
        ((number, table),) = pool.relax([chunk])
    assert number == 0
    found = table.to_pylist()
    assert [row["status"] for row in found] == ["relaxed", "failed", "relaxed", "relaxed"]
    assert found[1]["id"] == "deadly"
    assert "died" in found[1]["error"]


def test_processes_that_die_as_they_begin_are_no_fault_of_a_structure(monkeypatch):
    monkeypatch.setattr("deeprelax_ase.screening.process_pool._begin", die)
    pool = ProcessPool(RelaxOptions(), 1)
    items = [(k, Item(f"good-{k}", Named(atoms))) for k, atoms in enumerate(crystals(2))]
    with pool, pytest.raises(ValueError, match="processes die as they begin"):
        list(pool.relax([Chunk(0, items)]))


def die(*_):
    suicide()


def test_an_interruption_waits_for_no_process(random_weights):
    pool = ProcessPool(RelaxOptions(str(random_weights)), 1)

    def chunks():
        yield Chunk(0, [(0, Item("endless", sleep_for_an_hour))])
        assert multiprocessing.active_children()
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), pool:
        list(pool.relax(chunks()))
    assert not multiprocessing.active_children()
    assert time.monotonic() - started < 1800


def sleep_for_an_hour():
    time.sleep(3600)


class Named:
    """Reads to the structure it was made with."""

    def __init__(self, structure):
        self.structure = structure

    def __call__(self):
        return [("good", self.structure)]


def test_a_killed_run_goes_on_by_the_same_command(tmp_path, random_weights):
    atoms = [one for seed in range(24) for one in crystals(50, seed)]
    write(tmp_path / "in.extxyz", atoms)

    def command(output):
        arguments = ["screen", "in.extxyz", "-o", output, "--workers", "1"]
        code = "from deeprelax_ase.cli import app; app()"
        return [sys.executable, "-c", code, *arguments, "--model", str(random_weights)]

    process = subprocess.Popen(command("cut.parquet"), cwd=tmp_path, stderr=subprocess.DEVNULL)
    work = work_path(tmp_path / "cut.parquet")
    while not list(work.glob("[!.]*.parquet")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "cut.parquet").exists()
    done = len(list(work.glob("[!.]*.parquet")))
    assert done < 5
    for output in ("cut.parquet", "whole.parquet"):
        subprocess.run(command(output), cwd=tmp_path, check=True, capture_output=True)
    assert without_seconds(tmp_path / "cut.parquet").equals(
        without_seconds(tmp_path / "whole.parquet")
    )
    again = subprocess.run(
        command("cut.parquet"), cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert "complete already" in again.stdout


def test_out_of_memory_halves_the_batch(random_weights, monkeypatch):
    relaxer = Relaxer(random_weights)
    predictor = relaxer._general
    real, sizes = predictor.predict, []

    def predict(some, *arguments, **options):
        sizes.append(len(some))
        if len(some) > 3:
            raise torch.OutOfMemoryError
        return real(some, *arguments, **options)

    monkeypatch.setattr(predictor, "predict", predict)
    items = [(k, Item(str(k), Named(atoms))) for k, atoms in enumerate(crystals(8))]
    found = relax_chunk(relaxer, Chunk(0, items)).to_pylist()
    assert [row["status"] for row in found] == ["relaxed"] * 8
    assert sizes == [8, 4, 2, 2, 4, 2, 2]


def test_a_lost_node_of_ray_costs_nothing(tmp_path, random_weights, monkeypatch):
    pytest.importorskip("ray")
    import ray
    from ray.cluster_utils import Cluster

    from deeprelax_ase.screening.ray_pool import RayPool

    write(tmp_path / "in.extxyz", [one for seed in range(40) for one in crystals(50, seed)])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    done = []
    add = WorkFolder.add

    def add_and_kill(self, number, table):
        add(self, number, table)
        done.append(number)
        if len(done) == 2:
            cluster.remove_node(nodes[0], allow_graceful=False)

    monkeypatch.setattr(WorkFolder, "add", add_and_kill)
    options = RelaxOptions(str(random_weights))
    run = Screening([str(tmp_path / "in.extxyz")], tmp_path / "ray.parquet", options)
    try:
        run.relax(lambda: RayPool(options, cluster.address, None))
        alive = [node for node in ray.nodes() if node["Alive"]] if ray.is_initialized() else []
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert sorted(done) == list(range(8))
    assert len(alive) < 3
    monkeypatch.undo()
    screen([tmp_path / "in.extxyz"], tmp_path / "here.parquet", random_weights)
    here, there = (
        without_seconds(tmp_path / "here.parquet"),
        without_seconds(tmp_path / "ray.parquet"),
    )
    assert there["id"].equals(here["id"])
    for a, b in zip(rows(tmp_path / "here.parquet"), rows(tmp_path / "ray.parquet"), strict=True):
        np.testing.assert_allclose(a["relaxed_positions"], b["relaxed_positions"], atol=1e-6)


def test_ray_without_a_cluster_is_one_sentence():
    pytest.importorskip("ray")
    from deeprelax_ase.screening.ray_pool import RayPool

    with pytest.raises(ValueError, match=r"no Ray cluster at 127.0.0.1:1 .*ray start --head"):
        RayPool(RelaxOptions(), "127.0.0.1:1", None)


def test_report_opens_offline_and_turns(tmp_path, random_weights):
    api = pytest.importorskip("playwright.sync_api")
    browser_path = shutil.which("chromium") or pytest.skip("there is no chromium")
    from deeprelax_ase.screening.html_report import write_page

    write(tmp_path / "in.extxyz", list(crystals(12)))
    screen([tmp_path / "in.extxyz"], tmp_path / "out.parquet", random_weights)
    write_page(tmp_path / "page.html", tmp_path / "out.parquet")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_context(offline=True).new_page()
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{tmp_path}/page.html")
        canvas = page.locator("canvas").nth(1)
        canvas.scroll_into_view_if_needed()
        before = canvas.evaluate("canvas => canvas.toDataURL()")
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + 50, box["y"] + 50)
        page.mouse.down()
        page.mouse.move(box["x"] + 90, box["y"] + 70)
        page.mouse.up()
        after = canvas.evaluate("canvas => canvas.toDataURL()")
        count = page.locator("canvas").count()
        browser.close()
    assert said == []
    assert len(asked) == 1
    assert count == 24
    assert before != after
