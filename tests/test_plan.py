"""The plan: what notebooks ask for, each once; what cells may not do; the bill, whose seconds scale as they should."""

import itertools
import json
from collections import Counter
from dataclasses import replace

import pytest
from house import PROFILE
from hypothesis import given
from hypothesis import strategies as st

from paperlib import attacks, errors, labels, paths, profiles, records, words
from paperlib.attacks.ensembles import Transfer, labels_of, members
from paperlib.data import images
from paperlib.errors import Refused
from paperlib.runs import costs, plan
from paperlib.store import checkpoints, evaluations

SECOND = 2.0  # what every step takes under `constant`
TWO_NETWORKS = """
run.ask(run.profile.experiments("vanilla"), [None, pgd], samples=samples)
run.ask(run.profile.experiments("sr", seeds=[0]))
"""
MANY_ATTACKS = """
(vanilla,) = run.profile.experiments("vanilla", seeds=[0])
(source,) = run.profile.experiments("at", seeds=[7], network="conv-2-3")
fgsm, by_rules = (attacks.standard("fgsm", 0.1, rule=rule) for rule in ({}, {"name": "sigmoid", "slope": 2.0}))
worst = Ensemble("worst", [fgsm, pgd, attacks.standard("square", 0.1, queries=3)])
attacks_of = {vanilla.key: [pgd, Transfer(fgsm, source), worst]}
run.ask([vanilla], lambda experiment: attacks_of[experiment.key], samples=samples)
run.ask([vanilla], [by_rules], samples=4, split="validation")
"""
ON_BOTH = """
for one in (run, runs.begin("tab-0", globals(), on_events=True)):
    one.ask(one.profile.experiments("vanilla", seeds=[0]), [pgd], samples=6)
"""
VANILLA, OTHER = "vanilla, seed 0", "vanilla, seed 1"
PASSES = {  # of an image in each evaluation: one to judge it after each attack, then the attacks' own
    (VANILLA, "clean, 6 test images"): 1,
    (VANILLA, "PGD-2 at 25.5/255, 6 test images"): 1 + 2,
    (OTHER, "clean, 6 test images"): 1,
    (OTHER, "PGD-2 at 25.5/255, 6 test images"): 1 + 2,
    (VANILLA, "FGSM made on at, conv-2-3 at 25.5/255, 6 test images"): 1 + 1,
    (VANILLA, "worst of all at 25.5/255, 6 test images"): 3 + 1 + 2 + 3,
    (VANILLA, "clean, 4 validation images"): 1,
    (VANILLA, "FGSM sigmoid 2 at 25.5/255, 4 validation images"): 1 + 1,
}


@pytest.fixture
def constant(monkeypatch):
    """Every step takes `SECOND`; one entry a step that was timed."""
    timed = []
    monkeypatch.setattr(costs._Stopwatch, "_seconds", lambda self, step: timed.append(step) or SECOND)
    return timed


def named(entries):
    return [(str(planned.experiment), str(planned)) for planned in entries]


# ---- what notebooks ask for --------------------------------------------------------------------------------------


def test_the_plan_holds_what_notebooks_ask_for_each_once_and_the_costliest_trainings_first(house):
    house.asking(TWO_NETWORKS, MANY_ATTACKS)
    profile = house.profile()
    assert named(plan.of(profile).evaluations) == list(PASSES)
    # a step of SR takes 5 passes, of AT with one step 4, of vanilla 2
    trainings = ["sr, λ = 0.01, seed 0", "at, seed 7", VANILLA, OTHER]
    assert [str(experiment) for experiment in plan.of(profile).networks] == trainings


@pytest.mark.parametrize("name", profiles.names())
def test_the_plan_of_every_profile_is_complete(name):
    profile = profiles.load(name)
    trained = Counter(experiment.key for experiment in plan.of(profile).networks)
    entries = plan.of(profile).evaluations
    evaluated = Counter((e.experiment.key, repr(e.attack), e.samples, e.split) for e in entries)
    sources = {m.source.key for e in entries for m in members(e.attack) if isinstance(m, Transfer)}
    assert {*trained.values(), *evaluated.values()} == {1}
    in_file = {e.key for e in profile.all() + profile.on_events().all()} | {
        e.key for rival in profile.rivals for e in profile.experiments(rival)[:1]
    }
    assert in_file | sources | {key for key, *_ in evaluated} <= set(trained)
    assert {(key, "None", samples, split) for key, _, samples, split in evaluated} <= set(evaluated)
    assert all(plan.requests(profile, artifact) for artifact in paths.notebooks())


def attack_of(row):
    return repr({name: row[name] for name in (*labels.ATTACK, *words.UNITS) if name in row})


@pytest.mark.parametrize("name", ["laptop"])
def test_what_the_committed_runs_measured_is_what_their_notebooks_ask_for(name):
    """Independent of the plan: the keys of networks and the labels of attacks in the rows that the runs left."""
    profile, compared = profiles.load(name), 0
    for artifact in paths.notebooks():
        path = paths.RESULTS / name / f"{artifact}.json"
        if not path.exists():  # of a notebook without an artifact
            continue
        record = records.load(path)
        assert record["provenance"]["parameters"] == profile.parameters(artifact)
        requests = plan.requests(profile, artifact)
        then = {name: record["provenance"][name] for name in ("recipe", "arithmetic")}
        networks = {replace(experiment, **then).key for request in requests for experiment in request.networks}
        assert networks == {key for row in record["rows"] for key in row["experiments"]}
        asked = {
            (replace(experiment, **then).key, attack_of(labels_of(attack) | evaluations.size(experiment, attack)))
            for request in requests
            for experiment in request.networks
            for attack in request.attacks_on(experiment)
        }
        rows = [row for row in record["rows"] if row["quantity"] == "accuracy" and "attack" in row]
        assert {(key, attack_of(row)) for row in rows for key in row["experiments"]} <= asked
        compared += len(asked)
    assert compared > 100


# ---- what a cell tagged asks may not do --------------------------------------------------------------------------

FIRST = '(first,) = run.profile.experiments("vanilla", seeds=[0])\n'
BY_ITSELF = "its cell tagged asks {} by itself; it may only name networks and attacks, by run.ask."


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('tags=["asks"]', "", "0 cells are tagged asks; there must be one."),
        ("# %%\nraise", '# %% tags=["asks"]\nraise', "2 cells are tagged asks; there must be one."),
        ("TEXT", FIRST + "runs.run.checkpoints.trained(first)", BY_ITSELF.format("trains")),
        ("TEXT", FIRST + "[*run.opened([first])]", BY_ITSELF.format("trains")),
        ("TEXT", FIRST + "run.ask([first], [pgd], samples=6).evaluated()", BY_ITSELF.format("attacks")),
        ("TEXT", FIRST + "attacks.evaluation.flags(first.build(), run.data.test)", BY_ITSELF.format("evaluates")),
        ("TEXT", "1 / 0", "its cell tagged asks failed (ZeroDivisionError: division by zero)."),
        ("TEXT", "1 +", "its cell tagged asks failed (SyntaxError: "),
        ("TEXT", "run = None", "its cell tagged asks opens no run; begin one by runs.begin."),
        ("TEXT", 'run.profile.experiments("nope")', "There is no training in params/tiny.yml 'nope'."),
    ],
)
def test_a_cell_that_does_more_or_less_than_to_ask_is_refused(house, old, new, reason):
    (source,) = house.asking("TEXT")
    source.write_text(source.read_text().replace(old, new))
    profile = house.profile()
    with pytest.raises(Refused) as refusal:
        plan.of(profile)
    assert str(refusal.value).startswith(f"notebook tab-0: {reason}") and not paths.CHECKPOINTS.exists()
    errors.refuse_while_planning("trains")  # no longer


def test_a_request_evaluates_what_was_planned_and_nothing_else(house):
    house.asking(MANY_ATTACKS)
    profile = house.profile()
    entries, requests = plan.of(profile).evaluations, plan.requests(profile, "tab-0")
    assert not any(entry.is_there for entry in entries)
    found = [evaluation for request in requests for evaluation in request.evaluated()]
    done = {(evaluation.experiment.key, repr(evaluation.attack)) for evaluation in found}
    asked = {(e.experiment.key, repr(e.attack)) for e in entries}
    assert asked - done == {(entries[0].experiment.key, "None")}  # clean flags are needed though not asked for
    assert all(entry.is_there for entry in entries)
    contents = [json.loads(path.read_text()) for path in paths.CHECKPOINTS.glob("*/evaluations/*.json")]
    kept = Counter((content["attack"] and content["attack"]["name"], content["split"]) for content in contents)
    # two by "fgsm", of which one was made on another network; what an ensemble's last member still sees is chance
    assert kept - Counter({("square", "test"): 1}) == {
        **{(None, "test"): 1, ("fgsm", "test"): 2, ("pgd", "test"): 1},
        **{(None, "validation"): 1, ("fgsm", "validation"): 1},
    }
    assert {e.key for e in plan.of(profile).networks} == {path.name for path in paths.CHECKPOINTS.iterdir()}


# ---- the bill ----------------------------------------------------------------------------------------------------


def test_the_bill_is_steps_times_epochs_times_batch_and_equal_steps_are_timed_once(house, constant):
    house.asking(TWO_NETWORKS, MANY_ATTACKS)
    profile = house.profile()
    bill = costs.bill(plan.of(profile), "cpu")
    # 42 images are 4 batches of 10; a step is timed with 8 images
    assert [seconds for _, seconds in bill.trainings] == [SECOND * 10 / 8 * 4 * 3] * 4
    assert [e.key for e, _ in bill.trainings] == [e.key for e in plan.of(profile).networks]
    for planned, seconds in bill.evaluations:
        passes = PASSES[str(planned.experiment), str(planned)]
        assert seconds == pytest.approx(SECOND * passes * planned.samples / 8)
    assert named(planned for planned, _ in bill.evaluations) == list(PASSES)
    assert bill.seconds == pytest.approx(sum(seconds for _, seconds in bill.trainings + bill.evaluations))
    # vanilla training of two networks, and SR and AT of the profile's; a forward pass of the one that is judged;
    # gradients of both, and by another rule of the profile's
    assert len(constant) == 2 + 2 + 1 + 3


def test_another_training_and_another_rule_cost_the_same_multiple_on_every_network(house, monkeypatch):
    """Steps that take as many seconds as passes, on a network twice as slow as the profile's."""
    sr = 'run.profile.experiments("sr", seeds=[0]{})'
    by_rule = '[attacks.standard("fgsm", 0.1, rule={"name": "sigmoid", "slope": 2.0})], samples=8'
    house.asking(
        f"run.ask({sr.format('')}, {by_rule})\nrun.ask({sr.format(', network=' + repr('conv-2-3'))}, {by_rule})"
    )
    passes = {("training", ()): 2, ("training", (2, 3, False)): 5, ("gradient", ()): 2, ("gradient", ("sigmoid",)): 3}
    timed = []

    def time(self, kind):
        timed.append(kind)
        slow = 2 if kind.shape.network == "conv-2-3" else 1
        self.known[kind] = slow * passes.get((kind.step, kind.variant), 1)

    monkeypatch.setattr(costs._Stopwatch, "time", time)
    bill = costs.bill(plan.of(house.profile()), "cpu")
    of = {experiment.network: seconds for experiment, seconds in bill.trainings}
    assert of["conv-2-4"] == pytest.approx(5 * 10 / 8 * 4 * 3) and of["conv-2-3"] == pytest.approx(2 * of["conv-2-4"])
    attacked = [seconds for planned, seconds in bill.evaluations if planned.attack]
    assert attacked == pytest.approx([1 + 3, 2 * (1 + 3)])
    assert {kind.shape.network for kind in timed if kind.variant} == {"conv-2-4"} and len(timed) == len(set(timed)) == 8


def test_a_large_profile_times_few_steps(constant):
    bill = costs.bill(plan.of(profiles.load("smoke")), "cpu")
    assert len(constant) < (len(bill.trainings) + len(bill.evaluations)) / 10


def test_progress_is_shown_before_anything_is_timed(house, monkeypatch, capsys):
    house.asking(TWO_NETWORKS)
    shown = []

    def seconds(self, step):
        shown.append(capsys.readouterr().err)
        return SECOND

    monkeypatch.setattr(costs._Stopwatch, "_seconds", seconds)
    costs.bill(plan.of(house.profile()), "cpu")
    assert "steps timed:   0%" in shown[0] and "training conv-2-4, T = 2" in shown[0]
    assert "forward conv-2-4" in "".join(shown)


ON_VANILLA = 'run.ask(run.profile.experiments("vanilla"){})'


@pytest.mark.parametrize(
    ("arguments", "split", "there"),
    [
        (", [pgd], samples=samples", "test", 12),
        (', [pgd], samples=samples, split="validation"', "validation", 6),
        ("", "test", 12),  # the notebook takes its samples in a later cell
    ],
)
def test_the_plan_refuses_more_samples_than_there_are_and_names_the_parameter(house, arguments, split, there):
    house.asking(ON_VANILLA.format(arguments), ON_VANILLA.format(""))
    assert plan.of(house.profile(notebooks={"tab-0": {"samples": there}})).networks
    profile = house.profile(notebooks={"tab-0": {"samples": there + 1}, "tab-1": {"samples": 13}})
    with pytest.raises(Refused) as refusal:
        plan.of(profile)
    tab_0, tab_1 = f"tab-0 (samples: {there + 1})", "tab-1 (samples: 13)"
    parts = [f"{there} test samples, too few for {tab_0}, {tab_1}"]
    if split == "validation":
        parts = [f"6 validation samples, too few for {tab_0}", f"12 test samples, too few for {tab_1}"]
    text = "; ".join(f"sixty has {part}" for part in parts)
    assert str(refusal.value) == f"params/tiny.yml: {text}. Set these parameters under `notebooks:`."
    assert not paths.CHECKPOINTS.exists()


def test_what_grows_makes_the_bill_grow(house, constant):
    def first(data=None, **schedule):
        profile = house.profile()
        changed = house.profile(data=profile.data | (data or {}), schedule=profile.schedule | schedule)
        return costs.bill(plan.of(changed), "cpu").trainings[0][1]

    house.asking(TWO_NETWORKS)
    assert first(epochs=6) == pytest.approx(2 * first())
    assert first(batch_size=20) == pytest.approx(first())  # 2 steps, each twice as long
    assert first(data={"train": 21}) == pytest.approx(first() / 2)  # 2 whole batches


def test_the_bill_shrinks_to_nothing_when_all_is_there_and_timing_keeps_nothing(house):
    house.asking(TWO_NETWORKS)
    profile = house.profile()
    whole = costs.bill(plan.of(profile), "cpu")
    assert all(seconds > 0 for _, seconds in whole.trainings + whole.evaluations)  # these are really timed
    assert not paths.CHECKPOINTS.exists()
    first, *others = plan.of(profile).networks
    checkpoints.trained(first, device="cpu", progress=False)
    assert [e.key for e, _ in costs.bill(plan.of(profile), "cpu").trainings] == [e.key for e in others]
    for request in plan.requests(profile, "tab-0"):
        list(checkpoints.opened(request.networks, device="cpu", progress=False))
        request.evaluated()
    empty = costs.bill(plan.of(profile), "cpu")
    assert (empty.trainings, empty.evaluations, empty.seconds) == ([], [], 0)


def test_an_evaluation_is_there_for_its_samples_and_attack_alone(house):
    profile = house.profile()
    first, second = profile.experiments("vanilla")
    fgsm = attacks.standard("fgsm", 0.1)
    evaluations.evaluated([first], [fgsm], samples=6, device="cpu", progress=False)
    assert plan.Planned(first, fgsm, 6, "test").is_there and plan.Planned(first, None, 6, "test").is_there
    other = attacks.standard("fgsm", 0.2)
    for given_ in ((first, fgsm, 5, "test"), (first, fgsm, 6, "validation"), (first, other, 6, "test")):
        assert not plan.Planned(*given_).is_there
    assert not plan.Planned(second, fgsm, 6, "test").is_there


@pytest.mark.parametrize(("train", "steps"), [(None, 4500), (1000, 100), (60_000, 4500)])
def test_data_with_an_outline_are_not_read(house, constant, monkeypatch, train, steps):
    monkeypatch.setattr(images, "_load", lambda *_: pytest.fail("images were read"))
    house.asking(ON_BOTH)
    events = PROFILE["events"] | {"data": {"name": "cifar10-dvs", "T": 2}}
    profile = house.profile(data={"name": "cifar10"} | ({"train": train} if train else {}), events=events)
    bill = costs.bill(plan.of(profile), "cpu")
    # of 50,000 images 5,000 validate, of 9,000 recordings 900
    wanted = {"conv-2-4": steps, "events-conv-2": 810}
    assert {e.network: seconds for e, seconds in bill.trainings} == {
        network: pytest.approx(SECOND * 10 / 8 * count * 3) for network, count in wanted.items()
    }
    recordings = [f"{what}, 6 test recordings" for what in ("clean", "PGD-2 at 0.1 counts")]
    assert [str(planned) for planned, _ in bill.evaluations][2:] == recordings
    assert not paths.DATA.exists()


def test_imported_networks_are_not_on_the_bill_and_what_they_are_asked_is(house, constant):
    house.asking('run.ask(run.profile.experiments("vanilla") + run.profile.experiments("at"), [pgd], samples=6)')
    trainings = house.profile().trainings | {"vanilla": {"imported": "0" * 64, "dataset": "cifar10"}}
    bill = costs.bill(plan.of(house.profile(trainings=trainings)), "cpu")
    assert [str(experiment) for experiment, _ in bill.trainings] == ["at, seed 0", "at, seed 1"]
    assert Counter(planned.experiment.defense for planned, _ in bill.evaluations) == {"vanilla": 2, "at": 4}


# ---- many workers ------------------------------------------------------------------------------------------------

JOBS = st.lists(st.integers(1, 20), min_size=1, max_size=6)


def shortest(jobs, workers):
    """The time of the best of all ways to give jobs to workers."""
    ways = itertools.product(range(workers), repeat=len(jobs))
    return min(max(sum(job for job, worker in zip(jobs, way, strict=True) if worker == w) for w in way) for way in ways)


@given(JOBS, st.integers(1, 3))
def test_longest_first_is_within_graham_s_bound_of_the_best_schedule(jobs, workers):
    best, taken = shortest(jobs, workers), costs.makespan(jobs, workers)
    assert best <= taken <= (4 / 3 - 1 / (3 * workers)) * best
    assert costs.makespan(jobs[::-1], workers) == taken >= costs.makespan(jobs, workers + 1)


def test_a_schedule_by_hand():
    # 5 + 3 beside 4 + 3 + 3; the best is 5 + 4 beside 3 + 3 + 3
    assert costs.makespan([3, 4, 3, 5, 3], 2) == 10 == shortest([3, 4, 3, 5, 3], 2) + 1
    assert costs.makespan([3, 4, 3, 5, 3], 100) == 5 and costs.makespan([], 2) == 0


def test_what_many_workers_take_by_hand(house):
    """Two trainings of 600 and 300 s; evaluations of 2,500 samples in parts of 400, 400 and 200 s, and clean ones."""
    one, other = house.profile().experiments("vanilla")
    fgsm = attacks.standard("fgsm", 0.1)
    bill = costs.Bill(
        [(one, 600.0), (other, 300.0)],
        [(plan.Planned(one, None, 2500, "test"), 100.0), (plan.Planned(one, fgsm, 2500, "test"), 1000.0)],
    )
    assert bill.stages() == [[600, 300], [100, 400, 400, 200]]
    # two workers: 600, then 400 + 200 beside 400 + 100; 2,000 of 2,400 s are used
    assert costs.shared([bill], 2) == (
        "On 2 workers like this one 20 min 0 s, 17% of it idle: trainings 10 min 0 s, then evaluations 10 min 0 s at "
        "most. The longest training takes 10 min 0 s and the longest part of an evaluation 6 min 40 s, so no number of "
        "workers ends before 16 min 40 s."
    )
    assert costs.shared([bill, bill], 1).startswith("On 1 workers like this one 1 h 6 min, 0% of it idle: ")


# ---- durations ---------------------------------------------------------------------------------------------------


DURATIONS = {0.4: "0 s", 1: "1 s", 59: "59 s", 60: "1 min 0 s", 3599: "59 min 59 s", 3660: "1 h 1 min"}
DURATIONS |= {86_399: "23 h 59 min", 90_000: "1 d 1 h", 8_640_000: "100 d 0 h"}


@pytest.mark.parametrize(("seconds", "text"), DURATIONS.items())
def test_durations_by_hand(seconds, text):
    assert costs.duration(seconds) == text


LENGTHS = {"d": 86_400, "h": 3600, "min": 60, "s": 1}
FULL = {"h": 24, "min": 60, "s": 60}


@given(st.floats(0, 1e9) | st.sampled_from([59.4, 59.5, 119.9, 3599.7, 7199.5, 86_399.9, 172_799.9]))
def test_a_duration_is_right_to_its_last_unit_and_no_unit_is_full(seconds):
    parts = costs.duration(seconds).split()
    counts = {unit: int(count) for count, unit in zip(parts[::2], parts[1::2], strict=True)}
    assert 1 <= len(counts) <= 2 and all(counts[unit] < FULL[unit] for unit in counts if unit in FULL)
    assert abs(sum(count * LENGTHS[unit] for unit, count in counts.items()) - seconds) <= LENGTHS[[*counts][-1]]
