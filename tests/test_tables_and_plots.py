"""The modules of all artifacts: found by name, without torch; what they draw and table."""

import copy
import json
import math
import re
import subprocess
import sys
import warnings

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from handmade import FOUR, MAKERS, PGD_20, RIVALS, cells, made, record
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from paperlib import artifacts, labels, paths, records
from paperlib.artifacts import (
    claims,
    contents,
    fig_attack_ladder,
    report,
    spikes_figures,
    thm_ratio_figures,
)
from paperlib.artifacts.drawing import PALE, name_ends, shade, spread
from paperlib.artifacts.reading import differences, percent, points, select
from paperlib.errors import Refused
from paperlib.words import attack, hue, title

READING_ORDER = report.reading_order()
PAPERS = [name for name, _ in FOUR]  # the paper's trainings
TEN = [name for name, _ in FOUR + RIVALS]


def without_intervals(artifact):
    """Every bound null, as with one seed, but that of Monte Carlo."""
    found = made(artifact)
    for row in found["rows"]:
        if row["quantity"] != "measured":
            row["low"] = row["high"] = row["over"] = None
    return found


EXTREMES = {
    "ordinary": made,
    "all right": lambda artifact: made(artifact, share=1),
    "all broken, one seed and radius": lambda artifact: made(artifact, share=0, seeds=(4,), eps_255=(2.5,)),
    "no intervals": without_intervals,
    "no gradients": lambda artifact: made(artifact, scale=0.0),
}
GRADIENTS = ["fig-gradient-maps", "thm-ratio", "prop-finite-difference", "fig-landscape", "tab-masking-checklist"]
GRADIENTS += ["fig-sr-variants"]


# ---- modules -----------------------------------------------------------------------------------------------------


def test_every_notebook_has_a_module_with_all_of_a_part_and_a_place_in_the_reading_order():
    with_artifacts = {name for name in paths.notebooks() if artifacts.source(name)}
    assert set(READING_ORDER) == set(MAKERS) == with_artifacts and set(paths.notebooks()) <= set(contents.LINES)
    for artifact in READING_ORDER:
        parts = artifacts.parts(artifact)
        assert next(iter(parts)) == "" and all(isinstance(part.caption, str) for part in parts.values())
        assert all(callable(f) for part in parts.values() for f in (part.headline, part.figure, part.table))
    assert list(artifacts.parts("tab-ablation")) == ["", "equal-cost", "learning"] and "scale" in artifacts.parts(
        "thm-ratio"
    )
    assert {claim.artifact for claim in claims.LEDGER} <= set(READING_ORDER)


WITHOUT_TORCH = """
import importlib, json, pkgutil, sys
from pathlib import Path

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "snntorch"):
            raise ImportError(f"{name} was imported")

sys.meta_path.insert(0, Refuse())
from paperlib import artifacts, records
from paperlib.artifacts import claims, report

for module in pkgutil.iter_modules(artifacts.__path__, artifacts.__name__ + "."):
    importlib.import_module(module.name)
folder = Path(sys.argv[1])
for artifact in report.reading_order():
    record = records.load(folder / f"{artifact}.json")
    parts = artifacts.parts(artifact)
    texts = {part: [artifacts.headline(record, part), artifacts.table(record, part)] for part in parts}
    (folder / f"{artifact}.texts").write_text(json.dumps([texts, claims.finding(record)]))
    for part in texts:
        artifacts.draw(record, part)
    artifacts.save(record, folder / f"{artifact}.png")
"""


def test_without_torch_a_stored_record_gives_every_figure_the_same_texts_and_the_same_bytes(tmp_path):
    for artifact in READING_ORDER:
        records.save(made(artifact), tmp_path / f"{artifact}.json")
    command = [sys.executable, "-c", WITHOUT_TORCH, tmp_path]
    process = subprocess.run(command, capture_output=True, text=True, cwd=paths.ROOT)
    assert process.returncode == 0, process.stderr
    for artifact in READING_ORDER:
        found = made(artifact)
        texts, finding = json.loads((tmp_path / f"{artifact}.texts").read_text())
        assert finding == claims.finding(found)
        for part, both in texts.items():
            assert both == [artifacts.headline(found, part), artifacts.table(found, part)]
        artifacts.save(found, tmp_path / "again" / "figure.png")
        picture = (tmp_path / f"{artifact}.png").read_bytes()
        assert picture == (tmp_path / "again" / "figure.png").read_bytes(), artifact
        assert picture.startswith(b"\x89PNG") and b"tEXt" not in picture


OWN_MODULE = '''
"""A reader's own."""
import matplotlib.pyplot as plt
from pandas import DataFrame

caption = "Of nothing"


def headline(record):
    return f"I count {len(record['rows'])} rows"


def figure(record):
    return plt.figure()


def table(record):
    return [DataFrame([{"rows": len(record["rows"])}])]
'''


@pytest.mark.parametrize("beside_ours", [True, False])
def test_an_artifact_of_the_readers_own_is_found_beside_notebooks(tmp_path, monkeypatch, beside_ours):
    if beside_ours:
        monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    else:
        monkeypatch.setenv(paths.FOLDERS, str(tmp_path))
    (tmp_path / "fig_found_here.py").write_text(OWN_MODULE)
    found = record("fig-found-here", [])
    figure = artifacts.draw(found)
    assert figure.get_suptitle() == "I count 0 rows" and figure.get_supxlabel() == artifacts.caption(found)
    assert cells(artifacts.table(found)) == [["rows"], ["0"]]
    assert claims.finding(found) == "**I count 0 rows** (Of nothing, 95 % intervals, profile smoke)"


def test_a_module_that_is_missing_lacks_a_part_or_breaks_is_refused_by_name_until_it_is_mended(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    with pytest.raises(Refused, match="no artifact 'fig-half'.*fig_half.py"):
        artifacts.module("fig-half")
    source = OWN_MODULE.replace("def table", "def tables").replace("caption", "captions")
    (tmp_path / "fig_half.py").write_text(source)
    with pytest.raises(Refused, match="fig_half.py lacks caption, table; it needs headline, caption, figure, table"):
        artifacts.module("fig-half")
    with pytest.raises(Refused, match="lacks headline, caption, figure, table"):
        artifacts.module("reading")
    (tmp_path / "fig_broken.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        artifacts.module("fig-broken")
    (tmp_path / "fig_broken.py").write_text(OWN_MODULE)
    assert artifacts.module("fig-broken").headline({"rows": []})


# ---- every artifact, whatever was measured -----------------------------------------------------------------------


@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("artifact", READING_ORDER)
def test_it_is_drawn_told_and_tabled_without_a_warning(artifact, extreme):
    if extreme != "no gradients" or artifact in GRADIENTS:
        assert_looks_right(EXTREMES[extreme](artifact))


def assert_looks_right(found):
    before = copy.deepcopy(found)
    for part in artifacts.parts(found["artifact"]):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure = artifacts.draw(found, part)
            figure.draw_without_rendering()
            text = claims.finding(found)
            table = artifacts.table(found, part)
        assert isinstance(figure, Figure)
        assert re.sub(r"\s+", " ", figure.get_suptitle()) == artifacts.headline(found, part)
        assert figure.get_supxlabel() == artifacts.caption(found, part)
        assert artifacts.headline(found) in text
        assert not re.search(r"\b(nan|None|inf)\b", text + figure.get_suptitle())
        assert not re.search(r"\bNone\b", table)
        blocks = [block.splitlines() for block in table.split("\n\n") if block]
        assert all(len({len(re.findall(r"(?<!\\)\|", line)) for line in block}) == 1 for block in blocks)
    assert found == before


@pytest.mark.parametrize("artifact", sorted({claim.artifact for claim in claims.LEDGER}))
def test_with_one_seed_nothing_about_networks_is_decided(artifact):
    found = made(artifact, seeds=(4,))
    for claim in (claim for claim in claims.LEDGER if claim.artifact == artifact):
        expected = claims.SUPPORTED if claim.id == "C2, the statement" else claims.ONE_NETWORK
        assert claims.judged(claim, found).verdict == expected


OWN = ["tab-ablation", "tab-cost", "fig-attack-ladder", "tab-masking-checklist", "tab-whitebox", "tab-blackbox"]
OWN += ["fig-gradient-maps", "thm-ratio"]


@pytest.mark.parametrize("artifact", OWN)
def test_a_training_of_the_readers_own_is_shown_under_its_own_name(artifact):
    found = made(artifact)
    rows = [r for r in found["rows"] if r.get("training") == "vanilla" and "scale" not in r]
    found["rows"] += [r | {"training": "mine"} for r in rows]
    arrays = found.get("arrays", {})
    for by_training in (arrays.get("maps"), arrays.get("saturation"), *arrays.get("quartiles", {}).values()):
        if by_training:
            by_training["mine"] = by_training["vanilla"]
    assert_looks_right(found)
    assert "mine" in artifacts.table(found)


def test_a_drawn_figure_is_not_left_open():
    plt.close("all")
    artifacts.draw(made("fig-lambda"))
    assert plt.get_fignums() == []


def test_a_figure_is_saved_in_its_own_resolution_whatever_the_reader_has_set(tmp_path):
    with matplotlib.rc_context({"savefig.dpi": 30, "font.size": 30}):
        artifacts.save(made("fig-lambda"), tmp_path / "figure.png")
    width = int.from_bytes((tmp_path / "figure.png").read_bytes()[16:20])
    assert width == pytest.approx(10.4 * artifacts.DPI, abs=1)


def test_a_full_disk_leaves_the_older_figure_whole(tmp_path, full_disk):
    path = tmp_path / "figure.png"
    path.write_bytes(b"older")
    with full_disk("figure.png"), pytest.raises(Refused, match="figure.png"):
        artifacts.save(made("fig-lambda"), path)
    assert path.read_bytes() == b"older" and [p.name for p in tmp_path.iterdir()] == ["figure.png"]


@pytest.mark.parametrize("artifact", ["tab-events", "fig-random-vs-adversarial-events"])
def test_without_trainings_on_event_data_that_is_said(artifact):
    empty = record(artifact, [])
    assert "No training on event data was asked for" in claims.finding(empty)
    assert artifacts.table(empty).strip() == "" and artifacts.draw(empty).axes
    assert claims.finding(empty).count("Not measured.") == {"tab-events": 6}.get(artifact, 3)


def test_without_trainings_on_event_data_there_are_no_spikes_to_show():
    empty = record("fig-spikes-events", [], trainings=[])
    assert claims.finding(empty).startswith("**No training on event data was asked for** (")
    assert artifacts.tables(empty).strip() == ""
    for part in artifacts.parts("fig-spikes-events"):
        assert artifacts.draw(empty, part).get_suptitle() == "No training on event data was asked for"


# ---- what is drawn -----------------------------------------------------------------------------------------------


def test_each_training_has_one_colour_of_its_own():
    colours = {title(name): hue(name) for name in TEN}
    assert len(set(colours.values())) == len(colours) == 10


def test_where_all_ten_stand_the_papers_four_have_their_colours_and_the_rivals_are_grey():
    colours = {title(name): hue(name) if name in PAPERS else PALE for name in TEN}
    for artifact, part in (("tab-ablation", ""), ("tab-ablation", "equal-cost"), ("tab-cost", "")):
        panel = artifacts.draw(made(artifact), part).axes[0]
        names = {text.get_text(): to_hex(text.get_color()) for text in panel.get_yticklabels()}
        assert list(names.items()) == list(colours.items())
        assert {to_hex(container[0].get_color()) for container in panel.containers} == set(colours.values())
    assert shade("mine") == hue("mine")  # a training of the reader's own is no rival


def marked(panel):
    """What is drawn with whiskers: (colour, line of the panel, marker, whether hollow, value, whether capped)."""
    dots = []
    for dot, caps, _ in panel.containers:
        (value,), (y,), face = dot.get_xdata(), dot.get_ydata(), to_hex(dot.get_markerfacecolor())
        colour = to_hex(dot.get_color())
        dots.append((colour, round(y), dot.get_marker(), face == "#ffffff", value, bool(caps)))
        assert face in (colour, "#ffffff")
    return dots


def test_the_dots_of_the_ablation_are_the_means_and_its_caps_say_what_whiskers_tell():
    found = made("tab-ablation")
    drawn = marked(artifacts.draw(found).axes[0])
    for y, training in enumerate(TEN):
        own = {"quantity": "mean accuracy", "training": training, "budget": None}
        (clean,), (_, large) = select(found, attack="clean", **own), select(found, **PGD_20, **own)
        capped, colour = training not in PAPERS, hue(training) if training in PAPERS else PALE  # caps: over images
        assert large["eps_255"] == 16  # of 8 and 16 the nearer to that of the worst case, 32
        assert [dot for dot in drawn if dot[1] == y] == [
            (colour, y, "o", True, 100 * clean["value"], capped),
            (colour, y, "o", False, 100 * large["value"], capped),
        ]


def test_differences_have_the_interval_that_there_is():
    found = made("tab-ablation")
    panel = artifacts.draw(found).axes[1]
    pairs = [text.get_text() for text in panel.get_yticklabels()]
    assert pairs[:3] == ["SR - vanilla", "AT+SR - AT", "SR - AT"]  # the paper's four, then in grey
    assert sorted(pairs[3:]) == ["SR - exact l1", "SR - exact l2", "SR - loss l1", "TRADES+SR - TRADES"]
    drawn = marked(panel)
    for training, other in (("sr", "vanilla"), ("at+sr", "at"), ("trades+sr", "trades"), ("sr", "l2")):
        y, wanted = pairs.index(f"{title(training)} - {title(other)}"), {"training": training, "against": other}
        wanted |= {"budget": None, "eps_255": 16} | PGD_20
        rows, paired = (select(found, quantity=name, **wanted) for name in ("difference", "paired difference"))
        _, attacked = (dot for dot in drawn if dot[1] == y)
        single = other in ("trades", "l2")
        assert attacked[4] == pytest.approx(100 * rows[0]["value"]) and attacked[5] == single
        assert attacked[0] == (PALE if single else hue(training))
        shown = differences(found, **wanted)
        assert shown == rows and all(r["low"] is not None for r in shown)
        assert [r["over"] for r in rows] == ["samples" if single else "seeds and samples"]
        assert not single or [r["value"] for r in rows] == [r["value"] for r in paired]


def test_equal_cost_is_drawn_under_both_budgets_with_its_passes():
    found = made("tab-ablation")
    left, right = artifacts.draw(found, "equal-cost").axes
    drawn, worst = marked(left), {"attack": labels.WORST, "budget": labels.PASSES}
    for y, training in enumerate(TEN):
        for hollow, budget in ((True, labels.EPOCHS), (False, labels.PASSES)):
            (r,) = select(found, quantity="mean accuracy", training=training, **worst | {"budget": budget})
            assert (shade(training), y, "o", hollow, 100 * r["value"], True) in drawn
    passes = [text.get_text() for text in left.texts]
    assert passes[:4] == ["2 → 4", "5 → 10", "4 → 8", "7 → 14"]  # epochs 1 and 2, of 1 + 1, 2 + 3, 2 + 2 and 3 + 4
    against = {dot[1]: dot[4] for dot in marked(right)}
    assert set(against) == {TEN.index(name) for name in TEN if name != "sr"}
    (r,) = select(found, quantity="difference", training="sr", against="rat", **worst)
    assert against[TEN.index("rat")] == pytest.approx(-100 * r["value"])


def test_without_networks_at_equal_passes_there_is_one_panel():
    found = made("tab-ablation")
    found = found | {"rows": [r for r in found["rows"] if r.get("budget") != labels.PASSES]}
    assert len(artifacts.draw(found, "equal-cost").axes) == 1
    assert artifacts.headline(found, "equal-cost").startswith("At equal epochs ")
    (head, *_) = cells(artifacts.table(found, "equal-cost"))
    assert "worst of all, equal epochs" in head and not any("passes" in name for name in head[1:4:2])


def test_the_cost_of_a_step_is_drawn_relative_to_vanilla_beside_accuracy_under_both_budgets():
    found = made("tab-cost")
    left, right = artifacts.draw(found).axes
    for what, mark in (("passes", "o"), ("multiply-adds", "s"), ("bytes kept", "D"), ("seconds", "^")):
        drawn = [c[0] for c in left.containers if c[0].get_marker() == mark]
        rows = select(found, quantity="relative cost", what=what)
        assert [dot.get_xdata()[0] for dot in drawn] == [r["value"] for r in rows] and len(rows) == 10
    for hollow, budget in ((True, labels.EPOCHS), (False, labels.PASSES)):
        wanted = {"quantity": "mean accuracy", "training": "sr", "attack": labels.WORST, "budget": budget}
        (r,) = select(found, **wanted)
        assert (hue("sr"), 1, "o", hollow, 100 * r["value"], True) in marked(right)


@pytest.mark.parametrize("heights", [[90, 50, 10], [50, 50, 50], [2, 1, 0, 0], [0], [], [100 - i for i in range(10)]])
def test_names_lie_apart_in_their_order_and_within_the_frame(heights):
    found = spread([h / 100 for h in heights], 0.05)
    gaps = [above - below for above, below in zip(found, found[1:], strict=False)]
    assert all(gap >= 0.05 - 1e-9 for gap in gaps) and all(-1e-9 <= height <= 1 + 1e-9 for height in found)
    if all(a - b >= 5 for a, b in zip(heights, heights[1:], strict=False)):
        assert found == pytest.approx([h / 100 for h in heights])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_no_name_is_moved_further_than_the_others_make_it(heights):
    """The sum of squares is the least of all that are apart, which any pair moved alone would raise."""
    heights = sorted(heights, reverse=True)
    found = spread(heights, 0.05)
    assert found == pytest.approx(sorted(found, reverse=True))
    inside = min(found) > 1e-6 and max(found) < 1 - 1e-6
    if inside:  # the frame has pushed none
        assert sum(found) == pytest.approx(sum(heights))


def test_names_stand_beside_the_ends_of_their_lines_and_moved_ones_keep_the_order():
    _, ax = plt.subplots()
    ax.set(xlim=(0, 8), ylim=(0, 70))
    name_ends(ax, [(57.6, "ε", "C0"), (57.9, "2ε", "C0"), (53.6, "4ε", "C0"), (4.5, "PGD", "C1")])
    places = {text.get_text(): (text.xy[1] * 70, text.get_position()[1] * 70) for text in ax.texts}
    assert {name: end for name, (end, _) in places.items()} == pytest.approx(
        {"ε": 57.6, "2ε": 57.9, "4ε": 53.6, "PGD": 4.5}
    )
    assert places["2ε"][1] > places["ε"][1] > places["4ε"][1] and places["PGD"][1] == pytest.approx(4.5)
    assert all(abs(end - written) < 5 for end, written in places.values())  # no name at another line's height
    plt.close("all")


def test_a_panel_draws_other_numbers_than_a_records():
    _, ax = plt.subplots()
    rows = [{"attack": "mine", "value": v, "low": None, "high": None} for v in (0.8, 0.3)]
    passes = [{"attack": "mine", "value": 7.0}]
    assert fig_attack_ladder.ladder({"mine": rows}, passes, ax) is ax
    assert list(ax.lines[0].get_ydata()) == [80, 30] and [t.get_text() for t in ax.texts] == ["mine"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["mine\n7"] * 2
    plt.close("all")


def test_noise_is_drawn_at_the_epsilon_whose_multiple_it_is():
    found = made("fig-random-vs-adversarial")
    for panel, law in zip(artifacts.draw(found).axes, ("uniform", "sign"), strict=True):
        lines = [line for line in panel.lines if line.get_marker() == "o"]
        ends = [text.get_text() for text in panel.texts if text.get_text() != "clean"]
        named = dict(zip(ends, lines, strict=True))
        wanted = {"PGD-20, ε": (PGD_20, 1)}
        wanted |= {f"noise, {k if k > 1 else ''}ε": ({"attack": law}, k) for k in (1, 2, 4)}
        assert set(named) == set(wanted)
        for name, (attacked, k) in wanted.items():
            rows = [select(found, quantity="mean accuracy", eps_255=k * eps, **attacked)[0] for eps in (8, 16)]
            assert list(named[name].get_xdata()) == [8, 16]
            assert list(named[name].get_ydata()) == pytest.approx([100 * r["value"] for r in rows])


def test_the_maps_say_the_sizes_of_what_they_show():
    found = made("fig-gradient-maps")
    names = [panel.get_xlabel() for panel in artifacts.draw(found, "maps").axes]
    g = np.array(found["arrays"]["maps"]["sr"][1])
    l1, l2 = np.abs(g).sum(), math.sqrt((g**2).sum())
    assert f"l1 {l1:.2g}, l2 {l2:.1g}\nPN {l1**2 / l2**2:.0f}" in names
    assert sum(name.startswith("l1 0, l2 0\n") for name in names) == 4  # the first image's vanish everywhere


def test_the_figure_of_c5_has_a_dot_a_network_a_mean_a_configuration_and_the_correlations_of_its_rows():
    found = made("fig-gradient-maps")
    by_number, _, forest, pair = artifacts.draw(found).axes
    small, large = ([line for line in by_number.lines if line.get_markersize() == size] for size in (3, 8))
    assert len(small) == len(large) == 7 and {len(line.get_xdata()) for line in small} == {3}
    hollow = {to_hex(line.get_color()) for line in large if to_hex(line.get_markerfacecolor()) == "#ffffff"}
    assert hollow == {hue("exact-l1"), hue("l2")}  # no correlation counts them
    rows = select(found, quantity="participation number", training="sr", lam=0.1)
    centre = np.exp(np.mean([math.log(r["value"]) for r in rows]))
    assert any(line.get_xdata()[0] == pytest.approx(centre) for line in large if line.get_color() == hue("sr"))
    for container, size in zip(forest.containers, ("participation number", "l1"), strict=True):
        drawn = dict(zip(map(round, container[0].get_ydata()), container[0].get_xdata(), strict=True))
        rows = [r for r in select(found, quantity="rank correlation", sparsity=size) if r["attack"] == labels.WORST]
        wanted = {(r["across"], "given" in r): r["value"] for r in rows}
        assert drawn[0] == wanted["networks", False] and drawn[1] == wanted["within trainings", False]
        assert drawn[2] == wanted["within SR", False] and drawn[3] == wanted["networks", True]
    differences = select(found, quantity="matched difference")
    assert [t.get_text() for t in pair.get_yticklabels()] == ["clean", "PGD-20", "worst of all"]
    assert [c[0].get_xdata()[0] for c in pair.containers] == pytest.approx([100 * r["value"] for r in differences])
    assert "exact l1 (λ = 0.1) against exact l2 (λ = 1)" in pair.get_title()


def test_the_landscape_is_drawn_on_the_same_scale_for_all_and_says_which_line_is_which():
    found = made("fig-landscape")
    panels = np.array(artifacts.draw(found).axes).reshape(3, 4)
    assert [panel.get_title() for panel in panels[0]] == [title(training) for training in PAPERS]
    assert len({panel.get_ylim() for panel in panels[:2].flat}) == 1
    for panel, training in zip(panels[0], PAPERS, strict=True):
        along, random = (line for line in panel.lines if len(line.get_xdata()) == 7)
        for line, direction in ((along, "attack"), (random, "random")):
            rows = select(found, quantity="loss", training=training, direction=direction)
            assert list(line.get_ydata()) == [r["value"] for r in rows]
            assert to_hex(line.get_color()) == hue(training)
        names = {text.get_text(): text.xy for text in panel.texts}
        assert names["attack's direction"][1] < along.get_ydata()[0] < random.get_ydata()[0]
        assert random.get_ydata()[0] < names["random direction"][1]


def test_the_landscape_says_where_a_random_direction_leads_up_as_far_as_the_attacks():
    found = made("fig-landscape")
    higher = "The attack's direction raises the loss more than a random one"
    assert artifacts.headline(found) == f"{higher} in every training (one network each)"
    for row in select(found, quantity="loss", training="sr", t_255=48.0):
        row["value"] = 0.5
    assert artifacts.headline(found) == f"{higher} but not in SR (one network each)"


INPUTS = {"sign": "noise", "pgd": "attack"}  # by the label of the attack: the role


def test_a_raster_has_a_dot_for_every_spike_filled_where_it_is_new_and_hollow_where_it_is_gone():
    layer = {"active": 9, "membranes": {"clean": [0, 0, 0]}}
    layer["trains"] = {"clean": [[1, 0, 1], [0, 1, 0]], "noise": [[1, 0, 1]] * 2, "attack": [[0, 1, 1], [0, 1, 0]]}
    panel = spikes_figures.raster(layer, plt.figure().add_subplot())
    ink, pink, orange = (to_hex(spikes_figures.COLOURS[role]) for role in ("clean", "noise", "attack"))
    drawn = set()
    for line in panel.lines:
        face, edge = to_hex(line.get_markerfacecolor()), to_hex(line.get_markeredgecolor())
        drawn |= {(x, y, face, edge) for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}
    left, right, white = 3 + spikes_figures.GAP, 2 * (3 + spikes_figures.GAP), "#ffffff"
    assert drawn == {
        *((0, 0, ink, ink), (2, 0, ink, ink), (1, 1, ink, ink)),
        *((left, 0, ink, ink), (left + 2, 0, ink, ink)),
        *((left, 1, pink, pink), (left + 1, 1, white, pink), (left + 2, 1, pink, pink)),
        *(
            (right, 0, white, orange),
            (right + 1, 0, orange, orange),
            (right + 2, 0, ink, ink),
            (right + 1, 1, ink, ink),
        ),
    }
    assert panel.get_title() == "2 of the 9 that spike"
    plt.close("all")


def test_the_rasters_stand_above_the_share_of_moved_spikes():
    found = made("fig-spikes")
    axes = np.array(artifacts.draw(found).subfigs[0].axes).reshape(4, 4)
    for column, training in zip(axes.T, PAPERS, strict=True):
        assert column[0].get_title() == title(training)
        texts = [part.get_xlabel() for part in column[0].child_axes]
        assert texts == ["seen as 2", "seen as 2", "seen as 0"]
        assert [part.xaxis.label.get_color() == spikes_figures.WRONG for part in column[0].child_axes] == [0, 0, 1]
        for container, name in zip(column[-1].containers, ("sign", "pgd"), strict=True):
            rows = [select(found, quantity="spikes moved", training=training, attack=name, layer=i)[0] for i in (1, 2)]
            assert list(container[0].get_ydata()) == pytest.approx([100 * r["value"] for r in rows])
            assert container[0].get_color() == spikes_figures.COLOURS[INPUTS[name]]


def test_a_membrane_falls_to_0_after_each_spike():
    layer = {"membranes": {"clean": [0.4, 1.2, 0.5], "noise": [1.0, 0.1, 0.2], "attack": [0.3, 0.6, 0.9]}}
    panel = spikes_figures.membrane(layer, 1.0, plt.figure().add_subplot())
    paths = [line for line in panel.lines if line.get_marker() == "None" and len(line.get_xdata()) > 3]
    assert [list(line.get_ydata()) for line in paths] == [
        [0, 0.4, 1.2, 0, 0.5],
        [0, 1.0, 0, 0.1, 0.2],
        [0, 0.3, 0.6, 0.9],
    ]
    dots = [list(zip(*line.get_data(), strict=True)) for line in panel.lines if line.get_marker() == "o"]
    assert dots == [[(2, 1.2)], [(1, 1.0)], []]
    plt.close("all")


def test_the_bars_of_the_energy_end_at_its_estimate():
    for artifact in ("fig-spikes", "fig-spikes-events"):
        found = made(artifact)
        panel = artifacts.draw(found, "rates").axes[1]
        ends = {}
        for bar in panel.patches:
            ends[round(bar.get_y(), 6)] = max(ends.get(round(bar.get_y(), 6), 0), bar.get_x() + bar.get_width())
        wanted = [r["value"] for r in select(found, quantity="energy", attack="clean")]
        assert list(ends.values()) == pytest.approx(wanted) and len(wanted) == 4
        legend = [text.get_text() for text in panel.get_legend().get_texts()]
        assert (legend[0] == "multiply-adds on the image") == (artifact == "fig-spikes")
        assert legend[1:3] == ["spikes of layer 1", "spikes of layer 2"]


def test_what_is_said_of_spikes_turns_with_the_ratios():
    found = made("fig-spikes")
    box = artifacts.module("fig-spikes").box
    # twice as many in every seed, to the digit: an interval without width decides nothing; SR spikes more than vanilla
    assert [line.holds for line in box(found)] == [None, None, None, False, False]
    for row in found["rows"]:
        if row["quantity"] == "moved by the attack over the noise":
            row |= {"value": 2.0, "low": 1.5, "high": 2.5} if row.get("layer") != 1 else {"low": 0.5, "high": 0.9}
        elif row["quantity"].startswith("relative"):
            row |= {"value": 0.7, "low": 0.5, "high": 0.9}
    lines = [*box(found)]
    assert [line.holds for line in lines] == [True, False, True, True, True]
    assert "vanilla 2.00 [1.50, 2.50]" in lines[0].numbers
    for row in select(found, quantity="relative energy", training="sr"):
        row |= {"value": 1.5, "low": 1.2, "high": 1.9}
    assert [line.holds for line in box(found)][-2:] == [True, False]
    assert artifacts.headline(found).startswith("vanilla: PGD-20 moves 2.00 times as many spikes as sign noise of the ")


def test_the_bars_of_the_outcomes_fill_their_height():
    found = made("thm-ratio")
    panels = artifacts.draw(found, "outcomes").axes
    assert [panel.get_title() for panel in panels] == [title(name) for name in PAPERS]
    for panel in panels:
        tops = {}
        for bar in panel.patches:
            tops.setdefault(round(bar.get_x(), 6), []).append(bar.get_y() + bar.get_height())
        assert len(tops) == 2 and [max(heights) for heights in tops.values()] == pytest.approx([100] * 2)


def test_sparsity_is_shown_at_one_radius_and_against_survival_and_tabled_at_all():
    found = made("thm-ratio")
    names = [panel.get_title() for panel in artifacts.draw(found, "sparsity").axes]
    assert names == ["with ratio at 16/255", "with PGD-20 at 25.5/255"]
    assert "ratio at 8/255" in artifacts.table(found, "sparsity")


@pytest.mark.parametrize(
    ("artifact", "part", "kept"),
    [
        ("thm-ratio", "exact", lambda row: "case" in row),
        ("thm-ratio", "sparsity", lambda row: row["quantity"] in ("sparsity", "rank correlation")),
        ("thm-ratio", "scale", lambda row: row["quantity"] == "scaled"),
        ("prop-finite-difference", "weights", lambda row: "layer" in row or "penalty" in row),
        ("tab-ablation", "", lambda row: "budget" not in row),
    ],
)
def test_a_part_is_drawn_from_its_own_rows_before_the_notebook_has_the_others(artifact, part, kept):
    found = made(artifact)
    early = {name: value for name, value in found.items() if name != "arrays"}
    early |= {"rows": [row for row in found["rows"] if kept(row)]}
    assert len(early["rows"]) < len(found["rows"])
    assert artifacts.draw(early, part).get_suptitle() == artifacts.draw(found, part).get_suptitle()


def test_what_scales_beyond_the_axis_is_drawn_at_its_edge():
    _, ax = plt.subplots()
    rows = [{"what": "l1", "scale": c, "value": v} for c, v in ((0.1, 2e-30), (1, 2.0), (10, 2e40))]
    thm_ratio_figures.scaled(rows, {"l1": "#000000"}, ax)
    marks = [(line.get_marker(), line.get_ydata()[0]) for line in ax.lines if line.get_marker() != "None"]
    assert marks == [("v", 1e-6), ("o", 1.0), ("^", 1e6)]
    plt.close("all")


def test_the_mean_quotient_is_drawn_from_the_h_at_which_images_move():
    middle = artifacts.draw(made("prop-finite-difference")).axes[1]
    assert middle.get_xlim()[0] < 1e-3 and {x for line in middle.lines for x in line.get_xdata() if x != 0.01} <= {0, 1}


def test_gains_of_one_network_have_the_interval_over_images():
    found = made("fig-attack-ladder", seeds=(4,))
    panel = artifacts.draw(found).axes[2]
    reach = [bars[0].get_segments() for _, _, bars in panel.containers]
    assert len(reach) == 2 and all(np.ptp(segment[:, 0]) > 0 for segments in reach for segment in segments[1:])


def test_where_one_network_leaves_no_interval_the_caption_says_so():
    three = made("prop-finite-difference")
    one = three | {"rows": [row | {"seeds": [4]} for row in three["rows"]]}
    for part in ("weights", "curvature"):
        assert "no intervals, which need more than one network" in artifacts.caption(one, part)
        assert "95 % intervals" in artifacts.caption(three, part) and "95" not in artifacts.caption(one, part)
    assert "95 % intervals" in artifacts.caption(one)


# ---- tables ------------------------------------------------------------------------------------------------------


def test_the_tables_of_the_ablation_hold_every_mean_and_every_difference():
    found = made("tab-ablation")
    means, differences, weak, weak_differences = map(cells, artifacts.table(found).split("\n\n"))
    assert means[0] == ["training", "interval over", "clean", "PGD-20, 8/255", "PGD-20, 16/255"]
    assert weak[0][2:5] == ["uniform noise, 8/255", "sign noise, 8/255", "FGSM, 8/255"] and len(weak[0]) == 2 + 6
    over = ["3 networks and 50 images"] * 4 + ["50 images of one network"] * 6
    assert [line[:2] for line in means[1:]] == [[title(name), n] for name, n in zip(TEN, over, strict=True)]
    for training, (_, *line), (_, *others) in zip(TEN, means[1:], weak[1:], strict=True):
        rows = select(found, quantity="mean accuracy", training=training, budget=None)
        strong = [r for r in rows if attack(r) in ("clean", "PGD-20")]
        assert line[1:] == [percent(r) for r in strong] and len(strong) == 3
        assert others[1:] == [percent(r) for r in rows if r not in strong] and len(rows) == 9
    assert [line[0] for line in differences[1:]] == [line[0] for line in weak_differences[1:]] and len(differences) == 8
    by_name = {line[0]: line for line in differences[1:]}
    wanted = {"training": "sr", "eps_255": 16, "budget": None} | PGD_20
    (sr,) = select(found, quantity="difference", against="vanilla", **wanted)
    assert by_name["SR - vanilla"][1] == "3 networks and 50 images" and by_name["SR - vanilla"][-1] == points(sr)
    (l2,) = select(found, quantity="difference", against="l2", **wanted)
    assert by_name["SR - exact l2"][1] == "50 images of one network" and by_name["SR - exact l2"][-1] == points(l2)


@pytest.mark.parametrize(("artifact", "part"), [("tab-ablation", "equal-cost"), ("tab-cost", "")])
def test_the_table_of_equal_cost_says_what_each_training_had_and_kept(artifact, part):
    found, worst = made(artifact), {"attack": labels.WORST, "budget": labels.PASSES}
    head, *lines = cells(artifacts.table(found, part).split("\n\n")[-1])
    assert len(lines) == 10 and head[0] == "training"
    sr, at = (dict(zip(head, line, strict=True)) for line in lines[1:3])
    assert (sr["equal epochs"], sr["equal passes"]) == ("1 epoch, 5 passes an image", "2 epochs, 10 passes an image")
    (r,) = select(found, quantity="mean accuracy", training="sr", **worst)
    assert sr["worst of all, equal passes"] == percent(r) and sr["SR minus it, equal passes"] == ""
    (r,) = select(found, quantity="paired difference", against="at", **worst)
    assert at["SR minus it, equal passes"] == points(r)


def test_the_table_of_cost_has_units():
    steps, _ = map(cells, artifacts.table(made("tab-cost")).split("\n\n"))
    sr = dict(zip(steps[0], steps[2], strict=True))
    assert sr["passes forward + backward, a step"] == "1.5e+06 + 1.5e+06" == sr["passes forward + backward, an epoch"]
    assert sr["multiply-adds, a step"] == "1.4 M" and sr["bytes kept, a step"] == "1.3 MB"
    assert sr["seconds, a step"] == "15 [11.2, 22.5] ms" and sr["seconds, an epoch"] == "1.5 [1.12, 2.25] s"
    assert sr["seconds, relative to vanilla"] == "1.5 [1.12, 2.25]" and sr["passes, relative to vanilla"] == "1.5"


def test_the_table_of_noise_puts_each_multiple_beside_the_attack():
    found = made("fig-random-vs-adversarial")
    accuracy, energy = map(cells, artifacts.table(found).split("\n\n"))
    assert accuracy[0] == ["ε", "PGD-20"] + [f"{law} noise, {k}ε" for law in ("uniform", "sign") for k in (1, 2, 4)]
    (noise,) = select(found, quantity="mean accuracy", attack="sign", eps_255=64)
    assert accuracy[2][0] == "16/255" and accuracy[2][-1] == percent(noise)
    assert energy[1] == ["uniform noise", "8/255", "50.0 % [40.0, 60.0]"] and len(energy) == 1 + 2 * 4


def test_the_table_of_the_maps_keeps_the_sweep_apart_from_the_trainings():
    found = made("fig-gradient-maps")
    means, correlations = artifacts.table(found).split("\n\n")
    head, *lines = cells(means)
    assert head[:2] == ["training", "networks"] and [line[1] for line in lines] == ["3"] * 7
    names = {"vanilla", "SR, λ = 0.01", "SR, λ = 0.1", "AT", "AT+SR, λ = 0.01"}
    assert {line[0] for line in lines} == names | {"exact l1, λ = 0.1", "exact l2, λ = 1"}
    rows = select(found, quantity="l1", training="sr", lam=0.1)
    (line,) = (line for line in lines if line[0] == "SR, λ = 0.1")
    assert float(line[head.index("median l1")]) == pytest.approx(np.mean([r["value"] for r in rows]), rel=0.01)
    assert line[head.index("zero gradient")].endswith("%")
    head, *lines = cells(correlations)
    assert head == ["size", "held", "across", "networks", "PGD-20, 16/255", "worst of all, 16/255"]
    assert len(lines) == 3 * 5 and ["participation number", "l1", "within SR", "6"] in [line[:4] for line in lines]


def test_the_table_of_ratios_has_a_line_a_network_and_one_a_regime_training_and_radius():
    linear, regimes = map(cells, artifacts.table(made("thm-ratio")).split("\n\n"))
    assert linear[0] == ["training", "seed", "linear ratio", "upper bound", "within both bounds", "zero gradient"]
    assert [line[:2] for line in linear[1:]] == [[title(name), seed] for name in PAPERS for seed in "012"]
    assert linear[1][4].startswith("100.0 % [")
    assert regimes[0][:3] == ["regime", "training", "ε"] and "ratio" in regimes[0] and len(regimes) == 1 + 2 * 4 * 2
    assert [line[:3] for line in regimes[1:3]] == [["surrogate-smooth", "vanilla", f"{eps}/255"] for eps in (8, 16)]


def test_the_table_of_quotients_has_a_line_a_training_and_step():
    head, *lines = cells(artifacts.table(made("prop-finite-difference")))
    assert len(lines) == 4 * 2 and [line[:2] for line in lines[:2]] == [["vanilla", "1e-05"], ["vanilla", "0.01"]]
    still, moved = (dict(zip(head, line, strict=True))["rank correlation"] for line in lines[:2])
    assert still == "undefined" and moved.startswith("1 [")  # at the smaller step no image moved


def test_the_table_of_the_landscape_has_a_line_a_training():
    found = made("fig-landscape")
    head, *lines = cells(artifacts.table(found))
    at = ["loss, t = 48/255, attack", "loss, t = 48/255, random"]
    assert head[:3] == ["training", "seed", "loss, t = 0/255"] and head[3:5] == at and head[-1] == "zero gradient"
    assert [line[:2] for line in lines] == [[title(name), "0"] for name in PAPERS]
    (far,) = select(found, quantity="loss", training="at", direction="attack", t_255=48.0)
    assert lines[2][3].startswith(f"{far['value']:.3g} [")


def test_a_doubted_number_is_marked_and_the_reason_stands_once_below_the_tables():
    found = made("tab-whitebox")
    rows = select(found, quantity="mean accuracy", attack="fgsm")
    for row in rows:
        row["doubts"] = ["its gradients mislead; take Square"]
    *_, note = artifacts.table(found).split("\n\n")
    assert note == "† Unreliable: its gradients mislead; take Square."
    assert artifacts.table(found).count("†") == len(rows) + 1 and "†" not in artifacts.table(made("tab-whitebox"))


# ---- theory ------------------------------------------------------------------------------------------------------


def test_the_box_says_of_each_statement_whether_it_holds():
    def box(artifact):
        found = made(artifact)
        lines = list(artifacts.module(artifact).box(found))
        assert all(line.statement in claims.finding(found) for line in lines)
        return {line.statement: line.holds for line in lines}

    ratio = box("thm-ratio")
    assert ratio["To first order the ratio lies between 3 and 3‖g‖₀."] is True
    assert ratio["The ratio of the spiking network keeps to the lower bound 3."] is True
    assert ratio["First order predicts ρ_rand of the spiking network within a factor of 2."] is True
    quotient = box("prop-finite-difference")
    assert quotient["There the curvature term predicts the error at h = 0.01 within a factor of 2."] is True
    assert quotient["The spiking network answers every step, however small."] is False
    assert quotient["The quotient costs less memory than double back-propagation."] is True


def test_the_finding_of_an_artifact_with_a_box_ends_in_a_table_of_words():
    head, *lines = cells(claims.finding(made("prop-finite-difference")).split("\n\n")[-1])
    assert head == ["", "statement", "measured"]
    assert ["**does not hold**", "The spiking network answers every step, however small."] in [
        line[:2] for line in lines
    ]
    assert {line[0] for line in lines} <= {"**holds**", "**does not hold**", "**undecided**"}
