"""What a notebook opens and closes: where a run's record goes, and which parameters it refuses."""

import json

import pytest
from test_claims import row

from paperlib import paths, profiles, records
from paperlib.data import images
from paperlib.errors import Refused
from paperlib.profiles import parameters
from paperlib.runs import run


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The folders that runs write to, under a root of their own."""
    for name in ("RESULTS", "FIGURES", "BUILD"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return tmp_path


def namespace(artifact, profile="smoke", **changes):
    """A notebook's globals after its parameters cell and the values that the runner injects for `profile`."""
    values = {p.name: p.default for p in parameters.declared(paths.NOTEBOOKS / f"{artifact}.py").values()}
    return values | profiles.load(profile).parameters(artifact) | changes


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("profile", profiles.names())
def test_with_the_profiles_own_parameters_a_record_goes_to_its_results(folders, capsys, profile):
    run = run.begin("thm-ratio", namespace("thm-ratio", profile))
    assert run.record_path == folders / "results" / profile / "thm-ratio.json"
    assert run.profile.name == profile and run.parameters == profiles.load(profile).parameters("thm-ratio")
    assert capsys.readouterr().out == "" and files(folders) == []


def test_the_defaults_of_a_notebook_are_the_laptops_own(folders):
    declared = parameters.declared(paths.NOTEBOOKS / "tab-ablation.py").values()
    run = run.begin("tab-ablation", {p.name: p.default for p in declared})
    assert run.record_path.parent == folders / "results" / "laptop"


def test_with_any_others_it_goes_to_a_folder_of_its_own_which_is_said(folders, capsys):
    run = run.begin("tab-ablation", namespace("tab-ablation", samples=59, pgd_steps=2))
    own = run.record_path.parent
    assert own.parent == folders / "build" / "own" and own.name.startswith("tab-ablation-")
    assert run.record_path.name == "tab-ablation.json"
    said = capsys.readouterr().out
    assert "params/smoke.yml" in said and "samples" in said and "pgd_steps" in said and "eps_255" not in said
    assert f"build/own/{own.name}/" in said


def test_runs_with_the_same_parameters_share_a_folder_and_others_do_not(folders):
    def folder(**changes):
        return run.begin("thm-ratio", namespace("thm-ratio", **changes)).record_path.parent

    assert folder(samples=59) == folder(samples=59)
    assert len({folder(samples=59), folder(samples=58), folder(samples=59, profile="laptop"), folder()}) == 4


def test_another_profile_makes_this_notebooks_values_its_own(folders):
    """Smoke's 60 samples are not what the laptop profile says."""
    run = run.begin("thm-ratio", namespace("thm-ratio", "smoke") | {"profile": "laptop"})
    assert run.record_path.parent.parent == folders / "build" / "own"


def test_the_device_alone_changes_no_number_that_is_kept_apart(folders, capsys):
    run = run.begin("thm-ratio", namespace("thm-ratio", device="cpu"))
    assert run.record_path == folders / "results" / "smoke" / "thm-ratio.json" and run.parameters["device"] == "cpu"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sampels": 10}, "notebook thm-ratio has no parameter 'sampels'. It takes: profile, seeds, samples, "),
        ({"samples": "60"}, "notebook thm-ratio takes samples: int (test images for gradients"),
        ({"samples": 60.0}, "samples: int"),
        ({"samples": True}, "samples: int"),
        ({"device": None}, "device: str"),
        ({"profile": "nope"}, "There is no profile 'nope'. Allowed: "),
    ],
)
def test_a_parameter_that_cannot_be_is_refused_and_nothing_is_written(folders, changes, words):
    with pytest.raises(Refused) as refusal:
        run.begin("thm-ratio", namespace("thm-ratio") | changes)
    assert words in str(refusal.value) and files(folders) == []


def test_an_unknown_artifact_is_refused(folders):
    with pytest.raises(Refused, match="no notebook 'thm-nope'. Allowed: .*thm-ratio"):
        run.begin("thm-nope", {})


@pytest.fixture
def run(folders, monkeypatch, tiny):
    """A function that opens a run on the small data set in place of the profile's."""
    monkeypatch.setattr(images, "load", lambda **data: tiny)
    return lambda **changes: run.begin("thm-ratio", namespace("thm-ratio", **{"device": "cpu"} | changes))


def test_a_saved_record_says_what_it_is_of_and_keeps_time_apart(folders, run, tiny):
    opened = run()
    record = opened.save([row("linear ratio", 40.0)], arrays={"pixels": 64})
    assert files(folders) == [f"results/smoke/thm-ratio.{end}" for end in ("csv", "json", "run.json")]
    assert records.load(opened.record_path) == record
    provenance = record["provenance"]
    assert (record["artifact"], provenance["profile"]) == ("thm-ratio", "smoke")
    assert provenance["data"] == {"name": tiny.name, "title": tiny.title, "sha256": tiny.sha256}
    assert provenance["parameters"] == opened.parameters and provenance["device"] == "cpu"
    assert record["rows"] == [row("linear ratio", 40.0)] and record["arrays"] == {"pixels": 64}
    seconds = json.loads(opened.record_path.with_suffix(".run.json").read_text())["seconds"]
    assert 0 <= seconds < 60 and "seconds" not in opened.record_path.read_text()


def test_the_same_run_gives_the_same_bytes(folders, run):
    written = []
    for _ in range(2):
        opened = run()
        opened.save([row("linear ratio", 40.0)])
        written.append(opened.record_path.read_bytes())
    assert written[0] == written[1]


def test_a_run_of_ones_own_never_touches_results(folders, run):
    run().save([row("linear ratio", 40.0)])
    before = {path: path.read_bytes() for path in (folders / "results").rglob("*.json")}
    opened = run(samples=59)
    opened.save([row("linear ratio", 41.0)])
    assert before == {path: path.read_bytes() for path in (folders / "results").rglob("*.json")}
    assert records.load(opened.record_path)["provenance"]["parameters"]["samples"] == 59


def test_an_unknown_device_is_refused_and_nothing_is_written(folders, run):
    with pytest.raises(Refused, match="no device 'gpu'. Allowed: auto, cpu, cuda, mps"):
        run(device="gpu").save([row("linear ratio", 40.0)])
    assert files(folders) == []


def test_a_record_on_the_way_is_what_would_be_saved_and_is_not(folders, run):
    opened, rows = run(), [row("linear ratio", 40.0)]
    assert opened.record(rows) == run().record(rows) and files(folders) == []
    assert opened.save(rows) == opened.record(rows)
