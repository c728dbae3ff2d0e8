import hashlib
import json
import os
import pickle
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import SMALL
from safetensors.torch import save_file

from deeprelax_ase.files import atomic_write
from deeprelax_ase.files.atomic_write import replace_text
from deeprelax_ase.network.checkpoint import (
    load_tensors,
    load_weights,
    save_tensors,
    save_weights,
)
from deeprelax_ase.network.config import FUNCTIONALS
from deeprelax_ase.network.paegnn import PaEGNN
from deeprelax_ase.network.weights_registry import available_weights, weights_path, weights_sha256


def test_round_trip(tmp_path):
    network = PaEGNN(SMALL)
    path = tmp_path / "w.safetensors"
    save_weights(path, network, {"elements": [1]}, {"distance": 1.5})
    loaded = load_weights(path)
    assert loaded.network.config == SMALL
    assert loaded.provenance == {"elements": [1]}
    assert loaded.calibration == {"distance": 1.5}
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == weights_sha256(path)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(loaded.network.state_dict()[name], tensor)
    assert not any(p.requires_grad for p in loaded.network.parameters())


def test_shipped_weights_are_named():
    assert "default" in available_weights()
    assert weights_path("default").stat().st_size < 20e6
    assert load_weights("default").provenance["elements"]


def broken(tmp_path, kind):
    path = tmp_path / "w.safetensors"
    save_weights(path, PaEGNN(SMALL), {})
    whole = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not weights at all\n" * 10)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"w": 1}))
    elif kind == "no metadata":
        save_file({"w": torch.zeros(2)}, path)
    elif kind in ("other architecture", "other config"):
        length = struct.unpack("<Q", whole[:8])[0]
        header = json.loads(whole[8 : 8 + length])
        config = json.loads(header["__metadata__"]["network"])
        config |= {"num_layers": 5} if kind == "other architecture" else {"num_heads": 3}
        header["__metadata__"]["network"] = json.dumps(config)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + length :])
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "missing":
        path.unlink()
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("truncated", "not a whole safetensors file"),
        ("empty", "not a whole safetensors file"),
        ("text", "not a whole safetensors file"),
        ("pickle", "not a whole safetensors file"),
        ("no metadata", "holds no deeprelax weights"),
        ("other architecture", "another architecture"),
        ("other config", "another architecture"),
        ("folder", "no weights .*choose from .*default"),
        ("missing", "no weights .*choose from .*default"),
    ],
)
def test_bad_files(tmp_path, kind, words):
    path = broken(tmp_path, kind)
    with pytest.raises(ValueError, match=words) as caught:
        load_weights(path)
    assert str(path) in str(caught.value)


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    replace_text(path, "old")

    def full_disk(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_write.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        replace_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_and_permissions_stay(tmp_path):
    path, link = tmp_path / "real", tmp_path / "folder" / "link"
    path.write_text("old")
    path.chmod(0o640)
    link.parent.mkdir()
    link.symlink_to(Path("..") / "real")
    replace_text(link, "new")
    assert link.is_symlink()
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [*link.parent.iterdir()] == [link]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has none")
def test_a_pipe_is_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit((tmp_path / "pipe").read_text)
        replace_text(tmp_path / "pipe", "all of it")
        assert reading.result(timeout=60) == "all of it"
    assert (tmp_path / "pipe").is_fifo()


def test_load_tensors_names_a_missing_file(tmp_path):
    with pytest.raises(ValueError, match="no weights file"):
        load_tensors(tmp_path / "none")


def test_weights_of_fewer_functionals_learn_the_new_names(tmp_path):
    """What has dispersion starts as what has none, all else as an unknown functional."""
    torch.manual_seed(0)
    old = PaEGNN(SMALL.model_copy(update={"functionals": ("unknown", "PBE", "r2SCAN")}))
    path = tmp_path / "old.safetensors"
    save_weights(path, old, {"functionals": ["PBE"]})
    network = load_weights(path).network
    names = network.config.functionals
    assert names[:3] == ("unknown", "PBE", "r2SCAN")
    assert set(names) == set(FUNCTIONALS)
    rows = dict(zip(names, network.functionals.weight, strict=True))
    assert torch.equal(rows["PBE-D3"], old.functionals.weight[1])
    assert torch.equal(rows["PBEsol"], old.functionals.weight[0])


def test_weights_that_were_never_told_what_is_held_take_no_notice(random_weights, tmp_path):
    tensors, metadata = load_tensors(random_weights)
    del tensors["held.weight"]
    del metadata["network"]["functionals"]
    tensors["functionals.weight"] = tensors["functionals.weight"][:5]
    save_tensors(tmp_path / "old.safetensors", tensors, metadata)
    assert not load_weights(tmp_path / "old.safetensors").network.held.weight.any()


@pytest.mark.parametrize("names", [["PBE", "unknown"], ["unknown", "PBE", "PBE"], []])
def test_a_vocabulary_starts_with_unknown_and_repeats_nothing(names):
    with pytest.raises(ValueError, match="start with 'unknown' and hold every name once"):
        SMALL.model_validate(SMALL.model_dump() | {"functionals": names})
