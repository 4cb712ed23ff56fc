"""Verdicts on records made by hand: what the rules fixed in advance must answer, and what the sentences say."""

import itertools
import random

import pytest
from handmade import FOUR, PGD_20, made, record, row

from paperlib import artifacts, labels, records, words
from paperlib.artifacts import claims, reading
from paperlib.artifacts.claims import INCONCLUSIVE, NOT_MEASURED, NOT_SUPPORTED, ONE_NETWORK, SUPPORTED

CLEAR, UNSURE, AGAINST, ONE_SEED = (0.2, 0.1, 0.3), (0.1, -0.1, 0.3), (-0.2, -0.3, -0.1), (0.2, None, None)
HELPS, HURTS, NEITHER, UNKNOWN = (-0.8, -0.95, -0.4), (0.7, 0.3, 0.9), (-0.1, -0.5, 0.3), (None, None, None)
DECISIONS = [(CLEAR, SUPPORTED), (UNSURE, INCONCLUSIVE), (AGAINST, NOT_SUPPORTED), (ONE_SEED, INCONCLUSIVE)]
TRAININGS = [name for name, _ in FOUR]


def verdict(id, *made):
    """(verdict, reason) of one line of the ledger, given these records."""
    (found,) = (v for v in claims.verdicts({r["artifact"]: r for r in made}) if v.claim.id == id)
    return found.verdict, found.reason


def of_one_network(record):
    """The same record, as if every row were of the networks of one seed."""
    return record | {"rows": [r | {"seeds": [0]} for r in record["rows"]]}


# ---- the ledger --------------------------------------------------------------------------------------------------


def test_every_claim_of_the_paper_has_its_lines_and_the_five_words():
    parts = [claim.id.partition(",")[0] for claim in claims.LEDGER]
    assert [parts.count(c) for c in ("C1", "C2", "C3", "C4", "C5")] == [2, 2, 4, 9, 1] and len(parts) == 18
    assert len({claim.id for claim in claims.LEDGER}) == len(claims.LEDGER)
    verdicts = {"supported", "not supported", "inconclusive at this scale", "one network", "not measured"}
    assert {SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE, ONE_NETWORK, NOT_MEASURED} == verdicts == set(claims.SIGNS)
    assert len(set(claims.SIGNS.values())) == 5


def test_without_records_nothing_is_measured():
    found = claims.verdicts({})
    assert [v.claim for v in found] == list(claims.LEDGER) and {v.verdict for v in found} == {NOT_MEASURED}
    assert all(v.reason.startswith(v.claim.artifact) for v in found)


@pytest.mark.parametrize("interval", [CLEAR, UNSURE, AGAINST, ONE_SEED])
def test_one_network_of_each_training_is_no_verdict_whatever_its_images_say(interval):
    made = {
        "C1, uniform noise": noise_record({8: interval}),
        "C2, the networks": forward_record({1.0: [interval]}),
        "C3, alone": ladder_record(interval, interval),
        "C5": maps_record(interval, interval, interval),
    }
    for id, one in made.items():
        found, reason = verdict(id, of_one_network(one))
        unmeasured = id.startswith("C2") and interval == ONE_SEED
        assert found == (INCONCLUSIVE if unmeasured else ONE_NETWORK)
        assert "clearly" not in reason


# ---- many verdicts at once ---------------------------------------------------------------------------------------


def test_holm_by_hand_and_against_the_closed_test():
    assert claims.holm([]) == []
    # 4 · 0.01, 3 · 0.02, 2 · 0.03, which equals the one before, and 1 · 0.5, in another order
    assert claims.holm([0.03, 0.5, 0.01, 0.02]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert claims.holm([0.4, 0.6]) == pytest.approx([0.8, 0.8]) and claims.holm([0.9, 0.9]) == [1, 1]
    draw = random.Random(0)
    for _ in range(40):
        p = [draw.choice([draw.random(), draw.random() / 50, 0.02]) for _ in range(draw.randint(1, 6))]
        # Holm's method is the closed test by Bonferroni: the largest p of all sets that i is in
        closed = []
        for i in range(len(p)):
            sets = [s for size in range(1, len(p) + 1) for s in itertools.combinations(range(len(p)), size) if i in s]
            closed.append(max(min(1, len(s) * min(p[j] for j in s)) for s in sets))
        assert claims.holm(p) == pytest.approx(closed)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(CLEAR, 0.01), (CLEAR, 0.04)], 0.04),  # all are needed
        ([(CLEAR, 0.01), (UNSURE, 0.3)], 0.3),
        ([(CLEAR, 0.001), (AGAINST, 0.01), (AGAINST, 0.02)], 0.03),  # one is enough: 3 times the smallest against
        ([(UNSURE, 0.9), (AGAINST, 0.6)], 1.0),
        ([(CLEAR, 0.01), (CLEAR, None)], None),
        ([], None),
    ],
)
def test_the_p_value_of_a_claim_is_that_of_the_row_that_decides(rows, expected):
    made = [row("difference", *interval) | ({} if p is None else {"p": p}) for interval, p in rows]
    assert claims.p_value(made) == (None if expected is None else pytest.approx(expected))
    assert claims.p_value([one | {"seeds": [3]} for one in made]) is None
    mirrored = [one | {"low": -one["high"], "high": -one["low"]} for one in made]
    assert claims.p_value(mirrored, direction=-1) == claims.p_value(made)


def with_p(record, p, quantity="difference"):
    return record | {"rows": [r | {"p": p} if r["quantity"] == quantity else r for r in record["rows"]]}


def adjusted(*made):
    return {v.claim.id: v for v in claims.verdicts({r["artifact"]: r for r in made})}


def test_beside_each_verdict_stands_what_holm_leaves_of_it():
    noise = noise_record({8: CLEAR})
    noise["rows"] += [r for r in noise_record({8: CLEAR}, law="sign")["rows"] if r["quantity"] == "mean gap"]
    ladder = with_p(ladder_record(AGAINST, UNSURE), 0.02)
    found = adjusted(with_p(noise, 0.01, "mean gap"), ladder)
    # four p-values: 0.01 twice, times 4 and 3; 0.02 twice, times 2 and 1 and not below 0.04
    wanted = {"C1, uniform noise": 0.04, "C1, random signs": 0.04, "C3, alone": 0.04, "C3, with AT": 0.04}
    assert {id: v.holm for id, v in found.items() if v.holm is not None} == pytest.approx(wanted)
    words = [found[id].adjusted for id in wanted]
    assert words == [SUPPORTED, SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE] == [found[id].verdict for id in wanted]
    assert found["C5"].holm is found["C5"].adjusted is None

    weaker = adjusted(with_p(noise, 0.02, "mean gap"), ladder)
    assert [weaker[id].adjusted for id in wanted] == [INCONCLUSIVE] * 4
    assert [weaker[id].verdict for id in wanted] == [SUPPORTED, SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE]
    text = claims.multiplicity(list(weaker.values()))
    assert "of 4 verdicts that rest on one interval each 0.2 would be" in text
    assert "It takes back: C1, uniform noise; C1, random signs; C3, alone." in text and "Here it takes" not in text


def test_the_text_on_many_verdicts_names_those_without_a_p_value():
    statement = ratio_record(1.0)
    found = adjusted(with_p(ladder_record(CLEAR, CLEAR), 0.001), statement)
    text = claims.multiplicity(list(found.values()))
    assert text.endswith("Here it takes back no verdict. These have no p-value and stand outside: C2, the statement; "
                         "C2, the networks.")  # fmt: skip
    assert claims.multiplicity(list(adjusted(statement).values())) == "No verdict has a p-value, so none is adjusted."
    assert claims.multiplicity([]) and "nan" not in text


# ---- boxes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("artifact", ["thm-ratio", "tab-cost", "fig-lambda", "tab-masking-checklist", "tab-ablation"])
def test_no_statement_about_networks_holds_on_one_network(artifact):
    def words(record):
        lines = list(artifacts.module(artifact).box(record))
        said = list(claims.statements(record))
        assert [statement for _, statement, _ in said] == [line.statement for line in lines]
        return {word for (word, _, _), line in zip(said, lines, strict=True) if line.of_networks}

    alone, several = words(of_one_network(made(artifact))), words(made(artifact))
    assert alone <= {ONE_NETWORK}
    assert artifact == "tab-cost" or ONE_NETWORK not in several


# ---- C1, and on event data C4 ------------------------------------------------------------------------------------


def noise_record(gaps, *, attacked=None, law="uniform", training="vanilla", attack=None, unit="eps_255", clean=0.95):
    """`gaps`: radius → interval of accuracy(noise 4 times larger) - accuracy(attack); `attacked`: accuracies, or 0.5.

    On event data beside another training, for which the claim does not hold.
    """
    rows, of_events = [], unit != "eps_255"
    for name, own in ((training, gaps), *([("sr", dict.fromkeys(gaps, AGAINST))] if of_events else [])):
        rows.append(row("mean accuracy", clean, training=name, attack="clean", **{unit: 0.0}))
        for eps, gap in own.items():
            told = {"training": name, unit: eps} | (attack or PGD_20)
            left = (attacked or {}).get(eps, 0.5)
            rows += [row("mean accuracy", left, **told), row("mean gap", *gap, **told, noise=law, factor=4)]
            rows.append(row("mean accuracy", left + gap[0], training=name, attack=law, **{unit: 4 * eps}))
    return record("fig-random-vs-adversarial" + ("-events" if of_events else ""), rows)


C1 = "C1, uniform noise"


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ({8: CLEAR, 16: CLEAR}, SUPPORTED),
        ({8: CLEAR, 16: UNSURE}, INCONCLUSIVE),
        ({8: UNSURE, 16: AGAINST}, NOT_SUPPORTED),
        ({8: CLEAR, 16: AGAINST}, NOT_SUPPORTED),  # "at every ε"
        ({8: ONE_SEED, 16: ONE_SEED}, INCONCLUSIVE),
        ({8: (0.1, 0.0, 0.2)}, INCONCLUSIVE),  # touching 0 is not clear of it
        ({8: (-0.1, -0.2, 0.0)}, INCONCLUSIVE),
        ({8: (0.2, 0.2, 0.2)}, INCONCLUSIVE),  # an interval without width
    ],
)
@pytest.mark.parametrize(("law", "id"), [("uniform", C1), ("sign", "C1, random signs")])
def test_c1_asks_every_costly_radius(gaps, expected, law, id):
    assert verdict(id, noise_record(gaps, law=law))[0] == expected


def test_c1_passes_over_radii_at_which_the_attack_costs_little():
    made = noise_record({2: AGAINST, 8: CLEAR}, attacked={2: 0.91, 8: 0.6})  # a cost of 4 points, and one of 35
    found, reason = verdict(C1, made)
    assert found == SUPPORTED
    assert "+20.0 points [+10.0, +30.0] at 8/255" in reason and "2/255" not in reason


@pytest.mark.parametrize(("clean", "attacked"), [(0.55, 0.5), (0.95, 0.9), (0.47, 0.42)])
def test_c1_counts_a_cost_of_exactly_five_points(clean, attacked):
    assert verdict(C1, noise_record({8: CLEAR}, clean=clean, attacked={8: attacked}))[0] == SUPPORTED


def test_c1_without_a_costly_radius_is_inconclusive_and_says_why():
    found, reason = verdict(C1, noise_record({8: CLEAR}, attacked={8: 0.93}))
    assert found == INCONCLUSIVE and "No radius costs 5 points or more" in reason


def test_c1_without_noise_at_four_epsilon_does_not_blame_the_attack():
    made = noise_record({8: CLEAR}, attacked={8: 0.1})
    made["rows"] = [r | ({"factor": 2} if "factor" in r else {}) for r in made["rows"]]
    found, reason = verdict(C1, made)
    assert found == NOT_MEASURED and "No radius costs" not in reason  # this one costs 85 points
    assert artifacts.headline(made) == "No noise of four times the attack's size was measured"
    assert artifacts.headline(noise_record({}))


@pytest.mark.parametrize(
    ("gaps", "text"),
    [
        (
            {1: CLEAR, 2: CLEAR, 4: UNSURE},
            "clearly the milder at 1 and 2 times the attack's size, no longer at 4 times.",
        ),
        ({1: CLEAR, 2: AGAINST, 4: CLEAR}, "clearly the milder at 1 times the attack's size, no longer at 2 times."),
        ({1: UNSURE, 4: CLEAR}, "Already at 1 times the attack's size the noise is not clearly the milder"),
        ({2: CLEAR, 4: CLEAR}, "clearly the milder at 2 and 4 times the attack's size, the largest that was measured."),
    ],
)
def test_c1_says_at_which_multiple_of_the_noise_it_turns(gaps, text):
    told = {"training": "vanilla"} | PGD_20
    rows = [row("mean accuracy", 0.95, training="vanilla", attack="clean", eps_255=0.0)]
    for eps, left in ((2, 0.94), (8, 0.5), (16, 0.4)):
        rows.append(row("mean accuracy", left, **told, eps_255=eps))
        for k, gap in gaps.items():  # at 16 all are clear, at 2 none; 2 costs nothing and has no say
            own = {2: AGAINST, 8: gap, 16: CLEAR}[eps]
            rows.append(row("mean gap", *own, **told, eps_255=eps, noise="uniform", factor=k))
    assert text in verdict(C1, record("fig-random-vs-adversarial", rows))[1]


def test_c1_hears_noise_of_four_epsilon_and_of_its_own_law_alone():
    told = {"training": "vanilla", "eps_255": 8} | PGD_20
    made = noise_record({8: CLEAR})
    made["rows"] += [row("mean gap", *AGAINST, **told, noise="uniform", factor=2)]
    made["rows"] += [row("mean gap", *AGAINST, **told, noise="sign", factor=4)]
    made["rows"] += [row("gap", *AGAINST, **told, noise="uniform", factor=4)]  # of one network
    assert verdict(C1, made)[0] == SUPPORTED
    assert verdict("C1, random signs", made)[0] == NOT_SUPPORTED


@pytest.mark.parametrize(
    ("id", "law", "unit", "attack", "radius"),
    [
        ("C4, uniform noise", "uniform", "eps_counts", "pgd", "at 0.2 counts"),
        ("C4, random signs", "sign", "eps_counts", "pgd", "at 0.2 counts"),
        ("C4, random flips", "random_flips", "flips", "sparse_flips", "at 0.2 changed events"),
    ],
)
@pytest.mark.parametrize(("gap", "expected"), DECISIONS)
def test_c4_asks_c1_of_vanilla_training_on_event_data(id, law, unit, attack, radius, gap, expected):
    made = noise_record({0.1: CLEAR, 0.2: gap}, law=law, unit=unit, attack={"attack": attack, "steps": 10})
    found, reason = verdict(id, made)
    assert found == expected and radius in reason
    assert verdict(id, record(made["artifact"], []))[0] == NOT_MEASURED
    assert verdict(id, noise_record({8: CLEAR}))[0] == NOT_MEASURED  # that is of images


@pytest.mark.parametrize(("training", "against"), reading.BASELINES.items())
@pytest.mark.parametrize(
    ("name", "unit", "other"), [("counts", "eps_counts", "flips"), ("flips", "flips", "eps_counts")]
)
@pytest.mark.parametrize(("gain", "expected"), DECISIONS)
def test_c4_asks_c3_once_in_counts_and_once_in_whole_events(training, against, name, unit, other, gain, expected):
    of = {"training": training, "against": against}
    rows = [
        row("difference", *UNSURE, **of, attack="clean", eps_counts=0.0),
        row("difference", *gain, **of, attack=labels.WORST, **{unit: 20}),
        row("difference", *AGAINST, **of, attack=labels.WORST, **{other: 20}),
        row("difference", *AGAINST, **of, **PGD_20, **{unit: 40}),  # weaker: no say
    ]
    id = f"C4, {words.title(training)}, {name}"
    assert verdict(id, record("tab-events", rows))[0] == expected
    assert verdict(id, record("tab-events", []))[0] == NOT_MEASURED


# ---- C2 ----------------------------------------------------------------------------------------------------------


def ratio_record(*shares, zero=0.0):
    """Of one network for each share of gradients within both bounds."""
    rows = []
    for seed, share in enumerate(shares):
        of = {"training": "vanilla", "seeds": [seed]}
        rows += [row("within both bounds", share, 0.9, 1.0, **of), row("zero gradient", zero, 0.0, 0.1, **of)]
    return record("thm-ratio", rows)


def test_c2_the_statement_needs_every_sample():
    found, reason = verdict("C2, the statement", ratio_record(1.0, 1.0, zero=0.03))
    assert found == SUPPORTED
    assert reason.startswith("200 of 200 gradients of 2 networks") and "6 more are exactly 0" in reason
    found, reason = verdict("C2, the statement", ratio_record(1.0, 0.99))
    assert found == NOT_SUPPORTED and reason.startswith("199 of 200")
    assert verdict("C2, the statement", ratio_record())[0] == INCONCLUSIVE


def forward_record(shares, tighter=(0.5, 0.4, 0.6), regime=labels.TRUE):
    """`shares`: ε → the interval of the share of samples at most at 3‖g‖₀, one a training; a tenth is undetermined."""
    rows = []
    for eps, by_training in shares.items():
        for training, share in zip(TRAININGS, by_training, strict=False):
            of = {"training": training, "regime": regime, "eps_255": eps}
            rows += [row("at most 3‖g‖₀", *share, **of, mark=0.95), row("at most 3·PN", *tighter, **of, mark=0.95)]
            rows.append(row("undetermined", eps / 100, **of))
    return record("thm-ratio", rows)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({1.0: [(0.99, 0.96, 1.0)] * 2, 16.0: [(1.0, 0.97, 1.0)] * 2}, SUPPORTED),
        ({1.0: [(0.99, 0.96, 1.0)] * 2, 16.0: [(1.0, 0.97, 1.0), (0.97, 0.94, 0.99)]}, INCONCLUSIVE),
        ({1.0: [(0.99, 0.96, 1.0)] * 2, 16.0: [(1.0, 0.97, 1.0), (0.5, 0.4, 0.6)]}, NOT_SUPPORTED),
        ({1.0: [(0.95, 0.95, 0.95)]}, INCONCLUSIVE),
        ({1.0: [UNKNOWN]}, INCONCLUSIVE),
        ({}, INCONCLUSIVE),
    ],
)
def test_c2_about_networks_needs_every_training_at_every_radius(shares, expected):
    assert verdict("C2, the networks", forward_record(shares))[0] == expected
    assert verdict("C2, the networks", forward_record(shares, regime=labels.SMOOTH))[0] == INCONCLUSIVE


def test_c2_about_networks_tells_both_bounds_at_each_radius():
    _, reason = verdict("C2, the networks", forward_record({1.0: [(0.99, 0.9, 1.0)], 16.0: [(0.5, 0.4, 0.6)] * 2}))
    assert "99 to 99 % (50 to 50 %) at 1/255, 50 to 50 % (50 to 50 %) at 16/255. The mark is 95 %." in reason
    assert reason.endswith("left out: up to 16 % of the images (vanilla, 16/255).")


def test_the_p_value_of_c2_about_networks_is_that_of_the_mark():
    shares = forward_record({1.0: [(0.99, 0.96, 1.0)], 16.0: [(1.0, 0.97, 1.0)]})
    found = adjusted(with_p(shares, 0.04, "at most 3‖g‖₀"))["C2, the networks"]
    assert (found.verdict, found.p, found.holm) == (SUPPORTED, 0.04, 0.04)
    # a share below the mark is far from 0 all the same: the row against is the one below 0.95
    below = with_p(forward_record({1.0: [(0.99, 0.96, 1.0)], 16.0: [(0.5, 0.4, 0.6)]}), 0.01, "at most 3‖g‖₀")
    assert (adjusted(below)["C2, the networks"].verdict, adjusted(below)["C2, the networks"].p) == (NOT_SUPPORTED, 0.02)


# ---- C3 ----------------------------------------------------------------------------------------------------------


def ladder_record(alone, with_at, clean=(-0.02, -0.03, -0.01)):
    """Differences under the worst of all at 16/255: SR - vanilla and AT+SR - AT, each an interval or a list of them."""
    rows = []
    for (training, against), found in zip(reading.BASELINES.items(), (alone, with_at), strict=True):
        of = {"training": training, "against": against}
        rows.append(row("difference", *clean, **of, attack="clean", eps_255=0.0))
        for i, interval in enumerate(found if isinstance(found, list) else [found]):
            eps = {"eps_255": 16 * (i + 1)}
            rows.append(row("difference", *interval, **of, attack=labels.WORST, **eps))
            rows.append(row("difference", *AGAINST, **of, attack=labels.SO_FAR, up_to="APGD", **eps))  # weaker: no say
            rows.append(row("difference", *AGAINST, **of, attack="sign", **eps))
    return record("fig-attack-ladder", rows)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        *DECISIONS,
        ([CLEAR, CLEAR], SUPPORTED),
        ([CLEAR, UNSURE], INCONCLUSIVE),
        ([CLEAR, AGAINST], NOT_SUPPORTED),
    ],
)
def test_c3_has_two_verdicts_decided_by_the_strongest_attack(interval, expected):
    assert verdict("C3, alone", ladder_record(interval, UNSURE))[0] == expected
    assert verdict("C3, alone", ladder_record(UNSURE, interval))[0] == INCONCLUSIVE
    assert verdict("C3, with AT", ladder_record(UNSURE, interval))[0] == expected


def test_c3_takes_every_radius_of_the_worst_case_and_shows_the_middle_one_in_a_table():
    found = adjusted(ladder_record([CLEAR, (0.4, 0.3, 0.5), CLEAR], UNSURE))["C3, alone"]
    assert found.reason.count(" points [") == 4 and all(f"at {r}/255" in found.reason for r in (16, 32, 48))
    assert found.main == "+40.0 points [+30.0, +50.0] at 32/255"


def test_c3_prints_what_it_costs_on_clean_images():
    for id in ("C3, alone", "C3, with AT"):
        _, reason = verdict(id, ladder_record(CLEAR, CLEAR))
        assert "worst case of all attacks: +20.0 points [+10.0, +30.0] at 16/255" in reason
        assert reason.endswith("clean accuracy: -2.0 points [-3.0, -1.0].")


def test_c3_is_not_measured_where_no_two_networks_were_compared():
    found, reason = verdict("C3, alone", record("fig-attack-ladder", []))
    assert found == NOT_MEASURED and reason == "SR and vanilla were not compared."


# ---- C5 ----------------------------------------------------------------------------------------------------------


def maps_record(across, within, given, *, l1=(NEITHER,) * 3, contrast=None):
    """Rank correlations of robustness with the participation number and with l1: three intervals each.

    `contrast` holds the ratios of l1 and participation number and the difference of an experiment at equal magnitude.
    """
    told = {"attack": labels.WORST, "eps_255": 32.0, "n": 29}
    rows, held = [], {"participation number": "l1", "l1": "participation number"}
    for name, intervals in (("participation number", (across, within, given)), ("l1", l1)):
        for interval, own in zip(intervals, ({}, {}, {"given": held[name]}), strict=True):
            rows.append(row("rank correlation", *interval, sparsity=name, **own, **told))
        for entry, where in zip(rows[-3:], ("networks", "within trainings", "networks"), strict=True):
            entry["across"] = where
    rows += [row("participation number", 60.0, 50.0, 70.0, training=t, seeds=[0]) for t in TRAININGS]
    if contrast:
        pair = {"training": "exact-l1", "lam": 0.1, "against": "l2", "against_lam": 3.0}
        ratios, difference = contrast
        rows += [row("matched ratio", *r, sparsity=n, **pair) for n, r in zip(held.values(), ratios, strict=True)]
        rows.append(row("matched difference", *difference, **pair, **told))
    return record("fig-gradient-maps", rows, arrays={"images": [], "maps": {t: [] for t in TRAININGS}})


@pytest.mark.parametrize(
    ("across", "within", "given", "expected"),
    [
        (HELPS, HELPS, HELPS, SUPPORTED),
        (HELPS, NEITHER, HELPS, INCONCLUSIVE),  # Simpson's paradox
        (HELPS, HELPS, NEITHER, INCONCLUSIVE),
        (NEITHER, HELPS, HELPS, INCONCLUSIVE),
        (HELPS, HURTS, HELPS, NOT_SUPPORTED),
        (HELPS, HELPS, HURTS, NOT_SUPPORTED),
        (HURTS, NEITHER, NEITHER, NOT_SUPPORTED),
        ((-1.0, None, None), (-1.0, None, None), HELPS, INCONCLUSIVE),  # fewer than five configurations
        (UNKNOWN, UNKNOWN, UNKNOWN, INCONCLUSIVE),  # every network equally robust
    ],
)
def test_c5_is_supported_only_if_all_three_agree(across, within, given, expected):
    found, reason = verdict("C5", maps_record(across, within, given))
    assert found == expected
    assert "worst of all at 32/255" in reason and "29 networks" in reason
    assert "Rank correlation" in reason and "-0.10 [-0.50, 0.30] across networks" in reason  # l1's


def test_c5_says_which_of_the_three_disagree_and_when_it_is_magnitude():
    _, reason = verdict("C5", maps_record(HELPS, NEITHER, HURTS))
    number = (
        "-0.80 [-0.95, -0.40] across networks, -0.10 [-0.50, 0.30] within trainings, 0.70 [0.30, 0.90] at a given l1"
    )
    assert number in reason
    assert "Undecided: within trainings. Against the claim: at a given l1." in reason
    assert "magnitude and not sparsity" not in reason and "experiment" not in reason
    _, reason = verdict("C5", maps_record(HELPS, NEITHER, NEITHER, l1=(HELPS,) * 3))
    assert "Undecided: within trainings and at a given l1." in reason and "magnitude and not sparsity" in reason
    assert "magnitude" not in verdict("C5", maps_record(HELPS, HELPS, HELPS, l1=(HELPS,) * 3))[1]


def test_c5_tells_of_the_experiment_and_whether_magnitudes_were_equal():
    ratios = [(0.96, 0.8, 1.1), (0.4, 0.3, 0.5)]
    made = maps_record(HELPS, NEITHER, NEITHER, contrast=(ratios, CLEAR))
    _, reason = verdict("C5", made)
    assert (
        "exact l1 (λ = 0.1) against exact l2 (λ = 3): ‖g‖₁ 0.96 [0.80, 1.10] times, participation number 0.40" in reason
    )
    assert "+20.0 points [+10.0, +30.0]" in reason and "not equal" not in reason
    unequal = maps_record(HELPS, HELPS, HELPS, contrast=([(1.4, 1.2, 1.6), ratios[1]], CLEAR))
    assert verdict("C5", unequal)[0] == SUPPORTED and "magnitudes are not equal" in verdict("C5", unequal)[1]


# ---- sentences ---------------------------------------------------------------------------------------------------


def test_shares_and_points_are_percentages_with_their_intervals():
    assert reading.percent(row("accuracy", 0.471, 0.44, 0.5019)) == "47.1 % [44.0, 50.2]"
    assert reading.percent(row("accuracy", 1.0)) == "100.0 %"
    assert reading.percent(row("accuracy", 1.0, doubts=["no gradient"])) == "100.0 % †"
    assert reading.points(row("difference", -0.012, -0.05, 0.026)) == "-1.2 points [-5.0, +2.6]"
    assert reading.points(row("difference", 0.2)) == "+20.0 points"
    assert reading.points(row("difference", -0.0001, -0.0004, 0.0001)) == "+0.0 points [+0.0, +0.0]"
    assert reading.points(row("difference", None)) == reading.percent(row("accuracy", None)) == "undefined"


def test_an_attack_is_the_same_where_all_its_labels_and_the_radius_are():
    rows = [PGD_20 | {"eps_255": 8.0}, PGD_20 | {"eps_255": 16.0}, PGD_20 | {"eps_255": 8.0, "rule": "rate"}]
    assert reading.same_attack(rows, PGD_20 | {"eps_255": 8.0, "training": "sr"}) == rows[:1]
    assert reading.under(rows, "pgd", rule=None) == rows[:2] and reading.under(rows, "fgsm") == []


def test_a_finding_holds_headline_caption_and_exactly_its_own_verdicts():
    made = ladder_record(CLEAR, UNSURE)
    text = claims.finding(made)
    assert text.startswith(f"**{artifacts.headline(made)}** ({artifacts.caption(made)})\n\n")
    lines = [line for line in text.splitlines() if line.startswith("* ")]
    assert [line[2:].partition(":")[0] for line in lines] == ["C3, alone", "C3, with AT"]
    own = [v for v in claims.verdicts({"fig-attack-ladder": made}) if v.claim.artifact == "fig-attack-ladder"]
    for line, one in zip(lines, own, strict=True):
        assert one.claim.statement in line and f"**{one.verdict.capitalize()}.** {one.reason}" in line
    assert "Supported" in lines[0] and "Inconclusive" in lines[1]


def test_an_artifact_that_decides_no_claim_has_a_finding_too():
    made = record("tab-poisson-eot", [])
    assert claims.finding(made) == f"**{artifacts.headline(made)}** ({artifacts.caption(made)})"


def test_the_caption_of_a_choice_speaks_of_validation_images():
    made = record("fig-lambda", [row("chosen λ", 0.01, seeds=[0]), row("used λ", 0.01, seeds=[0])])
    assert artifacts.caption(made).startswith("Stripes, 100 validation images, 1 seed, ")


def test_the_caption_counts_images_and_seeds_and_names_split_and_profile():
    assert artifacts.caption(ladder_record(CLEAR, CLEAR)) == (
        "Stripes, 100 test images, 50 of them under APGD and Square, 3 seeds, 95 % intervals, profile smoke"
    )


def test_the_headline_of_noise_tells_the_widest_gap():
    made = noise_record({8: (0.2, 0.1, 0.3), 16: (0.6, 0.5, 0.7), 32: (0.1, 0.0, 0.2)}, attacked={8: 0.7, 16: 0.3})
    assert artifacts.headline(made) == ("PGD-20 leaves 30 % accuracy where uniform noise four times larger leaves 90 %")


def test_the_headline_of_the_ratio_tells_where_the_bounds_are_kept_and_where_most_images_break_them():
    rows = []
    for eps, inside, above in ((1.0, 0.96, 0.01), (16.0, 0.5, 0.5)):
        for training, less in (("vanilla", 0.0), ("sr", 0.01)):
            of = {"training": training, "regime": labels.TRUE, "eps_255": eps}
            rows += [row("inside", inside - less, **of), row("above 3‖g‖₀", above - less, **of)]
    found = record("thm-ratio", rows)
    assert "50 % of the images exceed the upper bound in vanilla networks at 16/255" in artifacts.headline(found)
    assert artifacts.headline(found, "outcomes").endswith("lie within both bounds at 1 of 2 radii")
    calm = record("thm-ratio", [r | ({"value": 0.0} if r["quantity"].startswith("above") else {}) for r in rows])
    assert "no image exceeds the upper bound" in artifacts.headline(calm)
    assert artifacts.headline(ratio_record(1.0)) == "No ratio was measured with the true forward pass"


def test_the_headline_of_c5_sets_the_two_correlations_side_by_side():
    told = artifacts.headline(maps_record(HELPS, NEITHER, HELPS))
    assert told.startswith("The rank correlation of participation number and robustness is ")
    assert told.endswith(" -0.80 across networks and -0.10 within trainings")
    unknown = artifacts.headline(maps_record(UNKNOWN, HURTS, HELPS))
    assert " is undefined across networks and 0.70 within trainings" in unknown


@pytest.mark.parametrize(
    ("l1", "number", "difference", "holds"),
    [
        (0.96, 0.4, CLEAR, True),  # the first training is sparser and more robust
        (0.96, 0.4, AGAINST, False),
        (1.1, 1.5, CLEAR, False),  # the second is sparser
        (1.1, 1.5, AGAINST, True),
        (0.96, 0.4, UNSURE, None),
        (0.7, 0.4, CLEAR, None),  # the magnitudes are not equal
    ],
)
def test_the_box_of_c5_asks_whether_the_sparser_of_two_trainings_is_more_robust(l1, number, difference, holds):
    made = maps_record(HELPS, HURTS, NEITHER, contrast=([(l1, None, None), (number, None, None)], difference))
    made["rows"] += [r | {"across": "within SR"} for r in made["rows"] if r.get("across") == "within trainings"]
    made["rows"] += [r | {"across": "within trainings"} for r in made["rows"] if "given" in r]
    lines = list(artifacts.module("fig-gradient-maps").box(made))
    assert [line.holds for line in lines] == [True, False, False, None, None, None, holds]


def test_the_headline_of_the_maps_gives_the_means_of_sr_and_vanilla_without_the_networks_of_the_sweep():
    made = maps_record(HELPS, HELPS, HELPS)
    assert artifacts.headline(made, "maps").endswith(
        " is 60 in SR networks and 60 in vanilla networks (one network each)"
    )
    made["rows"] = [r for r in made["rows"] if r.get("training") != "sr"]
    # three seeds at the λ in use, which stands first, and five at another
    for i, (lam, number) in enumerate([(0.01, 62.0), (0.01, 40.0), (0.01, 51.0)] + [(0.03, 9.0)] * 5):
        made["rows"].append(row("participation number", number, training="sr", lam=lam, seeds=[i]))
    assert artifacts.headline(records.check(made), "maps").endswith(" is 51 in SR networks and 60 in vanilla networks")


def test_the_headline_of_the_quotient_gives_the_range_over_trainings_at_the_h_in_use():
    def headline(*correlations):
        rows = []
        for training, shift in (("vanilla", 0.0), ("sr", 0.1)):
            told = {"training": training, "scheme": "forward", "precision": "float32"}
            for h, r in zip((1e-3, 1e-2, 1e-1), correlations, strict=True):
                rows.append(row("rank correlation", r and r + shift, h=h, **told))
        return artifacts.headline(record("prop-finite-difference", rows, {"used_h": 0.001}))

    assert headline(0.3, 0.8, None) == "At SR's h the quotient's rank correlation with ‖∇f‖₁ is 0.30 to 0.40"
    assert headline(None, 0.8, None) == "The quotient at SR's h has no rank correlation with ‖∇f‖₁"
    assert headline(None, None, None)  # no image moved at any h: said, and no crash
