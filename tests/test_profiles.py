"""Profiles: every file under params/ means what it says, and one that does not is refused in a sentence."""

import copy
import re
import shutil
from collections import Counter
from dataclasses import replace

import pytest
import yaml

from paperlib import paths, profiles
from paperlib.errors import Refused
from paperlib.profiles import parameters
from paperlib.runs import twins
from paperlib.store import checkpoints as experiments
from paperlib.store.experiment import Experiment, Imported

GOOD = yaml.safe_load("""
title: two seeds of stripes
cost: {minutes: 1, disk_mb: 1, download_mb: 0}
data: {name: mnist5k, train: 500}
network: {name: conv-4-8, T: 2, tau: 1.0, rule: triangle, precision: float32}
schedule: {epochs: 1, batch_size: 50, lr: 0.1, momentum: 0.9, weight_decay: 0.0005}
seeds: [0, 1]
trainings:
  vanilla: {}
  sr: {lam: 0.01, h: 0.02, preset: released}
  at: {eps_255: 32, alpha_255: 40, steps: 1}
  at+sr: {eps_255: 32, alpha_255: 40, steps: 1, lam: 0.01, h: 0.02, preset: released}
events:
  data: {name: "saccades:mnist5k", T: 3, train: 50}
  network: {name: events-conv-2, T: 3, tau: 1.0, rule: triangle, precision: float32}
  schedule: {epochs: 1, batch_size: 50, lr: 0.1, momentum: 0.9, weight_decay: 0.0005}
  seeds: [3]
  trainings:
    vanilla: {}
    sr: {lam: 0.02, h: 0.1}
    at: {eps: 0.5, alpha: 0.5, steps: 1}
    at+sr: {eps: 0.5, alpha: 0.5, steps: 1, lam: 0.02}
notebooks:
  fig-gradient-maps: {samples: 60}
  fig-lambda: {seeds: [0, 1], lambdas: [0.01, 0.1]}
  tab-ablation: {samples: 60}
  thm-ratio: {samples: 60}
""")
ALL = [name for name in profiles.names() if not name.startswith("released-")]  # those are written by whoever imports


@pytest.fixture(autouse=True)
def _nothing_cached():
    profiles.load.cache_clear()
    yield
    profiles.load.cache_clear()


@pytest.fixture
def params(tmp_path, monkeypatch):
    """A function that writes params/mine.yml, out of a profile or of text, into a folder of its own."""
    monkeypatch.setattr(paths, "PARAMS", tmp_path)

    def write(content, name="mine"):
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        (tmp_path / f"{name}.yml").write_text(text, encoding="utf-8")

    return write


def changed(*where, to):
    """A good profile with one entry changed; `to` may be `...` to take it out."""
    content = copy.deepcopy(GOOD)
    *path, last = where
    part = content
    for key in path:
        part = part[key]
    if to is ...:
        del part[last]
    else:
        part[last] = to
    return content


# ---- the profiles there are --------------------------------------------------------------------------------------


def test_there_are_the_four_profiles_and_the_papers_other_networks_and_data():
    assert {"smoke", "laptop", "cifar", "paper"} <= set(ALL)
    others = ["paper-vgg11-cifar100", "paper-wrn16-cifar10", "paper-wrn16-cifar100"]
    assert [name for name in profiles.family("paper") if name in ALL] == ["paper", *others]
    for name in ("paper-vgg11-cifar10", *others):
        profile = profiles.load("paper" if name == "paper-vgg11-cifar10" else name)
        assert (profile.network["name"], profile.data["name"]) == tuple(name.split("-")[1:])
        assert (profile.network["T"], profile.schedule["epochs"], profile.schedule["batch_size"]) == (8, 200, 32)


@pytest.mark.parametrize("name", ALL)
def test_it_loads_and_gives_every_notebook_its_parameters(name):
    profile = profiles.load(name)
    assert profile.name == name and profile.origin == f"params/{name}.yml" and profile.title
    for artifact in twins.names():
        values = profile.parameters(artifact)
        assert values["profile"] == name
        assert list(values) == list(parameters.declared(paths.NOTEBOOKS / f"{artifact}.py"))


@pytest.mark.parametrize("name", ALL)
def test_its_plan_holds_every_network_once_and_all_that_notebooks_ask_for(name):
    profile = profiles.load(name)
    plan = [e.key for e in profile.plan()]
    assert len(set(plan)) == len(plan)
    asked = [e for training in profile.trainings for e in profile.experiments(training)]
    own = profile.parameters("fig-lambda")
    asked += profile.experiments("vanilla", seeds=own["seeds"]) + profile.sweep(own["lambdas"], own["seeds"])
    assert {e.key for e in asked} == {e.key for e in profile.swept()}
    ladder, outside, poisson = map(profile.parameters, ("fig-attack-ladder", "tab-blackbox", "tab-poisson-eot"))
    asked += [profile.substitute(ladder["substitute"], e) for e in profile.first(ladder["seeds"])]
    for training in outside["substitutes"]:
        for e in profile.first(outside["seeds"]):
            asked += [profile.substitute(training, e), profile.substitute(training, e, outside["other_network"])]
    asked += profile.poisson(poisson["trainings"], poisson["seeds"])
    given = profile.parameters("fig-timesteps-and-leak")
    settings = profile.settings(given["T"], given["taus"], full=given["full"])
    how = {name: given[name] for name in ("seeds", "epochs", "network")}
    asked += profile.in_settings(settings, given["lambdas"], **how)
    given = profile.parameters("fig-sr-variants")
    asked += profile.variants(**{name: given[name] for name in profiles.VARIED})
    given = profile.parameters("tab-ablation")
    asked += [e for rival in profile.rivals for e in profile.experiments(rival)[: given["rival_seeds"]]]
    asked += profile.at_cost(given["passes"], given["cost_seeds"])
    asked += profile.on_events().all()
    assert set(plan) == {e.key for e in asked}
    assert set(profile.trainings) == {"vanilla", "sr", "at", "at+sr"}


@pytest.mark.parametrize("name", ALL)
def test_the_count_in_its_cost_table_is_that_of_its_plan(name):
    text = (paths.PARAMS / f"{name}.yml").read_text(encoding="utf-8")
    assert int(re.search(r"training (\d+) networks", text)[1]) == len(profiles.load(name).plan())


@pytest.mark.parametrize("name", ALL)
def test_its_choice_of_lambda_can_find_the_one_in_use(name):
    profile = profiles.load(name)
    assert profile.trainings["sr"]["lam"] in profile.parameters("fig-lambda")["lambdas"]
    assert profile.trainings["sr"]["lam"] == profile.trainings["at+sr"]["lam"]


@pytest.mark.parametrize("artifact", twins.names())
def test_a_parameters_cell_carries_the_laptop_values(artifact):
    declared = parameters.declared(paths.NOTEBOOKS / f"{artifact}.py")
    assert profiles.load("laptop").parameters(artifact) == {p.name: p.default for p in declared.values()}


def test_parameters_of_the_file_override_the_notebooks_by_name(mine):
    declared = parameters.declared(paths.NOTEBOOKS / "thm-ratio.py")
    defaults = {name: p.default for name, p in declared.items()}
    assert mine.parameters("thm-ratio") == defaults | {"profile": "mine", "samples": 60}
    assert mine.parameters("prop-finite-difference")["samples"] == 60


# ---- experiments -------------------------------------------------------------------------------------------------


@pytest.fixture
def mine(params):
    params(GOOD)
    return profiles.load("mine")


def test_lengths_in_pixels_become_shares_of_the_range(mine):
    first = mine.experiments("at+sr")[0]
    lengths = {"eps": 32 / 255, "alpha": 40 / 255}
    assert first.options == lengths | {"steps": 1, "lam": 0.01, "h": 0.02, "preset": "released"}


def test_an_experiment_is_made_of_what_the_file_says(mine):
    first, second = mine.experiments("vanilla")
    assert (first.data, first.network, first.T, first.tau) == (GOOD["data"], "conv-4-8", 2, 1.0)
    assert (first.rule, first.precision, first.defense, first.options) == ("triangle", "float32", "vanilla", {})
    assert {key: getattr(first.schedule, key) for key in GOOD["schedule"]} == GOOD["schedule"]
    assert (first.seed, second.seed) == (0, 1) and first.key != second.key


def test_seeds_and_options_can_be_others(mine):
    (made,) = mine.experiments("sr", seeds=[7], lam=0.5)
    assert (made.seed, made.options["lam"], made.options["h"]) == (7, 0.5, 0.02)
    swept = mine.sweep([0.5, 0.01], [3, 4])
    assert [(e.options["lam"], e.seed) for e in swept] == [(0.5, 3), (0.5, 4), (0.01, 3), (0.01, 4)]
    assert mine.experiments("sr")[0].options["lam"] == 0.01  # the profile itself is unchanged


def test_changes_go_to_the_network_the_schedule_and_the_defense(mine):
    (own,) = mine.experiments("at+sr", seeds=[3])
    changes = {"network": "ann-conv-3", "T": 1, "tau": 1.0, "epochs": 7, "lr": 0.5, "warm_up": 2, "weight_decay": 0}
    changes |= {"selection": {"eps": 0.1, "steps": 2}, "lam": 0.3, "rule": {"name": "atan"}, "random_start": False}
    (made,) = mine.experiments("at+sr", seeds=[3], **changes)
    assert (made.network, made.T, made.tau, made.detach_reset) == ("ann-conv-3", 1, 1.0, False)
    told = {name: changes[name] for name in ("epochs", "lr", "warm_up", "weight_decay", "selection")}
    assert made.schedule == replace(own.schedule, **told)
    assert made.options == own.options | {"lam": 0.3, "rule": {"name": "atan"}, "random_start": False}
    assert (made.rule, made.precision, made.data, made.seed) == (own.rule, own.precision, own.data, 3)
    (detached,) = mine.experiments("vanilla", seeds=[3], T=4, tau=0.5, detach_reset=True)
    assert (detached.T, detached.tau, detached.detach_reset) == (4, 0.5, True)
    assert mine.experiments("at+sr", seeds=[3]) == [own]  # the profile itself is unchanged
    with pytest.raises(Refused, match="'beta'"):
        mine.experiments("at+sr", beta=6)


def test_a_training_may_have_a_schedule_and_a_network_of_its_own(params):
    params(changed("trainings", "sr", to={"lam": 0.01, "weight_decay": 0, "epochs": 3, "T": 5}))
    mine = profiles.load("mine")
    (sr, *_), (vanilla, *_) = mine.experiments("sr"), mine.experiments("vanilla")
    assert sr.options == {"lam": 0.01} and sr.T == 5
    assert sr.schedule == replace(vanilla.schedule, weight_decay=0, epochs=3)
    assert (vanilla.schedule.epochs, vanilla.schedule.weight_decay, vanilla.T) == (1, 0.0005, 2)
    assert mine.experiments("sr", epochs=9)[0].schedule.epochs == 9  # a change wins
    assert {e.schedule.epochs for e in mine.sweep([0.1], [0])} == {3}


def test_a_schedule_may_warm_up_and_select_an_epoch(params):
    chosen = {"eps_255": 51, "steps": 4}
    params(changed("schedule", to=GOOD["schedule"] | {"epochs": 4, "warm_up": 2, "selection": chosen}))
    schedule = profiles.load("mine").experiments("at")[0].schedule
    assert (schedule.warm_up, schedule.selection) == (2, {"eps": 0.2, "steps": 4})


def test_without_them_a_key_is_what_it_always_was(mine):
    (e,) = mine.experiments("vanilla", seeds=[0])
    assert e.content["schedule"] == GOOD["schedule"] and "detach_reset" not in e.content


def test_a_plan_holds_shared_networks_once_and_the_costliest_first(mine):
    told = [str(e) for e in mine.plan()]
    assert told[: len(mine.swept())] == [
        f"{name}, seed {s}" for name in ("at+sr, λ = 0.01", "at", "sr, λ = 0.01", "vanilla") for s in (0, 1)
    ] + [f"sr, λ = 0.1, seed {s}" for s in (0, 1)]


def test_on_events_a_profile_has_the_entries_that_stand_there(mine):
    of_events = mine.on_events()
    assert (of_events.name, of_events.origin, of_events.notebooks) == (mine.name, mine.origin, mine.notebooks)
    assert of_events.data == {"name": "saccades:mnist5k", "T": 3, "train": 50} and of_events.seeds == [3]
    (sr,) = of_events.experiments("sr")
    assert (sr.network, sr.T, sr.options, sr.seed, sr.is_of_events) == (
        "events-conv-2",
        3,
        {"lam": 0.02, "h": 0.1},
        3,
        True,
    )
    assert [e.defense for e in of_events.of(["at", "vanilla"])] == ["at", "vanilla"] and of_events.of([]) == []
    assert not any(e.is_of_events for e in mine.all())


def test_a_training_that_the_profile_lacks_is_refused(mine):
    with pytest.raises(Refused) as refusal:
        mine.experiments("trades")
    message = str(refusal.value)
    assert "params/mine.yml" in message and "'trades'" in message and "vanilla, sr, at, at+sr" in message


# ---- bad files ---------------------------------------------------------------------------------------------------


def refused(name="mine"):
    """The sentence with which a profile is refused when it is loaded, or when its plan is asked for."""
    with pytest.raises(Refused) as refusal:
        profiles.load(name).plan()
    message = str(refusal.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_an_unknown_profile_is_refused_with_those_there_are(params):
    params(GOOD)
    assert refused("nope") == "There is no profile 'nope'. Allowed: mine."


KEYS = "cost, data, events, network, notebooks, schedule, seeds, title, trainings"
TAKES = KEYS.replace("notebooks", "notebooks, rivals")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (changed("lamda", to=1), f"the profile has no use for lamda. It takes: {TAKES}."),
        (changed("seeds", to=...), f"the profile lacks seeds. It takes: {TAKES}."),
        (changed("network", "beta", to=1), "network has no use for beta. It takes: T, name, precision, rule, tau."),
        (changed("schedule", "epochs", to=...), "schedule lacks epochs. It takes: batch_size, epochs,"),
        (changed("cost", to={}), "cost lacks disk_mb, download_mb, minutes."),
        (changed("network", to=None), "network is None; it must be a table of keys and values."),
        (changed("schedule", "lr", to=-1), "lr is -1; it must be a finite number above 0."),
        (changed("schedule", "lr", to="fast"), "lr is 'fast'; it must be a finite number above 0."),
        (changed("schedule", "warm_up", to=1), "warm_up is 1; it must be less than epochs = 1."),
        (changed("schedule", "selection", to=3), "The selection of an epoch cannot take 3: "),
        (changed("schedule", "selection", to=None), "The selection of an epoch cannot take None: "),
        (changed("schedule", "selection", to={"eps_255": 8}), "'steps'. It takes (*, eps: float, steps: int)"),
        (changed("schedule", "selection", to={"eps_255": -8, "steps": 2}), "eps_255 is -8; it must be a finite"),
        (changed("schedule", "gamma", to=1), "schedule has no use for gamma. It takes: batch_size, epochs,"),
        (changed("trainings", "sr", "selection", to=[1]), "The selection of an epoch cannot take [1]: "),
        (changed("trainings", "sr", "axes", to="central"), "An SR variant cannot take central: "),
        (changed("trainings", "sr", "clamp", to="no"), "There is no clamp 'no'. Allowed: False, True."),
        (changed("trainings", "sr", "detach_reset", to="no"), "There is no detach_reset 'no'. Allowed: False, True."),
        (changed("rivals", to=["rat"]), "rivals is ['rat']; it must be a table of keys and values."),
        (changed("rivals", to={"rat": None}), "rivals: rat is None; it must be a table of keys and values."),
        (changed("rivals", to={"rats": {}}), "There is no defense 'rats'. Allowed: vanilla, sr, "),
        (changed("rivals", to={"l2": {}}), "Defense 'l2' cannot take {}: missing"),
        (changed("rivals", to={"sr": {"lam": 1}, "at": {}}), "at, sr stand under both trainings and rivals."),
        (changed("trainings", "madry", to={}), "'madry'. Allowed: vanilla, sr, loss-l1, "),
        (changed("trainings", "sr", "mu", to=1), "'mu'. It takes (lam: float"),
        (changed("trainings", "sr", "preset", to="new"), "'new'. Allowed: "),
        (changed("trainings", "at", "eps_255", to=-8), "it must be a finite number of at least 0."),
        (changed("trainings", "at", "eps_255", to=float("nan")), "it must be a finite number of at least 0."),
        (changed("trainings", "at", "eps_255", to="8/255"), "it must be a finite number of at least 0."),
        (changed("notebooks", "fig-nope", to={}), "no notebook 'fig-nope'. Allowed: fig-attack-ladder, "),
        (changed("notebooks", "thm-ratio", "eps", to=1), "notebook thm-ratio has no parameter 'eps'. It takes: pro"),
        (changed("notebooks", "thm-ratio", "samples", to="all"), "notebook thm-ratio takes samples: int"),
        (changed("data", "trian", to=3), "trian"),
        (changed("trainings", "sr", to=None), "sr"),
        (changed("trainings", to=["sr"]), "trainings"),
        (changed("notebooks", to=None), "notebooks"),
        (changed("notebooks", "thm-ratio", to=None), "thm-ratio"),
        (changed("trainings", "sr", to={"imported": "ab" * 32}), "dataset"),
        (changed("seeds", to=3), "seeds"),
        (changed("trainings", "at", to=...), "trainings lacks at, which the claims compare."),
        (changed("trainings", "at", "eps", to=0.1), "eps_255 and eps are one length; give one of them."),
        (changed("data", "name", to="mnist"), "There is no image set 'mnist'. Allowed: mnist5k"),
        (changed("seeds", to=[]), "seeds"),
        (changed("data", to=None), "data"),
        (
            changed("events", "data", "T", to=...),
            "data lacks T. It takes: T, jitter, name, noise, refractory, seed, test",
        ),
        (changed("events", "data", "blur", to=1), "data has no use for blur."),
        (changed("events", "network", "T", to=4), "T is 4 and the data's 3 frames a sample; they must be equal."),
        (changed("events", "network", "name", to="conv-2"), "needs one with events- before its name."),
        (changed("events", "trainings", "at", to=...), "trainings lacks at, which the claims compare."),
        (changed("events", "rivals", to={}), "events has no use for rivals."),
        (changed("network", "name", to="events-conv-2"), "needs one without events- before its name."),
        ("title: [", "is not YAML"),
        ("a: b: c", "is not YAML"),
        ("- a list", f"the profile lacks {KEYS}."),
        ("", f"the profile lacks {KEYS}."),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_bad_file_is_refused_by_name_with_what_is_allowed(params, content, words):
    params(content)
    message = refused()
    assert message.startswith("params/mine.yml") and words in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (changed("network", "name", to="resnet"), "no network 'resnet'. Allowed: vgg11, wrn16, conv-"),
        (changed("network", "precision", to="float16"), "no precision 'float16'. Allowed: float32, bfloat16"),
        (changed("network", "rule", to="cubic"), "'cubic'. Allowed: triangle"),
        (changed("network", "T", to=0), "T is 0"),
        (changed("network", "T", to="two"), "T is 'two'"),
        (changed("network", "tau", to=-1), "tau is -1"),
        (changed("data", "name", to="imagenet"), "'imagenet'. Allowed: mnist5k, "),
        (changed("schedule", "epochs", to=1.5), "epochs is 1.5"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_network_or_data_set_that_cannot_be_is_refused_before_training_starts(params, content, words):
    params(content)
    with pytest.raises(Refused, match=re.escape(words)):
        profiles.load("mine").plan()[0].build()


@pytest.mark.parametrize(
    ("artifact", "eps"), [("fig-gradient-maps", -8), ("tab-ablation", [16, -8]), ("fig-lambda", -0.5)]
)
def test_a_negative_radius_of_a_notebook_is_refused_before_anything_is_trained(params, artifact, eps):
    params(changed("notebooks", artifact, "eps_255", to=eps))
    message = refused()
    assert message.startswith("params/mine.yml") and artifact in message and "eps_255" in message


def test_a_good_file_of_ones_own_needs_no_notebook_overrides(params):
    params(changed("notebooks", to={}))
    assert profiles.load("mine").parameters("thm-ratio")["samples"] == 250
    assert profiles.names() == ["mine"]


# ---- a profile that takes over another's entries -----------------------------------------------------------------


def test_what_a_profile_gives_replaces_its_bases_entries_whole(params):
    own = {
        "base": "good",
        "title": "one seed",
        "seeds": [7],
        "network": GOOD["network"] | {"T": 3},
        "trainings": GOOD["trainings"] | {"sr": {"lam": 0.5}},
        "notebooks": {"fig-lambda": {"seeds": [7]}},
    }
    params(GOOD, "good")
    params(own)
    mine, good = profiles.load("mine"), profiles.load("good")
    assert (mine.title, mine.seeds, mine.network["T"]) == ("one seed", [7], 3)
    assert mine.trainings["sr"] == {"lam": 0.5}  # no h of the base's
    assert mine.parameters("tab-ablation")["samples"] == 250  # nor its samples
    assert mine.parameters("fig-lambda")["lambdas"] == [0.001, 0.003, 0.006, 0.01, 0.02, 0.03, 0.06]
    assert (mine.data, mine.schedule, mine.cost) == (good.data, good.schedule, good.cost)
    assert (good.seeds, good.network["T"], good.trainings["sr"]) == ([0, 1], 2, GOOD["trainings"]["sr"])
    assert [e.seed for e in mine.experiments("at")] == [7]


def test_a_profile_that_only_names_its_base_is_the_base(params):
    params(GOOD, "good")
    params({"base": "good"})
    assert [e.key for e in profiles.load("mine").plan()] == [e.key for e in profiles.load("good").plan()]


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("nope", "There is no base of params/mine.yml 'nope'. Allowed: good, list, nothing, second."),
        ("mine", "There is no base of params/mine.yml 'mine'. Allowed: good, list, nothing, second."),
        (None, "There is no base of params/mine.yml None."),
        (["good"], "There is no base of params/mine.yml ['good']."),
        ("second", "has no use for base."),  # one level is enough
        ("list", "list"),
        ("nothing", "nothing"),
    ],
)
def test_a_base_that_cannot_be_is_refused(params, base, words):
    params(GOOD, "good")
    params({"base": "good"}, "second")
    params("- a list", "list")
    params("", "nothing")
    params({"base": base})
    assert words in refused()


def test_what_is_wrong_in_a_base_is_said_of_the_profile(params):
    params(changed("schedule", "lr", to=-1), "good")
    params({"base": "good"})
    assert refused() == "params/mine.yml: lr is -1; it must be a finite number above 0."


def test_a_family_is_a_profile_and_those_that_have_it_as_base(params):
    for name, content in (("good", GOOD), ("a", {"base": "good"}), ("z", {"base": "good"}), ("other", GOOD)):
        params(content, name)
    params({"base": "a"}, "grandchild")
    assert profiles.family("good") == ["good", "a", "z"]
    assert profiles.family("a") == ["a", "grandchild"]
    assert profiles.family("other") == ["other"]


@pytest.mark.parametrize("stray", ["", "- a list", "text"], ids=["empty", "list", "text"])
def test_a_stray_file_does_not_part_a_family(params, stray):
    for name, content in (("good", GOOD), ("a", {"base": "good"}), ("stray", stray)):
        params(content, name)
    assert profiles.family("good") == ["good", "a"]


# ---- a profile of networks that the released code trained --------------------------------------------------------

TAKEN = {
    training: {"imported": letter * 64, "dataset": "cifar100"} for training, letter in (("vanilla", "a"), ("sr", "b"))
}


@pytest.fixture
def released(params):
    """The profile of two imported networks, written beside a copy of the paper's."""
    shutil.copy(paths.ROOT / "params" / "paper.yml", paths.PARAMS)
    path = profiles.of_imported("released-wrn16-cifar100", "wrn16", {"name": "cifar100"}, TAKEN)
    assert path == paths.PARAMS / "released-wrn16-cifar100.yml"
    return profiles.load("released-wrn16-cifar100")


def test_a_written_profile_is_the_papers_with_imported_networks(released):
    paper = profiles.load("paper")
    assert released.network == paper.network | {"name": "wrn16"}
    assert (released.data, released.schedule) == ({"name": "cifar100"}, paper.schedule)
    assert "wrn16" in released.title and "vanilla, sr" in released.title
    only = {"fig-lambda": {"lambdas": [], "seeds": [42]}, "fig-attack-ladder": {"substitute": "vanilla"}}
    only |= {"tab-blackbox": {"substitutes": []}, "tab-poisson-eot": {"trainings": []}}
    only |= {"tab-masking-checklist": {"substitute": "vanilla"}, "fig-timesteps-and-leak": {"lambdas": []}}
    only |= {"fig-sr-variants": {"variants": []}}
    only |= {"tab-events": {"trainings": []}, "fig-random-vs-adversarial-events": {"trainings": []}}
    only |= dict.fromkeys(("tab-ablation", "tab-cost"), {"passes": 0})
    assert paper.rivals and not released.rivals
    for artifact in twins.names():
        changes = {"profile": released.name} | only.get(artifact, {})
        assert released.parameters(artifact) == paper.parameters(artifact) | changes
    assert released.on_events().data == {"name": "saccades:mnist5k", "T": 10}  # which needs no download
    assert released.trainings["sr"]["h"] == paper.trainings["sr"]["h"]  # prop-finite-difference draws it
    assert profiles.family("paper") == ["paper", released.name]


def test_an_imported_training_has_one_network_whatever_the_seeds(released):
    for seeds in (None, [42], [0, 1, 2]):
        (found,) = released.experiments("vanilla", seeds=seeds)
        assert found == Imported("a" * 64, "wrn16", "cifar100", "vanilla", {"name": "cifar100"})
    assert released.experiments("sr")[0].sha256 == "b" * 64


def test_trainings_that_are_not_imported_are_our_own(released):
    (found,) = released.experiments("at+sr")
    (expected,) = profiles.load("paper").experiments("at+sr", seeds=[42])
    assert (found.options, found.schedule, found.seed) == (expected.options, expected.schedule, 42)
    assert (found.network, found.data) == ("wrn16", {"name": "cifar100"})


def test_a_sweep_trains_our_own_networks(released):
    swept = released.sweep([0.1, 0.2], [3, 4])
    assert all(isinstance(e, Experiment) for e in swept)
    assert [(e.options["lam"], e.seed) for e in swept] == [(0.1, 3), (0.1, 4), (0.2, 3), (0.2, 4)]
    assert not any({"imported", "dataset"} & set(e.options) for e in swept)


def test_the_plan_of_imported_networks_holds_each_once_and_sweeps_nothing(released):
    kinds = Counter((type(e).__name__, e.defense) for e in released.plan())
    assert kinds == {
        ("Imported", "vanilla"): 1,
        ("Imported", "sr"): 1,
        ("Experiment", "at"): 1,
        ("Experiment", "at+sr"): 1,
    }


def test_a_substitute_for_an_imported_network_is_another_imported_one(released):
    vanilla, sr = (released.experiments(name)[0] for name in ("vanilla", "sr"))
    assert released.substitute("vanilla", sr) == vanilla
    assert released.substitute("vanilla", vanilla) == sr
    assert isinstance(released.substitute("vanilla", vanilla, "vgg11"), Experiment)


def test_writing_the_profile_again_takes_the_new_files(released):
    profiles.of_imported(
        released.name, "wrn16", {"name": "cifar100"}, {"at": {"imported": "c" * 64, "dataset": "cifar100"}}
    )
    again = profiles.load(released.name)
    assert [type(e) for e in again.experiments("vanilla")] == [Experiment]
    assert again.experiments("at")[0].sha256 == "c" * 64


def test_a_profile_that_would_not_load_is_not_written(params):
    shutil.copy(paths.ROOT / "params" / "paper.yml", paths.PARAMS)
    with pytest.raises(Refused, match="no image set 'imagenet'"):
        profiles.of_imported("released-wrn16-cifar100", "wrn16", {"name": "imagenet"}, TAKEN)
    assert profiles.names() == ["paper"]


# ---- networks of single notebooks --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_substitute_is_separately_trained(name):
    profile = profiles.load(name)
    for target in profile.all():
        for training in profile.trainings:
            same, other = profile.substitute(training, target), profile.substitute(training, target, "conv-3-5")
            assert same.defense == other.defense == training
            assert same.seed != target.seed and other.seed != target.seed
            assert (same.network, other.network) == (target.network, "conv-3-5")


def test_poisson_networks_differ_from_the_profiles_own_by_their_input_alone():
    profile = profiles.load("laptop")
    found = profile.poisson(["sr", "vanilla"], 2)
    assert [(e.defense, e.seed) for e in found] == [("sr", 0), ("sr", 1), ("vanilla", 0), ("vanilla", 1)]
    own = profile.experiments("sr")[:2] + profile.experiments("vanilla")[:2]
    assert [replace(e, network="conv-8-16") for e in found] == own
    assert all(e.is_stochastic for e in found) and not any(e.is_stochastic for e in own)


def test_a_notebook_looks_at_the_profiles_networks_or_at_named_checkpoints(monkeypatch):
    profile = profiles.load("laptop")
    assert profile.networks([], 2) == profile.first(2)
    monkeypatch.setattr(experiments, "opened", lambda name: f"opened {name}")
    assert profile.networks(["a", "b"], 2) == ["opened a", "opened b"]
    assert profile.poisson(["sr"], 1, ["a"]) == ["opened a"]


# ---- budgets -----------------------------------------------------------------------------------------------------

RIVALS = {"rat": {"eps_255": 32, "alpha_255": 40, "steps": 1, "weight_decay": 0, "epochs": 3}, "l2": {"lam": 3}}


@pytest.fixture
def contested(params):
    params(GOOD | {"rivals": RIVALS, "seeds": [4, 5, 6]})
    return profiles.load("mine")


def test_rivals_are_optional_and_trained_as_trainings_are(contested, params):
    assert contested.rivals == RIVALS
    (rat, *others) = contested.experiments("rat")
    assert (rat.defense, rat.seed, len(others)) == ("rat", 4, 2)
    assert rat.options == {"eps": 32 / 255, "alpha": 40 / 255, "steps": 1}
    assert (rat.schedule.weight_decay, rat.schedule.epochs) == (0, 3)
    assert [e.options for e in contested.experiments("l2", seeds=[9], lam=5)] == [{"lam": 5}]
    assert {e.defense for e in contested.all()} == set(GOOD["trainings"])  # rivals are asked for by name
    params(GOOD, "without")
    without = profiles.load("without")
    assert without.rivals == {} and without.contest(2) == without.all()
    assert {e.defense for e in without.at_cost(5, 1)} == set(GOOD["trainings"])


def test_a_contest_holds_all_trainings_and_of_each_rival_the_first_networks(contested):
    found = contested.contest(2)
    assert found[:12] == contested.all()
    assert [(e.defense, e.seed) for e in found[12:]] == [("rat", 4), ("rat", 5), ("l2", 4), ("l2", 5)]
    with pytest.raises(Refused, match="rival_seeds is 0; it must be a whole number of at least 1"):
        contested.contest(0)


def test_a_weight_is_the_lambda_that_the_profile_says(contested):
    weights = {name: contested.weight(name) for name in ("sr", "at+sr", "l2")}
    assert weights == {"sr": 0.01, "at+sr": 0.01, "l2": 3}
    for name in ("vanilla", "at", "rat", "trades"):
        assert contested.weight(name) != contested.weight(name)  # NaN


def test_any_training_is_swept(contested):
    swept = contested.sweep([0.5, 2], [8, 9], "l2")
    assert [(e.defense, e.options["lam"], e.seed) for e in swept] == [
        ("l2", 0.5, 8),
        ("l2", 0.5, 9),
        ("l2", 2, 8),
        ("l2", 2, 9),
    ]
    assert contested.sweep([0.5], [8]) == contested.experiments("sr", seeds=[8], lam=0.5)
    with pytest.raises(Refused, match="'lam'"):
        contested.sweep([0.5], [8], "vanilla")


def test_a_budget_is_shared_out_by_the_passes_of_each_options(contested):
    # RAT of one step has 2 + 2 passes, exact l2 1 + 3, SR 2 + 3, AT+SR 3 + 4; a training's own epochs do not count
    found = contested.at_cost(20, 2)
    assert [(e.defense, e.schedule.epochs, e.seed) for e in found] == [
        (name, epochs, seed)
        for name, epochs in (("vanilla", 10), ("sr", 4), ("at", 5), ("at+sr", 3), ("rat", 5), ("l2", 5))
        for seed in (4, 5)
    ]
    rat = next(e for e in found if e.defense == "rat")
    assert rat.schedule == replace(contested.experiments("rat")[0].schedule, epochs=5)
    longer = replace(contested, trainings=contested.trainings | {"at": RIVALS["rat"] | {"steps": 4, "epochs": 1}})
    assert {e.schedule.epochs for e in longer.at_cost(20, 1) if e.defense == "at"} == {2}  # 5 + 5 passes
    with pytest.raises(Refused, match="passes is -1; it must be a whole number of at least 0"):
        contested.at_cost(-1, 1)


def test_a_rivals_own_warm_up_leaves_it_an_epoch(contested):
    own = {"eps_255": 32, "alpha_255": 40, "steps": 1, "warm_up": 4, "epochs": 9}
    warm = replace(contested, rivals={"rat": own}, schedule=contested.schedule | {"epochs": 6})
    assert {e.defense: e.schedule.epochs for e in warm.at_cost(8, 1)}["rat"] == 5


def test_at_equal_cost_each_training_takes_the_epochs_that_come_closest():
    # passes of a step: vanilla 2, SR 5, AT 4, AT+SR 7, RAT 4, TRADES 7, TRADES+SR 10, l2 4, loss l1 5, exact l1 4
    profile = profiles.load("laptop")
    epochs = {e.defense: e.schedule.epochs for e in profile.at_cost(25, 1)}
    expected = {"vanilla": 12, "sr": 5, "at": 6, "at+sr": 4, "rat": 6, "trades": 4}  # 12.5 and 2.5 go to the even
    assert epochs == expected | {"trades+sr": 2, "l2": 6, "loss-l1": 5, "exact-l1": 6}
    assert [e.seed for e in profile.at_cost(25, 2)[:2]] == [0, 1] and profile.at_cost(0, 1) == []
    assert {e.schedule.epochs for e in profile.at_cost(1, 1)} == {1}
    warm = replace(profile, schedule=profile.schedule | {"warm_up": 2})
    assert min(e.schedule.epochs for e in warm.at_cost(1, 1)) == 3
    (same,) = (e for e in profile.at_cost(25, 1) if e.defense == "sr")
    assert same == profile.experiments("sr")[0]  # SR's own 5 epochs


def test_at_equal_epochs_there_are_the_first_networks_of_everything():
    profile = profiles.load("laptop")
    found = profile.at_epochs(2)
    assert Counter(e.defense for e in found) == dict.fromkeys([*profile.trainings, *profile.rivals], 2)
    assert {e.seed for e in found} == {0, 1} and {e.schedule.epochs for e in found} == {profile.schedule["epochs"]}
    assert profile.contest(2)[-12:] == found[-12:]
    assert profile.recipes() == profile.at_epochs(1)
    with pytest.raises(Refused, match="seeds is 0"):
        profile.at_epochs(0)


def test_a_recipe_is_one_network_of_each_training_whose_options_are_known(released):
    assert [e.defense for e in released.recipes()] == ["vanilla", "at", "at+sr"]  # vanilla has none; SR's nobody told
    assert all(isinstance(e, Experiment) for e in released.recipes())
    assert {e.defense for e in released.at_cost(1000, 1)} == {"vanilla", "at", "at+sr"}
