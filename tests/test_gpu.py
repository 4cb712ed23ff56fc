"""`make gpu` rehearsed on a CPU with tiny sizes, in a copy of the checkout, and its page."""

import importlib
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from paperlib import files
from paperlib.networks import fused
from paperlib.paths import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
gpu = importlib.import_module("gpu")


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """The copy, after a rehearsal of three parts, and what it printed."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in ("paperlib", "benchmarks", "params", "notebooks"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "*.ipynb"))
    return copy, run(copy, "check", "train", "judge")


def run(copy, *parts):
    command = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--tiny", "--minutes", "0.01", "--out", "out"]
    env = os.environ | {"PYTHONPATH": str(copy), "COMPANION_ARITHMETIC": "native"}
    return subprocess.run([*command, *parts], cwd=copy, env=env, capture_output=True, text=True)


def test_the_rehearsal_ends_well_and_writes_a_report(rehearsed):
    copy, done = rehearsed
    assert done.returncode == 0, done.stderr
    report = (copy / "out" / "REPORT.md").read_text(encoding="utf-8")
    assert "33 of 33 agree with the CPU" in report and "a CPU" in report
    assert "## bench\n\nNot run." in report
    train, judge = (json.loads((copy / "out" / f"{part}.json").read_text()) for part in ("train", "judge"))
    assert [row["training"] for row in train["rows"]] == list(gpu.TRAININGS)
    assert train["data"] == "mnist5k" and judge["eps_255"] == pytest.approx(32)
    assert all(row["attacks"][-1]["accuracy"] <= row["attacks"][0]["accuracy"] for row in judge["rows"])


def test_a_second_run_trains_nothing(rehearsed):
    copy, _ = rehearsed
    done = run(copy, "train")
    assert done.returncode == 0 and "4 trained already, 0 to train" in done.stdout


def test_a_form_that_disagrees_is_reported(tmp_path):
    row = {"what": "float32, pool", "spikes": 0.5, "error": 0.1, "tolerance": 1e-5, "agrees": False}
    files.write_atomically(tmp_path / "check.json", json.dumps({"device": "card", "rows": [row]}).encode())
    assert "0 of 1 agree" in gpu.report(tmp_path) and "**no**" in gpu.report(tmp_path)


def test_the_check_finds_a_wrong_gradient(monkeypatch):
    right = fused._gradients
    calls = iter(
        [right, lambda *given: tuple(1.001 * gradient for gradient in right(*given))]
    )  # the CPU's, the device's
    monkeypatch.setattr(fused, "_gradients", lambda *given: next(calls)(*given))
    row = gpu._layer_check("cpu", torch.float32, False, True, True, False)
    assert not row["agrees"] and row["error"] == pytest.approx(1e-3, rel=0.01)


def test_images_that_are_not_there_are_refused(rehearsed):
    copy, _ = rehearsed
    done = run(copy, "train", "--images", "nowhere.zip")
    assert done.returncode != 0 and "nowhere.zip does not exist" in done.stderr and "Traceback" not in done.stderr


def test_the_bytes_of_the_neurons_counted_by_hand():
    # conv-4-6 on 8×8 images, batch 4, T = 2: the first layer's x has one step of 4·4·8·8 values and its pooled spikes
    # 2·4·4·4·4, the second's x 2·4·6·4·4 and its spikes 2·4·6·2·2
    first, second = (4 * 4 * 64, 2 * 4 * 4 * 16), (2 * 4 * 6 * 16, 2 * 4 * 6 * 4)
    expected = sum(4 * (19 * x + 5 * spikes) for x, spikes in (first, second))
    assert gpu._bound(gpu.TINY["small"], "cpu", {"bytes_per_second": 1.0})["neuron_bytes"] == expected


def test_the_bench_page_of_made_up_results():
    spread = {"median": 0.004, "min": 0.003, "max": 0.005}
    network = {
        "seconds": {gpu.SR: {"stepping": {"median": 0.008}, "float32": spread, "limit": {"median": 0.001}}},
        "ratios": {gpu.SR: {"stepping": {"median": 2.0, "min": 1.9, "max": 2.1}}},
        "mb": {"stepping": 1234.0},
        "neuron_seconds": 0.001,
    }
    rates = {"bytes_per_second": 4e12, "operations_per_second": 5e13}
    run = {"SpikingJelly": "triton", "rates": rates, "networks": {"small": network}}
    page = gpu._bench_page({"runs": [run | {"growth": {"small": {"T": 1.0, "batch": 0.5}}}]})
    assert "| small | SR training step | stepping | 8 ms | 2.00 (1.90 to 2.10) | 1,234 |" in page
    assert "4,000 GB/s" in page and "50 Tflop/s" in page and "50 % of our SR step" in page
