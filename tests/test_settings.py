"""What is drawn and said of SR over steps, leak and reset, and without spikes."""

from collections import Counter

import numpy as np
import pytest
from handmade import SETTINGS, cells, made, record, row, settings_record
from matplotlib.colors import to_hex

from paperlib import artifacts
from paperlib.artifacts import claims
from paperlib.artifacts.fig_timesteps_and_leak import box, from_default, gains, name, setting
from paperlib.artifacts.reading import clear, points, select
from paperlib.labels import CLEAN, WORST

ARTIFACT = "fig-timesteps-and-leak"
DEFAULT = {"T": 4, "tau": 1.0, "reset": "attached", "neuron": "LIF"}
OTHERS = [DEFAULT | {"T": 2}, DEFAULT | {"tau": 0.5}, DEFAULT | {"reset": "detached"}, {"neuron": "ReLU"}]
GRID = [
    *({"T": T, "tau": tau, "detach_reset": reset} for T in (4, 2) for tau in (1.0, 0.5) for reset in (False, True)),
    {"T": 1},
    {"network": "ann-conv-2-4", "T": 1},
]


def told(points_, differences, seeds=(0,)):
    """A record of gains in points, of `DEFAULT` and `OTHERS`, ± 10, and as much for their differences."""
    of = {"training": "sr", "against": "vanilla", "lam": 0.1, "attack": WORST, "eps_255": 16.0, "seeds": seeds}
    rows = []
    for where, gain, difference in zip((DEFAULT, *OTHERS), points_, (None, *differences), strict=True):
        for quantity, value in (("gain", gain), ("gain minus the own", difference)):
            if value is not None:
                rows.append(row(quantity, value / 100, value / 100 - 0.1, value / 100 + 0.1, **where, **of))
    return record(ARTIFACT, rows)


def grid(seeds):
    return settings_record(ARTIFACT, {"seeds": seeds, "share": None}, (16,), 1, GRID)


@pytest.mark.parametrize(
    ("points_", "differences", "seeds", "text"),
    [
        ((30, 5, 32, 50, 45), (-25, 2, 20, 15), (0, 1, 2), "+45 points in an ANN, clearly more than its"),
        ((30, 35, 32, 28, 25), (5, 2, -2, -5), (0, 1), "+25 points in an ANN, no clear difference to its"),
        ((30, 35, 32, 28, 10), (5, 2, -22, -20), (0, 1), "+10 points in an ANN, clearly less than its"),
    ],
)
def test_the_headline_compares_the_gain_in_an_ann_with_that_of_the_profiles_neurons(points_, differences, seeds, text):
    found = artifacts.headline(told(points_, differences, seeds))
    one = " (one network each)" if len(seeds) == 1 else ""
    assert found == f"SR gains {text} +30 in the spiking network{one}"


def test_the_box_says_where_sr_helps_as_well():
    lines = {line.statement: line for line in box(told((30, 5, 32, -50, 45), (-25, 2, -80, 15), (0, 1)))}
    assert [line.holds for line in lines.values()] == [True, None, True, False, True]
    leak = lines["SR helps neurons of another leak as well."]
    assert leak.numbers == "τ = 0.5 +32.0 points [+22.0, +42.0], +2.0 points [-8.0, +12.0] against the profile's"


def test_of_a_grid_the_box_gives_the_ends_and_counts_the_settings_that_clearly_differ():
    found = grid((0, 1))
    lines = {line.statement: line.numbers for line in box(found)}
    numbers = lines["SR helps with other numbers of steps as well."]
    low, *_, high = sorted((r for r in gains(found) if r.get("T", 4) != 4), key=lambda r: r["value"])
    assert numbers.startswith(f"5 settings from T = 1 {points(low)} to T = 2 {points(high)}; ")
    counts = Counter(clear(r) for r in from_default(found) if r.get("T", 4) != 4)
    assert numbers.endswith(f"; {counts[-1]} clearly below the profile's, {counts[1]} above") and counts[-1] > 0


def test_the_dumbbells_reach_from_vanilla_to_sr_and_the_own_stands_in_every_group():
    found = made(ARTIFACT)
    left, middle, right = artifacts.draw(found).axes
    ticks = {text.get_text().partition(",")[0]: text.get_fontweight() for text in left.get_yticklabels()}
    assert list(ticks) == [
        *("T = 1", "T = 4", "T = 8", "τ = 0.5", "τ = 1", "attached reset", "detached reset", "LIF", "ANN (ReLU)")
    ]
    bold = [text for text, weight in ticks.items() if weight == "bold"]
    assert bold == ["T = 4", "τ = 1", "attached reset", "LIF"] and len(left.patches) == 4
    means = {
        (*setting(r).values(), r["attack"], r.get("lam")): 100 * r["value"]
        for r in select(found, quantity="mean accuracy")
    }
    wanted, shown = Counter(), [r for r in select(found, quantity="gain") if r["attack"] in (CLEAN, WORST)]
    for r in shown:
        ends = tuple(means[(*setting(r).values(), r["attack"], lam)] for lam in (None, r["lam"]))
        wanted[ends] += 4 if setting(r) == DEFAULT else 1
    assert Counter(tuple(line.get_xdata()) for line in left.lines if len(line.get_xdata()) == 2) == wanted
    drawn = {round(c[0].get_xdata()[0], 6) for c in middle.containers}
    assert drawn == {round(100 * r["value"], 6) for r in shown}
    dots = {round(c[0].get_xdata()[0], 6): to_hex(c[0].get_color()) for c in right.containers}
    assert dots == {round(100 * r["value"], 6): "#000000" if clear(r) else "#a6a6a6" for r in from_default(found)}


def test_a_setting_without_a_chosen_lambda_is_starred_and_the_star_explained():
    found = made(ARTIFACT)
    rows = [r | ({"value": r["lam"]} if r["quantity"] == "chosen λ" else {}) for r in found["rows"]]
    plain = artifacts.draw(found | {"rows": rows}).axes[0]
    assert "*" not in plain.get_xlabel() + "".join(text.get_text() for text in plain.get_yticklabels())
    rows = [r | ({"value": 0.0} if r["quantity"] == "chosen λ" and r.get("T") == 8 else {}) for r in rows]
    panel = artifacts.draw(found | {"rows": rows}).axes[0]
    (starred,) = (text.get_text() for text in panel.get_yticklabels() if text.get_text().endswith("*"))
    assert starred.startswith("T = 8,  λ = ") and "* λ = 0 was chosen" in panel.get_xlabel()
    lines, _ = artifacts.table(found | {"rows": rows}).split("\n\n")
    assert [line[0] for line in cells(lines)[1:] if line[1].endswith(" (none chosen)")] == ["T = 8"]


def test_a_grid_has_a_line_a_leak_in_a_panel_a_reset():
    found = grid((0, 1))
    panels = np.array(artifacts.draw(found).axes).reshape(2, 2)
    assert [panel.get_title() for panel in panels[0]] == ["attached reset", "detached reset"]
    for line, attack in zip(panels, (WORST, CLEAN), strict=True):
        by_setting = {name(r, DEFAULT): 100 * r["value"] for r in gains(found, attack)}
        for panel, reset in zip(line, ("attached", "detached"), strict=True):
            curves = {c.get_label(): list(c.get_ydata()) for c in panel.lines}
            for tau in (0.5, 1.0):
                places = [DEFAULT | {"T": T, "tau": tau, "reset": reset} for T in (2, 4)]
                expected = [by_setting["T = 1"], *(by_setting[name(place, DEFAULT)] for place in places)]
                assert curves[f"τ = {tau:g}"] == pytest.approx(expected)
            assert curves["ANN (ReLU)"][0] == pytest.approx(by_setting["ANN (ReLU)"])
            rings = [c.get_ydata()[0] for c in panel.lines if c.get_markersize() == 12]
            assert rings == ([100 * gains(found, attack)[0]["value"]] if reset == "attached" else [])


def test_the_tables_hold_every_gain_and_every_network():
    found = made(ARTIFACT, seeds=(0,))
    lines, networks = map(cells, artifacts.table(found).split("\n\n"))
    assert lines[0][:3] == ["neurons", "λ", "gain, clean"] and len(lines) == 1 + len(SETTINGS)
    assert lines[0][-1] == "gain minus that of the profile's neurons, worst of all, 16/255"
    assert lines[1][0] == "T = 4, τ = 1, attached reset" and lines[1][-3:] == [""] * 3
    (ann,) = (line for line in lines if line[0] == "ANN (ReLU)")
    assert ann[-1] == points(from_default(found)[-1])
    assert networks[0] == ["neurons", "training", "clean", "PGD-20, 16/255", "worst of all, 16/255"]
    assert [line[1] for line in networks[1:]] == ["vanilla", "SR, λ = 0.01", "SR, λ = 0.1"] * len(SETTINGS)


def test_where_nothing_was_trained_that_is_said_and_drawn():
    found = record(ARTIFACT, [])
    assert artifacts.headline(found) == "No network was trained here to vary T, τ and reset"
    assert "**one network**" in claims.finding(found) and not artifacts.table(found).strip()
    (panel,) = artifacts.draw(found).axes
    assert "`lambdas` is empty" in panel.texts[0].get_text()
