"""What is said of ten trainings at equal epochs, at equal cost and of what they cost, on records made by hand."""

import ast
import json
import re

import pytest
from handmade import PGD_20, cells, experiment, made, record, row

from paperlib import artifacts, files, paths, profiles, words
from paperlib.artifacts import tab_ablation, tab_cost
from paperlib.attacks import protocols
from paperlib.labels import EPOCHS, PASSES, WORST
from paperlib.measures import learning
from paperlib.profiles import selections
from paperlib.training import defenses

AT_32 = {"attack": WORST, "eps_255": 32.0}
UP, UNSURE, DOWN = (0.2, 0.1, 0.3), (0.0, -0.1, 0.1), (-0.2, -0.3, -0.1)


def worst(shares, budget=PASSES):
    return [row("mean accuracy", share, training=name, budget=budget, **AT_32) for name, share in shares.items()]


def against(training, value, low, high, budget=PASSES):
    """SR minus a training, over two networks each."""
    of = {"training": "sr", "against": training, "budget": budget, "seeds": [0, 1]} | AT_32
    return [row("difference", value, low, high, over="seeds and samples", **of)]


def at_pgd(training, other, *intervals):
    """A difference at 16/255, one at 32/255, and so on."""
    of = {"training": training, "against": other, "n": 5} | PGD_20
    return [row("difference", *interval, **of, eps_255=16.0 * i) for i, interval in enumerate(intervals, 1)]


# ---- which training is best --------------------------------------------------------------------------------------

SR_FIRST = [*worst({"sr": 0.6, "at": 0.5}, EPOCHS), *against("at", 0.1, 0.05, 0.2, EPOCHS)]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            worst({"vanilla": 0.1, "sr": 0.6, "at": 0.71}) + against("at", -0.11, -0.2, -0.02),
            "At equal passes AT keeps most in the worst case, +11 points against SR",
        ),
        (
            worst({"vanilla": 0.1, "at": 0.5, "sr": 0.6})
            + against("at", 0.1, -0.01, 0.2)
            + against("vanilla", 0.5, 0.4, 0.6),
            "At equal passes SR keeps most in the worst case, +10 points against AT",
        ),
        (
            worst({"vanilla": 0.1, "sr": 0.6, "at": 0.7, "rat": 0.7}) + against("at", -0.1, -0.2, -0.02),
            "At equal passes AT and RAT keep most in the worst case, +10 points against SR",
        ),
        (worst({"vanilla": 0.0, "sr": 0.0}), "At equal passes all trainings keep 0 % in the worst case"),
        (SR_FIRST, "At equal epochs SR keeps most in the worst case, +10 points against AT"),
        (  # equal passes decide where there are any
            SR_FIRST + worst({"sr": 0.5, "at": 0.6}) + against("at", -0.1, -0.2, 0.0),
            "At equal passes AT keeps most in the worst case, +10 points against SR",
        ),
    ],
)
def test_the_headline_of_equal_cost_gives_the_best_and_how_far_sr_or_the_next_is_behind(rows, said):
    assert artifacts.headline(record("tab-ablation", rows), "equal-cost") == said


# ---- epoch by epoch ----------------------------------------------------------------------------------------------


def test_a_learning_curve_is_the_mean_over_networks_of_the_epochs_that_all_have(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    networks = [experiment("sr", 0.01, seed=seed) for seed in (0, 1, 2)] + [experiment("at")]
    curves = [0.5, 0.80], [0.3, 0.82, 0.9], None, [0.4]
    for network, curve in zip(networks, curves, strict=True):
        if curve is not None:
            lines = [json.dumps({"epoch": i, "validation_accuracy": share}) + "\n" for i, share in enumerate(curve, 1)]
            files.write_atomically(network.folder / "history.jsonl", "".join(lines).encode())
    first, second, of_at = learning.rows(networks)
    assert [(r["training"], r["epoch"]) for r in (first, second, of_at)] == [("sr", 1), ("sr", 2), ("at", 1)]
    assert [first["value"], second["value"], of_at["value"]] == pytest.approx([0.4, 0.81, 0.4])
    assert first["seeds"] == [0, 1] and of_at["low"] is None
    half = 12.7062 * 0.01  # Student's t of one degree of freedom, times half the distance of two values
    assert [second["low"], second["high"]] == pytest.approx([0.81 - half, 0.81 + half], abs=1e-6)
    assert (first["low"], first["high"]) == (0, 1)  # cut


def test_the_learning_curves_say_what_the_last_epoch_adds():
    found = made("tab-ablation")
    said = "The last epoch changes validation accuracy by +10.0 to +19.0 points, depending on the training"
    assert artifacts.headline(found, "learning") == said
    head, vanilla, *_ = cells(artifacts.table(found, "learning"))
    assert head == ["training", "epoch 1", "epoch 2"] and vanilla[1:] == ["50.0 % [40.0, 60.0]", "60.0 % [50.0, 70.0]"]
    names = [text.get_text() for text in artifacts.draw(found, "learning").axes[0].texts]
    assert sorted(names) == ["AT", "AT+SR", "SR", "vanilla"]


# ---- what holds --------------------------------------------------------------------------------------------------


def lines(rows):
    """(holds, numbers) by statement, of the box."""
    return {line.statement: line[::2] for line in tab_ablation.box(record("tab-ablation", rows))}


def test_a_comparison_holds_where_every_radius_is_clear_of_0():
    rows = at_pgd("sr", "vanilla", UP, (0.1, 0.01, 0.2)) + at_pgd("at+sr", "at", UP, UNSURE)
    found = lines(rows + at_pgd("sr", "at", UP, DOWN) + worst({"sr": 0.5}))
    pairs = ("SR is more robust than vanilla", "AT+SR is more robust than AT", "SR is more robust than AT")
    assert [found[f"{pair} under PGD-20 at every radius."][0] for pair in pairs] == [True, None, False]
    assert found["SR is more robust than vanilla under PGD-20 at every radius."][1] == (
        "+20.0 points [+10.0, +30.0] at 16/255, +10.0 points [+1.0, +20.0] at 32/255; over 3 networks"
    )


@pytest.mark.parametrize(("low", "high", "holds"), [(0.05, 0.2, True), (-0.05, 0.2, None), (-0.3, -0.1, False)])
def test_sr_must_beat_every_other_training_at_equal_passes(low, high, holds):
    rows = worst({"sr": 0.5, "vanilla": 0.1, "rat": 0.4}) + against("vanilla", 0.4, 0.3, 0.5)
    ((_, (found, numbers)),) = lines(rows + against("rat", (low + high) / 2, low, high)).items()
    assert (
        found is holds
        and numbers.startswith("SR - RAT: ")
        and numbers.endswith("the least of 2; over 2 networks and 100 images")
    )


def test_the_headline_compares_sr_with_vanilla_and_at_at_the_radius_that_is_shown():
    """The radius of the worst case is 32/255; the larger differences at 16/255 are not in the figure."""
    rows = at_pgd("sr", "vanilla", (0.5, 0.4, 0.6), (0.3, 0.2, 0.4)) + at_pgd("sr", "at", DOWN, (-0.1, None, None))
    rows += at_pgd("sr", "l2", (0.9, 0.8, 1.0), (0.9, 0.8, 1.0))
    rows += [row("mean accuracy", 0.5, training="sr", **PGD_20, eps_255=eps) for eps in (16.0, 32.0)]
    assert artifacts.headline(record("tab-ablation", rows)) == (
        "Under PGD-20 SR lies 30 points above vanilla and 10 points below AT"
    )
    assert "50 points above vanilla" in artifacts.headline(record("tab-ablation", rows, strong_eps_255=8.0))


# ---- what it costs -----------------------------------------------------------------------------------------------


def cost_record(sr, exact):
    """SR and exact l1 with (value, low, high) of the seconds; everything else of exact l1 is twice SR's 2."""
    rows = [row("relative cost", 1.0, what=what, training="vanilla") for what in ("passes", "bytes kept", "seconds")]
    for training, other, seconds in (("sr", 2.0, sr), ("exact-l1", 4.0, exact)):
        rows += [row("relative cost", other, what=what, training=training) for what in ("passes", "bytes kept")]
        rows.append(row("relative cost", *seconds, what="seconds", training=training, timed=True))
    return record("tab-cost", rows + worst({"sr": 0.5, "vanilla": 0.5}))


def test_the_headline_of_cost_gives_time_and_memory_of_a_step_of_sr():
    assert artifacts.headline(cost_record((2.5, 2.4, 2.6), (8.0, 7.0, 9.0))) == (
        "A step of SR takes 2.5 times the time and 2.0 times the memory of a vanilla one"
    )


@pytest.mark.parametrize(
    ("sr", "exact", "holds"),
    [
        ((2.5, 2.4, 2.6), (8.0, 7.0, 9.0), True),
        ((2.5, 2.4, 7.5), (8.0, 7.0, 9.0), None),
        ((9.0, 8.5, 9), (8, 7, 8.4), False),
    ],
)
def test_seconds_decide_only_where_the_slowest_and_the_fastest_are_apart(sr, exact, holds):
    found = {line.statement: line.holds for line in tab_cost.box(cost_record(sr, exact))}
    assert found["A step of SR takes less time than one of double back-propagation."] is holds
    assert found["A step of SR takes less memory than one of double back-propagation."] is True


# ---- the notebooks -----------------------------------------------------------------------------------------------


def test_both_notebooks_attack_the_same_networks_in_the_same_way():
    for name in ("smoke", "laptop", "cifar", "paper"):
        ablation, cost = map(profiles.load(name).parameters, ("tab-ablation", "tab-cost"))
        shared = set(ablation) & set(cost)
        assert {"passes", "cost_seeds", "strong_eps_255", "strong_samples", "pgd_steps", "long_steps"} <= shared
        assert {key: ablation[key] for key in shared} == {key: cost[key] for key in shared}


def test_the_attack_is_pgd_then_apgd_then_square():
    attack = protocols.strongest(32.0, steps=20, long_steps=10, queries=300)
    assert attack.title == "worst of all" and attack.eps == 32 / 255
    assert [(m.name, m.gradients, m.queries) for m in attack.members] == [("pgd", 20, 0), ("apgd_square", 20, 300)]
    on_events, _ = protocols.worst_on_events(32 / 255, 20, steps=20, long_steps=10, queries=300, flip_steps=4)
    assert on_events == attack  # within 32/255 of a count


STRONGEST = ("pgd_steps", "long_steps", "queries")  # its parameters
NAMING = {
    path.stem
    for path in paths.NOTEBOOKS.glob("*.py")
    if re.search(r"protocols\.(strongest|rungs|worst_on_events|checklist)\(", path.read_text(encoding="utf-8"))
}


@pytest.mark.parametrize("name", ["smoke", "laptop"])
def test_the_strongest_attack_is_the_same_in_every_notebook(name):
    assert {
        *("fig-attack-ladder", "tab-ablation", "tab-cost", "fig-sr-variants", "fig-timesteps-and-leak"),
        *("tab-masking-checklist", "tab-events", "fig-lambda", "fig-gradient-maps", "fig-certified"),
    } == NAMING
    given = {artifact: profiles.load(name).parameters(artifact) for artifact in NAMING}
    assert len({tuple(parameters[key] for key in STRONGEST) for parameters in given.values()}) == 1, given


def test_the_readers_own_training_of_the_notebook_is_measured_beside_the_others(monkeypatch):
    monkeypatch.setattr(defenses, "DEFENSES", dict(defenses.DEFENSES))
    monkeypatch.setattr(words, "_trainings", dict(words._trainings))
    source = ast.parse((paths.NOTEBOOKS / "tab-cost.py").read_text(encoding="utf-8"))
    start = next(i for i, node in enumerate(source.body) if isinstance(node, ast.FunctionDef))
    own = [node for node in source.body[start:] if isinstance(node, (ast.FunctionDef, ast.Assign))]
    imports = [node for node in source.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    trainings = selections.recipes(profiles.load("smoke"))
    names = {"trainings": trainings, "batch": 10, "repeats": 1, "device": "cpu"}
    exec(ast.unparse(ast.Module([*imports, *own], [])), names)
    _, *table = cells(artifacts.table(record("tab-cost", names["beside"])))
    assert [line[0] for line in table] == ["vanilla", "SR", "noise"] and "noise" in defenses.DEFENSES
