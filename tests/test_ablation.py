"""What is said of ten trainings at equal epochs and at equal cost, on records made by hand."""

import ast

import pytest
from test_claims import record, row

from paperlib import findings, paths, profiles, tables
from paperlib.attacks import protocols
from paperlib.claims import TITLES, WORST
from paperlib.findings.ablation import EPOCHS, PASSES
from paperlib.training import defenses

AT_32 = {"attack": WORST, "eps_255": 32.0}
SEEDS, IMAGES = "paired t 95 % over seeds", "Bonett-Price paired 95 %"


def worst(shares, budget=PASSES):
    return [row("mean accuracy", share, training=t, budget=budget, **AT_32) for t, share in shares.items()]


def against(training, value, low, high, budget=PASSES):
    """SR minus a training: one seed in common, so that only the pair has an interval."""
    labels = {"training": "sr", "against": training, "budget": budget} | AT_32
    pair = row("paired difference", value, low, high, seeds=[0], n=100, **labels) | {"method": IMAGES}
    return [row("difference", value, seeds=[0], n=1, **labels), pair]


def at_pgd(training, other, *intervals, method=SEEDS):
    return [
        row("difference", *interval, training=training, against=other, attack="PGD-20", eps_255=eps, n=5)
        | {"method": method}
        for eps, interval in zip((16.0, 32.0, 48.0), intervals, strict=False)
    ]


def told(rows):
    return findings.headline(record("tab-ablation", rows), "equal-cost")


def lines(rows):
    """(holds, numbers) by statement, of the box."""
    return {
        line.statement: (line.holds, line.numbers)
        for line in findings.BOXES["tab-ablation"](record("tab-ablation", rows))
    }


# ---- which training is best ----------------------------------------------------------------------------------------


def test_another_training_is_best_and_how_far_sr_is_behind():
    rows = worst({"vanilla": 0.1, "sr": 0.6, "at": 0.71}) + against("at", -0.11, -0.2, -0.02)
    assert told(rows) == (
        "At about 20 passes an image, in the worst case at 32/255, AT keeps most: 71 %, "
        "+11.0 points [+2.0, +20.0] against SR"
    )


def test_sr_is_best_and_how_far_the_next_is_behind():
    rows = (
        worst({"vanilla": 0.1, "at": 0.5, "sr": 0.6})
        + against("at", 0.1, -0.01, 0.2)
        + against("vanilla", 0.5, 0.4, 0.6)
    )
    assert told(rows).endswith(", SR keeps most: 60 %, +10.0 points [-1.0, +20.0] against AT")


def test_several_are_best():
    rows = worst({"vanilla": 0.1, "sr": 0.6, "at": 0.7, "rat": 0.7}) + against("at", -0.1, -0.2, -0.02)
    assert ", AT, RAT keep most: 70 %, +10.0 points" in told(rows)
    assert told(worst({"vanilla": 0.0, "sr": 0.0})).endswith(", all trainings keep 0 %")


def test_equal_passes_decide_where_there_are_any():
    rows = worst({"sr": 0.6, "at": 0.5}, EPOCHS) + against("at", 0.1, 0.05, 0.2, EPOCHS)
    assert told(rows).startswith("At equal epochs, in the worst case at 32/255, SR keeps most")
    rows += worst({"sr": 0.5, "at": 0.6}) + against("at", -0.1, -0.2, 0.0)
    assert told(rows).startswith("At about 20 passes an image") and ", AT keeps most: 60 %" in told(rows)


# ---- what holds ----------------------------------------------------------------------------------------------------


def test_a_comparison_holds_where_every_radius_is_clear_of_0():
    rows = at_pgd("sr", "vanilla", (0.2, 0.1, 0.3), (0.1, 0.01, 0.2))
    rows += at_pgd("at+sr", "at", (0.2, 0.1, 0.3), (0.0, -0.1, 0.1))
    rows += at_pgd("sr", "at", (0.2, 0.1, 0.3), (-0.2, -0.3, -0.1))
    found = lines(rows + worst({"sr": 0.5}))
    holds = [found[f"{pair} under PGD-20 at every radius."][0] for pair in (
        "SR is more robust than vanilla", "AT+SR is more robust than AT", "SR is more robust than AT")]  # fmt: skip
    assert holds == [True, None, False]
    assert found["SR is more robust than vanilla under PGD-20 at every radius."][1] == (
        "+20.0 points [+10.0, +30.0] at 16/255, +10.0 points [+1.0, +20.0] at 32/255; over 5 seeds"
    )


@pytest.mark.parametrize(("low", "high", "holds"), [(0.05, 0.2, True), (-0.05, 0.2, None), (-0.3, -0.1, False)])
def test_sr_must_beat_every_other_training_at_equal_passes(low, high, holds):
    rows = worst({"sr": 0.5, "vanilla": 0.1, "rat": 0.4}) + against("vanilla", 0.4, 0.3, 0.5)
    ((_, (found, numbers)),) = lines(rows + against("rat", (low + high) / 2, low, high)).items()
    assert found is holds and numbers.startswith("SR - RAT: ") and numbers.endswith("the least of 2; over 100 images")


def test_the_headline_names_what_sr_is_added_to_and_no_rival():
    rows = at_pgd("sr", "vanilla", (0.2, 0.1, 0.3), (-0.3, -0.4, -0.1))
    rows += at_pgd("trades+sr", "trades", (0.1, None, None)) + at_pgd("sr", "l2", (0.9, 0.8, 1.0))
    strong = [row("difference", 0.9, training="sr", against="vanilla", budget=EPOCHS, **AT_32)]
    assert findings.headline(record("tab-ablation", rows + strong)) == (
        "What SR changes under PGD-20, where most: SR against vanilla: -30 points at 32/255; "
        "TRADES+SR against TRADES: +10 points at 16/255"
    )


# ---- what it costs -------------------------------------------------------------------------------------------------


def cost_record(sr, exact):
    """SR and exact l1 with (value, low, high) of the seconds; everything else of exact l1 is twice SR's 2."""
    rows = [row("relative cost", 1.0, what=what, training="vanilla") for what in ("passes", "bytes kept", "seconds")]
    for training, other, seconds in (("sr", 2.0, sr), ("exact-l1", 4.0, exact)):
        rows += [row("relative cost", other, what=what, training=training) for what in ("passes", "bytes kept")]
        rows.append(row("relative cost", *seconds, what="seconds", training=training, timed=True))
    return record("tab-cost", rows + worst({"sr": 0.5, "vanilla": 0.5}))


def test_the_headline_of_cost_names_sr_and_the_slowest():
    found = findings.headline(cost_record((2.5, 2.4, 2.6), (8.0, 7.0, 9.0)))
    steps = (
        "SR's step takes 2.5 times the time and 2.0 times the memory of a vanilla one, exact l1's 8.0 and 4.0 times. "
    )
    assert found.startswith(steps)
    assert found.endswith("all trainings keep 50 %")


@pytest.mark.parametrize(
    ("sr", "exact", "holds"),
    [
        ((2.5, 2.4, 2.6), (8.0, 7.0, 9.0), True),
        ((2.5, 2.4, 7.5), (8.0, 7.0, 9.0), None),
        ((9.0, 8.5, 9), (8, 7, 8.4), False),
    ],
)
def test_seconds_decide_only_where_the_slowest_and_the_fastest_are_apart(sr, exact, holds):
    found = {line.statement: line.holds for line in findings.BOXES["tab-cost"](cost_record(sr, exact))}
    assert found["A step of SR takes less time than one of double back-propagation."] is holds
    assert found["A step of SR takes less memory than one of double back-propagation."] is True


# ---- the notebooks -------------------------------------------------------------------------------------------------


def test_both_notebooks_attack_the_same_networks_in_the_same_way():
    for name in ("smoke", "laptop", "cifar", "paper"):
        ablation, cost = map(profiles.load(name).parameters, ("tab-ablation", "tab-cost"))
        shared = set(ablation) & set(cost)
        assert {"passes", "cost_seeds", "strong_eps_255", "strong_samples", "pgd_steps", "long_steps"} <= shared
        assert {key: ablation[key] for key in shared} == {key: cost[key] for key in shared}


def test_the_attack_is_pgd_then_apgd_then_square():
    attack = protocols.strongest(32.0, steps=20, long_steps=10, queries=300)
    assert attack.title == WORST and attack.eps == 32 / 255
    assert [(m.name, m.gradients, m.queries) for m in attack.members] == [("pgd", 20, 0), ("apgd_square", 10, 300)]


def test_the_readers_own_training_of_the_notebook_is_measured_beside_the_others(monkeypatch):
    monkeypatch.setattr(defenses, "DEFENSES", dict(defenses.DEFENSES))
    source = ast.parse((paths.NOTEBOOKS / "tab-cost.py").read_text(encoding="utf-8"))
    start = next(i for i, node in enumerate(source.body) if isinstance(node, ast.FunctionDef))
    own = [node for node in source.body[start:] if isinstance(node, (ast.FunctionDef, ast.Assign))]
    imports = [node for node in source.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {"trainings": profiles.load("smoke").recipes(), "batch": 10, "repeats": 1, "device": "cpu"}
    exec(ast.unparse(ast.Module([*imports, *own], [])), names)
    found = record("tab-cost", names["beside"])
    table = tables.markdown(found)
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["vanilla", "SR", names["mine"].defense]
    assert names["mine"].defense not in TITLES and names["mine"].defense in defenses.DEFENSES
