"""Profiles: every file under params/ means what it says, and one that does not is refused in a sentence."""

import copy
import re
import shutil
from collections import Counter
from dataclasses import replace

import pytest
import yaml

from paperlib import paths, profiles, records, words
from paperlib.artifacts import summary
from paperlib.errors import Refused
from paperlib.profiles import parameters, selections
from paperlib.runs import plan
from paperlib.store import checkpoints
from paperlib.store.experiment import Experiment, Imported
from paperlib.training import defenses

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
NOTEBOOKS = sorted(paths.notebooks())


@pytest.fixture(autouse=True)
def _nothing_cached():
    profiles.load.cache_clear()
    yield
    profiles.load.cache_clear()


@pytest.fixture
def params(tmp_path, monkeypatch):
    """A function that writes params/mine.yml, from a profile or from text, into a folder of its own."""
    monkeypatch.setattr(paths, "PARAMS", tmp_path)

    def write(content, name="mine"):
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        (tmp_path / f"{name}.yml").write_text(text, encoding="utf-8")

    return write


@pytest.fixture
def mine(params):
    params(GOOD)
    return profiles.load("mine")


@pytest.fixture(scope="module")
def laptop():
    return profiles.load("laptop")


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


def named(experiments):
    """Each experiment's training and seed."""
    return [(e.defense, e.seed) for e in experiments]


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
def test_it_gives_every_notebook_its_parameters_and_can_find_the_lambda_in_use(name):
    profile = profiles.load(name)
    assert profile.name == name and profile.origin == f"params/{name}.yml" and profile.title
    assert set(profile.trainings) == {"vanilla", "sr", "at", "at+sr"}
    for artifact in NOTEBOOKS:
        values = profile.parameters(artifact)
        assert values["profile"] == name
        assert list(values) == list(parameters.declared(paths.notebook(artifact)))
    assert profile.trainings["sr"]["lam"] in profile.parameters("fig-lambda")["lambdas"]
    for training, weights in profile.parameters("fig-lambda")["others"].items():
        if training in profile.trainings | profile.rivals:
            assert profile.weight(training) in weights


@pytest.mark.parametrize("name", summary.PROFILES)
def test_the_weights_in_use_are_those_that_validation_data_chose(name):
    """Of every profile whose record of fig-lambda is committed; that of laptop is."""
    path = paths.RESULTS / name / "fig-lambda.json"
    if not path.exists() and name != "laptop":
        pytest.skip(f"{name} has no record of fig-lambda yet")
    record, profile = records.load(path), profiles.load(name)
    swept = record["provenance"]["parameters"]["training"]
    chosen = {row.get("of", swept): row["value"] for row in record["rows"] if row["quantity"] == "chosen λ"}
    assert chosen and chosen == {training: profile.weight(training) for training in chosen}


@pytest.mark.parametrize("name", ALL)
def test_its_plan_holds_once_each_network_that_a_notebook_asks_for_and_its_cost_table_counts_them(name):
    profile = profiles.load(name)
    of = {artifact: profile.parameters(artifact) for artifact in NOTEBOOKS}
    asked = profile.all() + profile.on_events().all()
    given = of["fig-lambda"]
    asked += profile.experiments("vanilla", seeds=given["seeds"])
    asked += selections.sweep(profile, given["lambdas"], given["seeds"])
    assert {e.key for e in selections.swept(profile)} == {e.key for e in asked if not e.is_of_events}
    for training, weights in given["others"].items():
        if training in profile.trainings | profile.rivals:
            asked += selections.sweep(profile, weights, given["other_seeds"], training)
            asked += profile.experiments(selections.baseline(training), seeds=given["other_seeds"])
    given = of["fig-gradient-maps"]
    asked += selections.matched(profile, given["matched"], given["matched_seeds"])
    given = of["tab-masking-checklist"]
    asked += [selections.substitute(profile, given["substitute"], e) for e in selections.first(profile, given["seeds"])]
    given = of["tab-blackbox"]
    for training in given["substitutes"]:
        for e in selections.first(profile, given["seeds"]):
            asked += [selections.substitute(profile, training, e, n) for n in (None, given["other_network"])]
    given = of["tab-poisson-eot"]
    asked += selections.poisson(profile, given["trainings"], given["seeds"])
    given = of["fig-timesteps-and-leak"]
    settings = selections.settings(profile, given["T"], given["taus"], full=given["full"])
    changes = {key: given[key] for key in ("seeds", "epochs", "network")}
    asked += selections.in_settings(profile, settings, given["lambdas"], **changes)
    given = of["fig-sr-variants"]
    changes = {key: given[key] for key in ("hs", "square_lambdas", "absolute_lambdas", "seeds", "epochs", "network")}
    asked += selections.variants(profile, given["variants"], **changes)
    given = of["tab-ablation"]
    asked += selections.contest(profile, given["rival_seeds"])
    asked += selections.at_cost(profile, given["passes"], given["cost_seeds"])
    keys = [e.key for e in plan.of(profile).networks]
    assert len(set(keys)) == len(keys) and set(keys) == {e.key for e in asked}
    text = (paths.ROOT / profile.origin).read_text(encoding="utf-8")
    assert int(re.search(r"training (\d+) networks", text)[1]) == len(keys)


@pytest.mark.parametrize("artifact", NOTEBOOKS)
def test_a_parameters_cell_carries_the_laptop_values(artifact, laptop):
    declared = parameters.declared(paths.notebook(artifact))
    assert laptop.parameters(artifact) == {p.name: p.default for p in declared.values()}


def test_parameters_of_the_file_override_the_notebooks_by_name(mine, laptop):
    assert mine.parameters("thm-ratio") == laptop.parameters("thm-ratio") | {"profile": "mine", "samples": 60}
    assert mine.parameters("prop-finite-difference")["samples"] == 60  # the notebook's own


# ---- experiments -------------------------------------------------------------------------------------------------


def test_an_experiment_is_what_the_file_says_with_lengths_in_pixels_as_shares_of_the_range(mine):
    first, second = mine.experiments("vanilla")
    assert (first.data, first.network, first.T, first.tau) == (GOOD["data"], "conv-4-8", 2, 1.0)
    assert (first.rule, first.precision, first.defense, first.options) == ("triangle", "float32", "vanilla", {})
    assert {key: getattr(first.schedule, key) for key in GOOD["schedule"]} == GOOD["schedule"]
    assert (first.seed, second.seed) == (0, 1) and first.key != second.key
    assert first.content["schedule"] == GOOD["schedule"] and "detach_reset" not in first.content  # no younger field
    lengths = {"eps": 32 / 255, "alpha": 40 / 255}
    options = lengths | {"steps": 1, "lam": 0.01, "h": 0.02, "preset": "released"}
    assert mine.experiments("at+sr")[0].options == options


def test_changes_go_to_the_network_the_schedule_and_the_defense(mine):
    (own,) = mine.experiments("at+sr", seeds=[3])
    changes = {"network": "ann-conv-3", "T": 1, "tau": 1.0, "epochs": 7, "lr": 0.5, "warm_up": 2, "weight_decay": 0}
    changes |= {"selection": {"eps": 0.1, "steps": 2}, "lam": 0.3, "rule": {"name": "atan"}, "random_start": False}
    (made,) = mine.experiments("at+sr", seeds=[3], **changes)
    assert (made.network, made.T, made.tau, made.detach_reset) == ("ann-conv-3", 1, 1.0, False)
    schedule = {name: changes[name] for name in ("epochs", "lr", "warm_up", "weight_decay", "selection")}
    assert made.schedule == replace(own.schedule, **schedule)
    assert made.options == own.options | {"lam": 0.3, "rule": {"name": "atan"}, "random_start": False}
    assert (made.rule, made.precision, made.data, made.seed) == (own.rule, own.precision, own.data, 3)
    (detached,) = mine.experiments("vanilla", seeds=[3], T=4, tau=0.5, detach_reset=True)
    assert (detached.T, detached.tau, detached.detach_reset) == (4, 0.5, True)
    assert mine.experiments("at+sr", seeds=[3]) == [own]  # the profile itself is unchanged
    with pytest.raises(Refused, match="'beta'"):
        mine.experiments("at+sr", beta=6)


def test_a_training_may_have_a_schedule_and_a_network_of_its_own(params):
    younger = {"epochs": 4, "warm_up": 2, "selection": {"eps_255": 51, "steps": 4}}
    content = changed("trainings", "sr", to={"lam": 0.01, "weight_decay": 0, "epochs": 3, "T": 5})
    params(content | {"schedule": GOOD["schedule"] | younger})
    mine = profiles.load("mine")
    (sr, *_), (vanilla, *_) = mine.experiments("sr"), mine.experiments("vanilla")
    assert sr.options == {"lam": 0.01} and sr.T == 5 and vanilla.T == 2
    assert sr.schedule == replace(vanilla.schedule, weight_decay=0, epochs=3)
    assert (vanilla.schedule.epochs, vanilla.schedule.weight_decay) == (4, 0.0005)
    assert (vanilla.schedule.warm_up, vanilla.schedule.selection) == (2, {"eps": 0.2, "steps": 4})
    assert mine.experiments("sr", epochs=9)[0].schedule.epochs == 9  # a change wins
    assert {e.schedule.epochs for e in selections.sweep(mine, [0.1], [0])} == {3}


def test_on_events_a_profile_has_the_entries_that_stand_there(mine):
    of_events = mine.on_events()
    assert (of_events.name, of_events.origin, of_events.notebooks) == (mine.name, mine.origin, mine.notebooks)
    assert of_events.data == {"name": "saccades:mnist5k", "T": 3, "train": 50} and of_events.seeds == [3]
    (sr,) = of_events.experiments("sr")
    assert (sr.network, sr.T, sr.options, sr.seed) == ("events-conv-2", 3, {"lam": 0.02, "h": 0.1}, 3)
    assert sr.is_of_events
    assert named(of_events.of(["at", "vanilla"])) == [("at", 3), ("vanilla", 3)] and of_events.of([]) == []
    assert not any(e.is_of_events for e in mine.all())


def test_a_training_that_the_profile_lacks_is_refused_unless_its_options_are_given(mine):
    with pytest.raises(Refused, match="no training in params/mine.yml 'trades'. Allowed: vanilla, sr, at, at\\+sr"):
        mine.experiments("trades")
    own = {"eps_255": 51, "alpha": 0.1, "steps": 2, "epochs": 6}
    made = mine.experiments("trades", options=own, seeds=[8], beta=3)[0]
    assert made.options == {"eps": 0.2, "alpha": 0.1, "steps": 2, "beta": 3}
    assert (made.defense, made.seed, made.network, made.schedule.epochs) == ("trades", 8, "conv-4-8", 6)


# ---- bad files ---------------------------------------------------------------------------------------------------


def refused(name="mine"):
    """The sentence with which a profile is refused when it is loaded."""
    with pytest.raises(Refused) as refusal:
        profiles.load(name)
    message = str(refusal.value)
    assert "\n" not in message and message.endswith(".")
    return message


WRONG = changed("schedule", "lr", to=-1)
NUMBER = "it must be a finite number of at least 0."
TABLE = "it must be a table of keys and values."
KEYS = "cost, data, events, network, notebooks, schedule, seeds, title, trainings"
TAKES = KEYS.replace("network, notebooks", "imports, network, notebooks, rivals")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (changed("lamda", to=1), f"the profile has no use for lamda. It takes: {TAKES}."),
        (changed("seeds", to=...), f"the profile lacks seeds. It takes: {TAKES}."),
        (changed("network", "beta", to=1), "network has no use for beta. It takes: T, arithmetic, name,"),
        (changed("network", "arithmetic", to="fast"), "There is no arithmetic 'fast'. Allowed: portable, portable-"),
        (changed("events", "network", "arithmetic", to="native"), "events: network has no use for arithmetic."),
        (changed("schedule", "epochs", to=...), "schedule lacks epochs. It takes: batch_size, epochs,"),
        (changed("cost", to={}), "cost lacks disk_mb, download_mb, minutes."),
        (changed("network", to=None), f"network is None; {TABLE}"),
        (WRONG, "lr is -1; it must be a finite number above 0."),
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
        (changed("rivals", to=["rat"]), f"rivals is ['rat']; {TABLE}"),
        (changed("rivals", to={"rat": None}), f"rivals: rat is None; {TABLE}"),
        (changed("rivals", to={"rats": {}}), "There is no defense 'rats'. Allowed: vanilla, sr, "),
        (changed("rivals", to={"l2": {}}), "Defense 'l2' cannot take {}: missing"),
        (changed("rivals", to={"sr": {"lam": 1}, "at": {}}), "at, sr stand under both trainings and rivals."),
        (changed("trainings", "madry", to={}), "'madry'. Allowed: vanilla, sr, "),
        (changed("trainings", "sr", "mu", to=1), "'mu'. It takes (lam: float"),
        (changed("trainings", "sr", "preset", to="new"), "'new'. Allowed: "),
        *((changed("trainings", "at", "eps_255", to=eps), NUMBER) for eps in (-8, float("nan"), "8/255")),
        (changed("notebooks", "fig-nope", to={}), "no notebook 'fig-nope'. Allowed: fig-attack-ladder, "),
        (changed("notebooks", "thm-ratio", "eps", to=1), "notebook thm-ratio has no parameter 'eps'. It takes: pro"),
        (changed("notebooks", "thm-ratio", "samples", to="all"), "notebook thm-ratio takes samples: int"),
        (changed("data", "trian", to=3), "data has no use for trian."),
        (changed("trainings", "sr", to=None), f"trainings: sr is None; {TABLE}"),
        (changed("trainings", to=["sr"]), f"trainings is ['sr']; {TABLE}"),
        (changed("notebooks", to=None), f"notebooks is None; {TABLE}"),
        (changed("notebooks", "thm-ratio", to=None), f"notebooks: thm-ratio is None; {TABLE}"),
        (changed("trainings", "sr", to={"imported": "ab" * 32}), "the imported training sr lacks dataset."),
        (changed("seeds", to=3), "seeds is 3; it must be a list."),
        (changed("trainings", "at", to=...), "trainings lacks at, which the claims compare."),
        (changed("trainings", "at", "eps", to=0.1), "eps_255 and eps are one length; give one of them."),
        (changed("data", "name", to="mnist"), "There is no image set 'mnist'. Allowed: mnist5k"),
        (changed("seeds", to=[]), "seeds is empty; there must be one at least."),
        (changed("data", to=None), f"data is None; {TABLE}"),
        (changed("events", "data", "T", to=...), "data lacks T. It takes: T, jitter, name, noise, refractory, seed,"),
        (changed("events", "data", "blur", to=1), "data has no use for blur."),
        (changed("events", "network", "T", to=4), "T is 4 and the data's 3 frames a sample; they must be equal."),
        (changed("events", "network", "name", to="conv-2"), "needs one with events- before its name."),
        (changed("events", "trainings", "at", to=...), "trainings lacks at, which the claims compare."),
        (changed("events", "rivals", to={}), "events has no use for rivals."),
        (changed("network", "name", to="events-conv-2"), "needs one without events- before its name."),
        (changed("network", "name", to="resnet"), "no network 'resnet'. Allowed: vgg11, wrn16, conv-"),
        (changed("network", "precision", to="float16"), "no precision 'float16'. Allowed: float32, bfloat16"),
        (changed("network", "rule", to="cubic"), "'cubic'. Allowed: triangle"),
        *((changed("network", "T", to=T), f"T is {T!r}; it must be a whole number") for T in (0, "two")),
        (changed("network", "tau", to=-1), "tau is -1"),
        (changed("data", "name", to="imagenet"), "'imagenet'. Allowed: mnist5k, "),
        (changed("schedule", "epochs", to=1.5), "epochs is 1.5"),
        (changed("imports", to="mine.py"), "imports is 'mine.py'; it must be a list."),
        (changed("imports", to=[3]), "an entry of imports is 3; it must be text."),
        *((changed("imports", to=[f]), f"names {f!r}; there is no such Python file") for f in ("no.py", "README.md")),
        *((text, "is not YAML") for text in ("title: [", "a: b: c")),
        ("title: one\ntitle: two", "the key 'title' stands there twice"),
        (yaml.safe_dump(GOOD) + "\nnotebooks: {}", "the key 'notebooks' stands there twice"),
        (changed("trainings", 3, to={}), "the key 3 must be text"),
        ("? [a, b]\n: 3", "the key ['a', 'b'] must be text"),
        ("[" * 5000, "is nested too deeply"),
        ("!!python/object/apply:os.system ['touch executed']", "is not YAML"),
        (changed("seeds", to=[0, 0, 1]), "seeds is [0, 0, 1]; 0 stands there twice."),
        (changed("schedule", "lr", to=1e300), "lr is 1e+300; it must be a number of 32 bits, 3.4e+38 at most."),
        (changed("schedule", "lr", to=10**400), "it must be a number of 32 bits"),
        (changed("network", "T", to=10**9), "T is 1000000000; it must be 10000 at most."),
        (
            changed("notebooks", "fig-lambda", to={"seeds": [1, 1]}),
            "fig-lambda: seeds is [1, 1]; 1 stands there twice.",
        ),
        (changed("imports", to=["~nosuchuser/x.py"]), "the system knows no such user's home."),
        *((text, f"the profile lacks {KEYS}.") for text in ("- a list", "")),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_bad_file_is_refused_by_name_with_what_is_allowed(params, content, words):
    params(content)
    message = refused()
    assert message.startswith("params/mine.yml") and words in message


@pytest.mark.parametrize(
    ("artifact", "eps"), [("fig-gradient-maps", -8), ("tab-ablation", [16, -8]), ("fig-lambda", -0.5)]
)
def test_a_negative_radius_of_a_notebook_is_refused_before_anything_is_trained(params, artifact, eps):
    params(changed("notebooks", artifact, "eps_255", to=eps))
    with pytest.raises(Refused, match=f"^notebook {artifact}: eps is -0.0.*at least 0.$"):
        plan.of(profiles.load("mine"))


def test_a_good_file_of_ones_own_needs_no_notebook_overrides(params):
    params(changed("notebooks", to={}))
    assert profiles.load("mine").parameters("thm-ratio")["samples"] == 1000
    assert refused("nope") == "There is no profile 'nope'. Allowed: mine."


# ---- a profile with a base ---------------------------------------------------------------------------------------


def test_a_profile_adds_to_the_tables_of_its_base_and_replaces_other_entries_whole(params):
    own = {"base": "good", "title": "one seed", "seeds": [7], "network": GOOD["network"] | {"T": 3}}
    own |= {"trainings": {"l2": {"lam": 2}, "sr": {"lam": 0.5}}, "rivals": {"loss-l1": {"lam": 0.1}}}
    own |= {"notebooks": {"fig-lambda": {"seeds": [7]}}}
    params(GOOD | {"rivals": {"exact-l1": {"lam": 1}}}, "good")
    params(own)
    mine, good = profiles.load("mine"), profiles.load("good")
    assert (mine.title, mine.seeds, mine.network["T"]) == ("one seed", [7], 3)
    assert mine.trainings == GOOD["trainings"] | {"sr": {"lam": 0.5}, "l2": {"lam": 2}}  # SR has no h of the base's
    assert list(mine.trainings)[-1] == "l2" and [e.seed for e in mine.experiments("l2")] == [7]
    assert mine.rivals == {"exact-l1": {"lam": 1}, "loss-l1": {"lam": 0.1}}
    assert mine.parameters("tab-ablation")["samples"] == 60
    assert mine.parameters("fig-lambda")["lambdas"] == [0.003, 0.01, 0.03, 0.06]  # nor its lambdas
    assert (mine.data, mine.schedule, mine.cost) == (good.data, good.schedule, good.cost)
    assert (good.seeds, good.network["T"], good.trainings) == ([0, 1], 2, GOOD["trainings"])


def test_an_empty_table_removes_that_of_the_base_and_a_base_alone_changes_nothing(params):
    params(GOOD | {"rivals": {"l2": {"lam": 1}}}, "good")
    params({"base": "good"}, "same")
    params({"base": "good", "rivals": {}, "notebooks": {}})
    same, mine = profiles.load("same"), profiles.load("mine")
    assert replace(same, name="good") == profiles.load("good")
    assert mine == replace(same, name="mine", rivals={}, notebooks={})
    params({"base": "good", "trainings": {}})
    profiles.load.cache_clear()
    assert "trainings lacks at, at+sr, sr, vanilla" in refused()


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("nope", "There is no base of params/mine.yml 'nope'. Allowed: good, list, nothing, second, wrong."),
        ("mine", "There is no base of params/mine.yml 'mine'. Allowed: good, list, nothing, second, wrong."),
        (None, "There is no base of params/mine.yml None."),
        (["good"], "There is no base of params/mine.yml ['good']."),
        ("second", "has no use for base."),  # one level is enough
        ("list", f"base list is ['a list']; {TABLE}"),
        ("nothing", f"base nothing is None; {TABLE}"),
        ("wrong", "params/mine.yml: lr is -1; it must be a finite number above 0."),  # said of the profile itself
    ],
)
def test_a_base_that_cannot_be_is_refused(params, base, words):
    others = {"good": GOOD, "second": {"base": "good"}, "list": "- a list", "nothing": "", "wrong": WRONG}
    for name, content in (others | {"mine": {"base": base}}).items():
        params(content, name)
    assert words in refused()


def test_a_family_is_a_profile_and_those_that_have_it_as_base(params):
    family = {"good": GOOD, "a": {"base": "good"}, "z": {"base": "good"}, "other": GOOD, "grandchild": {"base": "a"}}
    strays = {f"stray{i}": stray for i, stray in enumerate(("", "- a list", "text", "title: ["))}
    for name, content in (family | strays).items():
        params(content, name)
    assert profiles.family("good") == ["good", "a", "z"]
    assert profiles.family("a") == ["a", "grandchild"]
    assert profiles.family("other") == ["other"]


# ---- a profile with imports --------------------------------------------------------------------------------------

TRAINING = """
from pathlib import Path

from paperlib.training import defenses

with (Path(__file__).parent / "log").open("a") as log:
    log.write("{name} ")


@defenses.register("{name}", title="Mine", colour="#123456")
def loss(network, batch, *, weight=1.0):
    return weight * network(batch.images).square().mean()
"""


@pytest.fixture
def training(tmp_path, monkeypatch):
    """A function that writes a file that registers a training; afterwards the training is unknown again."""
    monkeypatch.setattr(defenses, "DEFENSES", dict(defenses.DEFENSES))
    monkeypatch.setattr(words, "_trainings", dict(words._trainings))

    def write(name, after=""):
        path = tmp_path / f"{name}.py"
        path.write_text(TRAINING.format(name=name) + after, encoding="utf-8")
        return str(path)

    return write


def test_imported_files_register_trainings_once_those_of_the_base_first(params, training, tmp_path):
    first, second = training("first"), training("second")
    params(GOOD | {"trainings": GOOD["trainings"] | {"first": {"weight": 3.0}}, "imports": [first]}, "good")
    params({"base": "good", "imports": [second], "rivals": {"second": {}}})
    mine, good = profiles.load("mine"), profiles.load("good")
    assert (tmp_path / "log").read_text() == "first second "
    assert named(mine.experiments("first")) == [("first", 0), ("first", 1)] and "second" not in good.rivals
    assert mine.experiments("first")[0].options == {"weight": 3.0} and words.title("second") == "Mine"
    params(GOOD | {"imports": [first], "trainings": GOOD["trainings"] | {"first": {"wait": 3.0}}}, "wrong")
    assert "'wait'. It takes (*, weight=1.0)" in refused("wrong")


def test_a_file_that_fails_is_refused_and_executed_again_when_it_is_mended(params, training):
    file = training("mended", after="\nraise OSError('no\\nsuch thing')\n")
    params(GOOD | {"imports": [file], "rivals": {"mended": {}}})
    assert refused() == f"params/mine.yml: {file} cannot be imported (OSError: no such thing)."
    training("mended")
    assert profiles.load("mine").experiments("mended")[0].options == {}


# ---- a profile of networks that the released code trained --------------------------------------------------------

TAKEN = {name: {"imported": char * 64, "dataset": "cifar100"} for name, char in (("vanilla", "a"), ("sr", "b"))}


@pytest.fixture
def paper(params):
    """Copies of the paper's profile and of what `of_imported` writes beside it."""
    shutil.copy(paths.ROOT / "params" / "paper.yml", paths.PARAMS)
    shutil.copytree(paths.ROOT / "params" / "templates", paths.PARAMS / "templates")


@pytest.fixture
def released(paper):
    """The profile of two imported networks."""
    path = profiles.of_imported("released-wrn16-cifar100", "wrn16", {"name": "cifar100"}, TAKEN)
    assert path == paths.PARAMS / "released-wrn16-cifar100.yml"
    return profiles.load("released-wrn16-cifar100")


def test_a_written_profile_is_the_papers_with_imported_networks(released):
    paper = profiles.load("paper")
    assert released.network == paper.network | {"name": "wrn16"}
    assert (released.data, released.schedule) == ({"name": "cifar100"}, paper.schedule)
    assert "wrn16" in released.title and "vanilla, sr" in released.title
    only = {"fig-lambda": {"lambdas": [], "seeds": [42], "others": {}}}
    only |= {"tab-blackbox": {"substitutes": []}, "tab-poisson-eot": {"trainings": []}}
    only |= {"tab-masking-checklist": {"substitute": "vanilla"}, "fig-timesteps-and-leak": {"lambdas": []}}
    only |= {"fig-sr-variants": {"variants": []}}
    on_events = ("tab-events", "fig-random-vs-adversarial-events", "fig-spikes-events")
    only |= dict.fromkeys(on_events, {"trainings": []})
    only |= dict.fromkeys(("tab-ablation", "tab-cost"), {"passes": 0})
    assert paper.rivals and not released.rivals
    for artifact in NOTEBOOKS:
        changes = {"profile": released.name} | only.get(artifact, {})
        assert released.parameters(artifact) == paper.parameters(artifact) | changes
    assert released.on_events().data == {"name": "saccades:mnist5k", "T": 10}  # which needs no download
    assert released.trainings["sr"]["h"] == paper.trainings["sr"]["h"]  # prop-finite-difference draws it
    assert profiles.family("paper") == ["paper", released.name]


def test_an_imported_training_has_one_network_whatever_the_seeds_and_the_others_are_our_own(released):
    for seeds in (None, [42], [0, 1, 2]):
        imported = released.experiments("vanilla", seeds=seeds)
        assert imported == [Imported("a" * 64, "wrn16", "cifar100", "vanilla", {"name": "cifar100"})]
    (ours,) = released.experiments("at+sr")
    (papers,) = profiles.load("paper").experiments("at+sr", seeds=[42])
    assert ours == replace(papers, network="wrn16", data={"name": "cifar100"})


def test_the_plan_of_imported_networks_holds_each_once_and_sweeps_nothing(released):
    kinds = Counter((type(e), e.defense) for e in plan.of(released).networks)
    assert kinds == {(Imported, "vanilla"): 1, (Imported, "sr"): 1, (Experiment, "at"): 1, (Experiment, "at+sr"): 1}
    swept = selections.sweep(released, [0.1], [3, 4])  # of our own networks, if it is asked for
    assert [(type(e), e.seed, e.options["lam"]) for e in swept] == [(Experiment, 3, 0.1), (Experiment, 4, 0.1)]
    assert not any({"imported", "dataset"} & set(e.options) for e in swept)


def test_a_substitute_for_an_imported_network_is_another_imported_one(released):
    vanilla, sr = (released.experiments(name)[0] for name in ("vanilla", "sr"))
    assert selections.substitute(released, "vanilla", sr) == vanilla
    assert selections.substitute(released, "vanilla", vanilla) == sr
    assert isinstance(selections.substitute(released, "vanilla", vanilla, "vgg11"), Experiment)


def test_writing_the_profile_again_takes_the_new_files(released):
    taken = {"at": {"imported": "c" * 64, "dataset": "cifar100"}}
    profiles.of_imported(released.name, "wrn16", {"name": "cifar100"}, taken)
    again = profiles.load(released.name)
    assert [type(e) for e in again.experiments("vanilla")] == [Experiment]
    assert again.experiments("at")[0].sha256 == "c" * 64


def test_a_profile_that_would_not_load_is_not_written(paper):
    with pytest.raises(Refused, match="no image set 'imagenet'"):
        profiles.of_imported("released-wrn16-cifar100", "wrn16", {"name": "imagenet"}, TAKEN)
    assert profiles.names() == ["paper"]


# ---- selections --------------------------------------------------------------------------------------------------

RIVALS = {"rat": {"eps_255": 32, "alpha_255": 40, "steps": 1, "weight_decay": 0, "epochs": 3}, "l2": {"lam": 3}}


@pytest.fixture
def contested(params):
    params(GOOD | {"rivals": RIVALS, "seeds": [4, 5, 6]})
    return profiles.load("mine")


@pytest.mark.parametrize("name", ALL)
def test_a_substitute_is_separately_trained(name):
    profile = profiles.load(name)
    for target in profile.all():
        for training in profile.trainings:
            for network in (None, "conv-3-5"):
                e = selections.substitute(profile, training, target, network)
                assert (e.defense, e.network) == (training, network or target.network) and e.seed != target.seed


def test_poisson_networks_differ_from_the_profiles_own_by_their_input_alone(laptop):
    poisson = selections.poisson(laptop, ["sr", "vanilla"], 2)
    own = laptop.experiments("sr")[:2] + laptop.experiments("vanilla")[:2]
    assert [replace(e, network="conv-8-16") for e in poisson] == own
    assert all(e.is_stochastic for e in poisson) and not any(e.is_stochastic for e in own)


def test_a_notebook_looks_at_the_first_networks_or_at_named_checkpoints(monkeypatch, laptop):
    assert named(selections.chosen(laptop, [], 2)) == [(name, s) for name in laptop.trainings for s in (0, 1)]
    assert selections.first(laptop, 99) == laptop.all()  # there are fewer
    monkeypatch.setattr(checkpoints, "in_folder", lambda name: f"opened {name}")
    assert selections.chosen(laptop, ["a", "b"], 2) == ["opened a", "opened b"]
    assert selections.poisson(laptop, ["sr"], 1, ["a"]) == ["opened a"]


def test_rivals_are_trained_as_trainings_are_and_compared_by_their_first_networks(contested):
    rat = contested.experiments("rat")[0]
    assert (rat.defense, rat.seed, rat.options) == ("rat", 4, {"eps": 32 / 255, "alpha": 40 / 255, "steps": 1})
    assert (rat.schedule.weight_decay, rat.schedule.epochs) == (0, 3)
    assert [e.options for e in contested.experiments("l2", seeds=[9], lam=5)] == [{"lam": 5}]
    contest = selections.contest(contested, 2)
    assert contest[:12] == contested.all() == contested.of(list(GOOD["trainings"]))
    assert named(contest[12:]) == [("rat", 4), ("rat", 5), ("l2", 4), ("l2", 5)]
    without = replace(contested, rivals={})
    assert selections.contest(without, 2) == without.all()
    assert {e.defense for e in selections.at_cost(without, 5, 1)} == set(GOOD["trainings"])


def test_a_weight_is_the_lambda_that_the_profile_says(contested):
    weights = {name: contested.weight(name) for name in ("sr", "at+sr", "l2")}
    assert weights == {"sr": 0.01, "at+sr": 0.01, "l2": 3}
    assert all(contested.weight(name) != contested.weight(name) for name in ("vanilla", "at", "rat", "trades"))  # NaN


def test_trainings_are_matched_at_each_weight_and_seed_unless_the_profile_lacks_one(contested):
    found = selections.matched(contested, {"l2": [0.5, 2], "sr": [0.1]}, [8, 9])
    assert [(e.defense, e.options["lam"], e.seed) for e in found] == [
        *(("l2", lam, seed) for lam in (0.5, 2) for seed in (8, 9)),
        *(("sr", 0.1, seed) for seed in (8, 9)),
    ]
    assert selections.matched(contested, {}, [8]) == []
    assert selections.matched(replace(contested, rivals={}), {"l2": [0.5], "sr": [0.1]}, [8]) == []


def test_any_training_is_swept_and_the_costliest_come_first(contested):
    swept = selections.sweep(contested, [0.5, 2], [8, 9], "l2")
    assert [(e.options["lam"], *pair) for e, pair in zip(swept, named(swept), strict=True)] == [
        (lam, "l2", seed) for lam in (0.5, 2) for seed in (8, 9)
    ]
    assert selections.sweep(contested, [0.5], [8]) == contested.experiments("sr", seeds=[8], lam=0.5)
    assert selections.sweep(contested, [3.0], [4], "l2") == contested.experiments("l2", seeds=[4])  # the file says 3
    with pytest.raises(Refused, match="'lam'"):
        selections.sweep(contested, [0.5], [8], "vanilla")
    titles = [f"{name}, seed {s}" for name in ("at+sr, λ = 0.01", "at", "sr, λ = 0.01", "vanilla") for s in (4, 5, 6)]
    lambdas = [f"vanilla, seed {s}" for s in (0, 1)]
    lambdas += [f"sr, λ = {lam}, seed {s}" for lam in ("0.01", "0.1") for s in (0, 1)]
    assert [str(e) for e in selections.swept(contested)] == titles + lambdas
    assert len(selections.swept(replace(contested, seeds=[0, 1]))) == 10  # those of the sweep are there once


def test_a_budget_is_shared_out_by_the_passes_of_each_options(contested):
    # RAT of one step has 2 + 2 passes, exact l2 1 + 3, SR 2 + 3, AT+SR 3 + 4; a training's own epochs do not count
    at_cost = selections.at_cost(contested, 20, 2)
    assert [(e.defense, e.schedule.epochs, e.seed) for e in at_cost] == [
        (name, epochs, seed)
        for name, epochs in (("vanilla", 10), ("sr", 4), ("at", 5), ("at+sr", 3), ("rat", 5), ("l2", 5))
        for seed in (4, 5)
    ]
    rat = next(e for e in at_cost if e.defense == "rat")
    assert rat.schedule == replace(contested.experiments("rat")[0].schedule, epochs=5)
    longer = replace(contested, trainings=contested.trainings | {"at": RIVALS["rat"] | {"steps": 4, "epochs": 1}})
    assert {e.schedule.epochs for e in selections.at_cost(longer, 20, 1) if e.defense == "at"} == {2}  # 5 + 5 passes
    own = {"eps_255": 32, "alpha_255": 40, "steps": 1, "warm_up": 4, "epochs": 9}
    warm = replace(contested, rivals={"rat": own}, schedule=contested.schedule | {"epochs": 6})
    assert {e.defense: e.schedule.epochs for e in selections.at_cost(warm, 8, 1)}["rat"] == 5  # one after its warm-up


def test_at_equal_cost_each_training_takes_the_epochs_that_come_closest(laptop):
    # passes of a step: vanilla 2, SR 5, AT 4, AT of PGD 16, AT+SR 7, RAT 4, TRADES 7, TRADES+SR 10, l2 4, loss l1 5,
    # exact l1 4
    epochs = {e.defense: e.schedule.epochs for e in selections.at_cost(laptop, 25, 1)}
    expected = {"vanilla": 12, "sr": 5, "at": 6, "at+sr": 4, "rat": 6, "trades": 4, "at-pgd": 2}
    # 12.5 and 2.5 go to the even
    assert epochs == expected | {"trades+sr": 2, "l2": 6, "loss-l1": 5, "exact-l1": 6}
    assert selections.at_cost(laptop, 0, 1) == []
    assert {e.schedule.epochs for e in selections.at_cost(laptop, 1, 1)} == {1}
    warm = replace(laptop, schedule=laptop.schedule | {"warm_up": 2})
    assert min(e.schedule.epochs for e in selections.at_cost(warm, 1, 1)) == 3
    assert laptop.experiments("sr")[0] in selections.at_cost(laptop, 25, 1)  # SR's own 5 epochs


def test_at_equal_epochs_there_are_the_first_networks_of_everything(laptop):
    at_epochs = selections.at_epochs(laptop, 2)
    assert named(at_epochs) == [(name, s) for name in (*laptop.trainings, *laptop.rivals) for s in (0, 1)]
    assert {e.schedule.epochs for e in at_epochs} == {laptop.schedule["epochs"]}
    assert selections.recipes(laptop) == selections.at_epochs(laptop, 1)


def test_a_recipe_is_one_network_of_each_training_whose_options_are_known(released):
    recipes = selections.recipes(released)
    assert [e.defense for e in recipes] == ["vanilla", "at", "at+sr"]  # vanilla has no options; SR's are not known
    assert all(isinstance(e, Experiment) for e in recipes)
    assert {e.defense for e in selections.at_cost(released, 1000, 1)} == {"vanilla", "at", "at+sr"}


@pytest.mark.parametrize(
    ("select", "sentence"),
    [
        (lambda profile: selections.first(profile, 0), "seeds is 0; it must be a whole number of at least 1."),
        (lambda profile: selections.at_epochs(profile, 0), "seeds is 0; it must be a whole number of at least 1."),
        (lambda profile: selections.contest(profile, 0), "rival_seeds is 0; it must be a whole number of at least 1."),
        (lambda profile: selections.at_cost(profile, -1, 1), "passes is -1; it must be a whole number of at least 0."),
    ],
)
def test_counts_that_cannot_be_are_refused(laptop, select, sentence):
    with pytest.raises(Refused, match=f"^{sentence}$"):
        select(laptop)
