"""The gradient-masking checklist: its rule by hand, its rows from hand-made flags, and the scale control on toys."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_claims import record
from test_tables_and_plots import cells as cells_of
from test_tables_and_plots import evaluations, made

from paperlib import findings, masking, measures, plots, tables
from paperlib.attacks import evaluation, protocols
from paperlib.attacks.attack import Attack, standard
from paperlib.data.sets import Split
from paperlib.errors import Refused
from paperlib.masking import FAILED, PASSED, UNDECIDED
from paperlib.store import checkpoints as experiments
from paperlib.store.experiment import Experiment
from paperlib.training.loop import Schedule

N = 100
RADII = [16.0, 32.0, 48.0]
NAMES = [check.name for check in masking.CHECKS if not check.name.startswith("scale")]


def asked_of(source):
    return protocols.checklist(32.0, RADII, steps=10, long_steps=50, queries=30, source=source)


def first(count):
    """Flags of N images of which the first `count` are right."""
    return np.arange(N) < count


SOUND = {"gradient": 40, "longer": 38, "one_step": 60, "square": 50, "random": 90, "transfer": 80, "unbounded": 0}
SOUND |= {"radius 16": 70, "radius 48": 10}


def rows_of(left=SOUND, vanished=0.0, passes=None, training="vanilla"):
    """The rows of one network of which the attacks leave so many of N images."""
    (clean,) = evaluations([(training, 0.01 if "sr" in training else None)], [None], seeds=(0,), share=1)
    asked = asked_of(clean.experiment)
    at = {role: getattr(asked, role) for role in SOUND if not role.startswith("radius")}
    at |= {"radius 16": asked.radii[0], "radius 48": asked.radii[2]}
    spent = np.full(N, 2.0) if passes is None else passes
    found = [replace(clean, attack=at[role], flags=first(n), passes=spent) for role, n in left.items()]
    found = [replace(e, vanished=vanished) if e.attack == asked.one_step else e for e in found]
    return measures.checklist_rows(found, {clean.experiment.key: asked})


def verdicts(rows):
    return {cell.check.name: cell.verdict for cell in masking.cells(record("tab-masking-checklist", rows))}


# ---- the rule ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "value", "low", "high", "expected"),
    [
        ("one step", 0.1, 0.05, 0.2, PASSED),
        ("one step", 0.0, -0.03, 0.03, PASSED),  # exactly the limit
        ("one step", 0.01, -0.1, 0.1, PASSED),
        ("one step", -0.01, -0.04, 0.02, UNDECIDED),
        ("one step", -0.01, -0.02, 0.0, UNDECIDED),  # the interval reaches the good side
        ("one step", -0.1, -0.2, -0.01, FAILED),
        ("one step", -0.1, None, None, UNDECIDED),
        ("one step", 0.1, None, None, PASSED),
        ("one step", None, None, None, UNDECIDED),
        ("unbounded", 0.05, 0.02, 0.1, PASSED),
        ("unbounded", 0.06, 0.03, 0.12, UNDECIDED),
        ("unbounded", 0.2, 0.06, 0.3, FAILED),
        ("zero gradient", 0.09, 0.05, 0.2, PASSED),
        ("zero gradient", 0.3, 0.2, 0.4, FAILED),
        ("converged", -0.5, -0.6, -0.4, PASSED),  # "more steps" is what speaks against that
        ("converged", 0.2, 0.1, 0.3, FAILED),
        ("scale, CE", -0.5, -0.6, -0.4, FAILED),
    ],
)
def test_the_rule_by_hand(check, value, low, high, expected):
    assert masking.verdict({"check": check, "value": value, "low": low, "high": high}) == expected


def test_a_failed_row_decides_before_a_worse_number_that_is_undecided():
    rows = [r for r in rows_of() if r["check"] == "radius"]
    unsure = rows[0] | {"value": -0.3, "low": -0.7, "high": 0.1}
    failed = rows[1] | {"value": -0.1, "low": -0.15, "high": -0.05}
    for order in ([unsure, failed], [failed, unsure]):
        (cell,) = masking.cells(record("tab-masking-checklist", order))
        assert (cell.verdict, cell.worst) == (FAILED, failed) and len(cell.rows) == 2
    (cell,) = masking.cells(record("tab-masking-checklist", [rows[0], rows[1] | {"value": None}]))
    assert cell.verdict == UNDECIDED


# ---- what is compared --------------------------------------------------------------------------------------------


def test_a_sound_network_passes_everything():
    assert verdicts(rows_of()) == dict.fromkeys(NAMES, PASSED)


WRONG = {  # what the attacks leave, and which checks that breaks
    "one step": ({"one_step": 20}, {"one step": FAILED}),
    "one step, a little": ({"one_step": 39}, {"one step": UNDECIDED}),
    "one step, alike": ({"one_step": 40}, {}),
    "no gradient": ({"square": 20}, {"no gradient": FAILED}),
    "transfer": ({"transfer": 20}, {"transfer": FAILED}),
    "random search": ({"random": 20}, {"random search": FAILED}),
    "unbounded": ({"unbounded": 30}, {"unbounded": FAILED}),
    "unbounded, a little": ({"unbounded": 6}, {"unbounded": UNDECIDED}),
    "unbounded, few": ({"unbounded": 5}, {}),
    "radius": ({"radius 48": 60}, {"radius": FAILED}),
    "radius, below": ({"radius 16": 20}, {"radius": FAILED}),
    "radius, a little": ({"radius 48": 41}, {"radius": UNDECIDED}),
    "more steps": ({"longer": 60}, {"more steps": FAILED}),
    "converged": ({"longer": 20}, {"converged": FAILED}),
    "converged, a little": ({"longer": 34}, {"converged": UNDECIDED}),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_fault_breaks_its_own_check(case):
    left, broken = WRONG[case]
    assert verdicts(rows_of(SOUND | left)) == dict.fromkeys(NAMES, PASSED) | broken


@pytest.mark.parametrize(("share", "expected"), [(0.1, PASSED), (0.12, UNDECIDED), (0.4, FAILED)])
def test_gradients_that_vanish(share, expected):
    assert verdicts(rows_of(vanished=share))["zero gradient"] == expected


def test_the_vanished_are_a_share_of_the_images_that_were_attacked():
    (found,) = (r for r in rows_of(vanished=0.25, passes=2.0 * first(40)) if r["check"] == "zero gradient")
    assert (found["value"], found["n"]) == (0.25, 40)
    (nothing,) = (r for r in rows_of(passes=np.zeros(N)) if r["check"] == "zero gradient")
    assert nothing["value"] is None and masking.verdict(nothing) == UNDECIDED


def test_the_numbers_are_differences_in_the_right_direction():
    told = {(r["check"], r.get("from_255")): r["value"] for r in rows_of()}
    expected = {"one step": 0.2, "no gradient": 0.1, "transfer": 0.4, "random search": 0.5, "unbounded": 0.0}
    expected |= {"more steps": 0.02, "converged": 0.02, "zero gradient": 0.0}
    expected = {(name, None): value for name, value in expected.items()}
    assert told == pytest.approx(expected | {("radius", 16.0): 0.3, ("radius", 32.0): 0.3})


def test_the_difference_is_paired():
    (clean,) = evaluations([("vanilla", None)], [None], seeds=(0,), share=1)
    asked = asked_of(clean.experiment)

    def interval(square):
        flags = {id(asked.gradient): first(40), id(asked.square): square}
        made_ = [replace(clean, attack=a, flags=flags.get(id(a), first(40)), passes=first(N) + 0.0) for a in attacks]
        rows = measures.checklist_rows(made_, {clean.experiment.key: asked})
        (row,) = (r for r in rows if r["check"] == "no gradient")
        return row["value"], row["high"] - row["low"]

    attacks = asked.attacks[1:]
    same, other = interval(first(40)), interval(first(40)[::-1])
    assert same[0] == other[0] == 0 and other[1] > 3 * same[1]


def test_networks_of_one_training_are_pooled_and_each_is_held_against_its_own_list():
    clean = evaluations([("vanilla", None), ("sr", 0.01)], [None], seeds=(0, 1), share=1)
    asked, found = {}, []
    for i, e in enumerate(clean):
        asked[e.experiment.key] = asked_of(clean[i - 1].experiment)  # another source for each
        for attack in asked[e.experiment.key].attacks:
            found.append(replace(e, attack=attack, flags=first(10 * i), passes=np.full(N, 2)))
    rows = measures.checklist_rows(found, asked)
    assert len(rows) == 2 * (len(NAMES) + 1)
    assert {(r["training"], r["n"], tuple(r["seeds"])) for r in rows} == {("vanilla", 200, (0, 1)), ("sr", 200, (0, 1))}
    left = {r["training"]: r["value"] for r in rows if r["check"] == "unbounded"}
    assert left == {"vanilla": 0.05, "sr": 0.25}


# ---- the list ----------------------------------------------------------------------------------------------------


def test_the_list_holds_each_attack_once_with_clean_images_first():
    (e,) = evaluations([("at", None)], [None], seeds=(0,), share=1)
    asked = asked_of(e.experiment)
    told = [(a.title, round(a.eps * 255, 6)) for a in asked.attacks[1:]]
    assert asked.attacks[0] is None and len(set(told)) == len(told)
    assert sorted(told) == sorted(
        [("PGD-10", 32), ("PGD-50", 32), ("FGSM", 32), ("Square-30", 32), ("Random search-3", 32)]
        + [("PGD-10 made on at, conv-2-4", 32), ("PGD-50", 255), ("PGD-10", 16), ("PGD-10", 48)]
    )
    assert [round(a.eps * 255, 6) for a in asked.radii] == RADII and asked.gradient in asked.radii
    unsorted = protocols.checklist(8, [32, 16], steps=1, long_steps=2, queries=1, source=e.experiment)
    assert [round(a.eps * 255, 6) for a in unsorted.radii] == [8, 16, 32]


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"long_steps": 10}, "long_steps is 10.*at least 11"), ({"radii_255": [32]}, "another radius than eps_255 = 32")],
)
def test_lists_that_compare_nothing_are_refused(changes, said):
    given = {"eps_255": 32.0, "radii_255": RADII, "steps": 10, "long_steps": 50, "queries": 3, "source": None}
    with pytest.raises(Refused, match=said):
        protocols.checklist(**given | changes)


# ---- the scale control -------------------------------------------------------------------------------------------


class Linear(torch.nn.Module):
    """Three classes by the brightness of three pixels, with margins of up to a few units."""

    def forward(self, images):
        return 8 * images.flatten(1)[:, :3]


HOW = {"bounds": (0.0, 1.0), "num_classes": 3}


@pytest.fixture
def toy_split():
    """60 images of 1×1×3; each is of the class of its brightest pixel, which leads by about 0.58.

    To break one within 0.31 takes all of its pixels: neither the random start does it nor a step along one pixel.
    """
    images, labels = torch.full((60, 1, 1, 3), 51), torch.arange(60) % 3
    images.view(60, 3)[torch.arange(60), labels] = 195 + torch.arange(60) % 9
    return Split(images.byte(), labels, torch.arange(60))


def left(c, attack, split):
    return evaluation.flags(measures.Scaled(Linear(), c), split, attack, **HOW)


def test_scaling_blinds_ce_where_its_gradient_underflows_and_not_dlr(toy_split):
    pgd, apgd = standard("pgd", 0.31, steps=10), Attack("apgd", 0.31, {"steps": 10, "loss": "dlr"})
    assert left(1, None, toy_split).all() and left(1e4, None, toy_split).all()
    assert not left(1, pgd, toy_split).any() and not left(1, apgd, toy_split).any()
    assert left(1e4, pgd, toy_split).float().mean() > 0.5
    assert torch.equal(left(1e4, apgd, toy_split), left(1, apgd, toy_split))
    assert torch.equal(left(1e-3, apgd, toy_split), left(1, apgd, toy_split))


def test_the_rows_of_the_control_say_so(toy_split, monkeypatch):
    data = type("Data", (), {"test": toy_split, "bounds": (0.0, 1.0), "num_classes": 3})
    monkeypatch.setattr(Experiment, "load_data", lambda self: data)
    monkeypatch.setattr(experiments, "trained", lambda *_, **__: Linear())
    schedule = Schedule(1, 10, 0.1, 0.9, 0.0)
    of = Experiment({"name": "tiny"}, "conv-2-4", 4, 1.0, "triangle", "float32", "vanilla", {}, schedule, 0)
    rows = measures.scale_control_rows(of, [1e4, 0.5], eps_255=0.31 * 255, steps=10, samples=60, device="cpu")
    shares = {(r["attack"], r["scale"]): r["value"] for r in rows if r["quantity"] == "scaled accuracy"}
    assert {c for _, c in shares} == {0.5, 1.0, 1e4} and len(shares) == 9
    assert [shares["clean", c] for c in (0.5, 1.0, 1e4)] == [1, 1, 1]
    assert shares["PGD-10", 1.0] == 0 and shares["PGD-10", 1e4] > 0.5 and shares["APGD-DLR-10", 1e4] == 0
    assert verdicts(rows) == {"scale, CE": FAILED, "scale, DLR": PASSED}
    (worst,) = (cell.worst for cell in masking.cells(record("tab-masking-checklist", rows)) if cell.verdict == FAILED)
    assert worst["scale"] == 1e4 and worst["value"] == pytest.approx(-shares["PGD-10", 1e4])


@pytest.mark.parametrize("c", [0, -1.0, float("nan")])
def test_a_scale_that_would_change_decisions_is_refused(c):
    with pytest.raises(Refused, match="a scale of the logits"):
        measures.Scaled(Linear(), c)


def test_what_a_network_says_of_itself_its_scaled_one_says_too():
    network = Linear()
    assert not measures.Scaled(network, 2).coupled and not measures.Scaled(network, 2).stochastic
    network.coupled = network.stochastic = True
    assert measures.Scaled(network, 2).coupled and measures.Scaled(network, 2).stochastic


# ---- what is told of it ------------------------------------------------------------------------------------------


def test_the_headline_counts_and_names_what_did_not_pass():
    rows = rows_of() + rows_of(SOUND | {"one_step": 20, "square": 39}, training="sr")
    assert findings.headline(record("tab-masking-checklist", rows)) == (
        "16 of 18 checks passed; failed: one step beats many (SR, by 20 points); "
        "undecided: search without gradients beats them (SR, by 1 points)"
    )
    assert findings.headline(record("tab-masking-checklist", rows_of())) == "9 of 9 checks passed"


def test_the_box_has_a_line_a_check():
    rows = rows_of() + rows_of(SOUND | {"one_step": 20, "square": 39}, training="sr")
    lines = findings.BOXES["tab-masking-checklist"](record("tab-masking-checklist", rows))
    holds = {line.statement: line.holds for line in lines}
    expected = {f"{masking.BY_NAME[name].statement}.": True for name in NAMES}
    expected |= {"One step does not beat many.": False, "Search without gradients does not beat them.": None}
    assert holds == expected


def test_the_table_has_every_number_and_the_matrix_every_cell():
    found = made("tab-masking-checklist")
    checks, scaled = map(cells_of, tables.markdown(found).split("\n\n"))
    assert checks[0] == ["check", "number", "passes", "vanilla", "SR", "AT", "AT+SR"] and len(checks) == 1 + 11
    assert checks[5][:3] == ["Without a bound hardly an image survives", "left at ε = 255/255", "≤ 5 %"]
    for line in checks[1:-2]:
        assert all(cell.partition(":")[0] in masking.VERDICTS and "[" in cell for cell in line[3:])
    assert checks[-2][3].startswith("failed: -90.0 points [") and checks[-2][4:] == [""] * 3
    assert scaled[0] == ["logits times", "clean", "PGD-10, 16/255", "APGD-DLR-10, 16/255"]
    assert [line[0] for line in scaled[1:]] == ["1", "100"]
    matrix, control = plots.draw(found).axes
    told = [text.get_text() for text in matrix.texts if text.get_text()[0] in "✓✗?"]
    assert len(told) == len(masking.cells(found)) == 9 * 4 + 2
    failed = [text for text in told if text.startswith("✗")]
    assert len(failed) == sum(cell.verdict == FAILED for cell in masking.cells(found))
    assert "✗  -90  (c = 100)" in failed
    assert [line.get_label() for line in control.lines] == ["no attack", "PGD-10, 16/255", "APGD-DLR-10, 16/255"]
