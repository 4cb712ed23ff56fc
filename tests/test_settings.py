"""SR over steps, leak and reset, and without spikes: settings by hand, gains against a slow count, the words."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import scatter
from matplotlib.colors import to_hex
from test_claims import record
from test_tables_and_plots import SETTINGS, cells, evaluations, made, settings_record

from paperlib import claims, findings, measures, networks, plots, profiles, tables
from paperlib.attacks import protocols
from paperlib.attacks.attack import standard
from paperlib.errors import Refused
from paperlib.measures import statistics
from paperlib.networks import rules
from paperlib.profiles import Setting
from paperlib.runs import plan

ARTIFACT = "fig-timesteps-and-leak"
ANN = Setting(1, 1.0, ann=True)
PGD, WORST = standard("pgd", 16 / 255), protocols.strongest(16, steps=20, long_steps=20, queries=30)
GRID = [
    *({"T": T, "tau": tau, "detach_reset": reset} for T in (4, 2) for tau in (1.0, 0.5) for reset in (False, True)),
    *SETTINGS[1:2],
    *SETTINGS[-1:],
]


# ---- the settings ------------------------------------------------------------------------------------------------


@pytest.fixture
def laptop():
    """T = 4 and τ = 1."""
    return profiles.load("laptop")


def test_one_thing_at_a_time_by_hand(laptop):
    assert laptop.settings([1, 2, 4, 8], [0.5, 0.9, 1], full=False) == [
        Setting(4, 1.0),
        Setting(1, 1.0),
        Setting(2, 1.0),
        Setting(8, 1.0),
        Setting(4, 0.5),
        Setting(4, 0.9),
        Setting(4, 1.0, True),
        ANN,
    ]


def test_the_whole_grid_by_hand(laptop):
    assert laptop.settings([4, 1, 2], [0.5], full=True) == [
        Setting(4, 1.0),
        Setting(4, 0.5),
        Setting(4, 0.5, True),
        Setting(1, 1.0),
        Setting(2, 0.5),
        Setting(2, 0.5, True),
        ANN,
    ]
    found = laptop.settings([1, 2, 4, 8], [0.5, 0.9, 1.0], full=True)
    assert len(found) == len(set(found)) == 1 + 3 * 3 * 2 + 1 and found[0] == Setting(4, 1.0)


@pytest.mark.parametrize("full", [False, True])
def test_of_one_step_there_is_one_setting(laptop, full):
    found = laptop.settings([1, 2], [0.5, 0.9], full=full)
    assert [s for s in found if s.T == 1] == [Setting(1, 1.0), ANN]
    single = replace(laptop, network=laptop.network | {"T": 1, "tau": 0.9})
    assert single.settings([1], [0.5, 0.9], full=full) == [Setting(1, 0.9), ANN]


def test_networks_of_one_step_that_differ_in_leak_and_reset_are_the_same_function(laptop):
    nets = [
        laptop.experiments("vanilla", seeds=[0], T=1, tau=tau, detach_reset=reset)[0].build()
        for tau, reset in ((1.0, False), (0.5, False), (0.5, True))
    ]
    x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    found = []
    for network in nets:
        leaf = x.clone().requires_grad_()
        logits = network(leaf)
        found.append((logits, torch.autograd.grad(logits.square().sum(), leaf)[0]))
    for logits, gradient in found[1:]:
        assert torch.equal(logits, found[0][0]) and torch.equal(gradient, found[0][1])
    assert found[0][1].abs().max() > 0


def test_each_setting_has_vanilla_and_every_lambda_with_the_epochs_that_were_asked_for(laptop):
    settings = laptop.settings([1], [0.5], full=False)
    found = laptop.in_settings(settings, [0.1, 0.2], seeds=[3, 4], epochs=2)
    told = [(e.network, e.T, e.tau, e.detach_reset, e.defense, e.options.get("lam"), e.seed) for e in found]
    assert told == [
        (name, T, tau, reset, *training, seed)
        for name, T, tau, reset in (
            ("conv-8-16", 4, 1.0, False),
            ("conv-8-16", 1, 1.0, False),
            ("conv-8-16", 4, 0.5, False),
            ("conv-8-16", 4, 1.0, True),
            ("ann-conv-8-16", 1, 1.0, False),
        )
        for training in (("vanilla", None), ("sr", 0.1), ("sr", 0.2))
        for seed in (3, 4)
    ]
    assert len({e.key for e in found}) == len(found)
    (own,) = laptop.experiments("sr", seeds=[3])
    assert all(e.schedule == replace(own.schedule, epochs=2) for e in found)
    assert replace(found[2], schedule=own.schedule, options=own.options) == own
    assert found[2].options == own.options | {"lam": 0.1}


def test_another_network_has_its_own_twin_and_without_a_lambda_nothing_is_trained(laptop):
    settings = laptop.settings([2], [], full=False)
    found = laptop.in_settings(settings, [0.1], seeds=[0], epochs=1, network="conv-2-4")
    assert {e.network for e in found} == {"conv-2-4", "ann-conv-2-4"}
    assert laptop.in_settings(settings, [], seeds=[0], epochs=1) == []


@pytest.mark.parametrize("name", ["smoke", "laptop", "cifar", "paper"])
def test_they_are_planned_and_asked_for(name):
    profile = profiles.load(name)
    given = profile.parameters(ARTIFACT)
    assert given["full"] == (name == "paper") and given["epochs"] <= profile.schedule["epochs"]
    settings = profile.settings(given["T"], given["taus"], full=given["full"])
    how = {what: given[what] for what in ("seeds", "epochs", "network")}
    found = [e.key for e in profile.in_settings(settings, given["lambdas"], **how)]
    assert len(found) == len(settings) * (1 + len(given["lambdas"])) * len(given["seeds"])
    assert set(found) <= {e.key for e in profile.plan()}
    for part, split, titles in (
        ("/choice", "validation", [f"PGD-{given['pgd_steps']}"]),
        ("", "test", [f"PGD-{given['pgd_steps']}", claims.WORST]),
    ):
        subjects, attacks, of = plan.ASKED[ARTIFACT + part](profile, given)
        assert [e.key for e in subjects] == found and [a.title for a in attacks] == titles and of == split
        assert {round(a.eps * 255, 6) for a in attacks} == {given["eps_255"]}


# ---- the twin without spikes -------------------------------------------------------------------------------------


SIZE = {"in_channels": 1, "image_size": 8, "num_classes": 3, "mean": (0.3,), "std": (0.2,)}


def twin(seed=0):
    """Of a small network, with BatchNorms away from where they start."""
    torch.manual_seed(seed)
    network = networks.build("ann-conv-2-4", T=1, **SIZE)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            scatter(module)
    return network


def by_hand(w, x, training):
    """conv-2-4 with ReLUs, in plain torch."""
    for conv, norm in (("stem", "body.0"), ("body.1.0", "body.2")):
        x = F.conv2d((x - 0.3) / 0.2 if conv == "stem" else x, w[f"{conv}.weight"], w[f"{conv}.bias"], padding=1)
        running = (w[f"{norm}.running_mean"].clone(), w[f"{norm}.running_var"].clone())
        x = F.batch_norm(x, *running, w[f"{norm}.weight"], w[f"{norm}.bias"], training)
        x = F.avg_pool2d(x.relu(), 2)
    return x.flatten(1) @ w["head.weight"].T + w["head.bias"]


def looked_at(network, x):
    """Logits, and the gradient of their squares."""
    leaf = x.clone().requires_grad_()
    logits = network(leaf)
    return logits.detach(), torch.autograd.grad(logits.square().sum(), leaf)[0]


@pytest.fixture
def pictures():
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("training", [False, True])
def test_the_twin_is_the_same_layers_with_relus(pictures, training):
    network = twin().train(training)
    w = {name: value.clone() for name, value in network.state_dict().items()}
    for found, expected in zip(
        looked_at(network, pictures), looked_at(lambda x: by_hand(w, x, training), pictures), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_twin_starts_from_the_weights_of_the_spiking_network():
    torch.manual_seed(3)
    spiking = networks.build("conv-2-4", T=4, **SIZE).state_dict()
    torch.manual_seed(3)
    twins = networks.build("ann-conv-2-4", T=1, **SIZE).state_dict()
    assert list(spiking) == list(twins) and all(torch.equal(spiking[name], twins[name]) for name in twins)


def test_what_belongs_to_spikes_changes_nothing_of_the_twin(pictures):
    network = twin().eval()
    logits, gradient = looked_at(network, pictures)
    contexts = [network.reference_path(), network.smoothed(), network.frozen()]
    for context in (*contexts, *(network.backward_rule(name) for name in rules.RULES)):
        with context:
            again = looked_at(network, pictures)
        assert torch.equal(again[0], logits) and torch.equal(again[1], gradient)
    assert not network.coupled and not network.stochastic and network.neurons() == []
    with pytest.raises(Refused, match="no backward rule 'box'"), network.backward_rule("box"):
        pytest.fail("the block must not begin")


@pytest.mark.parametrize("change", [{"T": 2}, {"tau": 0.5}, {"detach_reset": True}])
def test_a_twin_with_time_is_refused(laptop, change):
    given = {"network": "ann-conv-2-4", "T": 1, "tau": 1.0} | change
    with pytest.raises(Refused, match="without spikes it takes T = 1 and tau = 1"):
        laptop.experiments("vanilla", seeds=[0], **given)


# ---- the gains ---------------------------------------------------------------------------------------------------

N = 40
CHANGES = {"own": {}, "T": {"T": 2}, "ann": {"network": "ann-conv-2-4", "T": 1}}


def drawn(seeds, lambdas=(0.1,), changes=CHANGES, attacks=(None, PGD, WORST)):
    """Evaluations with flags drawn at random; attacked, those of SR are right more often."""
    rng, found = np.random.RandomState(0), []
    for change in changes.values():
        nets = [("vanilla", None), *(("sr", lam) for lam in lambdas)]
        for e in evaluations(nets, attacks, seeds=seeds, share=1, n=N):
            share = {"clean": 0.95, "PGD-20": 0.5}.get(e.labels["attack"], 0.3)
            flags = rng.random(N) < share + 0.3 * (e.experiment.defense == "sr") * (e.attack is not None)
            found.append(replace(e, experiment=replace(e.experiment, **change), flags=flags))
    return found


def by_place(found):
    """(setting, training, attack, seed) → flags."""
    told = {}
    for e in found:
        labels = measures.setting_labels(e.experiment)
        setting = "ann" if labels["neuron"] == "ReLU" else "own" if labels["T"] == 4 else "T"
        told[setting, e.experiment.defense, e.labels["attack"], e.experiment.seed] = e.flags.tolist()
    return told


def setting(row):
    return "ann" if row["neuron"] == "ReLU" else "own" if row["T"] == 4 else "T"


def test_what_a_row_says_of_the_neurons():
    (e,) = evaluations([("sr", 0.1)], [None], seeds=(0,), share=1)
    told = [measures.setting_labels(replace(e.experiment, **change)) for change in SETTINGS[-3:]]
    assert told == [
        {"neuron": "LIF", "T": 4, "tau": 0.5, "reset": "attached"},
        {"neuron": "LIF", "T": 4, "tau": 1.0, "reset": "detached"},
        {"neuron": "ReLU"},
    ]


def test_the_gains_of_one_seed_are_counted_image_by_image():
    found = drawn(seeds=(5,))
    flags, rows = by_place(found), measures.setting_rows(found, found, 1.0)
    seen = 0
    for row in rows:
        if row["quantity"] not in ("gain", "gain minus the own"):
            continue
        attack, differences = row["attack"], []
        for i in range(N):
            change = flags[setting(row), "sr", attack, 5][i] - flags[setting(row), "vanilla", attack, 5][i]
            if row["quantity"] == "gain minus the own":
                change -= flags["own", "sr", attack, 5][i] - flags["own", "vanilla", attack, 5][i]
            differences.append(change)
        assert row["value"] == pytest.approx(sum(differences) / N, abs=1e-12) and row["n"] == N
        assert (row["training"], row["against"], row["lam"], row["seeds"]) == ("sr", "vanilla", 0.1, [5])
        if row["quantity"] == "gain":
            assert "Bonett-Price" in row["method"] and "McNemar" in row["method"]
            assert len(row["experiments"]) == 2
        else:
            rng = np.random.default_rng(1)
            means = [rng.choice(differences, N).mean() for _ in range(2000)]
            assert (row["low"], row["high"]) == pytest.approx(np.quantile(means, (0.025, 0.975)), abs=0.035)
            assert row["method"].endswith("bootstrap 95 % of the images' differences of differences")
            assert len(row["experiments"]) == 4 and set(differences) <= {-2, -1, 0, 1, 2}
        seen += 1
    assert seen == 3 * 3 + 2 * 3


def test_pairing_makes_the_difference_of_gains_narrower_than_two_gains_side_by_side():
    """Settings that fail on the same images: what they share does not widen the difference."""
    found = drawn(seeds=(0,), changes={"own": {}, "T": {"T": 2}})
    flags = {(e.experiment.defense, e.labels["attack"]): e.flags for e in found if e.experiment.T == 4}
    same = [replace(e, flags=flags[e.experiment.defense, e.labels["attack"]].copy()) for e in found]
    for e in same:
        if e.experiment.T == 2 and e.experiment.defense == "sr":
            e.flags[:2] = ~e.flags[:2]
    rows = [r for r in measures.setting_rows(same, same, 1.0) if r.get("attack") == claims.WORST]
    (own,) = (r for r in rows if r["quantity"] == "gain" and r["T"] == 4)
    (apart,) = (r for r in rows if r["quantity"] == "gain minus the own")
    assert apart["high"] - apart["low"] < 0.5 * (own["high"] - own["low"])


def test_the_gains_of_several_seeds_are_paired_by_seed_whatever_the_order():
    # of the own setting 0.2, 0.3, 0.4; of T = 2 0.1, 0.4, 0.4: minus it -0.1, 0.1, 0
    right = {("own", "vanilla"): (4, 4, 4), ("own", "sr"): (12, 16, 20)}
    right |= {("T", "vanilla"): (10, 8, 2), ("T", "sr"): (14, 24, 18)}
    found = [
        replace(
            e, experiment=replace(e.experiment, **change), flags=np.arange(N) < right[name, e.experiment.defense][s]
        )
        for name, change in list(CHANGES.items())[:2]
        for s in (2, 0, 1)
        for e in evaluations([("sr", 0.1), ("vanilla", None)], [None, PGD], seeds=(s,), share=1, n=N)
    ]
    for order in (found, found[:12] + sorted(found[12:], key=lambda e: -e.experiment.seed)):
        rows = measures.setting_rows(found, order, 1.0)
        gains = {r["T"]: r for r in rows if r["quantity"] == "gain" and r["attack"] == "PGD-20"}
        (apart,) = (r for r in rows if r["quantity"] == "gain minus the own" and r["attack"] == "PGD-20")
        assert [gains[T]["value"] for T in (4, 2)] == pytest.approx([0.3, 0.3])
        assert gains[4]["high"] == pytest.approx(0.3 + 4.30265 * 0.1 / math.sqrt(3), abs=1e-5)
        assert (apart["value"], apart["n"]) == (pytest.approx(0), 3) and "paired t" in apart["method"]
        assert apart["high"] == pytest.approx(4.30265 * 0.1 / math.sqrt(3), abs=1e-5)
        assert set(apart["seeds"]) == {0, 1, 2} and len(apart["experiments"]) == 12


def test_a_doubt_about_either_gain_is_one_about_their_difference():
    found = drawn(seeds=(0,))
    own = next(e for e in found if e.attack == PGD and e.experiment.T == 4 and e.experiment.defense == "sr")
    found = [replace(e, vanished=0.5) if e is own else e for e in found]
    rows = measures.setting_rows(found, found, 1.0)
    doubted = {(r["quantity"], setting(r)) for r in rows if "doubts" in r and "gain" in r["quantity"]}
    assert doubted == {("gain", "own"), ("gain minus the own", "T"), ("gain minus the own", "ann")}
    assert all(r["attack"] == "PGD-20" for r in rows if "doubts" in r)


# ---- the choice of λ ---------------------------------------------------------------------------------------------


def first(count):
    return np.arange(N) < count


def choice(left):
    """Rows where validation data leave so many images of clean and attacked, by setting and λ (0: vanilla)."""
    validation, test = [], []
    for name, by_lam in left.items():
        for lam, (clean, attacked) in by_lam.items():
            net = ("sr", lam) if lam else ("vanilla", None)
            for e in evaluations([net], [None, PGD], seeds=(0,), share=1, n=N):
                one = replace(e, experiment=replace(e.experiment, **CHANGES[name]))
                validation.append(replace(one, flags=first(attacked if e.attack else clean)))
                test.append(replace(one, flags=first(round(100 * lam) if e.attack else 30)))
    return measures.setting_rows(validation, test, 0.05)


def test_each_setting_chooses_on_its_own_validation_images_and_never_on_test_images():
    rows = choice(
        {
            "own": {0: (36, 10), 0.1: (35, 20), 0.2: (33, 30)},  # the second costs more than two images
            "T": {0: (36, 10), 0.1: (35, 20), 0.2: (34, 30)},
            "ann": {0: (36, 10), 0.1: (20, 30), 0.2: (10, 40)},  # rather none
        }
    )
    chosen = {setting(r): (r["value"], r["lam"]) for r in rows if r["quantity"] == "chosen λ"}
    assert chosen == {"own": (0.1, 0.1), "T": (0.2, 0.2), "ann": (0.0, 0.1)}
    gains = {setting(r): (r["value"], r["lam"]) for r in rows if r["quantity"] == "gain" and r["attack"] == "PGD-20"}
    assert gains == {"own": (10 / N, 0.1), "T": (20 / N, 0.2), "ann": (10 / N, 0.1)}
    means = [(setting(r), r["training"], r.get("lam")) for r in rows if r["quantity"] == "mean accuracy"]
    assert Counter(means) == {
        (name, *net): 2 for name in CHANGES for net in (("vanilla", None), ("sr", 0.1), ("sr", 0.2))
    }


# ---- what is told of it ------------------------------------------------------------------------------------------


def told(gains, differences, seeds=(0,)):
    """A record of gains in points, own, T = 2, τ = 0.5, detached and ANN, ± 10, and as much for their differences."""
    own = {"neuron": "LIF", "T": 4, "tau": 1.0, "reset": "attached"}
    labels = [own, own | {"T": 2}, own | {"tau": 0.5}, own | {"reset": "detached"}, {"neuron": "ReLU"}]
    rows = []
    for where, gain, difference in zip(labels, gains, (None, *differences), strict=True):
        for attack in ("clean", claims.WORST):
            for quantity, value in (("gain", gain), ("gain minus the own", difference)):
                if value is not None:
                    value = value / 100 if attack != "clean" else 0.0
                    interval = statistics.Interval(value, value - 0.1, value + 0.1, N, "by hand")
                    of = {"training": "sr", "against": "vanilla", "attack": attack, "eps_255": 16.0, "lam": 0.1}
                    rows.append(
                        measures.core.row(interval, [], quantity=quantity, **of, **where) | {"seeds": list(seeds)}
                    )
    return record(ARTIFACT, rows)


def test_the_headline_says_where_the_gain_is_another():
    found = told((30, 5, 32, 50, 45), (-25, 2, 20, 15))
    assert findings.headline(found) == (
        "In the worst case SR gains +30 points at T = 4, τ = 1; 2 of 3 other settings clearly differ on the same "
        "images: T = 2 +5, detached reset +50; the ANN's +45 is clearly more"
    )
    found = told((30, 35, 32, 28, 25), (5, 2, -2, -5), seeds=(0, 1))
    assert findings.headline(found) == (
        "In the worst case SR gains +30 points at T = 4, τ = 1; none of 3 other settings clearly differs over seeds; "
        "the ANN's +25 is not clearly other"
    )
    assert findings.headline(told((30, 35, 32, 28, 10), (5, 2, -22, -20))).endswith(
        "1 of 3 other settings clearly differs on the same images: detached reset +28; the ANN's +10 is clearly less"
    )


def test_the_box_says_where_sr_helps_as_well():
    found = told((30, 5, 32, -50, 45), (-25, 2, -80, 15))
    lines = {line.statement: line for line in findings.BOXES[ARTIFACT](found)}
    assert [line.holds for line in lines.values()] == [True, None, True, False, True]
    leak = lines["SR helps neurons of another leak as well."]
    assert leak.numbers == "τ = 0.5 +32.0 points [+22.0, +42.0], +2.0 points [-8.0, +12.0] against the own"


def test_of_a_grid_the_box_tells_the_ends_and_counts_what_is_other():
    found = settings_record(GRID, 16, {"seeds": (0,), "share": None})
    gains = [r for r in claims.select(found, quantity="gain", attack=claims.WORST) if r.get("T", 4) != 4]
    lines = {line.statement: line.numbers for line in findings.BOXES[ARTIFACT](found)}
    told = lines["SR helps with other numbers of steps as well."]
    ends = sorted(gains, key=lambda r: r["value"])
    assert told.startswith("5 settings from T = 1 ") and claims.points(ends[0]) in told
    assert f"to T = 2 {claims.points(ends[-1])}" in told
    beside = [r for r in claims.select(found, quantity="gain minus the own", attack=claims.WORST) if r.get("T", 4) != 4]
    counts = Counter(claims.clear(r) for r in beside)
    assert told.endswith(f"; {counts[-1]} clearly below the own, {counts[1]} above") and counts[-1] > 0


def labels_of(row):
    return tuple(row.get(axis) for axis in ("neuron", "T", "tau", "reset"))


def test_the_dumbbells_reach_from_vanilla_to_sr_and_the_own_stands_in_every_group():
    found = made(ARTIFACT)
    left, middle, right = plots.draw(found).axes
    ticks = [text.get_text() for text in left.get_yticklabels()]
    assert [tick.partition(",")[0] for tick in ticks] == [
        *("T = 1", "T = 4", "T = 8", "τ = 0.5", "τ = 1", "attached reset", "detached reset", "LIF", "ANN (ReLU)")
    ]
    bold = [text.get_text().partition(",")[0] for text in left.get_yticklabels() if text.get_fontweight() == "bold"]
    assert bold == ["T = 4", "τ = 1", "attached reset", "LIF"] and len(left.patches) == 4
    accuracies = {
        (labels_of(r), r["attack"], r.get("lam")): 100 * r["value"]
        for r in claims.select(found, quantity="mean accuracy")
    }
    drawn = Counter(tuple(line.get_xdata()) for line in left.lines if len(line.get_xdata()) == 2)
    wanted = Counter()
    for r in claims.select(found, quantity="gain"):
        if r["attack"] in ("clean", claims.WORST):
            ends = tuple(accuracies[labels_of(r), r["attack"], lam] for lam in (None, r["lam"]))
            wanted[ends] += 4 if labels_of(r) == ("LIF", 4, 1.0, "attached") else 1
    assert drawn == wanted
    gains = [c[0].get_xdata()[0] for c in middle.containers]
    assert sorted(set(gains)) == pytest.approx(
        sorted({100 * r["value"] for r in claims.select(found, quantity="gain") if r["attack"] != "PGD-20"})
    )
    beside = claims.select(found, quantity="gain minus the own", attack=claims.WORST)
    dots = {round(c[0].get_xdata()[0], 6): to_hex(c[0].get_color()) for c in right.containers}
    assert dots == {round(100 * r["value"], 6): "#000000" if claims.clear(r) else "#a6a6a6" for r in beside}


def test_a_setting_without_a_chosen_lambda_is_starred_and_the_star_explained():
    found = made(ARTIFACT)
    rows = [r | ({"value": r["lam"]} if r["quantity"] == "chosen λ" else {}) for r in found["rows"]]
    plain = plots.draw(found | {"rows": rows}).axes[0]
    assert "*" not in plain.get_xlabel() + "".join(text.get_text() for text in plain.get_yticklabels())
    rows = [r | ({"value": 0.0} if r["quantity"] == "chosen λ" and r.get("T") == 8 else {}) for r in rows]
    panel = plots.draw(found | {"rows": rows}).axes[0]
    (starred,) = (text.get_text() for text in panel.get_yticklabels() if text.get_text().endswith("*"))
    assert starred.startswith("T = 8,  λ = ") and "* no λ was chosen" in panel.get_xlabel()
    gains, _ = tables.markdown(found | {"rows": rows}).split("\n\n")
    assert [line[0] for line in cells(gains)[1:] if line[1].endswith(" (none chosen)")] == ["T = 8"]


def test_a_grid_has_a_line_a_leak_in_a_panel_a_reset():
    found = settings_record(GRID, 16, {"seeds": (0, 1), "share": None})
    figure = plots.draw(found)
    panels = np.array(figure.axes).reshape(2, 2)
    assert [panel.get_title() for panel in panels[0]] == ["attached reset", "detached reset"]
    for line, attack in zip(panels, (claims.WORST, "clean"), strict=True):
        for panel, reset in zip(line, ("attached", "detached"), strict=True):
            for tau in (0.5, 1.0):
                (curve,) = (c for c in panel.lines if c.get_label() == f"τ = {tau:g}")
                rows = claims.select(found, quantity="gain", attack=attack, T=1)
                for T in (2, 4):
                    rows += claims.select(found, quantity="gain", attack=attack, T=T, tau=tau, reset=reset)
                assert list(curve.get_ydata()) == pytest.approx([100 * r["value"] for r in rows]) and len(rows) == 3
            (ann,) = claims.select(found, quantity="gain", attack=attack, neuron="ReLU")
            (across,) = (c for c in panel.lines if c.get_label() == "ANN (ReLU)")
            assert across.get_ydata()[0] == pytest.approx(100 * ann["value"])
            rings = [c for c in panel.lines if c.get_markersize() == 12]
            (own,) = claims.select(found, quantity="gain", attack=attack, T=4, tau=1.0, reset="attached")
            assert [c.get_ydata()[0] for c in rings] == [100 * own["value"]] * (reset == "attached")


def test_the_tables_hold_every_gain_and_every_network():
    found = made(ARTIFACT, seeds=(0,))
    gains, networks = map(cells, tables.markdown(found).split("\n\n"))
    assert gains[0][:3] == ["neurons", "λ", "gain, clean"] and len(gains) == 1 + len(SETTINGS)
    assert gains[0][-1] == f"gain minus the own, {claims.WORST}, 16/255"
    assert gains[1][0] == "T = 4, τ = 1, attached reset" and gains[1][-3:] == [""] * 3
    (ann,) = (line for line in gains if line[0] == "ANN (ReLU)")
    (row,) = claims.select(found, quantity="gain minus the own", attack=claims.WORST, neuron="ReLU")
    assert ann[-1] == claims.points(row)
    assert networks[0] == ["neurons", "training", "clean", "PGD-20, 16/255", f"{claims.WORST}, 16/255"]
    trainings = ["vanilla", "SR, λ = 0.01", "SR, λ = 0.1"]
    assert [line[1] for line in networks[1:]] == trainings * len(SETTINGS)


def test_where_nothing_was_trained_that_is_said_and_drawn(tmp_path):
    found = record(ARTIFACT, measures.setting_rows([], [], 0.01))
    assert findings.headline(found) == "No network was trained here to vary T, τ and reset"
    assert "**undecided**" in findings.box(found) and not tables.markdown(found).strip()
    plots.save(found, tmp_path / "empty.png")
    (panel,) = plots.draw(found).axes
    assert "`lambdas` is empty" in panel.texts[0].get_text()
