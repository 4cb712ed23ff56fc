"""The checklist, SR's variants and the settings of neurons: rows by hand, choices of λ, gains against a slow count."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from measures_by_hand import anova, at, bounds, built, evaluation, experiment, flags, images, only, opened, select

from paperlib import profiles, words
from paperlib.attacks import evaluation as judging
from paperlib.attacks import protocols
from paperlib.attacks.attack import Attack
from paperlib.errors import Refused
from paperlib.measures.checklist import Scaled, checklist_rows, scale_control_rows
from paperlib.measures.settings import setting_labels, setting_rows
from paperlib.measures.variants import variant_labels, variant_rows
from paperlib.training import regularizers

N = 100
PGD, WORST = at("pgd", 16), protocols.strongest(16, steps=20, long_steps=20, queries=30)


def evaluations(networks, attacks):
    """`networks`: pairs of an experiment and what each of `attacks` leaves of its N samples."""
    return [
        evaluation(e, attack, right, N) for e, left in networks for attack, right in zip(attacks, left, strict=True)
    ]


def slow_difference(a, b):
    """The share that `a` has more than `b`, and Bonett and Price's interval, counted sample by sample."""
    only_a = sum(1 for x, y in zip(a, b, strict=True) if x and not y)
    only_b = sum(1 for x, y in zip(a, b, strict=True) if y and not x)
    p, q, n = (only_a + 1) / (len(a) + 2), (only_b + 1) / (len(a) + 2), len(a)
    half = 1.959963984540054 * ((p + q - (p - q) ** 2) / (n + 2)) ** 0.5
    return (only_a - only_b) / n, p - q - half, p - q + half


# ---- the checklist -------------------------------------------------------------------------------------------------


def listed(source=None):
    source = source or experiment()
    return protocols.checklist(32.0, [16.0, 32.0, 48.0], steps=10, long_steps=50, queries=30, source=source)


WEAKER = ("one step", "no gradient", "transfer", "random search")  # checks
TRANSFER = "PGD-10 made on vanilla, conv-2-4"
ROLES = ("gradient", "longer", "one_step", "square", "random", "transfer", "unbounded", "strongest")
LEFT = (40, 38, 60, 50, 90, 80, 0, 30, 70, 10)  # in the order of `ROLES`, then at the smallest and largest radius


def checked(left=LEFT, vanished=0.0, passes=None):
    """Rows of one network, of which the attacks leave so many samples or these flags.

    By check and smaller radius; those of the check "strongest" by the title of the attack that is compared.
    """
    e, checks = experiment("sr"), listed()
    attacks = [*(getattr(checks, role) for role in ROLES), checks.radii[0], checks.radii[2]]
    passes = np.full(N, 2.0) if passes is None else passes
    made = [replace(one, passes=passes) for one in evaluations([(e, left)], attacks)]
    made = [replace(one, vanished=vanished) if one.attack == checks.one_step else one for one in made]
    rows = checklist_rows(made, {e.key: checks})
    built(rows)
    return {(r["check"], words.attack(r) if r["check"] == "strongest" else r.get("from_255")): r for r in rows}


def test_the_checks_are_differences_and_shares_by_hand():
    rows = checked()
    values = {"one step": 0.2, "no gradient": 0.1, "transfer": 0.4, "random search": 0.5, "unbounded": 0.0}
    values |= {"more steps": 0.02, "converged": 0.02, "zero gradient": 0.0}
    wanted = {(name, None): value for name, value in values.items()} | {("radius", 16.0): 0.3, ("radius", 32.0): 0.3}
    above = {"PGD-10": 0.1, "PGD-50": 0.08, "FGSM": 0.3, "Square-30": 0.2, "Random search-3": 0.6, TRANSFER: 0.5}
    wanted |= {("strongest", title): value for title, value in above.items()}
    assert {key: r["value"] for key, r in rows.items()} == pytest.approx(wanted)
    assert {(r["quantity"], r["training"], r["n"], *r["seeds"]) for r in rows.values()} == {("check", "sr", N, 0)}
    named = {check: (r["attack"], r["eps_255"]) for (check, _), r in rows.items() if check != "strongest"}
    assert named == {
        "one step": ("fgsm", 32),
        "no gradient": ("square", 32),
        "transfer": ("pgd", 32),
        "random search": ("random_search", 32),
        "unbounded": ("pgd", 255),
        "radius": ("pgd", 48),
        "more steps": ("pgd", 32),
        "converged": ("pgd", 32),
        "zero gradient": ("fgsm", 32),
    }
    assert (rows["more steps", None]["steps"], rows["transfer", None]["made_on"]) == (50, "vanilla")
    # paired over images: 10 of 100 are right under Square alone, none under PGD alone
    row = rows["no gradient", None]
    assert (row["value"], *bounds(row)) == pytest.approx(slow_difference(flags(50, N), flags(40, N)))


@pytest.mark.parametrize(
    ("attack", "checks"),
    [
        ("gradient", {*WEAKER, "more steps", "converged", 16.0, 32.0, "PGD-10"}),
        ("longer", {"more steps", "converged", "PGD-50"}),
        ("one_step", {"one step", "FGSM"}),
        ("square", {"no gradient", "Square-30"}),
        ("random", {"random search", "Random search-3"}),
        ("transfer", {"transfer", TRANSFER}),
        ("unbounded", {"unbounded"}),
        ("strongest", {"PGD-10", "PGD-50", "FGSM", "Square-30", "Random search-3", TRANSFER}),
        ("smallest radius", {16.0}),
        ("largest radius", {32.0}),
    ],
)
def test_an_attack_that_breaks_less_changes_its_own_checks_alone(attack, checks):
    place = [*ROLES, "smallest radius", "largest radius"].index(attack)
    sound, faulty = checked(), checked([*LEFT[:place], LEFT[place] + 10, *LEFT[place + 1 :]])
    moved = {key: round(faulty[key]["value"] - sound[key]["value"], 9) for key in sound}
    assert {smaller or check for (check, smaller), change in moved.items() if change} == checks
    assert set(map(abs, moved.values())) == {0, 0.1}


def test_the_vanished_are_a_share_of_the_images_that_were_attacked():
    row = checked(vanished=0.25, passes=2.0 * flags(40, N))["zero gradient", None]
    assert (row["value"], row["n"], row["method"]) == (0.25, 40, "Wilson 95 %")
    assert checked(passes=np.zeros(N))["zero gradient", None]["value"] is None


def test_networks_of_one_training_are_pooled_and_each_is_compared_by_its_own_list():
    nets = [experiment(t, s) for t in ("vanilla", "sr") for s in (0, 1)]
    lists = {e.key: listed(nets[i - 1]) for i, e in enumerate(nets)}  # another source for each
    passes = np.full(N, 2.0)
    made = [
        evaluation(e, attack, 10 * i, N, passes=passes) for i, e in enumerate(nets) for attack in lists[e.key].attacks
    ]
    rows = checklist_rows(made, lists)
    assert len(rows) == 2 * (8 + 2 + 6)
    assert {(r["training"], r["n"], *r["seeds"]) for r in rows} == {("vanilla", 2 * N, 0, 1), ("sr", 2 * N, 0, 1)}
    assert {r["training"]: r["value"] for r in select(rows, check="unbounded")} == {"vanilla": 0.05, "sr": 0.25}


# ---- the scale control ---------------------------------------------------------------------------------------------


class Linear(torch.nn.Module):
    """Three classes by the brightness of three pixels, with margins of up to a few units."""

    def forward(self, images):
        return 8 * images.flatten(1)[:, :3]


@pytest.fixture
def toy():
    """60 images of 1×1×3; each is of the class of its brightest pixel, which leads by about 0.58.

    To break one within 0.31 takes all of its pixels: neither the random start does it nor a step along one pixel.
    """
    pixels, labels = np.full((60, 1, 1, 3), 51), np.arange(60) % 3
    pixels[np.arange(60), 0, 0, labels] = 195 + np.arange(60) % 9
    return images(pixels, labels)


def test_scaling_blinds_ce_where_its_gradient_underflows_and_not_dlr(toy):
    def left(c, attack):
        return judging.flags(Scaled(Linear(), c), toy, attack)

    pgd, apgd = at("pgd", 0.31 * 255, steps=10), Attack("apgd", 0.31, {"steps": 10, "loss": "dlr"})
    assert left(1, None).all() and left(1e4, None).all()
    assert not left(1, pgd).any() and not left(1, apgd).any()
    assert left(1e4, pgd).float().mean() > 0.5
    assert torch.equal(left(1e4, apgd), left(1, apgd)) and torch.equal(left(1e-3, apgd), left(1, apgd))


def test_the_rows_of_the_scale_control(toy):
    (one,) = opened(Linear(), experiment())
    rows = scale_control_rows(one, toy, [1e4, 0.5], eps_255=0.31 * 255, steps=10)
    shares = {(r["attack"], r["scale"]): r["value"] for r in select(rows, quantity="scaled accuracy")}
    assert set(shares) == {(attack, c) for attack in ("clean", "pgd", "apgd") for c in (0.5, 1.0, 1e4)}
    assert [shares["clean", c] for c in (0.5, 1.0, 1e4)] == [1, 1, 1]
    assert shares["pgd", 1.0] == 0 and shares["pgd", 1e4] > 0.5 and shares["apgd", 1e4] == 0
    checks = {(r["check"], r["attack"], r["scale"]): r["value"] for r in select(rows, quantity="check")}
    for (check, attack, c), value in checks.items():
        assert value == pytest.approx(shares[attack, 1.0] - shares[attack, c])
        assert check == {"pgd": "scale, CE", "apgd": "scale, DLR"}[attack]
    assert {c for _, _, c in checks} == {0.5, 1e4} and len(checks) == 4
    assert only(rows, attack="clean", scale=1.0)["eps_255"] == 0
    built(rows)


@pytest.mark.parametrize("c", [0, -1.0, float("nan")])
def test_a_factor_that_would_change_decisions_is_refused(c):
    with pytest.raises(Refused, match="a scale of the logits"):
        Scaled(Linear(), c)


def test_a_scaled_network_is_coupled_and_stochastic_where_the_network_is():
    network = Linear()
    assert not Scaled(network, 2).coupled and not Scaled(network, 2).stochastic
    network.coupled = network.stochastic = True
    assert Scaled(network, 2).coupled and Scaled(network, 2).stochastic


# ---- variants of SR ------------------------------------------------------------------------------------------------

FIRST, OTHER, THIRD = "margin square +", "softmax absolute -", "margin square central"


def network(words="", lam=None, h=0.01, seed=0):
    if lam is None:
        return experiment(seed=seed)
    return experiment("sr", seed, lam=lam, h=h, axes=regularizers.named(words)._asdict())


def form(words, h=0.01):
    return regularizers.named(words)._asdict() | {"h": h}


def test_the_labels_of_a_variant_are_the_axes_of_its_penalty():
    laptop = profiles.load("laptop")
    assert variant_labels(laptop.experiments("vanilla")[0]) == {}
    released = {"confidence": "margin", "penalty": "square", "direction": "+", "h": 0.01}
    assert variant_labels(laptop.experiments("sr")[0]) == released
    paper = {"confidence": "softmax", "penalty": "absolute", "direction": "+", "h": 0.5}
    assert variant_labels(laptop.experiments("sr", preset="paper", h=0.5)[0]) == paper
    (mixed,) = laptop.experiments("sr", preset="paper", axes={"confidence": "margin"})[:1]
    assert variant_labels(mixed) == paper | {"confidence": "margin", "h": 0.01}


VANILLA = ("",)
VALIDATION = {  # what is left of N validation samples, clean and under PGD
    VANILLA: (95, 20),
    (FIRST, 0.01): (95, 40),
    (FIRST, 0.03): (93, 60),  # two points of clean accuracy are too many
    (OTHER, 0.1): (94, 30),
    (OTHER, 0.3): (94, 50),
    (THIRD, 0.01): (80, 90),
    (THIRD, 0.03): (70, 90),  # neither is allowed
    (FIRST, 0.01, 0.1): (95, 40),
    (FIRST, 0.03, 0.1): (95, 60),
}
TEST = {of: (*left, left[1] - 10) for of, left in VALIDATION.items()}
PIXELS = torch.linspace(0.1, 1, 7).view(7, 1, 1, 1) * torch.ones(7, 1, 2, 2)
GRADIENTS = {network(*of).key: PIXELS * (1 + i) for i, of in enumerate(VALIDATION)}


def variants(validation=VALIDATION, test=TEST, gradients=GRADIENTS):
    chosen_by, judged = ([(network(*of), left) for of, left in part.items()] for part in (validation, test))
    rows = variant_rows(evaluations(chosen_by, [None, PGD]), evaluations(judged, [None, PGD, WORST]), gradients, 0.01)
    built(rows)
    return rows


def test_each_variant_has_the_lambda_that_validation_data_choose_for_it():
    rows = variants()
    chosen = [({axis: r[axis] for axis in form(FIRST)}, r["value"]) for r in select(rows, quantity="chosen λ")]
    assert chosen == [(form(FIRST), 0.01), (form(OTHER), 0.3), (form(THIRD), 0), (form(FIRST, 0.1), 0.03)]
    left = [
        (r.get("h"), r.get("confidence"), r.get("direction"), r.get("lam"), r["value"])
        for r in select(rows, quantity="mean accuracy", attack="worst")
    ]
    assert left == [
        (None, None, None, None, 0.1),
        (0.01, "margin", "+", 0.01, 0.3),
        (0.01, "softmax", "-", 0.3, 0.4),
        (0.1, "margin", "+", 0.03, 0.5),
    ]
    others = {r["lam"]: r["value"] for r in select(rows, quantity="mean accuracy at another λ", attack="clean")}
    assert others == {0.03: 0.7, 0.1: 0.94, 0.01: 0.95}
    assert len(select(rows, quantity="mean accuracy at another λ", **form(THIRD))) == 2 * 3
    assert len(select(rows, split="validation")) == 9 * 2


def test_differences_are_those_of_a_slow_count_on_the_same_samples():
    left = {VANILLA: range(5, 15), (FIRST, 0.01): range(0, 40, 2), (OTHER, 0.3): range(0, 90, 3)}
    right = {of: np.isin(np.arange(N), list(places)) for of, places in left.items()}
    rows = variants(test=TEST | {of: (*TEST[of][:2], own) for of, own in right.items()})
    vanilla, first, other = right.values()
    pairs = {("vanilla", FIRST): (first, vanilla), ("vanilla", OTHER): (other, vanilla)}
    pairs |= {("the first", OTHER): (other, first)}
    for (against, changes), (a, b) in pairs.items():
        r = only(rows, quantity="difference", against=against, attack="worst", **form(changes))
        assert (r["value"], r["low"], r["high"]) == pytest.approx(anova([a * 1 - b * 1], -1, 1))
        assert (r["n"], r["seeds"], r["over"]) == (N, [0], "samples")
    assert not select(rows, quantity="difference", against="the first", **form(FIRST))
    assert len(select(rows, quantity="difference", against="the first")) == 2 * 3  # clean, PGD and the worst case
    assert not select(rows, quantity="difference", **form(THIRD))  # it has no λ
    broken = {of: (95, 10) if of[0] == FIRST else left for of, left in VALIDATION.items()}  # nor has the first
    assert not select(variants(broken), quantity="difference", against="the first")


def test_of_several_seeds_differences_are_over_networks_and_samples():
    shares = {0: (10, 30, 45), 1: (20, 35, 60), 2: (15, 40, 50)}  # worst case of vanilla, the first and another
    test = {
        (*of, 0.01, seed): (95, right + 5, right)
        for seed, left in shares.items()
        for of, right in zip((("", None), (FIRST, 0.01), (OTHER, 0.1)), left, strict=True)
    }
    rows = variants({of: left[:2] for of, left in test.items()}, test, {network(*of).key: PIXELS for of in test})
    r = only(rows, quantity="difference", against="the first", attack="worst")
    differences = [flags(other, N) * 1 - flags(first, N) * 1 for _, first, other in shares.values()]
    assert (r["value"], *bounds(r)) == pytest.approx(anova(differences, -1, 1))
    assert r["seeds"] == [0, 1, 2] and r["over"] == "seeds and samples"


def test_the_size_of_the_gradient_is_the_median_over_images():
    rows = variants()
    for i, labels in {1: form(FIRST), 4: form(OTHER), 8: form(FIRST, 0.1)}.items():
        # the middle one of seven, four pixels each
        assert only(rows, quantity="l1", **labels)["value"] == pytest.approx(4 * 0.55 * (1 + i), rel=1e-6)
        assert only(rows, quantity="participation number", **labels)["value"] == pytest.approx(4)
    assert len(select(rows, quantity="l2")) == 1 + 3


def test_without_networks_there_are_no_rows():
    assert variants({}, {}, {}) == setting_rows([], [], 0.01) == []


# ---- settings of the neurons ---------------------------------------------------------------------------------------

CHANGES = {"own": {}, "T": {"T": 2}, "ann": {"network": "ann-conv-2-4", "T": 1}}
NETWORKS = [("vanilla", {}), ("sr", {"lam": 0.1}), ("sr", {"lam": 0.2})]


def placed(name, training, seed=0, **options):
    """An experiment in the setting of that name."""
    return replace(experiment(training, seed, **options), **CHANGES[name])


def setting(row):
    return "ann" if row["neuron"] == "ReLU" else "own" if row["T"] == 4 else "T"


def gains_of(rows, **labels):
    return {setting(r): r for r in select(rows, quantity="gain", **labels)}


def test_the_labels_of_a_setting():
    changes = [{"tau": 0.5}, {"detach_reset": True}, CHANGES["ann"]]
    assert [setting_labels(replace(experiment(), **change)) for change in changes] == [
        {"neuron": "LIF", "T": 4, "tau": 0.5, "reset": "attached"},
        {"neuron": "LIF", "T": 4, "tau": 1.0, "reset": "detached"},
        {"neuron": "ReLU"},
    ]


def drawn(seed=0):
    """Evaluations of every setting with flags drawn at random; attacked, those of SR are right more often."""
    rng = np.random.RandomState(0)
    return [
        evaluation(placed(name, training, seed), attack, rng.random(N) < share + (0.3 if sr and attack else 0))
        for name in CHANGES
        for training, sr in (("vanilla", False), ("sr", True))
        for attack, share in ((None, 0.95), (PGD, 0.5), (WORST, 0.3))
    ]


def test_the_gains_of_one_seed_are_counted_image_by_image():
    made = drawn(seed=5)
    right = {}
    for e in made:
        right[setting(setting_labels(e.experiment)), e.experiment.defense, e.labels["attack"]] = e.flags.tolist()
    rows = setting_rows(made, made, 1.0)
    gains, differences = (select(rows, quantity=name) for name in ("gain", "gain minus the own"))
    assert (len(gains), len(differences)) == (3 * 3, 2 * 3)
    for row in gains + differences:
        changes, attack = [], row["attack"]
        for i in range(N):
            change = right[setting(row), "sr", attack][i] - right[setting(row), "vanilla", attack][i]
            if row in differences:
                change -= right["own", "sr", attack][i] - right["own", "vanilla", attack][i]
            changes.append(change)
        assert row["value"] == pytest.approx(sum(changes) / N, abs=1e-12) and row["n"] == N
        assert (row["training"], row["against"], row["lam"], row["seeds"]) == ("sr", "vanilla", 0.1, [5])
        reach = 1 if row in gains else 2
        assert (row["value"], *bounds(row)) == pytest.approx(anova([changes], -reach, reach))
        assert len(row["experiments"]) == 2 * reach and row["over"] == "samples"
    built(rows)


def test_the_gains_of_several_seeds_are_paired_by_seed_whatever_the_order():
    # of the own setting 0.2, 0.3, 0.4; of T = 2 0.1, 0.4, 0.4: minus it -0.1, 0.1, 0
    right = {("own", "vanilla"): (10, 10, 10), ("own", "sr"): (30, 40, 50)}
    right |= {("T", "vanilla"): (25, 20, 5), ("T", "sr"): (35, 60, 45)}
    made = [
        one
        for name in ("own", "T")
        for s in (2, 0, 1)
        for training in ("sr", "vanilla")
        for one in evaluations([(placed(name, training, s), [right[name, training][s]] * 2)], [None, PGD])
    ]
    changes = {
        name: np.array([flags(right[name, "sr"][i], N) * 1 - flags(right[name, "vanilla"][i], N) for i in range(3)])
        for name in ("own", "T")
    }
    for order in (made, made[:12] + sorted(made[12:], key=lambda e: -e.experiment.seed)):
        rows = setting_rows(made, order, 1.0)
        gains = gains_of(rows, attack="pgd")
        apart = only(rows, quantity="gain minus the own", attack="pgd")
        assert [gains[name]["value"] for name in ("own", "T")] == pytest.approx([0.3, 0.3])
        assert bounds(gains["own"]) == pytest.approx(anova(changes["own"].tolist(), -1, 1)[1:])
        assert (apart["value"], *bounds(apart)) == pytest.approx(anova((changes["T"] - changes["own"]).tolist(), -2, 2))
        assert set(apart["seeds"]) == {0, 1, 2} and len(apart["experiments"]) == 12


def test_a_doubt_about_either_gain_is_one_about_their_difference():
    def is_doubted(e):
        return e.attack == PGD and e.experiment.T == 4 and e.experiment.defense == "sr"

    made = [replace(e, vanished=0.5) if is_doubted(e) else e for e in drawn()]
    rows = [r for r in setting_rows(made, made, 1.0) if "doubts" in r]
    doubted = {(r["quantity"], setting(r)) for r in rows if "gain" in r["quantity"]}
    assert doubted == {("gain", "own"), ("gain minus the own", "T"), ("gain minus the own", "ann")}
    assert {r["attack"] for r in rows} == {"pgd"}


def test_each_setting_chooses_on_its_own_validation_images_and_never_on_test_images():
    left = {  # of vanilla, λ = 0.1 and λ = 0.2: clean and attacked
        "own": [(90, 25), (88, 50), (82, 75)],  # the second costs more than five points
        "T": [(90, 25), (88, 50), (85, 75)],
        "ann": [(90, 25), (50, 75), (25, 99)],  # rather none
    }
    networks = [placed(name, training, **options) for name in left for training, options in NETWORKS]
    validation = evaluations(zip(networks, [pair for own in left.values() for pair in own], strict=True), [None, PGD])
    test = evaluations([(e, (75, round(100 * e.options.get("lam", 0)))) for e in networks], [None, PGD])
    rows = setting_rows(validation, test, 0.05)
    chosen = {setting(r): (r["value"], r["lam"]) for r in select(rows, quantity="chosen λ")}
    assert chosen == {"own": (0.1, 0.1), "T": (0.2, 0.2), "ann": (0.0, 0.1)}
    gains = {name: (r["value"], r["lam"]) for name, r in gains_of(rows, attack="pgd").items()}
    assert gains == {"own": (0.1, 0.1), "T": (0.2, 0.2), "ann": (0.1, 0.1)}
    means = Counter((setting(r), r["training"], r.get("lam")) for r in select(rows, quantity="mean accuracy"))
    assert means == {(name, training, o.get("lam")): 2 for name in CHANGES for training, o in NETWORKS}
