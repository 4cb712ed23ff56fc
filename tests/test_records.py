"""Records: what goes in comes out, what is damaged is named, a full disk harms nothing."""

import csv
import errno
import hashlib
import json
import math
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperlib import files, records, words
from paperlib.errors import Refused


def interval(value=0.5, low=0.4, high=0.6, n=100):
    return SimpleNamespace(value=value, low=low, high=high, over="samples", n=n, method="Wilson 95 %")


def row(value=0.5, low=0.4, high=0.6, n=100, seeds=(0, 1), **labels):
    labels = {"quantity": "accuracy"} | labels
    return records.row(interval(value, low, high, n), seeds=seeds, experiments=["3f9c"], **labels)


def build(*rows, artifact="tab-ablation", **others):
    common = {"profile": "laptop", "parameters": {"eps_255": (4, 8)}, "data": {"title": "MNIST-5k", "sha256": "ab"}}
    return records.build(artifact, **common, recipe=1, arithmetic="portable", device="cpu", rows=rows, **others)


# Making and checking ----------------------------------------------------------------------------------------------


def test_a_row_keeps_labels_first_and_every_digit():
    measured = interval(np.float64(1 / 3), np.float32(0.25), 1)
    entry = records.row(measured, seeds=range(2), experiments=("3f9c",), training="SR", eps=8 / 255)
    assert list(entry) == ["training", "eps", *records.FIELDS]
    assert entry["value"] == 1 / 3 and entry["low"] == 0.25 and entry["seeds"] == [0, 1] and entry["published"] is None
    assert {type(entry[field]) for field in ("value", "low")} == {float}


def test_what_is_not_finite_becomes_null_and_without_an_interval_there_is_nothing_it_is_over():
    entry = row(math.nan, -math.inf, np.float32("inf"))
    assert entry["value"] is entry["low"] is entry["high"] is None
    assert row()["over"] == entry["over"] == "samples" and row(0.5, math.nan, math.nan)["over"] is None


def test_arrays_are_rounded_to_significant_digits():
    assert records.array([[1.0, math.nan], [math.inf, 2.0]]) == [[1.0, None], [None, 2.0]]
    assert records.array([[123456.0, 0.000123456]]) == [[123500.0, 0.0001235]]
    assert records.array(np.float32([0.1, 1 / 3]), digits=2) == [0.1, 0.33]
    assert records.array([123456, 1]) == [123456, 1] and records.array([True]) == [True]


def test_labels_that_cannot_be_are_refused():
    with pytest.raises(Refused, match="value, over cannot be labels"):
        records.row(interval(), seeds=[0], experiments=[], value=3, over=1)
    with pytest.raises(Refused, match="cannot hold .* of type set"):
        row(layers={1, 2})


@pytest.mark.parametrize("field", records.FIELDS)
def test_a_row_without_a_field_is_refused_by_name(field):
    entry = row(training="SR")
    del entry[field]
    with pytest.raises(Refused, match=rf"Record tab-ablation, row 1 \(accuracy, training SR.*\): it lacks {field}\."):
        build(row(training="vanilla"), entry)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("value", "0.5"),
        ("low", True),
        ("n", 10.0),
        ("n", -1),
        ("n", True),
        ("method", None),
        ("over", 3),
        ("seeds", 0),
        ("experiments", "3f9c"),
        ("published", 0.8),
        ("published", {"value": 0.8}),
        ("published", {"value": None, "source": "Table 1"}),
        ("doubts", "noise breaks more"),
        ("doubts", None),
    ],
)
def test_a_field_of_the_wrong_kind_is_refused(field, wrong):
    with pytest.raises(Refused, match=f"{field} is .*; it must be"):
        build(row() | {field: wrong})


def test_a_count_of_0_and_the_ends_of_a_p_value_are_allowed():
    """A share of no samples has a row, too."""
    for field, value in (("n", 0), ("p", 0), ("p", 1)):
        assert build(row() | {field: value})["rows"][0][field] == value


def test_a_published_value_comes_with_its_source():
    published = {"value": 0.8, "source": "Table 1"}
    assert build(row() | {"published": published})["rows"][0]["published"] == published


def test_rows_that_labels_do_not_tell_apart_are_refused():
    with pytest.raises(Refused, match=r"two rows \(accuracy, eps 0\.03137, seeds 0 1\)"):
        build(row(0.1, eps=8 / 255), row(0.2, eps=8 / 255))
    build(row(seeds=[0]), row(seeds=[1]))


@pytest.mark.parametrize("foreign", [None, [], {}, {"artifact": "tab", "schema": 1}, {"schema": 2}])
def test_what_is_no_record_is_refused(foreign):
    with pytest.raises(Refused, match="no record"):
        records.check(foreign)


def test_a_record_without_one_of_its_parts_is_refused():
    for part in ("rows", "provenance", "words"):
        with pytest.raises(Refused, match="tab-ablation needs a list 'rows' and the dicts 'provenance' and 'words'"):
            records.check(build(row()) | {part: None})
    record = build(row())
    del record["provenance"]["data"], record["provenance"]["clean"]
    with pytest.raises(Refused, match="its provenance lacks data, clean"):
        records.check(record)


def test_a_record_carries_the_words_of_its_rows_and_they_are_learnt_when_it_is_loaded(tmp_path, monkeypatch):
    for name in ("_trainings", "_attacks"):
        monkeypatch.setattr(words, name, {})
    colours = {name: {"title": name.upper(), "colour": "#0000ff"} for name in ("b", "a", "c", "d")}
    words.learn({"trainings": colours, "attacks": {"fgsm": "FGSM", "pgd": "PGD", "sign": "signs", "mim": "MIM"}})
    of_attacks = row(training="a", against="b", attack="pgd", steps=7, reference_attack="fgsm", reference_steps=7)
    record = build(of_attacks, row(training="b", made_on="c", noise="sign"), row(training="nameless", attack="clean"))
    assert list(record["words"]["trainings"].items()) == [(name, colours[name]) for name in ("b", "a", "c")]
    assert record["words"]["attacks"] == {"fgsm": "FGSM", "pgd": "PGD", "sign": "signs"}
    records.save(record, tmp_path / "t.json")
    for name in ("_trainings", "_attacks"):
        monkeypatch.setattr(words, name, {})
    records.load(tmp_path / "t.json")
    assert (words.title("c"), words.hue("b"), words.title("d")) == ("C", "#0000ff", "d")
    assert words.attack(of_attacks) == "PGD-7" and words.attack(of_attacks, "reference_") == "FGSM-7"


# Files ------------------------------------------------------------------------------------------------------------


def test_round_trip(tmp_path):
    record = build(row(1 / 3, math.nan, training="SR"), arrays={"map": records.array(np.eye(3))})
    for folder in ("new", "again"):
        records.save(record, tmp_path / folder / "tab-ablation.json")
        assert sorted(os.listdir(tmp_path / folder)) == ["tab-ablation.csv", "tab-ablation.json"]
    assert records.load(tmp_path / "new/tab-ablation.json") == record
    assert (tmp_path / "new/tab-ablation.json").read_bytes() == (tmp_path / "again/tab-ablation.json").read_bytes()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text('[]{}"\\\n ,ab') | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_innermost_lists_stand_on_one_line_and_nothing_else_changes(value):
    assert json.loads(files.as_json(value)) == files.plain(value)
    assert files.as_json({"a": [[1, 2], [3]], "b": []}) == '{\n "a": [\n  [ 1, 2 ],\n  [ 3 ]\n ],\n "b": []\n}\n'


def test_the_csv_holds_every_key_of_every_row(tmp_path):
    published = {"value": 0.8, "source": "Table 1, row 2"}
    records.save(build(row(training="SR"), row(0.1, math.nan, eps=0.1) | {"published": published}), tmp_path / "t.json")
    first, second = csv.DictReader((tmp_path / "t.csv").read_text().splitlines())
    assert first["training"] == "SR" and first["eps"] == "" and first["seeds"] == "0 1" and first["published"] == ""
    assert second["low"] == "" and second["published"] == "0.8" and second["published_source"] == "Table 1, row 2"


def test_the_run_lies_beside_its_record(tmp_path):
    records.save_run(tmp_path / "tab-ablation.json", seconds=1.5)
    run = json.loads((tmp_path / "tab-ablation.run.json").read_text())
    assert set(run) == {"seconds", "host", "date", "python"} and run["seconds"] == 1.5


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b'{"artifact": "ta', "damaged"), (b"\xff\xfe", "damaged"), (b"", "damaged"), (b"[1, 2]", "no record")],
)
def test_a_damaged_foreign_or_missing_file_is_refused_by_name(tmp_path, content, complaint):
    (tmp_path / "tab.json").write_bytes(content)
    with pytest.raises(Refused, match=f"tab.json: .*{complaint}"):
        records.load(tmp_path / "tab.json")
    with pytest.raises(Refused, match="gone.json: there is no such record"):
        records.load(tmp_path / "gone.json")
    with pytest.raises(Refused, match="cannot be read"):
        records.load(tmp_path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("problem", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()], ids=type)
def test_a_full_disk_or_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call, problem):
    def fail(*_):
        raise problem

    path, full = tmp_path / "tab.json", isinstance(problem, OSError)
    files.write_atomically(path, b"old")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(Refused if full else KeyboardInterrupt) as refusal:
        files.write_atomically(path, b"new" * 10**6)
    if full:
        sentence = "no space left on device. Nothing half-written was left; free 3,001 kB and start again."
        assert str(refusal.value) == f"Could not write {path}: {sentence}"
        assert refusal.value.__cause__ is problem
    assert os.listdir(tmp_path) == ["tab.json"] and path.read_bytes() == b"old"


def test_a_write_that_the_system_breaks_off_half_way(tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # the first 1000 bytes do reach the disk
    try:
        with pytest.raises(Refused, match="file too large. Nothing half-written was left; solve that"):
            files.write_atomically(tmp_path / "tab.json", b"x" * 10**6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == []


def test_in_a_read_only_folder_the_reason_is_told_and_the_clean_up_hides_nothing(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(
        Refused, match="^Could not write .*a.json: read-only file system. Nothing half-written was left"
    ):
        files.write_atomically(tmp_path / "a.json", b"text")
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(Refused, match="^Could not write .*new: read-only file system"):
        files.make_folder(tmp_path / "new")
    files.remove(tmp_path / "a.json")


def test_a_file_and_then_its_folder_are_synced(tmp_path, monkeypatch):
    """Else the name may be lost with the power, or come without the bytes."""
    synced, real = [], os.fsync

    def fsync(handle):
        synced.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        assert (tmp_path / "a.json").exists() == (synced[-1] == "folder")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_atomically(tmp_path / "a.json", b"text")
    assert synced == ["file", "folder"]


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(Refused, match="Could not write .*tab.json"):
        files.write_atomically(tmp_path / "results" / "tab.json", b"new")
    assert (tmp_path / "results").read_text() == "a file"


def test_a_table_that_cannot_be_written_leaves_no_newer_record_beside_it(tmp_path, full_disk):
    """The table comes first: a record says that both are there."""
    path = tmp_path / "tab.json"
    records.save(build(row(0.5)), path)
    old = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with full_disk("tab.csv"), pytest.raises(Refused, match="tab.csv"):
        records.save(build(row(0.55)), path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == old


def test_a_record_that_fails_its_check_is_not_written(tmp_path):
    with pytest.raises(Refused):
        records.save(build(row()) | {"rows": [{}]}, tmp_path / "tab.json")
    assert os.listdir(tmp_path) == []


def test_checksums_by_hand():
    assert files.sha256(b"").startswith("e3b0c44298fc1c14")
    assert files.hashed({"b": 1, "a": [2]}) == hashlib.sha256(b'{"a": [2], "b": 1}').hexdigest()[:16]


# Provenance -------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder under git with code, results, a figure and a notebook, all committed."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)  # a hook's GIT_DIR would send these commands to another repository
    for name in ("paperlib/a.py", "results/laptop/t.json", "figures/f.png", "notebooks/n.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("first")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false", "commit", "-qm", "first")
    return tmp_path


def git(folder, *arguments):
    return subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_changes_to_outputs_and_new_files_leave_the_tree_clean_and_changed_or_staged_code_does_not(checkout):
    head = git(checkout, "rev-parse", "HEAD")
    for name in ("results/laptop/t.json", "figures/f.png", "notebooks/n.ipynb", "untracked.py"):
        (checkout / name).write_text("second")
    assert records.code_version(checkout) == (head, True)
    (checkout / "paperlib/a.py").write_text("second")
    assert records.code_version(checkout) == (head, False)
    git(checkout, "add", ".")
    assert records.code_version(checkout) == (head, False)


def test_outside_a_checkout_the_code_is_unknown(checkout, monkeypatch):
    assert records.code_version(checkout / "paperlib") == ("unknown", None)  # inside, but not its top
    assert records.code_version(checkout / "nowhere") == ("unknown", None)
    monkeypatch.setenv("PATH", "")
    assert records.code_version(checkout) == ("unknown", None)


def test_versions_are_those_of_the_modules():
    versions = records.packages()
    assert versions["numpy"] == np.__version__ and versions["python"] == ".".join(map(str, sys.version_info[:3]))


def test_neither_torch_nor_scipy_comes_with_records():
    code = "import sys, paperlib.records; print(sorted({'torch', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# Doubts -----------------------------------------------------------------------------------------------------------

WHY = "noise of the same size breaks more; take more steps"


def test_doubts_stand_in_a_row_only_where_there_are_some(tmp_path):
    doubted = row(training="SR", doubts=(WHY,))
    assert doubted["doubts"] == [WHY] and "doubts" not in row(training="SR", doubts=())
    record = build(doubted, row(training="AT"))
    records.save(record, tmp_path / "t.json")
    assert records.load(tmp_path / "t.json") == record
    first, second = csv.DictReader((tmp_path / "t.csv").read_text().splitlines())
    assert WHY in first["doubts"] and second["doubts"] == ""


def test_doubts_are_no_label():
    doubted, plain = row(training="SR", doubts=[WHY]), row(training="SR")
    assert WHY not in records.label(doubted) and "doubts" not in records.label(doubted)
    assert records.label(doubted) == records.label(plain)
    with pytest.raises(Refused, match="two rows"):
        build(doubted, plain)


def test_a_p_value_is_an_optional_field_between_0_and_1_and_no_label():
    measured = SimpleNamespace(value=0.1, low=0.0, high=0.2, over="seeds", n=3, method="t", p=0.03)
    told = {"seeds": [0], "experiments": [], "quantity": "difference"}
    with_p = records.row(measured, **told)
    measured.p = float("nan")
    without = records.row(measured, **told)
    assert with_p["p"] == 0.03 and "p" not in without and records.label(with_p) == records.label(without)
    with pytest.raises(Refused, match="cannot be labels"):
        records.row(measured, **told, p=0.1)
    assert records._fault(with_p) is None
    for wrong in (-0.1, 1.1, None, "0.1", True):
        assert "p is" in records._fault(with_p | {"p": wrong})
