"""What is drawn and said of SR's variants and of the sweep of λ, on records made by hand."""

import numpy as np
import pytest
from handmade import PGD_20, cells, made, record, row
from matplotlib.colors import to_hex
from matplotlib.text import Annotation

from paperlib import artifacts
from paperlib.artifacts import claims, fig_lambda, fig_sr_variants
from paperlib.artifacts.fig_sr_variants import FACTORS
from paperlib.artifacts.reading import select
from paperlib.words import hue

CLEAN, PGD = {"attack": "clean", "eps_255": 0.0}, PGD_20 | {"eps_255": 32.0}
WORST = {"attack": "worst", "eps_255": 32.0}
FIRST, OTHER = "margin square + 0.01", "softmax absolute - 0.01"
THIRD, FOURTH = "margin square central 0.01", "margin square + 0.1"  # one change to the first each
JUDGED = {  # form and λ → percentages: clean, under PGD, in the worst case
    ("", None): (95, 20, 10),
    (FIRST, 0.01): (95, 40, 30),
    (FIRST, 0.03): (93, 60, 50),
    (OTHER, 0.1): (94, 30, 20),
    (OTHER, 0.3): (94, 50, 40),
    (THIRD, 0.01): (80, 90, 80),
    (THIRD, 0.03): (70, 90, 80),
    (FOURTH, 0.01): (95, 40, 30),
    (FOURTH, 0.03): (95, 60, 50),
}
CHOSEN = {FIRST: 0.01, OTHER: 0.3, THIRD: 0.0, FOURTH: 0.03}
L1 = {"": 2.2, FIRST: 4.4, OTHER: 11.0, FOURTH: 19.8}  # medians of ‖g‖₁


def study(judged=None, chosen=None):
    """The record of these forms, `JUDGED` and `CHOSEN` but for these; all differences are ± 5 points."""
    judged, chosen = JUDGED | (judged or {}), CHOSEN | (chosen or {})
    rows = []
    for form, lam in chosen.items():
        factors = dict(zip(FACTORS, form.split(), strict=True))
        rows.append(row("chosen λ", lam, **factors | {"h": float(factors["h"])}))
    labels = {"": {"training": "vanilla"}}
    labels |= {form: {"training": "sr"} | fig_sr_variants.form(r) for form, r in zip(chosen, rows, strict=True)}
    for (form, lam), shares in judged.items():
        told = labels[form] | ({"lam": lam} if lam else {})
        quantity = "mean accuracy" + (" at another λ" if form and lam != chosen[form] else "")
        for attack, share in zip((CLEAN, PGD, WORST), shares, strict=True):
            rows.append(row(quantity, share / 100, **told, **attack))
            if attack != WORST:
                rows.append(row("mean accuracy", share / 100, **told, **attack, split="validation"))
            for against, other in (("vanilla", ("", None)), ("the first", (FIRST, chosen[FIRST]))):
                if quantity == "mean accuracy" and form and other in judged and (form, against) != (FIRST, "the first"):
                    gain = (share - judged[other][(CLEAN, PGD, WORST).index(attack)]) / 100
                    rows.append(row("difference", gain, gain - 0.05, gain + 0.05, **told, **attack, against=against))
    for form, size in L1.items():
        if chosen.get(form, 1):
            rows.append(row("l1", size, 0.9 * size, 1.1 * size, **labels[form]))
            rows.append(row("participation number", 4.0, 3.0, 5.0, **labels[form]))
    return record("fig-sr-variants", rows)


# ---- SR's variants -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("judged", "chosen", "change"),
    [
        ({}, {}, "What matters most in SR's penalty: h = 0.1, +20 points"),
        (
            {(THIRD, 0.01): (95, 30, 5)},
            {THIRD: 0.01},
            "What matters most in SR's penalty: the direction ±d, -25 points",
        ),
        (
            {(FOURTH, 0.03): (95, 40, 31)},
            {},
            "No single change of SR's penalty matters clearly, the largest is h = 0.1, +1 points",
        ),
    ],
)
def test_the_headline_gives_the_single_change_that_matters_most(judged, chosen, change):
    """The form "softmax |q| -d" differs in three parts and so is no single change."""
    assert artifacts.headline(study(judged, chosen)) == f"{change} in the worst case"


def test_a_first_form_without_a_lambda_leaves_nothing_to_compare():
    found = study(chosen={FIRST: 0.0})
    assert artifacts.headline(found) == (
        "Validation data choose λ = 0 for SR (margin, q², +d, h = 0.01), "
        "which leaves nothing to compare its variants with"
    )
    artifacts.draw(found).draw_without_rendering()
    assert "Changing" not in claims.finding(found)


def test_where_no_variant_was_trained_that_is_said():
    empty = record("fig-sr-variants", [])
    assert artifacts.headline(empty) == "No variant of SR was trained here"
    artifacts.draw(empty).draw_without_rendering()
    assert artifacts.table(empty).strip() == "" and "No variant" in claims.finding(empty)


def test_the_box_has_a_line_for_the_gain_for_each_factor_changed_alone_and_two_for_the_gradient():
    gain, change, magnitude, sparsity = fig_sr_variants.box(study())
    assert gain[:3] == (
        True,
        "SR (margin, q², +d, h = 0.01) is more robust than vanilla training in the worst case.",
        "+20.0 points [+15.0, +25.0]",
    )
    assert change[:2] == (True, "Changing h alone changes accuracy under the worst of all.")
    assert change.numbers == "h = 0.1 +20.0 points [+15.0, +25.0]"
    assert magnitude.holds is False  # an interval around 19.8 lies above that around 2.2
    assert magnitude.numbers == "vanilla 2.2, variants 4.4 to 19.8" and "magnitude" in magnitude.statement
    assert sparsity.holds is None and "sparser" in sparsity.statement
    _, direction, *_ = fig_sr_variants.box(study({(THIRD, 0.01): (95, 30, 31)}, {THIRD: 0.01}))
    assert direction[:2] == (None, "Changing the direction alone changes accuracy under the worst of all.")


def test_the_figure_marks_what_each_form_changes():
    words, left, right, sizes = artifacts.draw(study()).axes
    by_line = {}
    for text in words.texts:
        by_line.setdefault(round(text.get_position()[1]), []).append((text.get_text(), text.get_fontweight()))
    assert by_line[0] == [("vanilla", "bold")]
    assert by_line[1] == [(word, "normal") for word in ("margin", "q²", "+d", "0.01", "0.01")]
    bold = {y: [word for word, weight in line if weight == "bold"] for y, line in by_line.items()}
    assert (bold[2], bold[3], bold[4]) == (["softmax", "|q|", "-d"], ["±d"], ["0.1"])
    assert (by_line[3][-1][0], by_line[4][-1][0]) == ("none", "0.03")

    def dots(panel):
        return {round(c[0].get_ydata()[0]): c[0].get_xdata()[0] for c in panel.containers if c[0].get_marker() == "D"}

    assert dots(left) == {0: 10, 1: 30, 2: 40, 4: 50}
    hollow = sorted(line.get_xdata()[0] for line in left.lines if line.get_markerfacecolor() == "none")
    assert hollow == [20, 30, 50, 80, 80]
    assert dots(right) == pytest.approx({0: -20, 2: 10, 4: 20})
    texts = [text.get_text() for text in sizes.texts]
    assert texts == ["‖g‖₁", "2.2", "4.4", "11", "19.8", "PN", "4", "4", "4", "4"]


def test_the_tables_tell_what_was_chosen_and_what_chose():
    judged, swept = map(cells, artifacts.table(study()).replace(r"\|", "¦").split("\n\n"))
    chosen = judged[0].index("chosen λ")
    assert sorted([*line[:4], line[chosen]] for line in judged[1:]) == sorted(
        [
            ["vanilla", "", "", "", ""],
            ["margin", "q²", "+d", "0.01", "0.01"],
            ["softmax", "¦q¦", "-d", "0.01", "0.3"],
            ["margin", "q²", "±d", "0.01", "0"],
            ["margin", "q²", "+d", "0.1", "0.03"],
        ]
    )
    columns = [f"{name}{split}" for name in ("clean", "PGD-20, 32/255") for split in ("", ", validation")]
    assert len(swept) == 1 + 8 and swept[0][4:] == ["λ", *columns, "worst of all, 32/255"]


# ---- the sweep of λ ----------------------------------------------------------------------------------------------

SWEPT = {0: (0.95, 0.5), 0.001: (0.948, 0.6), 0.003: (0.946, 0.7), 0.01: (0.94, 0.8), 0.03: (0.9, 0.75)}


def sweep(means=SWEPT, *, chosen, used, training="sr", spread=0.01):
    """`means`: λ → clean accuracy and accuracy under PGD, of two networks that differ by `spread` each way."""
    rows = [row("chosen λ", chosen, seeds=[0, 1]), row("used λ", used, seeds=[0, 1])]
    for lam, both in means.items():
        for attack, value in zip((CLEAN, PGD), both, strict=True):
            told = {"training": training if lam else "vanilla"} | ({"lam": lam} if lam else {}) | attack
            rows.append(row("mean accuracy", value, value - 0.05, value + 0.05, seeds=[0, 1], **told))
            rows += [row("accuracy", value + spread * (1 - 2 * seed), seeds=[seed], **told) for seed in (0, 1)]
    return record("fig-lambda", rows, training=training)


@pytest.mark.parametrize(
    ("means", "chosen", "used", "text"),
    [
        (SWEPT, 0.01, 0.01, "Validation data choose λ = 0.01 for SR, as this companion uses"),
        (SWEPT, 0.003, 0.01, "Validation data choose λ = 0.003 for SR, while 0.01 is in use"),
        (SWEPT, 0.003, 0.5, "Validation data choose λ = 0.003 for SR, while 0.5 is in use"),
        ({0: (0.95, 0.5)}, 0.0, None, "Of the λ that were trained here, validation data choose 0 for SR"),
    ],
)
def test_the_headline_of_lambda_tells_what_lies_between_choice_and_use(means, chosen, used, text):
    found = sweep(means, chosen=chosen, used=used)
    assert artifacts.headline(found) == text
    artifacts.draw(found).draw_without_rendering()


@pytest.mark.parametrize(
    ("means", "chosen", "used", "holds", "numbers"),
    [
        (SWEPT, 0.01, 0.01, True, "The λ chosen is 0.01."),
        (
            SWEPT,
            0.003,
            0.01,
            False,
            "The λ chosen is 0.003, that in use 0.01; chosen minus in use: clean +0.6 points, PGD-20 -10.0 points.",
        ),
        (SWEPT, 0.003, 0.5, False, "The λ chosen is 0.003, that in use 0.5."),
        ({0: (0.95, 0.5)}, 0.0, None, None, "The λ chosen is 0; that of SR is not known."),
    ],
)
def test_the_box_of_lambda_says_what_lies_between_choice_and_use(means, chosen, used, holds, numbers):
    same, down = fig_lambda.box(sweep(means, chosen=chosen, used=used))
    assert same[:3] == (holds, "The λ in use for SR is the one that validation data choose.", numbers)
    assert down.holds is True and down.numbers.endswith(": none.")


def test_a_lambda_that_broke_networks_is_told_and_left_out_of_the_trade_off():
    down = SWEPT | {0.1: (0.47, 0.2), 0.3: (0.1, 0.1)}  # at 0.1 one network has 0.48 and one 0.46, below 0.475
    found = sweep(down, chosen=0.01, used=0.01)
    broken = fig_lambda.broken(select(found, quantity="mean accuracy"), select(found, quantity="accuracy"))
    assert broken == dict.fromkeys(SWEPT, (0, 2)) | {0.1: (1, 2), 0.3: (2, 2)}
    *_, line = fig_lambda.box(found)
    assert line.holds is False and line.numbers.endswith(": λ = 0.1 (1 of 2), 0.3 (2 of 2).")
    left, right = artifacts.draw(found).axes
    assert "λ = 0.1 (47 %, 20 %), 0.3 (10 %, 10 %)" in right.get_title()
    assert [text.get_text() for text in left.get_xticklabels()][-2:] == ["0.1", "0.3"]
    assert {text.get_text() for text in right.texts} == {f"{lam:g}" for lam in SWEPT}
    assert right.get_xlim()[0] > 80


@pytest.mark.parametrize(("training", "name"), [("sr", "SR"), ("l2", "exact l2")])
def test_the_trade_off_has_a_dot_a_lambda_joined_in_order_in_the_training_s_colour(training, name):
    found = sweep(chosen=0.003, used=0.01, training=training)
    assert artifacts.headline(found).startswith(f"Validation data choose λ = 0.003 for {name}, while ")
    left, right = artifacts.draw(found).axes
    assert left.get_xlabel() == f"λ of {name}"
    path = next(line for line in right.lines if len(line.get_xdata()) == 5)
    expected = 100 * np.array(list(SWEPT.values()))
    assert np.allclose(np.array(path.get_data()).T, expected)
    dots = [line for line in right.lines if line.get_marker() == "o" and line.get_markersize() == 5]
    assert np.allclose([[line.get_xdata()[0], line.get_ydata()[0]] for line in dots], expected)
    colours = [hue("vanilla")] + [hue(training)] * 4
    assert [to_hex(dot.get_color()) for dot in dots] == [to_hex(text.get_color()) for text in right.texts] == colours


@pytest.mark.parametrize(("chosen", "rings"), [(0.003, {"chosen": 94.6, "in use": 94.0}), (0.01, {"chosen": 94.0})])
def test_the_lambda_that_is_chosen_and_the_one_in_use_are_marked_once_where_they_agree(chosen, rings):
    left, right = artifacts.draw(sweep(chosen=chosen, used=0.01)).axes
    drawn = {line.get_label(): line.get_xdata()[0] for line in right.lines if line.get_markersize() == 12}
    assert drawn == pytest.approx(rings)
    marks = {text.get_text().strip(): text.get_position()[0] for text in left.texts}
    places = {"chosen": list(SWEPT).index(chosen), "in use": list(SWEPT).index(0.01)}
    assert {name: marks[name] for name in places if name in marks} == {name: places[name] for name in rings}
    (dashed,) = (line for line in left.lines if line.get_linestyle() == "--")
    assert dashed.get_xdata()[0] == places["chosen"]


@pytest.mark.parametrize("pairs", [0, 0.5])  # every second dot comes close to the one before, above to the right
@pytest.mark.parametrize("clean", [0.95, 0.9])  # the line goes straight up, or bends
def test_no_name_in_the_trade_off_lies_on_another_or_on_a_dot(clean, pairs):
    lambdas = [0, 0.0003, 0.001, 0.003, 0.006, 0.01, 0.02, 0.03, 0.06]
    steps = [i - pairs * (i % 2) for i in range(9)]
    across = [0.95 - (0.95 - clean) * (i / 8) ** 2 for i in steps]
    means = {lam: (across[i] + 0.012 * pairs * (i % 2), 0.5 + 0.04 * steps[i]) for i, lam in enumerate(lambdas)}
    figure = artifacts.draw(sweep(means, chosen=0.003, used=0.01))
    figure.draw_without_rendering()
    panel = figure.axes[1]
    names = {t.get_text(): t.get_window_extent() for t in panel.texts if isinstance(t, Annotation)}
    assert set(names) == {f"{lam:g}" for lam in lambdas}
    boxes = list(names.values())
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    dots = panel.transData.transform([[100 * v for v in both] for both in means.values()])
    assert not any(box.contains(x, y) for box in boxes for x, y in dots)


def test_the_table_of_lambda_has_vanilla_as_zero():
    lines, others = map(cells, artifacts.table(made("fig-lambda")).split("\n\n"))
    assert lines[0] == ["λ", "clean", "PGD-20, 16/255", "worst of all, 16/255"]
    assert [line[0] for line in lines[1:]] == ["0 (vanilla)", "0.01", "0.1"]
    assert [line[:2] for line in others] == [
        ["training", "weight"],
        *(["AT+SR", weight] for weight in ("0 (AT)", "0.01", "0.1")),
        *(["exact l2", weight] for weight in ("0 (vanilla)", "1")),
    ]
