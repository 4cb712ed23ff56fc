"""Records that agree and records that do not; which of many accuracies is the one to quote."""

import pytest
from handmade import PGD_20, cells, made, record, row

from paperlib import labels
from paperlib.artifacts import consistency, quotes, report, summary

WORST = {"attack": labels.WORST}
SQUARE = {"attack": "square", "queries": 5000}
CLEAN = {"attack": labels.CLEAN}


def accuracy(value, attack, eps=32.0, *, half=0.05, network="a", quantity="accuracy", **told):
    """A row of one network, or for `network` of two letters of two: `value` ± `half`."""
    told = {"over": "samples", "n": 100, "training": "sr", "seeds": list(range(len(network)))} | told
    made_ = row(quantity, value, value - half, value + half, **told, **attack, **{told.pop("unit", "eps_255"): eps})
    return made_ | {"experiments": list(network)}


def records(**rows):
    """Artifact → record; "tab_cost" stands for the artifact "tab-cost"."""
    names = {name.replace("_", "-"): own for name, own in rows.items()}
    return {name: record(name, own) for name, own in names.items()}


def ladder(*more, **told):
    return records(fig_attack_ladder=[accuracy(0.6, WORST, **told)], tab_masking_checklist=list(more))


# ---- the worst case is the lowest --------------------------------------------------------------------------------


def test_an_attack_that_undercuts_the_worst_case_beyond_chance_is_found_and_both_are_named():
    found = ladder(accuracy(0.4, SQUARE), accuracy(0.45, PGD_20), accuracy(0.9, CLEAN, eps=0.0))
    ((worst, lower),) = consistency.below_worst(found)
    assert (worst.artifact, worst.row["value"]) == ("fig-attack-ladder", 0.6)
    assert (lower.artifact, lower.row["value"]) == ("tab-masking-checklist", 0.4)  # the lower of two
    (sentence,) = consistency.disagreements(found)
    assert sentence.startswith("These disagree: `tab-masking-checklist` 40.0 % [35.0, 45.0] (SR, ")
    assert "`fig-attack-ladder` 60.0 % [55.0, 65.0] (SR, worst of all, 32/255, seed 0, n = 100)" in sentence
    assert [r["value"] for r in consistency.rows_in_doubt(found)] == [0.6, 0.4]


@pytest.mark.parametrize(
    "other",
    [
        accuracy(0.52, SQUARE),  # within chance
        accuracy(0.5, SQUARE),  # the intervals touch
        accuracy(0.4, SQUARE, network="b"),  # another network
        accuracy(0.4, SQUARE, eps=48.0),  # a larger radius
        accuracy(0.4, SQUARE, unit="flips"),
        accuracy(0.4, SQUARE | {"norm": "l2"}),
        accuracy(0.4, SQUARE, split="validation"),
        accuracy(0.4, SQUARE, quantity="scaled accuracy"),
        accuracy(0.4, CLEAN, eps=0.0),  # of fewer images, it may be lower
        accuracy(0.4, SQUARE) | {"low": None, "high": None},
    ],
)
def test_what_says_nothing_of_the_worst_case_is_left_alone(other):
    assert consistency.disagreements(ladder(other)) == []


@pytest.mark.parametrize("profile", summary.PROFILES)
def test_no_quantity_has_two_values_in_the_committed_records(profile):
    assert consistency.two_values(report.found_in(profile)) == []


def test_validation_images_are_others():
    found = records(fig_attack_ladder=[accuracy(0.6, WORST)], fig_lambda=[accuracy(0.4, PGD_20), accuracy(0.3, WORST)])
    assert consistency.disagreements(found) == []


def test_a_smaller_radius_undercuts_as_well_and_the_mean_over_seeds_is_looked_at():
    assert len(consistency.below_worst(ladder(accuracy(0.4, SQUARE, eps=16.0)))) == 1
    several = {"network": "ab", "quantity": "mean accuracy", "over": labels.SEEDS}
    assert len(consistency.below_worst(ladder(accuracy(0.4, SQUARE, **several), **several))) == 1
    # a mean over one network repeats that network's accuracy: told once
    twice = [accuracy(0.6, WORST), accuracy(0.6, WORST, quantity="mean accuracy")]
    found = records(fig_attack_ladder=twice, tab_cost=[accuracy(0.4, SQUARE)])
    assert len(consistency.below_worst(found)) == 1


# ---- one quantity has one value ----------------------------------------------------------------------------------


def test_one_quantity_with_two_values_is_found():
    found = records(tab_ablation=[accuracy(0.5, PGD_20)], tab_cost=[accuracy(0.51, PGD_20, budget=labels.EPOCHS)])
    ((one, other),) = consistency.two_values(found)
    assert (one.row["value"], other.row["value"]) == (0.5, 0.51)
    assert consistency.disagreements(found)[0].endswith("are the same quantity.")


@pytest.mark.parametrize(
    "changed",
    [
        {"value": 0.5},
        {"attack": PGD_20 | {"steps": 50}},
        {"eps": 16.0},
        {"n": 50},
        {"network": "b"},
        {"split": "validation"},
        {"quantity": "mean accuracy", "over": labels.SEEDS},  # its n may count networks
    ],
)
def test_other_quantities_may_differ(changed):
    told = {"value": 0.51, "attack": PGD_20} | changed
    found = records(
        tab_ablation=[accuracy(0.5, PGD_20)], tab_cost=[accuracy(told.pop("value"), told.pop("attack"), **told)]
    )
    assert consistency.two_values(found) == []


# ---- which number to quote ---------------------------------------------------------------------------------------


def quotable(**more):
    """The ladder at two radii on 50 images; more networks and images of PGD-20 and clean elsewhere."""
    several = {"network": "abc", "quantity": "mean accuracy", "over": labels.SEEDS, "n": 3}
    own = [accuracy(0.9, CLEAN, 0.0, **several), accuracy(0.6, WORST, 16.0, **several), accuracy(0.4, WORST, **several)]
    each = [accuracy(0.9, CLEAN, 0.0, network=n, n=50) | {"seeds": [i]} for i, n in enumerate("abc")]
    each += [
        accuracy(0.4, WORST, e, network=n, n=50) | {"seeds": [i]} for i, n in enumerate("abc") for e in (16.0, 32.0)
    ]
    elsewhere = [
        accuracy(0.91, CLEAN, 0.0, **several),
        accuracy(0.7, PGD_20, **several),
        accuracy(0.3, PGD_20, 64.0, **several),  # of no radius of the worst case
        accuracy(0.1, WORST, **several),  # not the judge's
        accuracy(0.2, SQUARE, **several),
        *(accuracy(0.9, CLEAN, 0.0, network=n, n=500) | {"seeds": [i]} for i, n in enumerate("abc")),
        accuracy(0.99, CLEAN, 0.0, network="xyz", quantity="mean accuracy", over=labels.SEEDS, lam=0.1),
    ]
    return records(fig_attack_ladder=own + each, tab_ablation=elsewhere, **more)


def test_for_each_training_clean_pgd_and_the_worst_case_at_each_radius_are_quoted_with_their_samples():
    head, *lines = cells(quotes.table(quotable(), []).partition("\n\n")[0])
    assert head == ["training", "number", "accuracy", "images", "networks", "record"]
    assert lines == [
        ["SR", "clean", "91.0 % [86.0, 96.0]", "500", "3", "`tab-ablation`"],
        ["SR", "PGD-20, 32/255", "70.0 % [65.0, 75.0]", "3", "3", "`tab-ablation`"],
        ["SR", "worst of all, 16/255", "**60.0 % [55.0, 65.0]**", "50", "3", "`fig-attack-ladder`"],
        ["SR", "worst of all, 32/255", "**40.0 % [35.0, 45.0]**", "50", "3", "`fig-attack-ladder`"],
    ]
    assert quotes.RULE in quotes.table(quotable(), [])


def test_the_certified_floor_is_quoted_where_there_is_one_and_doubt_is_marked():
    floor = [row("mean certified accuracy", 0.3, 0.2, 0.4, training="sr", eps_255=e, n=40) for e in (1.0, 2.0)]
    floor += [row("certified accuracy", 0.25, 0.2, 0.4, training="sr", eps_255=1.0, n=40, seeds=(0,))]
    found = quotable(fig_certified=floor)
    doubted = [r for r in found["fig-attack-ladder"]["rows"] if r["quantity"] == "mean accuracy" and r["value"] == 0.4]
    text = quotes.table(found, doubted)
    lines = cells(text.partition("\n\n")[0])
    assert lines[-2:] == [
        ["SR", f"certified, {e}/255", "30.0 % [20.0, 40.0]", "40", "3", "`fig-certified`"] for e in (1, 2)
    ]
    assert lines[4][2] == "**40.0 % [35.0, 45.0] ‡**" and text.count("‡") == 2


def test_without_the_ladder_there_is_nothing_to_quote():
    for found in ({}, records(tab_ablation=[accuracy(0.5, PGD_20)]), records(fig_attack_ladder=[])):
        assert "no record in this profile" in quotes.table(found, [])


def test_a_report_of_every_artifact_quotes_its_four_trainings_and_marks_what_disagrees():
    found = {name: made(name) for name in report.reading_order()}
    lines = cells(quotes.table(found, consistency.rows_in_doubt(found)).partition("\n\n")[0])[1:]
    assert {line[0] for line in lines} == {"vanilla", "SR", "AT", "AT+SR"}
    assert all(line[1].startswith(("clean", "PGD-20", "worst of all", "certified")) for line in lines)
