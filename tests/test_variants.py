"""SR's variants and the sweep of λ: choices by hand, differences against a slow count, what is drawn and said."""

import json

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.text import Annotation
from test_claims import record, row
from test_tables_and_plots import cells, made

from paperlib import claims, findings, measures, plots, profiles, tables
from paperlib.attacks import protocols
from paperlib.attacks.attack import standard
from paperlib.errors import Refused
from paperlib.store.evaluations import Evaluation
from paperlib.store.experiment import Experiment
from paperlib.training import regularizers
from paperlib.training.loop import Schedule

PGD, WORST = standard("pgd", 32 / 255), protocols.strongest(32, steps=20, long_steps=20, queries=200)
RELEASED = {"confidence": "margin", "penalty": "square", "direction": "+", "h": 0.01}
GRID = [(0.003, 0.01), (0.1, 0.3)]  # λ of q² and of |q|


# ---- which networks ----------------------------------------------------------------------------------------------


@pytest.fixture
def laptop():
    """Its SR has h = 0.01."""
    return profiles.load("laptop")


def told(e):
    axes = e.options.get("axes", {})
    return " ".join(axes.values()), e.options.get("h"), e.options.get("lam"), e.seed


def test_the_networks_of_two_variants_by_hand(laptop):
    words = ["margin square +", "softmax absolute central"]
    found = laptop.variants(words, [0.1], *GRID, seeds=[3, 4], epochs=2, network="conv-2-4")
    assert [told(e) for e in found] == [
        *(("", None, None, seed) for seed in (3, 4)),
        *((words[0], 0.01, lam, seed) for lam in (0.003, 0.01) for seed in (3, 4)),
        *((words[1], 0.01, lam, seed) for lam in (0.1, 0.3) for seed in (3, 4)),
        *((words[0], 0.1, lam, seed) for lam in (0.003, 0.01) for seed in (3, 4)),
    ]
    assert {(e.network, e.schedule.epochs) for e in found} == {("conv-2-4", 2)}
    assert len({e.key for e in found}) == len(found)
    assert [e.defense for e in found] == ["vanilla"] * 2 + ["sr"] * 12


def test_without_a_name_the_network_is_the_profiles_own_and_another_h_may_be_the_same(laptop):
    found = laptop.variants(["margin square +"], [0.01], [0.01], [], seeds=[0], epochs=5)
    assert [told(e) for e in found] == [("", None, None, 0), ("margin square +", 0.01, 0.01, 0)]
    assert found[0] == laptop.experiments("vanilla", seeds=[0])[0]  # of as many epochs as the profile's


def test_without_variants_there_are_no_networks(laptop):
    assert laptop.variants([], [0.1], *GRID, seeds=[0], epochs=3) == []


@pytest.mark.parametrize("words", ["margin square", "margin square + +", "", "square margin +", "margin square up"])
def test_a_variant_that_there_is_not_is_refused(laptop, words):
    with pytest.raises(Refused, match="SR"):
        laptop.variants([words], [], *GRID, seeds=[0], epochs=3)


def test_words_name_the_axes_in_order():
    assert regularizers.named("margin square +") == regularizers.Variant()
    assert regularizers.named("softmax absolute central") == ("softmax", "absolute", "central")


def test_the_labels_of_a_network_say_what_its_penalty_is_made_of(laptop):
    assert measures.variant_labels(laptop.experiments("vanilla")[0]) == {}
    assert measures.variant_labels(laptop.experiments("sr")[0]) == RELEASED
    paper = laptop.experiments("sr", preset="paper", h=0.5)[0]
    expected = {"confidence": "softmax", "penalty": "absolute", "direction": "+", "h": 0.5}
    assert measures.variant_labels(paper) == expected
    mixed = laptop.experiments("sr", preset="paper", axes={"confidence": "margin"})[0]
    assert measures.variant_labels(mixed) == expected | {"confidence": "margin", "h": 0.01}


# ---- choices and differences -------------------------------------------------------------------------------------


def network(words="", lam=None, h=0.01, seed=0):
    options = {} if lam is None else {"lam": lam, "h": h, "axes": regularizers.named(words)._asdict()}
    defense, schedule = "vanilla" if lam is None else "sr", Schedule(1, 10, 0.1, 0.9, 0.0)
    data = {"name": "tiny"}
    return Experiment(data, "conv-2-4", 4, 1.0, "triangle", "float32", defense, options, schedule, seed)


def evaluation(of, attack, right, n=100):
    """The first `right` of `n` samples are classified correctly, or those that `right` names."""
    flags = np.isin(np.arange(n), right) if isinstance(right, list) else np.arange(n) < right
    return Evaluation(of, attack, flags)


def evaluations(networks, attacks):
    """`networks`: arguments of `network` → what each of `attacks` leaves of 100 samples."""
    return [
        evaluation(network(*of), attack, right)
        for of, left in networks.items()
        for attack, right in zip(attacks, left, strict=True)
    ]


FIRST, OTHER, THIRD = "margin square +", "softmax absolute -", "margin square central"
VANILLA = ("",)
VALIDATION = {
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
JUDGED = {of: (*left, left[1] - 10) for of, left in VALIDATION.items()}
PIXELS = torch.linspace(0.1, 1, 7).view(7, 1, 1, 1) * torch.ones(7, 1, 2, 2)
GRADIENTS = {network(*of).key: PIXELS * (1 + i) for i, of in enumerate(VALIDATION)}


def rows(validation=VALIDATION, judged=JUDGED, gradients=GRADIENTS):
    chosen_by, judges = evaluations(validation, [None, PGD]), evaluations(judged, [None, PGD, WORST])
    return measures.variant_rows(chosen_by, judges, gradients, 0.01)


def select(found, **labels):
    return [r for r in found if all(r.get(key) == value for key, value in labels.items())]


def form(words, h=0.01):
    return regularizers.named(words)._asdict() | {"h": h}


def test_each_variant_has_the_lambda_that_validation_data_choose_for_it():
    found = select(rows(), quantity="chosen λ")
    expected = [(form(FIRST), 0.01), (form(OTHER), 0.3), (form(THIRD), 0.0), (form(FIRST, 0.1), 0.03)]
    assert [({axis: r[axis] for axis in RELEASED}, r["value"]) for r in found] == expected
    assert all(r["n"] == 100 and "validation" in r["method"] for r in found)
    assert len(found[0]["experiments"]) == 1 + 2  # vanilla and both λ


def test_test_images_choose_nothing():
    swapped = JUDGED | {(FIRST, 0.01): (0, 0, 0), (FIRST, 0.03): (100, 100, 100)}
    assert [r["value"] for r in select(rows(judged=swapped), quantity="chosen λ")] == [0.01, 0.3, 0.0, 0.03]
    (worst,) = select(rows(judged=swapped), quantity="mean accuracy", attack=claims.WORST, **form(FIRST))
    assert (worst["lam"], worst["value"]) == (0.01, 0.0)


def test_what_the_chosen_networks_leave_by_hand():
    found = rows()
    left = {
        (r.get("h"), r.get("confidence"), r.get("direction"), r.get("lam")): r["value"]
        for r in select(found, quantity="mean accuracy", attack=claims.WORST)
    }
    assert left == {
        (None, None, None, None): 0.1,
        (0.01, "margin", "+", 0.01): 0.3,
        (0.01, "softmax", "-", 0.3): 0.4,
        (0.1, "margin", "+", 0.03): 0.5,
    }
    others = {r["lam"]: r["value"] for r in select(found, quantity="mean accuracy at another λ", attack="clean")}
    assert others == {0.03: 0.7, 0.1: 0.94, 0.01: 0.95}
    assert len(select(found, quantity="mean accuracy at another λ", **form(THIRD))) == 2 * 3
    assert len(select(found, split="validation")) == 9 * 2


def slow_difference(a, b):
    """The share that `a` has more than `b`, and Bonett and Price's interval, counted sample by sample."""
    only_a = sum(1 for x, y in zip(a, b, strict=True) if x and not y)
    only_b = sum(1 for x, y in zip(a, b, strict=True) if y and not x)
    p, q, n = (only_a + 1) / (len(a) + 2), (only_b + 1) / (len(a) + 2), len(a)
    half = 1.959963984540054 * ((p + q - (p - q) ** 2) / (n + 2)) ** 0.5
    return (only_a - only_b) / n, p - q - half, p - q + half


def test_differences_are_those_of_a_slow_count_on_the_same_samples():
    judged = JUDGED | {
        VANILLA: (95, 20, [*range(5, 15)]),
        (FIRST, 0.01): (95, 40, [*range(0, 40, 2)]),
        (OTHER, 0.3): (94, 50, [*range(0, 90, 3)]),
    }
    found = rows(judged=judged)
    flags = {e.experiment.key: e.flags for e in evaluations(judged, [None, PGD, WORST]) if e.attack is WORST}
    vanilla, first, other = (flags[network(*of).key] for of in (VANILLA, (FIRST, 0.01), (OTHER, 0.3)))
    pairs = {("vanilla", FIRST): (first, vanilla), ("vanilla", OTHER): (other, vanilla)}
    pairs |= {("the first", OTHER): (other, first)}
    for (against, words), (a, b) in pairs.items():
        labels = {"quantity": "difference", "against": against, "attack": claims.WORST}
        (r,) = select(found, **labels, **form(words))
        assert (r["value"], r["low"], r["high"]) == pytest.approx(slow_difference(a, b))
        assert (r["n"], r["seeds"]) == (100, [0]) and "Bonett" in r["method"]
    assert not select(found, quantity="difference", against="the first", **form(FIRST))
    assert len(select(found, quantity="difference", against="the first")) == 2 * 3  # clean, PGD and the worst case
    assert not select(found, quantity="difference", **form(THIRD))  # it has no λ


def test_of_several_seeds_differences_are_means_with_a_t_interval():
    shares = {0: (10, 30, 45), 1: (20, 35, 60), 2: (15, 40, 50)}  # worst case of vanilla, the first and another
    judged, gradients = {}, {}
    for seed, left in shares.items():
        for of, right in zip((("", None), (FIRST, 0.01), (OTHER, 0.1)), left, strict=True):
            judged[*of, 0.01, seed] = (95, right + 5, right)
    gradients = {network(*of).key: PIXELS for of in judged}
    found = rows({of: left[:2] for of, left in judged.items()}, judged, gradients)
    (r,) = select(found, quantity="difference", against="the first", attack=claims.WORST)
    differences = np.array([0.15, 0.25, 0.10])
    half = 4.302652729911275 * differences.std(ddof=1) / 3**0.5
    assert (r["value"], r["high"]) == pytest.approx((differences.mean(), differences.mean() + half))
    assert r["seeds"] == [0, 1, 2] and "Student t" in r["method"]


def test_the_size_of_the_gradient_is_the_median_over_images():
    found = rows()
    for i, (words, h) in {1: (FIRST, 0.01), 4: (OTHER, 0.01), 8: (FIRST, 0.1)}.items():
        (l1,) = select(found, quantity="l1", **form(words, h))
        (number,) = select(found, quantity="participation number", **form(words, h))
        assert l1["value"] == pytest.approx(4 * 0.55 * (1 + i), rel=1e-6)  # the middle one of seven, four pixels each
        assert number["value"] == pytest.approx(4)
    assert len(select(found, quantity="l2")) == 1 + 3


def test_nothing_trained_gives_a_clear_result(tmp_path):
    empty = record("fig-sr-variants", measures.variant_rows([], [], {}, 0.01))
    assert empty["rows"] == [] and findings.headline(empty) == "No variant of SR was trained here"
    plots.save(empty, tmp_path / "figure.png")
    assert tables.markdown(empty).strip() == "" and "No variant" in findings.finding(empty)


# ---- words and pictures of the variants --------------------------------------------------------------------------


def drawn():
    return record("fig-sr-variants", rows())


def test_the_headline_tells_the_single_change_that_matters_most():
    # h = 0.1 alone changes 20 points; central has no λ; softmax absolute - differs in three axes
    found = findings.headline(drawn())
    gain, _, change = found.partition("; ")
    assert gain.startswith(
        "Under the worst of all SR (margin, q², +d, h = 0.01) differs from vanilla by +20.0 points ["
    )
    assert change == (
        "of 1 single change to it what matters most is h = 0.1, +20.0 points [+11.4, +27.8]; "
        "validation data choose λ = 0 for ±d"
    )


def test_of_several_single_changes_the_headline_tells_the_largest():
    validation = VALIDATION | {(THIRD, 0.01): (95, 30)}
    judged = JUDGED | {(THIRD, 0.01): (95, 30, 5)}
    found = findings.headline(record("fig-sr-variants", rows(validation, judged)))
    assert "; of 2 single changes to it what matters most is ±d, -25.0 points [" in found


def test_the_headline_says_when_no_change_is_clear():
    few = {of: (95, 40, 30) for of in JUDGED} | {(FIRST, 0.03, 0.1): (95, 40, 31)}
    found = findings.headline(record("fig-sr-variants", rows(judged=few)))
    assert "; of 1 single change to it none is clear of 0, the largest is h = 0.1, +1.0 points [" in found


def test_a_first_form_without_a_lambda_leaves_nothing_to_compare(tmp_path):
    broken = {of: (95, 10) if of[0] == FIRST else left for of, left in VALIDATION.items()}
    found = record("fig-sr-variants", rows(validation=broken))
    assert not select(found["rows"], quantity="difference", against="the first")
    assert findings.headline(found) == (
        "Validation data choose λ = 0 for SR (margin, q², +d, h = 0.01), "
        "which leaves nothing to compare its variants with"
    )
    plots.save(found, tmp_path / "figure.png")
    assert "Changing" not in findings.box(found)


def test_the_box_has_a_line_for_each_axis_that_was_changed_alone():
    lines = {line.statement: line for line in findings.BOXES["fig-sr-variants"](drawn())}
    about = [s.split()[1] if s.split()[1] != "the" else s.split()[2] for s in lines if s.startswith("Changing")]
    assert about == ["h"]
    assert all(line.holds for s, line in lines.items() if s.startswith("Changing"))
    (size,) = (line for s, line in lines.items() if "magnitude" in s)
    assert size.holds is False  # an interval around 19.8 lies above that around 2.2
    assert size.numbers == "vanilla 2.2, variants 4.4 to 19.8"


def test_the_figure_marks_what_each_form_changes():
    words, left, right, sizes = plots.draw(drawn()).axes
    by_line = {}
    for text in words.texts:
        by_line.setdefault(round(text.get_position()[1]), []).append((text.get_text(), text.get_fontweight()))
    assert by_line[0] == [("vanilla", "bold")]
    assert by_line[1] == [(word, "normal") for word in ("margin", "q²", "+d", "0.01", "0.01")]
    assert [w for w, weight in by_line[2] if weight == "bold"] == ["softmax", "|q|", "-d"]
    assert [w for w, weight in by_line[3] if weight == "bold"] == ["±d"] and by_line[3][-1][0] == "none"
    assert [w for w, weight in by_line[4] if weight == "bold"] == ["0.1"] and by_line[4][-1][0] == "0.03"
    dots = [(c[0].get_xdata()[0], round(c[0].get_ydata()[0]), c[0].get_marker()) for c in left.containers]
    worst = [(10, 0, "D"), (30, 1, "D"), (40, 2, "D"), (50, 4, "D")]
    assert [dot for dot in dots if dot[2] == "D"] == worst
    hollow = sorted(line.get_xdata()[0] for line in left.lines if line.get_markerfacecolor() == "none")
    assert hollow == [20, 30, 50, 80, 80]
    gains = {round(c[0].get_ydata()[0]): c[0].get_xdata()[0] for c in right.containers if c[0].get_marker() == "D"}
    assert gains == pytest.approx({0: -20, 2: 10, 4: 20})
    assert "2.2" in [text.get_text() for text in sizes.texts]


def test_the_tables_tell_what_was_chosen_and_what_chose():
    judged, swept = map(cells, tables.markdown(drawn()).replace(r"\|", "¦").split("\n\n"))
    assert [line[:4] for line in judged[1:]] == [
        ["vanilla", "", "", ""],
        ["margin", "q²", "+d", "0.01"],
        ["softmax", "¦q¦", "-d", "0.01"],
        ["margin", "q²", "±d", "0.01"],
        ["margin", "q²", "+d", "0.1"],
    ]
    chosen = judged[0].index("chosen λ")
    assert [line[chosen] for line in judged[1:]] == ["", "0.01", "0.3", "0", "0.03"]
    assert len(swept) == 1 + 8 and swept[0][4:] == [
        "λ",
        "clean, validation",
        "PGD-20, 32/255, validation",
        "clean",
        "PGD-20, 32/255",
        "worst of all, 32/255",
    ]


# ---- the sweep of λ ----------------------------------------------------------------------------------------------


def lambda_record(means, *, chosen, used, training="sr", spread=0.01):
    """`means`: λ → clean accuracy and accuracy under PGD, of two networks that differ by `spread` each way."""
    found = []
    for lam, both in means.items():
        for (attack, eps), value in zip((("clean", 0.0), ("PGD-20", 32.0)), both, strict=True):
            labels = {"training": training if lam else "vanilla", "attack": attack, "eps_255": eps}
            labels |= {"lam": lam} if lam else {}
            found.append(row("mean accuracy", value, value - 0.05, value + 0.05, seeds=[0, 1], **labels))
            for seed, sign in ((0, 1), (1, -1)):
                found.append(row("accuracy", value + sign * spread, seeds=[seed], **labels))
    found += [row("chosen λ", chosen, seeds=[0, 1]), row("used λ", used, seeds=[0, 1])]
    content = json.loads(json.dumps(record("fig-lambda", found)))
    content["provenance"]["parameters"]["training"] = training
    return content


SWEPT = {0: (0.95, 0.5), 0.001: (0.948, 0.6), 0.003: (0.946, 0.7), 0.01: (0.94, 0.8), 0.03: (0.9, 0.75)}


def test_the_headline_of_lambda_tells_what_lies_between_choice_and_use():
    found = findings.headline(lambda_record(SWEPT, chosen=0.003, used=0.01))
    assert found == (
        "Validation data choose λ = 0.003 for SR, while 0.01 is in use "
        "(chosen minus in use: clean +0.6 points, PGD-20 -10.0 points)"
    )
    elsewhere = findings.headline(lambda_record(SWEPT, chosen=0.003, used=0.5))
    assert elsewhere == "Validation data choose λ = 0.003 for SR, while 0.5 is in use"


def test_a_lambda_that_broke_networks_is_told():
    down = SWEPT | {0.1: (0.47, 0.2), 0.3: (0.1, 0.1)}  # at 0.1 one network has 0.48 and one 0.46, below 0.475
    found = lambda_record(down, chosen=0.01, used=0.01)
    assert findings.accuracy.broken(found) == dict.fromkeys(SWEPT, (0, 2)) | {0.1: (1, 2), 0.3: (2, 2)}
    assert findings.headline(found).endswith("; networks broke down at λ = 0.1 (1 of 2), 0.3 (2 of 2)")
    left, right = plots.draw(found).axes
    assert "λ = 0.1 (47 %, 20 %), 0.3 (10 %, 10 %)" in right.get_title()
    assert [text.get_text() for text in left.get_xticklabels()][-2:] == ["0.1", "0.3"]
    assert {text.get_text() for text in right.texts} == {"0", "0.001", "0.003", "0.01", "0.03"}
    assert right.get_xlim()[0] > 80


def test_the_trade_off_has_a_dot_a_lambda_joined_in_order():
    _, right = plots.draw(lambda_record(SWEPT, chosen=0.003, used=0.01)).axes
    path = next(line for line in right.lines if len(line.get_xdata()) == 5)
    expected = 100 * np.array(list(SWEPT.values()))
    assert np.allclose(np.array(path.get_data()).T, expected)
    dots = [line for line in right.lines if line.get_marker() == "o" and line.get_markersize() == 5]
    assert np.allclose([[line.get_xdata()[0], line.get_ydata()[0]] for line in dots], expected)
    assert to_hex(dots[0].get_color()) == plots.COLOURS["vanilla"]
    assert {to_hex(line.get_color()) for line in dots[1:]} == {plots.COLOURS["sr"]}
    rings = {line.get_label(): line.get_xdata()[0] for line in right.lines if line.get_markersize() == 12}
    assert rings == {"chosen": pytest.approx(94.6), "in use": pytest.approx(94.0)}


def test_where_choice_and_use_agree_one_is_marked():
    left, right = plots.draw(lambda_record(SWEPT, chosen=0.01, used=0.01)).axes
    assert [line.get_label() for line in right.lines if line.get_markersize() == 12] == ["chosen"]
    assert [text.get_text() for text in left.texts if "chosen" in text.get_text() or "use" in text.get_text()] == [
        " chosen"
    ]


@pytest.mark.parametrize("pairs", [0, 0.5])  # every second dot comes close to the one before, above to the right
@pytest.mark.parametrize("clean", [0.95, 0.9])  # the line goes straight up, or bends
def test_no_name_in_the_trade_off_lies_on_another_or_on_a_dot(clean, pairs):
    lambdas = [0, 0.0003, 0.001, 0.003, 0.006, 0.01, 0.02, 0.03, 0.06]
    steps = [i - pairs * (i % 2) for i in range(9)]
    across = [0.95 - (0.95 - clean) * (i / 8) ** 2 for i in steps]
    means = {lam: (across[i] + 0.012 * pairs * (i % 2), 0.5 + 0.04 * steps[i]) for i, lam in enumerate(lambdas)}
    figure = plots.draw(lambda_record(means, chosen=0.003, used=0.01))
    figure.draw_without_rendering()
    panel = figure.axes[1]
    names = {t.get_text(): t.get_window_extent() for t in panel.texts if isinstance(t, Annotation)}
    assert set(names) == {f"{lam:g}" for lam in lambdas}
    boxes = list(names.values())
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    dots = panel.transData.transform([[100 * v for v in both] for both in means.values()])
    assert not any(box.contains(x, y) for box in boxes for x, y in dots)


def test_another_training_is_named_and_has_its_colour():
    found = lambda_record(SWEPT, chosen=0.003, used=0.01, training="l2")
    assert findings.headline(found).startswith("Validation data choose λ = 0.003 for exact l2, while ")
    left, right = plots.draw(found).axes
    assert left.get_xlabel() == "λ of exact l2"
    dots = [line for line in right.lines if line.get_marker() == "o" and line.get_markersize() == 5]
    assert {to_hex(line.get_color()) for line in dots[1:]} == {plots.COLOURS["l2"]}
    assert {to_hex(text.get_color()) for text in right.texts} == {plots.COLOURS["l2"], plots.COLOURS["vanilla"]}


def test_without_any_lambda_the_vanilla_network_stands_alone(tmp_path):
    found = lambda_record({0: (0.95, 0.5)}, chosen=0.0, used=None)
    assert findings.headline(found).endswith("validation data choose 0; SR's own is not known")
    plots.save(found, tmp_path / "figure.png")


def test_a_record_from_before_other_trainings_were_swept_is_of_sr():
    old = json.loads(json.dumps(made("fig-lambda")))
    del old["provenance"]["parameters"]["training"]
    assert " for SR" in findings.headline(old)
