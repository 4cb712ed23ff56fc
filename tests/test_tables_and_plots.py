"""Tables, drawings and headlines of every artifact, over ordinary records and extreme ones."""

import copy
import json
import math
import re
import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from test_claims import record, row

from paperlib import claims, findings, measures, notebooks, plots, protocols, records, report, tables, theory
from paperlib.attacks import standard
from paperlib.errors import Refused
from paperlib.evaluations import Evaluation
from paperlib.experiments import Experiment
from paperlib.measures.quotient import Quotients
from paperlib.measures.ratio import Vulnerabilities
from paperlib.training import Schedule

ARTIFACTS = notebooks.names()
LAMBDAS = (0.01, 0.1)  # the first is the trainings' own


def evaluations(trainings, attacks, *, seeds, share, n=50):
    """One a training (defense, λ), seed and attack, with flags that fall with ε; `share` fixes them all instead."""
    made = []
    for i, (defense, lam) in enumerate(trainings):
        for seed in seeds:
            options = {"eps": 0.1, "alpha": 0.1, "steps": 1} if defense.startswith("at") else {}
            options |= {} if lam is None else {"lam": lam}
            schedule = Schedule(1, 10, 0.1, 0.9, 0.0)
            of = Experiment(
                {"name": "tiny"}, "conv-2-4", 4, 1.0, "triangle", "float32", defense, options, schedule, seed
            )
            for attack in attacks:
                strong = getattr(attack, "name", "pgd") == "pgd"
                cost = 0 if attack is None else attack.eps * (8 - i if strong else 1)
                right = 0.9 - 0.02 * seed - cost if share is None else share
                passes = np.full(n, 1 if attack is None else 2 * attack.gradients)
                made.append(Evaluation(of, attack, np.arange(n) < round(n * min(1, max(0, right))), passes))
    return made


def gradient(experiment, scale):
    """(30, 1, 4, 4), of another sparsity in every network; the first vanishes."""
    drawn = torch.randn(30, 1, 4, 4, generator=torch.Generator().manual_seed(len(str(experiment)) + experiment.seed))
    drawn = drawn * (drawn.abs() > 0.2 * experiment.seed) * scale
    drawn[0] = 0
    return drawn


@cache
def made(artifact, *, seeds=(0, 1, 2), share=None, eps_255=(8, 16), scale=1.0):
    """The record that the artifact's notebook would make, from hand-made flags and gradients."""
    four = [("vanilla", None), ("sr", 0.01), ("at", None), ("at+sr", 0.01)]
    how, attacked = {"seeds": seeds, "share": share}, [standard("pgd", e / 255) for e in eps_255]
    nets = [e.experiment for e in evaluations(four, [None], **how)]
    if artifact == "fig-random-vs-adversarial":
        noise = [standard(law, k * e / 255) for law in ("uniform", "sign") for e in eps_255 for k in (1, 2, 4)]
        noise = list({(a.name, round(a.eps, 9)): a for a in noise}.values())
        clean, noisy, under = (evaluations(four[:1], a, **how) for a in ([None], noise, attacked))
        rows = measures.mean_rows(clean + noisy + under) + measures.accuracy_rows(clean + noisy + under)
        rows += measures.gap_rows(noisy, under, factors=[1, 2, 4])
        rows += [
            row("noise energy kept", 0.5, 0.4, 0.6, attack=a.title, eps_255=round(a.eps * 255, 6), seeds=[])
            for a in noise
        ]
        return record(artifact, rows)
    if artifact == "tab-ablation":
        found = evaluations(four, protocols.ladder(eps_255, steps=20), **how)
        rows = measures.mean_rows(found) + measures.difference_rows(found, "sr", "vanilla")
        return record(artifact, rows + measures.difference_rows(found, "at+sr", "at") + measures.accuracy_rows(found))
    if artifact in ("fig-attack-ladder", "tab-whitebox", "tab-blackbox"):
        spent, eps = {"steps": 10, "queries": 30}, eps_255[-1]
        attacks = {
            "fig-attack-ladder": [None, *protocols.rungs(eps, gammas=[0.5], long_steps=20, source=nets[0], **spent)],
            "tab-whitebox": protocols.released(eps_255, [10, 30]),
            "tab-blackbox": protocols.black_box(eps, sources=[nets[0], replace(nets[-1], network="vgg11")], **spent),
        }
        found = evaluations(four, attacks[artifact], **how)
        rows = measures.mean_rows(found) + measures.difference_rows(found, "sr", "vanilla")
        rows += measures.difference_rows(found, "at+sr", "at") + measures.accuracy_rows(found)
        return record(artifact, rows + measures.pass_rows(found))
    if artifact == "fig-gradient-maps":
        swept = [*four, ("sr", LAMBDAS[1])]
        robust = evaluations(swept, attacked[-1:], **how)
        found = {e.experiment.key: gradient(e.experiment, scale) for e in robust}
        rows = [r for e in robust for r in measures.sparsity_rows(e.experiment, found[e.experiment.key])]
        rows += measures.correlation_rows(rows, robust) + measures.accuracy_rows(robust)
        first = {e.defense: e.key for e in reversed(nets)}
        maps = {name: records.array(found[first[name]][:2]) for name, _ in four}
        return record(artifact, rows, {"images": np.linspace(0, 1, 32).reshape(2, 1, 4, 4).tolist(), "maps": maps})
    if artifact == "fig-lambda":
        swept = [("vanilla", None), *(("sr", lam) for lam in LAMBDAS)]
        found = evaluations(swept, [None, attacked[-1]], **how)
        rows = measures.mean_rows(found) + measures.accuracy_rows(found)
        return record(artifact, rows + measures.choice_rows(found, 0.02, used=0.01))
    if artifact == "fig-surrogate-width":
        swept = protocols.rules_at(eps_255[-1], [0.5, 1.0], steps=3)
        found = evaluations(four, swept, **how)
        rows = measures.mean_rows(found) + measures.contrast_rows(found, [(other, swept[1]) for other in swept[2:]])
        rows += measures.pass_rows(found) + measures.accuracy_rows(found)
        return record(artifact, measures.rule_rows(rows, swept))
    if artifact == "tab-poisson-eot":
        asked = {"eps_255": eps_255[-1], "draws": [2, 3], "steps": 4}
        found = evaluations(four[:2], protocols.expectations(**asked), **how)
        found = [replace(e, experiment=replace(e.experiment, network="poisson-conv-2-4")) for e in found]
        rows = measures.mean_rows(found) + measures.contrast_rows(found, protocols.expectation_pairs(**asked))
        for training, seed in dict.fromkeys((e.experiment.defense, e.experiment.seed) for e in found):
            labels = {"training": training, "seeds": [seed]}
            rows += [row("mean over draws", 0.9, 0.8, 0.95, **labels), row("spread over draws", 0.01, **labels)]
            rows += [row("undecided", 0.05, 0.01, 0.1, **labels)]
        return record(artifact, rows + measures.pass_rows(found) + measures.accuracy_rows(found))
    if artifact == "tab-masking-checklist":
        spent = {"steps": 10, "long_steps": 50, "queries": 30}
        asked = protocols.checklist(eps_255[-1], [*eps_255, 48], source=nets[0], **spent)
        found = evaluations(four, asked.attacks, **how)
        found = [replace(e, passes=np.full(len(e.flags), 2), vanished=float(scale == 0)) for e in found]
        rows = measures.checklist_rows(found, {e.key: asked for e in nets})
        return record(artifact, rows + scaled_rows(0.9 if share is None else share))
    if artifact == "thm-ratio":
        return ratio_record(nets, eps_255, scale)
    if artifact == "fig-landscape":
        return landscape_record(nets, seeds, share, scale)
    assert artifact == "prop-finite-difference", f"the tests know no record of {artifact} yet"
    return quotient_record(nets, scale)


def scaled_rows(clean):
    """The scale control of a network of which PGD leaves nothing at c = 1 and everything at c = 100, APGD half."""
    rows = []
    for name, attack, share in (("", "clean", 1), ("CE", "PGD-10", None), ("DLR", "APGD-DLR-10", 0.5)):
        for c in (1.0, 100.0):
            told = {"training": "vanilla", "attack": attack, "eps_255": 16.0, "scale": c}
            left = clean * ((c > 1) if share is None else share)
            rows.append(row("scaled accuracy", left, left, left, **told))
            if name and c > 1:
                gained = -left if share is None else 0.0
                rows.append(row("check", gained, gained - 0.05, gained + 0.05, check=f"scale, {name}", **told))
    return rows


def ratio_record(nets, eps_255, scale):
    """Of hand-made vulnerabilities: the attack reaches what first order says, noise half as much or nothing at all."""
    rows = [*measures.exact_rows(draws=200), *(r for e in nets for r in measures.ratio_rows(e, gradient(e, scale)))]
    found = []
    for regime in measures.REGIMES:
        for e in nets:
            g = gradient(e, scale)
            for eps in eps_255:
                noise, attack = theory.linear_vulnerabilities(g, eps / 255)
                noise = torch.where(torch.arange(30) % 7 == 1, 0, noise / 2)
                random = theory.RandomVulnerability(noise, noise / 9, noise * 2, (noise > 0).double())
                found.append(Vulnerabilities(e, regime, float(eps), g, torch.linspace(0.01, 0.99, 30), random, attack))
    worst = [
        row(
            "ratio over bound", v, v and v / 2, v and 2 * v, bound=side, eps_255=e, training="sr", image=3, log_odds=2.5
        )
        for side, top in (("upper", 400.0), ("lower", 2.0))
        for e, v in ((0.1, None), (16.0, top if scale else None), (48.0, 0.4 if scale else None))
    ]
    survived = [Evaluation(e, standard("pgd", 0.1), np.arange(30) % (2 + e.seed) == 0) for e in nets]
    predictors = measures.predictor_rows({e.key: gradient(e, scale) for e in nets}, found, survived, [0.0, 0.01])
    names = ["l1", "l2", "ρ_rand", "ρ_adv", "ratio", "participation number", "participation number, two classes"]
    names += ["Hoyer", "Gini", "same decisions", "no gradient in 32 bits"]
    control = [
        row("scaled", c * scale, what=name, scale=c, eps_255=16.0, training="vanilla")
        for name in names
        for c in (0.5, 1.0, 2.0)
    ]
    arrays = {"quartiles": measures.quantiles(found), "saturation": measures.saturation(found), "pixels": 16}
    arrays |= {"worst": {side: np.linspace(0, 1, 16).reshape(1, 4, 4).tolist() for side in ("upper", "lower")}}
    rows += measures.vulnerability_rows(found) + worst + predictors + control
    return record("thm-ratio", rows, arrays)


def landscape_record(nets, seeds, share, scale):
    """Of hand-made losses: along the attack they climb the less the later the training; of no image where all fail."""
    t = np.arange(-3, 4) * 16.0
    n, found = 0 if share == 0 else 5, []
    for i, e in enumerate(e for e in nets if e.seed == seeds[0]):
        level = np.linspace(0.01, 0.1, n)[:, None]
        loss = {"attack": level * np.exp(scale * t / (16 + 8 * i)), "random": level * (1 + scale * np.sin(t) ** 2)}
        right = {name: values < (9 if share else 0.2) for name, values in loss.items()}
        found.append(measures.Landscape(e, t, loss, right, np.full(n, scale == 0)))
    grid = np.add.outer(np.abs(t), t) / 50
    plane = {"t_255": t.tolist(), "loss": {}, "right": {}}
    if n:
        plane |= {"image": np.linspace(0, 1, 16).reshape(1, 4, 4).tolist()}
        plane["loss"] = {f.experiment.defense: (np.exp(scale * grid) / (1 + i)).tolist() for i, f in enumerate(found)}
        plane["right"] = {name: (np.array(loss) < 3).tolist() for name, loss in plane["loss"].items()}
    arrays = {"curves": measures.landscape_curves(found), "plane": plane}
    return record("fig-landscape", measures.landscape_rows(found), arrays)


def quotient_record(nets, scale):
    """Of hand-made quotients that err by a curvature of -2 ‖g‖₁, and of a step function as far as the true one goes."""
    found = []
    for e in nets:
        l1 = theory.l1(gradient(e, scale)).double().numpy()
        for regime in measures.REGIMES:
            smooth = regime == measures.SMOOTH
            for precision in measures.PRECISIONS:
                error = {"forward": -1, "backward": 1, "central": 0}
                quotient = {
                    (h, scheme): l1 * (1 + h * sign) if smooth or h == 0.01 else l1 * 0
                    for h in (1e-5, 1e-2)
                    for scheme, sign in error.items()
                }
                found.append(Quotients(e, regime, precision, l1, quotient, -2 * l1 if smooth else None))
    rows = measures.quotient_rows(found, used=0.01) + measures.curvature_rows(found)
    for e in nets:
        labels = {"training": e.defense, "seeds": [e.seed]}
        rows += [row("accuracy", 0.9, 0.8, 0.95, regime=regime, **labels) for regime in measures.REGIMES]
    for defense in dict.fromkeys(e.defense for e in nets):
        for regime in measures.REGIMES:
            for layer in (1, 2):
                labels = {"training": defense, "regime": regime, "layer": layer, "h": 0.01}
                cosine = (0.5, 0.2, 0.8) if scale else (None, None, None)
                rows += [row("cosine", *cosine, **labels), row("norm ratio", *cosine, **labels)]
    for penalty, cost in (("finite difference", 2.0), ("double back propagation", 3.0)):
        rows += [row(quantity, cost, penalty=penalty) for quantity in ("multiply-adds", "bytes kept")]
    arrays = {"used_h": 0.01, "window": measures.WINDOW, "curvature": measures.curvatures(found, 0.01)}
    return record("prop-finite-difference", rows, arrays)


def without_intervals(artifact):
    """Every bound null, as with one seed, but that of Monte Carlo."""
    found = copy.deepcopy(made(artifact))
    for entry in found["rows"]:
        if entry["quantity"] != "measured":
            entry["low"] = entry["high"] = None
    return found


EXTREMES = {
    "ordinary": made,
    "all right": lambda artifact: made(artifact, share=1),
    "all broken, one seed and radius": lambda artifact: made(artifact, share=0, seeds=(4,), eps_255=(2.5,)),
    "no intervals": without_intervals,
}


# ---- every artifact, whatever was measured -----------------------------------------------------------------------


def test_every_notebook_has_a_table_a_drawing_and_a_headline():
    assert set(plots.DRAWINGS) == set(findings.HEADLINES) >= set(tables.TABLES) >= set(ARTIFACTS)
    assert {name.partition("/")[0] for name in plots.DRAWINGS} == set(report.READING_ORDER) == set(ARTIFACTS)
    assert set(findings.IMAGES) <= set(plots.DRAWINGS) and set(findings.BOXES) <= set(ARTIFACTS)
    decided = {claim.artifact for claim in claims.LEDGER if claim.judge}
    assert decided <= set(ARTIFACTS)


@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_it_is_drawn_told_and_tabled_without_a_warning(artifact, extreme, tmp_path):
    assert_looks_right(EXTREMES[extreme](artifact), tmp_path)


GRADIENTLESS = ["fig-gradient-maps", "thm-ratio", "prop-finite-difference", "fig-landscape", "tab-masking-checklist"]


@pytest.mark.parametrize("artifact", GRADIENTLESS)
def test_networks_without_any_gradient_are_shown_too(artifact, tmp_path):
    assert_looks_right(made(artifact, scale=0.0), tmp_path)


def assert_looks_right(found, tmp_path):
    before = copy.deepcopy(found)
    for part in findings.parts(found["artifact"]):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure = plots.draw(found, part)
            figure.savefig(tmp_path / "figure.png", dpi=50)
            text = findings.finding(found)
            table = tables.markdown(found, part)
        assert isinstance(figure, Figure)
        title = re.sub(r"\s+", " ", figure.get_suptitle())
        assert title == findings.headline(found, part)
        assert figure.get_supxlabel() == findings.caption(found, part)
        assert findings.headline(found) in text
        assert not re.search(r"\b(nan|None|inf)\b", text + figure.get_suptitle())
        assert not re.search(r"\bNone\b", table)
        assert {line.count("|") - line.count("\\|") for line in table.splitlines() if line} <= widths(table)
    assert found == before


def widths(table):
    """How many bars the head of each table has."""
    return {block.splitlines()[0].count("|") for block in table.split("\n\n") if block}


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_with_one_seed_nothing_about_networks_is_decided(artifact):
    found = made(artifact, seeds=(4,))
    verdicts = [v for v in claims.verdicts({artifact: found}) if v.claim.judge and v.claim.artifact == artifact]
    for v in verdicts:
        decided = claims.SUPPORTED if v.claim.id == "C2, the statement" else claims.INCONCLUSIVE
        assert v.verdict == decided or v.claim.id == "C2, the networks"  # judged per network, over its samples


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_equal_records_give_equal_bytes(artifact, tmp_path):
    found = made(artifact)
    plots.save(found, tmp_path / "a" / "one.png")
    plots.save(copy.deepcopy(found), tmp_path / "two.png")
    one, two = (tmp_path / "a" / "one.png").read_bytes(), (tmp_path / "two.png").read_bytes()
    assert one == two and one.startswith(b"\x89PNG") and b"tEXt" not in one


OWN = ["tab-ablation", "fig-attack-ladder", "tab-masking-checklist", "tab-whitebox", "tab-blackbox"]
OWN += ["fig-gradient-maps", "thm-ratio"]


@pytest.mark.parametrize("artifact", OWN)
def test_a_training_of_the_readers_own_is_shown_under_its_own_name(artifact, tmp_path):
    found = json.loads(json.dumps(made(artifact)))
    mine = [r | {"training": "mine"} for r in found["rows"] if r.get("training") == "vanilla" and "scale" not in r]
    if "maps" in found.get("arrays", {}):
        found["arrays"]["maps"]["mine"] = found["arrays"]["maps"]["vanilla"]
    elif artifact == "thm-ratio":
        for by_training in (found["arrays"]["saturation"], *found["arrays"]["quartiles"].values()):
            by_training["mine"] = by_training["vanilla"]
    found["rows"] += mine
    assert_looks_right(found, tmp_path)
    assert "mine" in tables.markdown(found)


def test_a_drawn_figure_is_not_left_open():
    plots.plt.close("all")
    plots.draw(made("fig-lambda"))
    assert plots.plt.get_fignums() == []


def test_a_figure_is_saved_in_its_own_resolution_whatever_the_reader_has_set(tmp_path):
    with plots.matplotlib.rc_context({"savefig.dpi": 30, "font.size": 30}):
        plots.save(made("fig-lambda"), tmp_path / "figure.png")
    width = int.from_bytes((tmp_path / "figure.png").read_bytes()[16:20])
    assert width == pytest.approx(6.4 * plots.DPI, abs=1)


def test_a_full_disk_leaves_the_older_figure_whole(tmp_path, full_disk):
    path = tmp_path / "figure.png"
    path.write_bytes(b"older")
    with full_disk("figure.png"), pytest.raises(Refused, match="figure.png"):
        plots.save(made("fig-lambda"), path)
    assert path.read_bytes() == b"older" and [p.name for p in tmp_path.iterdir()] == ["figure.png"]


# ---- what is drawn -----------------------------------------------------------------------------------------------


def test_each_training_has_one_colour_of_its_own():
    assert set(plots.COLOURS) == set(claims.TITLES) and len(set(plots.COLOURS.values())) == 4
    figure = plots.draw(made("tab-ablation"))
    bars, dots = figure.axes
    for container in bars.containers:
        if container.get_label() in claims.TITLES.values():
            (training,) = (t for t, title in claims.TITLES.items() if title == container.get_label())
            assert {to_hex(bar.get_facecolor()) for bar in container} == {plots.COLOURS[training]}
    assert [text.get_text() for text in bars.get_legend().get_texts()] == list(claims.TITLES.values())


def test_the_bars_of_the_ablation_are_the_means():
    found = made("tab-ablation")
    bars = plots.draw(found).axes[0]
    heights = {c.get_label(): [bar.get_height() for bar in c] for c in bars.containers if hasattr(c, "patches")}
    for training, title in claims.TITLES.items():
        own = claims.select(found, quantity="mean accuracy", training=training)
        shown = [r for r in own if not r["attack"].endswith("noise")]
        order = {"clean": 0, "FGSM": 1, "PGD-20": 2}
        shown.sort(key=lambda r: (order[r["attack"]], r["eps_255"]))
        assert heights[title] == pytest.approx([100 * r["value"] for r in shown])


def test_noise_is_drawn_at_the_epsilon_whose_multiple_it_is():
    found = made("fig-random-vs-adversarial")
    for panel, law in zip(plots.draw(found).axes, ("uniform", "sign"), strict=True):
        lines = [line for line in panel.lines if line.get_marker() == "o"]
        ends = [text.get_text() for text in panel.texts if isinstance(text, Annotation)]
        named = dict(zip(ends, lines, strict=True))
        for k, name in ((1, "noise, ε"), (2, "noise, 2ε"), (4, "noise, 4ε")):
            wanted = [
                claims.select(found, quantity="mean accuracy", attack=f"{law} noise", eps_255=k * eps)[0]["value"]
                for eps in (8, 16)
            ]
            assert list(named[name].get_xdata()) == [8, 16]
            assert list(named[name].get_ydata()) == pytest.approx(100 * np.array(wanted))
        under = claims.select(found, quantity="mean accuracy", attack="PGD-20")
        assert list(named["PGD-20, ε"].get_ydata()) == pytest.approx([100 * r["value"] for r in under])


def test_the_chosen_lambda_is_marked():
    found = made("fig-lambda")
    (panel,) = plots.draw(found).axes
    (chosen,) = claims.select(found, quantity="chosen λ")
    (line,) = (line for line in panel.lines if line.get_linestyle() == "--")
    names = [text.get_text() for text in panel.get_xticklabels()]
    assert names[int(line.get_xdata()[0])] == (f"{chosen['value']:g}" if chosen["value"] else "0\n(vanilla)")


def test_the_maps_say_the_sizes_of_what_they_show():
    found = made("fig-gradient-maps")
    labels = [panel.get_xlabel() for panel in plots.draw(found).axes]
    g = np.array(found["arrays"]["maps"]["sr"][1])
    l1, l2 = np.abs(g).sum(), math.sqrt((g**2).sum())
    assert f"l1 {l1:.2g}, l2 {l2:.1g}\nPN {l1**2 / l2**2:.0f}" in labels
    assert sum(label.startswith("l1 0, l2 0\n") for label in labels) == 4  # the first image's vanish everywhere


def test_the_landscape_is_drawn_on_the_same_scale_for_all_and_says_which_line_is_which():
    found = made("fig-landscape")
    panels = np.array(plots.draw(found).axes).reshape(3, 4)
    assert [panel.get_title() for panel in panels[0]] == list(claims.TITLES.values())
    assert len({panel.get_ylim() for panel in panels[:2].flat}) == 1
    for panel, training in zip(panels[0], claims.TITLES, strict=True):
        attack, random = (line for line in panel.lines if len(line.get_xdata()) == 7)
        for line, direction in ((attack, "attack"), (random, "random")):
            rows = claims.select(found, quantity="loss", training=training, direction=direction)
            assert list(line.get_ydata()) == [r["value"] for r in rows]
            assert to_hex(line.get_color()) == plots.COLOURS[training]
        names = {text.get_text(): text.xy for text in panel.texts}
        assert names["attack's direction"][1] < attack.get_ydata()[0] < random.get_ydata()[0]
        assert random.get_ydata()[0] < names["random direction"][1]


def test_a_gradient_counts_as_masked_where_a_random_direction_leads_up_as_far():
    found = json.loads(json.dumps(made("fig-landscape")))
    assert findings.headline(found).endswith(": no training looks masked")
    for entry in claims.select(found, quantity="loss", training="sr", t_255=48.0):
        entry["value"] = 0.5
    assert findings.headline(found).endswith(": SR looks masked")
    assert "0.5 (SR)" in findings.headline(found) and "along a random one at most 0.5" in findings.headline(found)


# ---- tables ------------------------------------------------------------------------------------------------------


def cells(table):
    """Rows of a Markdown table as lists of cells, without the ruler."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [line for line in lines if not set("".join(line)) <= set(":-")]


def test_the_table_of_the_ablation_holds_every_mean_and_every_difference():
    found = made("tab-ablation")
    means, differences = map(cells, tables.markdown(found).split("\n\n"))
    assert means[0] == ["", "vanilla", "SR", "AT", "AT+SR"] and len(means) == 1 + 1 + 2 * 4
    assert differences[0] == ["", "SR - vanilla", "AT+SR - AT"] and len(differences) == len(means)
    for head, *line in means[1:]:
        attack, _, radius = head.partition(", ")
        eps = float(radius.removesuffix("/255") or 0)
        rows = claims.select(found, quantity="mean accuracy", attack=attack, eps_255=eps)
        assert line == [claims.percent(r) for r in rows] and len(rows) == 4
    (pgd,) = (line for line in differences if line[0] == "PGD-20, 16/255")
    (sr,) = claims.select(found, quantity="difference", training="sr", attack="PGD-20", eps_255=16)
    assert pgd[1] == claims.points(sr)


def test_the_table_of_noise_puts_each_multiple_beside_the_attack():
    found = made("fig-random-vs-adversarial")
    accuracy, energy = map(cells, tables.markdown(found).split("\n\n"))
    assert accuracy[0] == ["ε", "PGD-20"] + [f"{law} noise, {k}ε" for law in ("uniform", "sign") for k in (1, 2, 4)]
    (noise,) = claims.select(found, quantity="mean accuracy", attack="sign noise", eps_255=64)
    assert accuracy[2][0] == "16/255" and accuracy[2][-1] == claims.percent(noise)
    assert energy[1] == ["uniform noise", "8/255", "50.0 % [40.0, 60.0]"] and len(energy) == 1 + 2 * 4


def test_the_table_of_the_maps_keeps_the_sweep_apart_from_the_trainings():
    found = made("fig-gradient-maps")
    head, *lines = cells(tables.markdown(found))
    assert head[:2] == ["training", "networks"] and [line[1] for line in lines] == ["3"] * 5
    assert {line[0] for line in lines} == {"vanilla", "SR, λ = 0.01", "SR, λ = 0.1", "AT", "AT+SR, λ = 0.01"}
    rows = claims.select(found, quantity="l1", training="sr", lam=0.1)
    (line,) = (line for line in lines if line[0] == "SR, λ = 0.1")
    assert float(line[head.index("l1")]) == pytest.approx(np.mean([r["value"] for r in rows]), rel=0.01)
    assert line[head.index("zero gradient")].endswith("%")


def test_the_table_of_lambda_has_vanilla_as_zero():
    lines = cells(tables.markdown(made("fig-lambda")))
    assert lines[0] == ["λ", "clean", "PGD-20, 16/255"]
    assert [line[0] for line in lines[1:]] == ["0 (vanilla)", "0.01", "0.1"]


def test_the_table_of_ratios_has_a_line_a_network_and_one_a_regime_training_and_radius():
    linear, regimes = map(cells, tables.markdown(made("thm-ratio")).split("\n\n"))
    assert linear[0] == ["training", "seed", "linear ratio", "upper bound", "within both bounds", "zero gradient"]
    assert [line[:2] for line in linear[1:]] == [[t, s] for t in claims.TITLES.values() for s in "012"]
    assert linear[1][4].startswith("100.0 % [")
    assert regimes[0][:3] == ["regime", "training", "ε"] and "ratio" in regimes[0] and len(regimes) == 1 + 2 * 4 * 2
    assert [line[:3] for line in regimes[1:3]] == [["surrogate-smooth", "vanilla", f"{eps}/255"] for eps in (8, 16)]


def test_the_table_of_quotients_has_a_line_a_training_and_step():
    found = made("prop-finite-difference")
    lines = cells(tables.markdown(found))
    assert len(lines) == 1 + 4 * 2 and lines[1][:2] == ["vanilla", "1e-05"] and lines[2][:2] == ["vanilla", "0.01"]
    by_name = dict(zip(lines[0], lines[1], strict=True))
    assert by_name["rank correlation"] == "undefined"  # no image moved
    assert dict(zip(lines[0], lines[2], strict=True))["rank correlation"].startswith("1 [")


def test_the_table_of_the_landscape_has_a_line_a_training():
    head, *lines = cells(tables.markdown(made("fig-landscape")))
    at = ["loss, t = 48/255, attack", "loss, t = 48/255, random"]
    assert head[:3] == ["training", "seed", "loss, t = 0/255"] and head[3:5] == at and head[-1] == "zero gradient"
    assert [line[0] for line in lines] == list(claims.TITLES.values()) and {line[1] for line in lines} == {"0"}
    (far,) = claims.select(made("fig-landscape"), quantity="loss", training="at", direction="attack", t_255=48.0)
    assert lines[2][3].startswith(f"{far['value']:.3g} [")


# ---- theory ------------------------------------------------------------------------------------------------------


def test_the_bars_of_the_regimes_fill_their_height():
    found = made("thm-ratio")
    below = plots.draw(found).axes[2:4]
    for panel in below:
        tops = {}
        for bar in panel.patches:
            tops.setdefault(round(bar.get_x(), 6), []).append(bar.get_y() + bar.get_height())
        assert len(tops) == 4 * 2 and [max(heights) for heights in tops.values()] == pytest.approx([1] * 8)


def test_the_box_says_of_each_statement_whether_it_holds():
    ratio = dict(line[1::-1] for line in cells(findings.box(made("thm-ratio")))[1:])
    assert ratio["To first order the ratio lies between 3 and 3‖g‖₀."] == "**holds**"
    assert ratio["The ratio of the spiking network keeps to the lower bound 3."] == "**holds**"
    assert ratio["First order predicts ρ_rand of the spiking network within a factor of 2."] == "**holds**"
    quotient = dict(line[1::-1] for line in cells(findings.box(made("prop-finite-difference")))[1:])
    assert quotient["There the curvature term predicts the error at h = 0.01 within a factor of 2."] == "**holds**"
    assert quotient["The spiking network answers every step, however small."] == "**does not hold**"
    assert quotient["The quotient costs less memory than double back-propagation."] == "**holds**"
    assert findings.box(made("fig-lambda")) == ""


def test_the_first_part_is_the_artifact_itself():
    for artifact in ARTIFACTS:
        assert findings.parts(artifact)[0] == ""
    assert findings.parts("tab-ablation") == [""] and "scale" in findings.parts("thm-ratio")
