"""Verdicts on records made by hand: what the rules fixed in advance must answer, and what the sentences say."""

import pytest
from handmade import FOUR, PGD_20, record, row

from paperlib import artifacts, labels, records, words
from paperlib.artifacts import claims, reading
from paperlib.artifacts.claims import INCONCLUSIVE, NOT_MEASURED, NOT_SUPPORTED, SUPPORTED

CLEAR, UNSURE, AGAINST, ONE_SEED = (0.2, 0.1, 0.3), (0.1, -0.1, 0.3), (-0.2, -0.3, -0.1), (0.2, None, None)
HELPS, HURTS, NEITHER, UNKNOWN = (-0.8, -0.95, -0.4), (0.7, 0.3, 0.9), (-0.1, -0.5, 0.3), (None, None, None)
DECISIONS = [(CLEAR, SUPPORTED), (UNSURE, INCONCLUSIVE), (AGAINST, NOT_SUPPORTED), (ONE_SEED, INCONCLUSIVE)]
TRAININGS = [name for name, _ in FOUR]


def verdict(id, *made):
    """(verdict, reason) of one line of the ledger, given these records."""
    (found,) = (v for v in claims.verdicts({r["artifact"]: r for r in made}) if v.claim.id == id)
    return found.verdict, found.reason


# ---- the ledger --------------------------------------------------------------------------------------------------


def test_every_claim_of_the_paper_has_its_lines_and_the_four_words():
    parts = [claim.id.partition(",")[0] for claim in claims.LEDGER]
    assert [parts.count(c) for c in ("C1", "C2", "C3", "C4", "C5")] == [2, 2, 2, 7, 1] and len(parts) == 14
    assert len({claim.id for claim in claims.LEDGER}) == len(claims.LEDGER)
    verdicts = {"supported", "not supported", "inconclusive at this scale", "not measured"}
    assert {SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE, NOT_MEASURED} == verdicts


def test_without_records_nothing_is_measured():
    found = claims.verdicts({})
    assert [v.claim for v in found] == list(claims.LEDGER) and {v.verdict for v in found} == {NOT_MEASURED}
    assert all(v.reason.startswith(v.claim.artifact) for v in found)


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
    """`shares`: ε → the interval of the share of samples at most at 3‖g‖₀, one a network."""
    rows = []
    for eps, networks in shares.items():
        for seed, share in enumerate(networks):
            of = {"training": "vanilla", "regime": regime, "eps_255": eps, "seeds": [seed]}
            rows += [row("at most 3‖g‖₀", *share, **of), row("at most 3·PN", *tighter, **of)]
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
def test_c2_about_networks_needs_every_network_at_every_radius(shares, expected):
    assert verdict("C2, the networks", forward_record(shares))[0] == expected
    assert verdict("C2, the networks", forward_record(shares, regime=labels.SMOOTH))[0] == INCONCLUSIVE


def test_c2_about_networks_tells_both_bounds_at_each_radius():
    _, reason = verdict("C2, the networks", forward_record({1.0: [(0.99, 0.9, 1.0)], 16.0: [(0.5, 0.4, 0.6)] * 2}))
    assert "99 to 99 % (50 to 50 %) at 1/255, 50 to 50 % (50 to 50 %) at 16/255. The mark is 95 %." in reason


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


def test_c3_prints_what_it_costs_on_clean_images():
    for id in ("C3, alone", "C3, with AT"):
        _, reason = verdict(id, ladder_record(CLEAR, CLEAR))
        assert "worst case of all attacks: +20.0 points [+10.0, +30.0] at 16/255" in reason
        assert reason.endswith("clean accuracy: -2.0 points [-3.0, -1.0].")


def test_c3_is_not_measured_where_no_two_networks_were_compared():
    found, reason = verdict("C3, alone", record("fig-attack-ladder", []))
    assert found == NOT_MEASURED and reason == "SR and vanilla were not compared."


# ---- C5 ----------------------------------------------------------------------------------------------------------


def maps_record(number, size):
    """Rank correlations of robustness with the participation number and with l1, each an interval."""
    by_name = {"l1": size, "l2": AGAINST, "participation number": number}
    told = PGD_20 | {"eps_255": 32.0, "n": 29}
    rows = [row("rank correlation", *interval, sparsity=name, **told) for name, interval in by_name.items()]
    rows += [row("participation number", 60.0, 50.0, 70.0, training=t, seeds=[0]) for t in TRAININGS]
    return record("fig-gradient-maps", rows, arrays={"images": [], "maps": {t: [] for t in TRAININGS}})


@pytest.mark.parametrize(
    ("number", "size", "expected", "magnitude"),
    [
        (HELPS, HELPS, SUPPORTED, False),
        (HELPS, NEITHER, SUPPORTED, False),
        (NEITHER, HELPS, INCONCLUSIVE, True),
        (HURTS, HELPS, NOT_SUPPORTED, True),
        (HURTS, HURTS, NOT_SUPPORTED, False),
        (NEITHER, NEITHER, INCONCLUSIVE, False),
        (NEITHER, HURTS, INCONCLUSIVE, False),
        ((-1.0, None, None), (-1.0, None, None), INCONCLUSIVE, False),  # fewer than five networks
        (UNKNOWN, UNKNOWN, INCONCLUSIVE, False),  # every network equally robust
        (UNKNOWN, HELPS, INCONCLUSIVE, True),
    ],
)
def test_c5_is_about_the_participation_number(number, size, expected, magnitude):
    found, reason = verdict("C5", maps_record(number, size))
    assert found == expected
    assert ("magnitude and not sparsity" in reason) == magnitude
    assert "PGD-20 at 32/255" in reason and "29 networks" in reason


def test_c5_tells_both_correlations():
    _, reason = verdict("C5", maps_record(HELPS, NEITHER))
    assert "participation number -0.80 [-0.95, -0.40], l1 -0.10 [-0.50, 0.30]" in reason


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
    lines = text.splitlines()[2:]
    assert [line[2:].partition(":")[0] for line in lines] == ["C3, alone", "C3, with AT"]
    own = [v for v in claims.verdicts({"fig-attack-ladder": made}) if v.claim.artifact == "fig-attack-ladder"]
    for line, (claim, found, reason) in zip(lines, own, strict=True):
        assert claim.statement in line and f"**{found.capitalize()}.** {reason}" in line
    assert "Supported" in lines[0] and "Inconclusive" in lines[1]


def test_an_artifact_that_decides_no_claim_has_a_finding_too():
    made = record("tab-poisson-eot", [])
    assert claims.finding(made) == f"**{artifacts.headline(made)}** ({artifacts.caption(made)})"


def test_the_caption_of_a_choice_speaks_of_validation_images():
    made = record("fig-lambda", [row("chosen λ", 0.01, seeds=[0]), row("used λ", 0.01, seeds=[0])])
    assert artifacts.caption(made).startswith("Stripes, 100 validation images, 1 seed, ")


def test_the_caption_counts_images_and_seeds_and_names_split_and_profile():
    assert artifacts.caption(ladder_record(CLEAR, CLEAR)) == (
        "Stripes, 100 test images, 3 seeds, 95 % intervals, profile smoke"
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


def test_the_headline_of_the_maps_gives_the_means_of_sr_and_vanilla_without_the_networks_of_the_sweep():
    made = maps_record(HELPS, HELPS)
    assert artifacts.headline(made).endswith(" is 60 in SR networks and 60 in vanilla networks (one network each)")
    made["rows"] = [r for r in made["rows"] if r.get("training") != "sr"]
    # three seeds at the λ in use, which stands first, and five at another
    for i, (lam, number) in enumerate([(0.01, 62.0), (0.01, 40.0), (0.01, 51.0)] + [(0.03, 9.0)] * 5):
        made["rows"].append(row("participation number", number, training="sr", lam=lam, seeds=[i]))
    assert artifacts.headline(records.check(made)).endswith(" is 51 in SR networks and 60 in vanilla networks")


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
