"""A short form of `make torture`, and whether it would notice what it looks for."""

import io
import json
import sys

import numpy as np
import pytest
import torch
import torture
from PIL import Image

from paperlib import files, stamps

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it finds processes through /proc")


def test_a_training_that_is_killed_again_and_again_ends_in_the_same_bytes(tmp_path):
    torture.prepare(tmp_path / "tree", {"fig-lambda": torture.NOTEBOOKS["fig-lambda"]})
    killing = torture.Torture(tmp_path / "tree", seed=0, target="build/tiny/trained")
    killing.build(kills=2)
    assert killing.faults == [] and killing.builds == 1
    assert sum(name.endswith("weights.pt") for name in killing.expected) == 2
    assert killing.kills.total() >= 1


def whole() -> dict[str, bytes]:
    """A file of each kind, by its name."""
    weights, frames, picture = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"weight": torch.ones(9)}, weights)
    np.savez_compressed(frames, frames=np.ones(9))
    Image.effect_noise((9, 9), 9).save(picture, "png")
    described = json.dumps({"weights_sha256": files.sha256(weights.getvalue()), "experiment": {}}).encode()
    flags = {"flags": "0110", "seconds": 1.5}
    flags |= {"sha256": files.sha256(json.dumps(flags, sort_keys=True).encode())}
    return {
        "checkpoints/key/weights.pt": weights.getvalue(),
        "checkpoints/key/checkpoint.json": described,
        "checkpoints/key/state.pt": bytes.fromhex(files.sha256(weights.getvalue())) + weights.getvalue(),
        "checkpoints/key/history.jsonl": b'{"epoch": 1, "seconds": 2}\n{"epoch": 2, "seconds": 2}\n',
        "checkpoints/key/evaluations/hash.json": json.dumps(flags).encode(),
        "data/events/frames.npz": frames.getvalue(),
        "results/tiny/tab-mine.json": b'{"rows": [1, 2, 3]}',
        "results/tiny/tab-mine.csv": b"value,n\n0.5,3\n",
        "results/tiny/REPORT.md": b"# What was measured\n",
        "results/tiny/REPORT.html": b"<html></html>\n",
        "figures/tiny/tab-mine.png": picture.getvalue(),
        "build/tiny/tab-mine.ipynb": b'{"cells": []}',
        "build/tiny/tab-mine.done": stamps.HEADER.encode(),
        "build/tiny/tab-mine.done.d": b"build/tiny/tab-mine.done: a.py\n",
    }


def test_no_half_of_a_file_passes_for_a_whole_one(tmp_path):
    for name, data in whole().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert torture.faults(tmp_path) == []
    for name, data in whole().items():
        for half in (data[: 2 * len(data) // 3], b""):
            (tmp_path / name).write_bytes(half)
            assert name in " ".join(torture.faults(tmp_path)), name
        (tmp_path / name).write_bytes(data)
    (tmp_path / "checkpoints" / "key" / "weights.pt.damaged").touch()
    assert len(torture.faults(tmp_path)) == 1


def test_seconds_are_no_difference_and_anything_else_is(tmp_path):
    for name, data in whole().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    before = torture.made(tmp_path)
    assert set(before) == set(whole())
    history, flags = tmp_path / "checkpoints/key/history.jsonl", tmp_path / "checkpoints/key/evaluations/hash.json"
    history.write_text(history.read_text().replace('"seconds": 2', '"seconds": 3'))
    flags.write_text(json.dumps(json.loads(flags.read_text()) | {"seconds": 9, "sha256": "of other seconds"}))
    assert torture.made(tmp_path) == before
    for name, data in whole().items():
        changed = data.replace(b"epoch", b"Epoch").replace(b"0110", b"0111")
        (tmp_path / name).write_bytes(data + b"x" if changed == data else changed)
        assert torture.made(tmp_path)[name] != before[name], name
