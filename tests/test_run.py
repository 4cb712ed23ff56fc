"""A run of a notebook: where its record goes, which parameters it refuses, what it asks for and what it saves."""

import json

import pytest
from handmade import row

from paperlib import arithmetic, paths, profiles, records
from paperlib.data import images
from paperlib.errors import Refused
from paperlib.profiles import parameters
from paperlib.runs import begin

ROWS = [row("linear ratio", 40.0)]


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The folders that runs write to, under a root of their own."""
    for name in ("RESULTS", "FIGURES", "BUILD"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return tmp_path


def namespace(artifact="thm-ratio", profile="smoke", **changes):
    """A notebook's globals after its parameters cell and the values that are injected for `profile`."""
    values = {p.name: p.default for p in parameters.declared(paths.NOTEBOOKS / f"{artifact}.py").values()}
    return values | profiles.load(profile).parameters(artifact) | changes


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_samples_that_are_not_there_are_refused_before_anything_is_trained(folders):
    run = begin("thm-ratio", namespace())
    networks, there = run.profile.experiments("vanilla"), len(run.data.test)
    for samples, sentence in ((0, "samples is 0; it must be a whole number"), (there + 1, f"mnist5k has {there}.")):
        with pytest.raises(Refused, match=sentence):
            run.ask(networks, [None], samples=samples)
    with pytest.raises(Refused, match="There is no split 'train'. Allowed: test, validation."):
        run.ask(networks, [None], samples=1, split="train")
    assert run.ask(networks, [None], samples=there).samples == there and run.ask(networks).samples == 0


# ---- parameters and folders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", profiles.names())
def test_with_the_profiles_own_parameters_a_record_goes_to_its_results(folders, capsys, monkeypatch, profile):
    monkeypatch.setattr(arithmetic, "current", lambda: profiles.load(profile).network["arithmetic"])
    run = begin("thm-ratio", namespace(profile=profile))
    assert run.record_path == folders / "results" / profile / "thm-ratio.json"
    assert run.profile.name == profile and run.parameters == profiles.load(profile).parameters("thm-ratio")
    assert capsys.readouterr().out == "" and files(folders) == []


def test_the_defaults_of_a_notebook_are_the_laptops_own(folders):
    declared = parameters.declared(paths.NOTEBOOKS / "tab-ablation.py").values()
    run = begin("tab-ablation", {p.name: p.default for p in declared})
    assert run.record_path.parent == folders / "results" / "laptop"


def test_with_any_others_it_goes_to_a_folder_of_its_own_which_is_printed(folders, capsys):
    run = begin("tab-ablation", namespace("tab-ablation", samples=59, pgd_steps=1))
    folder = run.record_path.parent
    assert folder.parent == folders / "build" / "own" and run.record_path.name == "tab-ablation.json"
    assert capsys.readouterr().out == (
        "Not as in params/smoke.yml: pgd_steps, samples. "
        f"This run's record therefore goes to build/own/{folder.name}/.\n"
    )


def test_runs_with_the_same_parameters_share_a_folder_and_others_do_not(folders):
    def folder(**changes):
        return begin("thm-ratio", namespace(**changes)).record_path.parent

    assert folder(samples=59) == folder(samples=59)
    assert len({folder(samples=59), folder(samples=58), folder(samples=59, profile="laptop"), folder()}) == 4
    # smoke's 60 samples are not what the laptop profile says
    assert begin("thm-ratio", namespace() | {"profile": "laptop"}).record_path.parent.parent.name == "own"


def test_the_device_alone_changes_no_number_that_is_kept_apart(folders, capsys):
    run = begin("thm-ratio", namespace(device="cpu"))
    assert run.record_path == folders / "results" / "smoke" / "thm-ratio.json" and run.device == "cpu"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sampels": 10}, "notebook thm-ratio has no parameter 'sampels'. It takes: profile, seeds, samples, "),
        ({"samples": "60"}, "notebook thm-ratio takes samples: int (test images for gradients"),
        ({"samples": 60.0}, "samples: int"),
        ({"samples": True}, "samples: int"),
        ({"device": None}, "device: str"),
        ({"profile": "nope"}, "There is no profile 'nope'. Allowed: "),
    ],
)
def test_a_parameter_that_cannot_be_is_refused_and_nothing_is_written(folders, changes, reason):
    with pytest.raises(Refused) as refusal:
        begin("thm-ratio", namespace() | changes)
    assert reason in str(refusal.value) and files(folders) == []


def test_an_unknown_notebook_is_refused(folders):
    with pytest.raises(Refused, match="no notebook 'thm-nope'. Allowed: .*thm-ratio"):
        begin("thm-nope", {})


def test_a_run_on_events_has_the_profiles_other_data_and_networks_and_the_same_record(folders):
    run = begin("tab-events", namespace("tab-events"), on_events=True)
    assert run.profile == profiles.load("smoke").on_events()
    assert run.record_path == folders / "results" / "smoke" / "tab-events.json"
    (experiment, *_) = run.profile.experiments("vanilla")
    assert experiment.is_of_events and run.data.train.images.shape[1:3] == (3, 2)  # T = 3 frames of two polarities


# ---- what it saves -----------------------------------------------------------------------------------------------


@pytest.fixture
def run(folders, monkeypatch, tiny):
    """A function that opens a run on the small data set in place of the profile's."""
    monkeypatch.setattr(images, "load", lambda **data: tiny)
    return lambda **changes: begin("thm-ratio", namespace(**{"device": "cpu"} | changes))


def test_a_saved_record_says_what_it_is_of_and_keeps_time_apart(folders, run, tiny):
    opened = run()
    record = opened.save(ROWS, arrays={"pixels": 64})
    assert files(folders) == [f"results/smoke/thm-ratio.{end}" for end in ("csv", "json", "run.json")]
    assert records.load(opened.record_path) == record
    provenance = record["provenance"]
    assert (record["artifact"], provenance["profile"]) == ("thm-ratio", "smoke")
    assert provenance["data"] == {"name": tiny.name, "title": tiny.title, "sha256": tiny.sha256}
    assert provenance["parameters"] == opened.parameters and provenance["device"] == "cpu"
    assert record["rows"] == ROWS and record["arrays"] == {"pixels": 64}
    seconds = json.loads(opened.record_path.with_suffix(".run.json").read_text())["seconds"]
    assert 0 <= seconds < 60 and "seconds" not in opened.record_path.read_text()
    content = opened.record_path.read_bytes()
    run().save(ROWS, arrays={"pixels": 64})
    assert opened.record_path.read_bytes() == content


def test_a_run_with_other_parameters_never_touches_results(folders, run):
    run().save(ROWS)
    before = {path: path.read_bytes() for path in (folders / "results").rglob("*.json")}
    opened = run(samples=59)
    opened.save([row("linear ratio", 41.0)])
    assert before == {path: path.read_bytes() for path in (folders / "results").rglob("*.json")}
    assert records.load(opened.record_path)["provenance"]["parameters"]["samples"] == 59


def test_an_unknown_device_is_refused_and_nothing_is_written(folders, run):
    with pytest.raises(Refused, match="no device 'gpu'. Allowed: auto, cpu, cuda, mps"):
        run(device="gpu").save(ROWS)
    assert files(folders) == []


def test_a_record_on_the_way_is_what_would_be_saved_and_is_not(folders, run):
    record = run().record(ROWS)
    assert files(folders) == [] and run().save(ROWS) == record
