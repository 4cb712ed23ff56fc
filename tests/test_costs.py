"""The bill of a profile: the evaluations its notebooks ask for, each once, and seconds that scale as they should."""

import ast
import re
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from paperlib import attacks, measures, paths, profiles
from paperlib.attacks import protocols
from paperlib.attacks.attack import Attack
from paperlib.data import images
from paperlib.runs import costs, plan, twins
from paperlib.store import checkpoints, evaluations

TINY = yaml.safe_load("""
title: 60 drawings
cost: {minutes: 1, disk_mb: 1, download_mb: 0}
network: {name: conv-2-4, T: 2, tau: 1.0, rule: triangle, precision: float32}
schedule: {epochs: 3, batch_size: 10, lr: 0.1, momentum: 0.9, weight_decay: 0.0005}
seeds: [0, 1]
trainings:
  vanilla: {}
  sr: {lam: 0.01}
  at: {eps_255: 32, alpha_255: 40, steps: 1}
  at+sr: {eps_255: 32, alpha_255: 40, steps: 1, lam: 0.01}
events:
  data: {name: "saccades:mnist5k", T: 2, train: 20, validation: 10, test: 10}
  network: {name: events-conv-2, T: 2, tau: 1.0, rule: triangle, precision: float32}
  schedule: {epochs: 1, batch_size: 10, lr: 0.1, momentum: 0.9, weight_decay: 0.0005}
  seeds: [0]
  trainings:
    vanilla: {}
    sr: {lam: 0.01}
    at: {eps: 0.2, alpha: 0.2, steps: 1}
    at+sr: {eps: 0.2, alpha: 0.2, steps: 1, lam: 0.01}
notebooks:
  tab-events: {trainings: []}
  fig-random-vs-adversarial-events: {trainings: []}
  fig-random-vs-adversarial: {samples: 6, pgd_steps: 2, eps_255: [32], factors: [1]}
  tab-ablation:
    {samples: 6, pgd_steps: 2, eps_255: [32], strong_samples: 6, long_steps: 2, queries: 3, passes: 15}
  tab-cost: {strong_samples: 6, pgd_steps: 2, long_steps: 2, queries: 3, passes: 15}
  fig-gradient-maps: {samples: 6, pgd_steps: 2}
  fig-lambda: {samples: 6, pgd_steps: 2, seeds: [0], lambdas: [0.1]}
  thm-ratio: {samples: 6, pgd_steps: 2}
  fig-attack-ladder: {samples: 6, seeds: 1, pgd_steps: 2, long_steps: 2, gammas: [0.5], queries: 3}
  tab-whitebox: {samples: 6, seeds: 1, steps: [2]}
  tab-blackbox: {samples: 6, pgd_steps: 2, queries: 3, other_network: conv-2-3}
  fig-surrogate-width: {samples: 6, pgd_steps: 2, gammas: [0.5]}
  tab-poisson-eot: {samples: 6, seeds: 1, pgd_steps: 2, draws: [2]}
  fig-sr-variants: {variants: []}
  fig-timesteps-and-leak: {samples: 6, T: [1], taus: [], lambdas: [0.1], pgd_steps: 2, long_steps: 2, queries: 3}
  tab-masking-checklist: {samples: 6, pgd_steps: 2, long_steps: 3, queries: 2, radii_255: [16]}
""")
SECOND = 2.0  # what every step takes under `constant`


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    profiles.load.cache_clear()
    images._load.cache_clear()
    yield
    profiles.load.cache_clear()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A profile of 60 images of 8×8: 42 to train on, 6 to validate, 12 to test."""
    rng = np.random.RandomState(0)
    for name in ("a", "b", "c"):
        (tmp_path / "drawings" / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.randint(0, 255, (8, 8)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "drawings" / name / f"{i:02}.png")
    (tmp_path / "params").mkdir()
    monkeypatch.setattr(paths, "PARAMS", tmp_path / "params")
    content = TINY | {"data": {"name": f"folder:{tmp_path / 'drawings'}"}}
    (tmp_path / "params" / "tiny.yml").write_text(yaml.safe_dump(content))
    return profiles.load("tiny")


@pytest.fixture
def constant(monkeypatch):
    """Every step takes `SECOND`; one entry a step that was timed."""
    timed = []
    monkeypatch.setattr(costs._Stopwatch, "_seconds", lambda self, step: timed.append(step) or SECOND)
    return timed


# ---- which evaluations -------------------------------------------------------------------------------------------


def test_the_smoke_profile_asks_for_these_evaluations():
    # 2 seeds of 4 trainings and 1 of 6 rivals, and sr at λ = 0.1 in both: 16 networks, of which fig-lambda looks at 6,
    # tab-ablation at 14, and fig-random-vs-adversarial at the 2 vanilla ones, under noise at 1, 2 and 4 times 16 and 32
    expected = {("clean", 0, "test"): 16, ("clean", 0, "validation"): 6}
    for law in ("uniform noise", "sign noise"):
        expected |= {(law, 16, "test"): 14, (law, 32, "test"): 14, (law, 64, "test"): 2, (law, 128, "test"): 2}
    expected |= {("FGSM", 16, "test"): 14, ("FGSM", 32, "test"): 14, ("PGD-3", 16, "test"): 14}
    expected |= {("PGD-3", 32, "test"): 16, ("PGD-3", 32, "validation"): 6}
    found = plan.evaluations(profiles.load("smoke"))
    many = [e for e in found if e.samples == 60]
    told = [(e.attack.title, round(e.attack.eps * 255, 6)) if e.attack else ("clean", 0) for e in many]
    assert Counter((*what, e.split) for what, e in zip(told, many, strict=True)) == expected
    # on 20 images, beside clean ones: the ladder's 9 rungs and the white-box protocol's 9 attacks on 2 networks of each
    # training; 10 black-box attacks, and 13 by other rules, on 1 of each, PGD-2 in both; 4 on 2 with Poisson input
    counts = {"clean": 8 + 2, "rungs": 9 * 8, "white box": 9 * 8, "black box": 10 * 4, "rules": 13 * 4 - 4, "random": 8}
    # the worst case of 10 trainings at equal epochs, of which 4 are there, and of vanilla, which has more at equal
    # cost; on 30 images the checklist: clean ones and 8 attacks on 1 network of each training
    counts |= {"clean, rivals": 6 + 1, "worst": 10 + 1}
    # SR's variants: 3 networks and a vanilla one, which is there; 5 settings of vanilla and SR, of which the profile's
    # own are there.  Clean and PGD-2 on validation images, where both look at one vanilla network; on test images the
    # worst case too, of what is there alone
    counts |= {"variants": 4 * 2 + 3 * 3 + 1, "settings": 10 * 2 - 2 + 8 * 3 + 2}
    # on event data, 8 networks: clean recordings; both attacks at no radius, noise, FGSM and PGD at one, two kinds of
    # flips at one; both worst cases; for 4 of them noise at 2 and 4 times the size too
    counts |= {"events": 8 * (1 + 2 + 4 + 2), "worst on events": 8 * 2, "louder on events": 4 * 2 * 3}
    assert Counter(e.samples for e in found) == {60: sum(expected.values()), 20: sum(counts.values()), 30: 9 * 4}


def needed(statements):
    """The assignments that name networks and attacks, and those that these take values from, in order; not `run`."""
    found, used = [], set()
    for statement in reversed([s for s in statements if isinstance(s, ast.Assign)]):
        text, names = ast.unparse(statement), [part for part in ast.walk(statement) if isinstance(part, ast.Name)]
        named = re.search(r"evaluations\.evaluated|run\.profile|attacks\.|protocols\.", text)
        if (named or used & {getattr(target, "id", None) for target in statement.targets}) and "run.save" not in text:
            found.append(statement)
            used |= {name.id for name in names if isinstance(name.ctx, ast.Load)} - {"run"}
    return reversed(found)


def asked_by(artifact, profile, monkeypatch):
    """What the notebook's own cells hand to `evaluations.evaluated`: those that name networks and attacks are run."""
    asked = []

    def evaluated(networks, ladder, *, samples, split="test", device):
        for e in networks:
            own = ladder(e) if callable(ladder) else ladder
            asked.extend((e.key, repr(attack), samples, split) for attack in (None, *own))
        return []

    source = (paths.NOTEBOOKS / f"{artifact}.py").read_text(encoding="utf-8")
    monkeypatch.setattr(evaluations, "evaluated", evaluated)
    if "on_events=True" in source:
        profile = profile.on_events()
    names = {"run": SimpleNamespace(profile=profile), "attacks": attacks, "measures": measures, "protocols": protocols}
    names |= {"evaluations": evaluations} | profile.parameters(artifact)
    for statement in needed(ast.parse(source).body):
        exec(ast.unparse(statement), names)
    assert bool(asked) == ("evaluations.evaluated(" in source)
    return asked


@pytest.mark.parametrize("name", ["smoke", "laptop", "paper"])
def test_evaluations_are_what_the_notebooks_ask_for_each_once(name, monkeypatch):
    profile, asked = profiles.load(name), []
    for artifact in twins.names():
        asked += asked_by(artifact, profile, monkeypatch)
    found = [(e.experiment.key, repr(e.attack), e.samples, e.split) for e in plan.evaluations(profile)]
    assert len(found) == len(set(found))
    assert set(found) == set(asked)


def test_an_evaluation_says_what_it_is():
    (network,) = profiles.load("smoke").experiments("vanilla", seeds=[0])
    attacked = plan.Evaluation(network, attacks.standard("pgd", 8 / 255, steps=3), 60, "test")
    assert str(attacked) == "PGD-3 at 8/255, 60 test images"
    assert str(plan.Evaluation(network, None, 5, "validation")) == "clean, 5 validation images"
    (of_events,) = profiles.load("smoke").on_events().experiments("vanilla", seeds=[0])
    told = {
        "pgd": "PGD-20 at 2 counts, 60 test recordings",
        "random_flips": "random flips at 2 changed events, 60 test",
    }
    for name, expected in told.items():
        assert str(plan.Evaluation(of_events, attacks.standard(name, 2), 60, "test")).startswith(expected)


def test_an_evaluation_is_there_when_its_flags_are(tiny):
    (network,) = tiny.experiments("vanilla", seeds=[0])
    attack = attacks.standard("fgsm", 0.1)
    wanted = [plan.Evaluation(network, a, 6, "test") for a in (None, attack)]
    assert not any(one.is_there for one in wanted)
    evaluations.evaluated([network], [None], samples=6, device="cpu", progress=False)
    assert [one.is_there for one in wanted] == [True, False]
    evaluations.evaluated([network], [attack], samples=6, device="cpu", progress=False)
    assert all(one.is_there for one in wanted)
    (other,) = tiny.experiments("vanilla", seeds=[1])
    changes = ({"samples": 5}, {"split": "validation"}, {"attack": attacks.standard("fgsm", 0.2)})
    for change in (*changes, {"experiment": other}):
        assert not replace(wanted[1], **change).is_there


# ---- the bill ----------------------------------------------------------------------------------------------------


def test_the_bill_is_steps_times_epochs_times_batch(tiny, constant):
    bill = costs.bill(tiny, "cpu")
    # 42 images are 4 batches of 10, 3 epochs; a step is timed with 8 images
    # 2 seeds of 4 trainings, sr at another λ, 2 of conv-2-3 to make examples on, 2 with Poisson input; for 15 passes an
    # image vanilla has 8 epochs, at 4 and at+sr 2; vanilla and SR with one step, a detached reset and without spikes
    epochs = {3: 8 + 1 + 2 + 2 + 6, 8: 1, 4: 1, 2: 1}
    assert Counter(seconds for _, seconds in bill.trainings) == {SECOND * 10 / 8 * 4 * n: k for n, k in epochs.items()}
    assert [e.key for e, _ in bill.trainings] == [e.key for e in tiny.plan()]
    passes = {"clean": 1, "uniform noise": 1, "sign noise": 1, "FGSM": 1 + 1, "PGD-2": 1 + 2, "Square-3": 1 + 3}
    passes |= {"PGD-2 EOT 2": 1 + 2 * 2, "PGD-6": 1 + 6, "PGD-2 made on at, conv-2-3": 1 + 2}
    passes |= {"PGD-2, four rules": 4 * (1 + 2), "FGSM, four rules": 4 * (1 + 1), "all widths together": 3 * (1 + 2)}
    told = [(one.attack.title if one.attack else "clean", seconds) for one, seconds in bill.evaluations]
    assert set(passes) <= {title for title, _ in told}
    for title, seconds in told:
        if title in passes:
            assert seconds == pytest.approx(SECOND * passes[title] * 6 / 8)
    assert len(bill.evaluations) == len(plan.evaluations(tiny))
    both = [seconds for _, seconds in bill.trainings + bill.evaluations]
    assert bill.seconds == pytest.approx(sum(both))


def test_equal_steps_are_timed_once(tiny, constant):
    costs.bill(tiny, "cpu")
    trainings = 4 + 2 + 2 + 4  # whatever seed and λ; of conv-2-4, of conv-2-3, with Poisson input; of one step, an ANN
    gradients = 10 + 4 + 1 + 2  # by the rules that attacks bring, whatever their widths; by four on conv-2-3
    assert len(constant) == trainings + 5 + gradients  # a forward pass of each of the five


def test_what_grows_makes_the_bill_grow(tiny, constant):
    def first(**changes):
        return costs.bill(replace(tiny, **changes), "cpu").trainings[0][1]

    assert first(schedule=tiny.schedule | {"epochs": 6}) == pytest.approx(2 * first())
    assert first(schedule=tiny.schedule | {"batch_size": 20}) == pytest.approx(first())  # 2 steps, each twice as long
    assert first(data=tiny.data | {"train": 21}) == pytest.approx(first() / 2)  # 2 whole batches


def test_the_bill_shrinks_to_nothing_when_all_is_there(tiny):
    whole = costs.bill(tiny, "cpu")
    assert all(seconds > 0 for _, seconds in whole.trainings + whole.evaluations)  # these are really timed
    first, *others = tiny.plan()
    checkpoints.trained(first, device="cpu", progress=False)
    assert [e.key for e, _ in costs.bill(tiny, "cpu").trainings] == [e.key for e in others]
    for one in plan.evaluations(tiny):
        evaluations.evaluated(
            [one.experiment], [one.attack], samples=one.samples, split=one.split, device="cpu", progress=False
        )
    empty = costs.bill(tiny, "cpu")
    assert (empty.trainings, empty.evaluations, empty.seconds) == ([], [], 0)


def test_timing_keeps_nothing(tiny, tmp_path):
    costs.bill(tiny, "cpu")
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(("train", "steps"), [(None, 1406), (1000, 31), (60_000, 1406)])
def test_cifar_needs_no_data_on_disk(constant, monkeypatch, train, steps):
    monkeypatch.setattr(images, "_load", lambda *_: pytest.fail("images were read"))
    profile = profiles.load("paper-wrn16-cifar10")
    profile = replace(profile, data={"name": "cifar10"} | ({"train": train} if train else {}))
    bill = costs.bill(profile, "cpu")
    # 45,000 images (5,000 of the 50,000 validate) in whole batches of 32; 200 epochs, but for 8 trainings at equal cost
    # and for two studies: vanilla, 6 variants and 2 h at 3 λ; vanilla and 2 λ in 20 settings, one vanilla in both
    epochs = Counter(e.schedule.epochs for e, _ in bill.trainings)
    # the event networks see 8,100 recordings of 9,000 and are not on disk either
    assert epochs == {200: 22 + 6 + 12, 500: 1, 250: 2, 62: 2, 53: 2, 45: 1, 20: 1 + 8 * 3 + 20 * 3 - 1}
    for e, seconds in bill.trainings:
        own = 8100 // 32 if e.is_of_events else steps
        assert seconds == pytest.approx(SECOND * 32 / 8 * own * e.schedule.epochs)
    assert not paths.DATA.exists()


def test_imported_networks_are_not_on_the_bill_and_what_they_are_asked_is(tiny, constant):
    own = {"imported": "0" * 64, "dataset": "cifar10"}
    none = {"fig-attack-ladder": {"substitute": "vanilla"}, "tab-blackbox": {"substitutes": []}}
    none |= {"tab-masking-checklist": {"substitute": "vanilla"}}
    none |= {name: tiny.notebooks[name] | {"passes": 0} for name in ("tab-ablation", "tab-cost")}
    none |= {"fig-timesteps-and-leak": {"lambdas": []}}
    none |= {"tab-poisson-eot": {"trainings": []}}  # no networks of our own but those that are named below
    given = replace(tiny, trainings=tiny.trainings | {"vanilla": own, "sr": own | {"h": 0.01}})
    given = replace(given, notebooks={name: tiny.notebooks[name] | none.get(name, {}) for name in tiny.notebooks})
    bill = costs.bill(given, "cpu")
    told = [f"{e.defense} {e.seed}" for e, _ in bill.trainings]
    assert told == ["at+sr 0", "at+sr 1", "at 0", "at 1", "sr 0"]  # the last is the sweep's own
    asked = Counter(e.experiment.defense for e, _ in bill.evaluations if e.attack is None and e.split == "test")
    assert asked == {"vanilla": 1, "sr": 2, "at": 2, "at+sr": 2}


# ---- gradients and words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attack", "gradients"),
    [
        (attacks.standard("uniform", 0.1), 0),
        (attacks.standard("sign", 0.1), 0),
        (attacks.standard("fgsm", 0.1), 1),
        (attacks.standard("rfgsm", 0.1), 1),
        (Attack("rfgsm", 0.1, {"alpha": 0.05, "steps": 4}), 4),
        (attacks.standard("pgd", 0.1), 20),
        (attacks.standard("pgd", 0.1, steps=3), 3),
        (Attack("pgd", 0.1, {"alpha": 0.05, "steps": 5, "random_start": False}), 5),
        (attacks.standard("mim", 0.1, steps=4), 4),
        (attacks.standard("apgd", 0.1, steps=6), 6),
        (Attack("apgd", 0.1, {"steps": 3, "restarts": 2}), 6),
        (attacks.standard("sparse_flips", 4, steps=3), 3),
        (attacks.standard("random_flips", 4), 0),
        (attacks.standard("sa_pgd", 0.1, steps=4), 4),
    ],
    ids=lambda given: f"{given.title}-{given.options}" if isinstance(given, Attack) else "",
)
def test_an_attack_takes_the_gradients_that_it_says(attack, gradients):
    taken = []

    def network(x):  # never wrong, so that no attack stops early
        z = torch.stack([x.flatten(1).mean(1) + 9, -x.flatten(1).mean(1)], 1)
        if z.requires_grad:
            z.register_hook(lambda _: taken.append(len(z)))
        return z

    attack.bind(seed=0, index=torch.arange(4))(
        network, torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.long), bounds=(0, 1)
    )
    assert attack.gradients == len(taken) == gradients


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (1, "1 s"),
        (59, "59 s"),
        (60, "1 min 0 s"),
        (61, "1 min 1 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (3660, "1 h 1 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d 0 h"),
        (90_000, "1 d 1 h"),
        (8_640_000, "100 d 0 h"),
    ],
)
def test_durations_by_hand(seconds, words):
    assert costs.duration(seconds) == words


PLACES = {"d": 86_400, "h": 3600, "min": 60, "s": 1}
FULL = {"h": 24, "min": 60, "s": 60}


def told_well(seconds):
    words = costs.duration(seconds).split()
    parts = {unit: int(count) for count, unit in zip(words[::2], words[1::2], strict=True)}
    assert 1 <= len(parts) <= 2 and all(parts[unit] < FULL[unit] for unit in parts if unit in FULL)
    assert abs(sum(count * PLACES[unit] for unit, count in parts.items()) - seconds) <= PLACES[[*parts][-1]]


@pytest.mark.parametrize("seconds", [59.4, 59.5, 59.7, 119.9, 3599.7, 7199.5, 86_399.9, 172_799.9])
def test_no_unit_is_ever_full(seconds):
    told_well(seconds)


@given(st.floats(0, 1e9))
def test_a_duration_is_right_to_its_last_unit(seconds):
    told_well(seconds)
