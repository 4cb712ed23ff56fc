"""The arithmetic of a process: what is settled, when it is too late, and digests that hold on every processor."""

import importlib
import json
import os
import re
import subprocess
import sys

import pytest

from paperlib import arithmetic, paths, runs
from paperlib.errors import Refused
from paperlib.paths import FIGURES, RESULTS, ROOT
from paperlib.store import checkpoints, evaluations

sys.path.insert(0, str(ROOT / "benchmarks"))
digests, emulate = map(importlib.import_module, ("digests", "emulate"))

# Of benchmarks/digests.py.  If one differs on your processor and on no other, its libraries chose other instructions in
# spite of the settings; if all differ, the code has changed (see tests/test_recipe.py).
GOLDEN = {
    "3 steps of training": "f2defbe9e71c3e71",
    "PGD-3": "6a216d652472fe39",
    "APGD-3": "9a55f62bbef334d3",
    "Square-20": "d99054f9f4b7df9e",
    "SA-PGD-10 assg": "4fa3649f268d284a",
    "SA-PGD-10 pdsg": "2cceb9278e108e04",
    "numpy": "b9cd0dc937783c03",
    "scipy": "a78090c3e8b6cad8",
    "JPEG": "63a555dd93e7c200",
    "figure": "d6214cb1343009fc",
}
AVX512 = {
    "3 steps of training": "81b0f0ec9a76cafd",
    "SA-PGD-10 assg": "a63da8a9afe388e5",
    "SA-PGD-10 pdsg": "b24eaa637f9a7fb7",
    "numpy": "195e2089dec3ddc6",
}


def python(code: str, **variables: str | None) -> subprocess.CompletedProcess:
    """A fresh interpreter without the settings of this process."""
    clean = {key: value for key, value in os.environ.items() if key not in arithmetic.settings("portable")}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=clean | variables, cwd=ROOT, capture_output=True, text=True)


def test_every_digest_is_the_same_on_every_processor():
    if not arithmetic.is_exact():
        pytest.skip(f"{arithmetic.processor()} has no AVX2; portable arithmetic is only the nearest there is")
    assert digests.all_of_them() == GOLDEN


def test_every_digest_with_avx512():
    code = "import runpy; runpy.run_path('benchmarks/digests.py', run_name='__main__')"
    done = python(code, COMPANION_ARITHMETIC="portable-avx512")
    if "needs a processor with AVX-512" in done.stderr:
        pytest.skip(f"{arithmetic.processor()} has no AVX-512")
    assert json.loads(done.stdout)["digests"] == GOLDEN | AVX512


def test_a_process_settles_before_torch_and_its_children_after_it():
    code = (
        "import paperlib, torch; from paperlib import arithmetic; import subprocess, sys; print(arithmetic.current(), "
    )
    code += "torch.get_num_threads(), torch.backends.cpu.get_cpu_capability(), flush=True)"
    child = "from paperlib import arithmetic; print(arithmetic.current())"
    child = f"{code}\nsubprocess.run([sys.executable, '-c', {child!r}])"
    assert python(child).stdout.split() == ["portable", "1", "AVX2", "portable"]
    chosen = python(child, COMPANION_ARITHMETIC="native").stdout.split()
    assert (chosen[0], chosen[-1]) == ("native", "native")


@pytest.mark.parametrize("library", arithmetic.LIBRARIES)
def test_too_late_is_said_in_one_sentence(library):
    done = python(f"import {library}; import paperlib; from paperlib import arithmetic; print(arithmetic.current())")
    assert done.stdout.split() == ["native"]
    (warning,) = [line for line in done.stderr.splitlines() if "Warning" in line]
    assert re.search(f"with native arithmetic and not with portable, because .*{library} had been imported", warning)
    assert "import paperlib first, or set COMPANION_ARITHMETIC=portable" in warning


def test_settings_that_stand_before_are_not_too_late():
    code = "import torch, paperlib; from paperlib import arithmetic; print(arithmetic.current())"
    done = python(code, **arithmetic.settings("portable"))
    assert (done.stdout.split(), done.stderr) == (["portable"], "")


def test_native_gives_the_users_own_settings_back():
    code = "from paperlib import arithmetic; import os; print(os.environ['OMP_NUM_THREADS'], end=' '); "
    code += "arithmetic.settle('native'); print(os.environ['OMP_NUM_THREADS'], os.environ.get('ONEDNN_MAX_CPU_ISA'))"
    assert python(code, OMP_NUM_THREADS="5").stdout.split() == ["1", "5", "None"]


def test_an_unknown_arithmetic_is_refused():
    done = python("import paperlib", COMPANION_ARITHMETIC="fast")
    assert "There is no arithmetic 'fast'. Allowed: portable, portable-avx512, native." in done.stderr


def test_avx512_needs_a_processor_that_has_it(monkeypatch):
    monkeypatch.setattr(arithmetic, "_instructions", lambda: {"avx2"})
    with pytest.raises(Refused, match="needs a processor with AVX-512; this one, .*, has none"):
        arithmetic.settle("portable-avx512")


def test_the_arithmetic_is_part_of_a_key_and_of_a_record(house):
    portable, native = house.profile(), house.profile().computed("native")
    assert portable.network["arithmetic"] == portable.on_events().network["arithmetic"] == "portable"
    assert native.on_events().network["arithmetic"] == "native"
    keys = {profile.experiments("vanilla")[0].key for profile in (portable, native)}
    assert len(keys) == 2


def test_another_arithmetic_neither_trains_nor_evaluates(house):
    (experiment,) = house.profile().computed("native").experiments("vanilla", seeds=[0])
    sentence = "takes native arithmetic and this process computes with portable"
    with pytest.raises(Refused, match=f"The training of vanilla, seed 0 {sentence}"):
        checkpoints.trained(experiment)
    with pytest.raises(Refused, match=f"The evaluation of vanilla, seed 0 {sentence}"):
        evaluations.evaluated([experiment], [None], samples=2)


def test_a_notebook_in_a_process_of_another_arithmetic_keeps_its_record_apart(house, capsys):
    network = {"name": "conv-2-4", "T": 2, "tau": 1.0, "rule": "triangle", "precision": "float32"}
    house.profile(network=network | {"arithmetic": "native"})
    house.asking("")
    run = runs.begin("tab-0", {"profile": "tiny", "samples": 6, "device": "cpu"})
    assert "Not as in params/tiny.yml: the arithmetic, which is portable." in capsys.readouterr().out
    assert run.record_path.is_relative_to(paths.BUILD / "own")
    assert run.record([])["provenance"]["arithmetic"] == "portable"
    assert {e.arithmetic for e in run.profile.all()} == {"portable"}


@pytest.mark.parametrize(
    "variables",
    [{"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"}, {"PYTHONHASHSEED": "2", "LC_ALL": "C", "TZ": "America/Lima"}],
)
def test_a_committed_figure_is_drawn_to_the_same_bytes(variables, tmp_path):
    """Whatever the order of sets, the time zone, the locale, and the reader's own settings of matplotlib."""
    (tmp_path / "matplotlibrc").write_text("font.size: 20\nlines.linewidth: 9\naxes.formatter.use_locale: True\n")
    record, figure = RESULTS / "laptop" / "tab-ablation.json", FIGURES / "laptop" / "tab-ablation.png"
    made = tmp_path / figure.name
    code = f"from paperlib import artifacts, records; artifacts.save(records.load({str(record)!r}), {str(made)!r})"
    done = python(code, MPLCONFIGDIR=str(tmp_path), **variables)
    assert made.exists(), done.stderr
    assert made.read_bytes() == figure.read_bytes()


def test_an_absent_emulator_is_said(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    assert emulate.main() == 0
    assert "qemu-x86_64 is not on the PATH" in capsys.readouterr().out


def test_no_tensor_takes_a_root_or_an_arc_tangent_from_mkl():
    # their last bit differs between makers of processors; the integral of the atan rule is in no table
    pattern, found = re.compile(r"(?<!np)(?<!math)\.sqrt\(|torch\.atan2?\(|\.pow\(0?\.5\)"), []
    for part in ("attacks", "measures", "networks", "theory", "training"):
        for path in (ROOT / "paperlib" / part).glob("*.py"):
            found += [(path.name, line.strip()) for line in path.read_text().splitlines() if pattern.search(line)]
    assert [name for name, _ in found] == ["rules.py"] and found[0][1].startswith("integral=lambda u: torch.atan(")
