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

from paperlib import claims, findings, measures, plots, records, report, tables, theory
from paperlib.attacks import protocols
from paperlib.attacks.attack import standard
from paperlib.errors import Refused
from paperlib.measures.quotient import Quotients
from paperlib.measures.ratio import Vulnerabilities
from paperlib.runs import twins
from paperlib.store.evaluations import Evaluation
from paperlib.store.experiment import Experiment
from paperlib.training.loop import Schedule

ARTIFACTS = twins.names()
FOUR = ["vanilla", "sr", "at", "at+sr"]  # the paper's trainings
LAMBDAS = (0.01, 0.1)  # the first is the trainings' own


def evaluations(trainings, attacks, *, seeds, share, n=50):
    """One a training (defense, λ), seed and attack, with flags that fall with ε; `share` fixes them all instead."""
    made = []
    for i, (defense, lam) in enumerate(trainings):
        for seed in seeds:
            adversarial = defense.startswith(("at", "rat", "trades"))
            options = {"eps": 0.1, "alpha": 0.1, "steps": 1} if adversarial else {}
            options |= {} if lam is None else {"lam": lam}
            schedule = Schedule(1, 10, 0.1, 0.9, 0.0)
            of = Experiment(
                {"name": "tiny"}, "conv-2-4", 4, 1.0, "triangle", "float32", defense, options, schedule, seed
            )
            for attack in attacks:
                strong = getattr(attack, "name", "pgd") in ("pgd", "sparse_flips")
                eps = 0 if attack is None else attack.eps / (200 if attack.norm == "l0" else 1)
                cost = eps * (8 - i if strong else 1)
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
    rivals = [("rat", None), ("trades", None), ("trades+sr", 0.01), ("l2", 1.0), ("loss-l1", 0.001), ("exact-l1", 0.1)]
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
    if artifact in ("tab-ablation", "tab-cost"):
        strong = [None, protocols.strongest(eps_255[-1], steps=20, long_steps=20, queries=300)]
        one, ten = how | {"seeds": seeds[:1]}, [*four, *rivals]
        cheap = evaluations(ten, strong, **one)
        dear = [with_epochs(e, 2) for e in evaluations(ten[::-1], strong, **one)]  # the other way round: what differs
        rows = measures.budget_rows({"equal epochs": cheap, "equal passes": dear})
        if artifact == "tab-cost":
            return record(artifact, step_rows([name for name, _ in ten]) + rows)
        ladder = protocols.ladder(eps_255, steps=20)
        found = evaluations(four, ladder, **how) + evaluations(rivals, ladder, **one)
        pairs = [("sr", "vanilla"), ("at+sr", "at"), ("trades+sr", "trades")]
        pairs += [("sr", rival) for rival in ("l2", "loss-l1", "exact-l1", "at")]
        rows += measures.mean_rows(found) + measures.accuracy_rows(found)
        return record(artifact, rows + [r for pair in pairs for r in measures.difference_rows(found, *pair)])
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
    if artifact == "fig-sr-variants":
        return variants_record(how, eps_255[-1], scale)
    if artifact == "fig-timesteps-and-leak":
        return settings_record(SETTINGS, eps_255[-1], how)
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
    if artifact in ("tab-events", "fig-random-vs-adversarial-events"):
        return events_record(artifact, four, [e / 200 for e in eps_255], [2 * e for e in eps_255], how)
    if artifact == "thm-ratio":
        return ratio_record(nets, eps_255, scale)
    if artifact == "fig-landscape":
        return landscape_record(nets, seeds, share, scale)
    assert artifact == "prop-finite-difference", f"the tests know no record of {artifact} yet"
    return quotient_record(nets, scale)


def events_record(artifact, four, eps_counts, flips, how):
    """Of hand-made flags, on radii in counts and budgets of whole events."""

    def found(trainings, attacks):
        for e in evaluations(trainings, attacks, **how):
            of = {"data": {"name": "saccades:mnist5k", "T": 4}, "network": "events-conv-2-4"}
            yield replace(e, experiment=replace(e.experiment, **of))

    if artifact == "tab-events":
        ladder = [*found(four, protocols.on_events(eps_counts, flips, steps=10, flip_steps=5))]
        spent = {"steps": 10, "long_steps": 20, "queries": 30, "flip_steps": 5}
        worst = [*found(four, protocols.worst_on_events(eps_counts[0], flips[0], **spent))]
        pairs = [("sr", "vanilla"), ("at+sr", "at")]
        rows = measures.mean_rows(ladder) + measures.mean_rows(worst)
        clean = [r for r in rows if r["attack"] == "clean"]
        rows += [r | {"quantity": "mean accuracy, counts cut to [0, 1]", "value": r["value"] / 2} for r in clean]
        rows += [r for some in (ladder, worst) for pair in pairs for r in measures.difference_rows(some, *pair)]
        return record(artifact, rows + measures.accuracy_rows(ladder))
    louder = {
        "eps_counts": [k * e for e in eps_counts for k in (1, 2, 4)],
        "flips": [k * e for e in flips for k in (1, 2, 4)],
    }
    noise = [standard(law, e) for law in ("uniform", "sign") for e in louder["eps_counts"]]
    noise += [standard("random_flips", k) for k in louder["flips"]]
    noise = list({(a.name, round(a.eps, 9)): a for a in noise}.values())
    attacked = [*(standard("pgd", e) for e in eps_counts), *(standard("sparse_flips", k) for k in flips)]
    clean, noisy, under = ([*found(four[:2], a)] for a in ([None], noise, attacked))
    rows = measures.mean_rows(clean + noisy + under) + measures.accuracy_rows(clean + noisy + under)
    return record(artifact, rows + measures.gap_rows(noisy, under, factors=[1, 2, 4]))


def with_epochs(evaluation, epochs):
    of = evaluation.experiment
    return replace(evaluation, experiment=replace(of, schedule=replace(of.schedule, epochs=epochs)))


def step_rows(trainings):
    """Of hand-made steps, of which each takes half as much again as the one before it."""
    rows = []
    for i, training in enumerate(trainings):
        size = {"passes": 1.5**i, "multiply-adds": 1.4**i, "bytes kept": 1.3**i, "seconds": 1.5**i}
        for what, times in size.items():
            timed = what == "seconds"
            told = {"what": what, "training": training, "seeds": [0]} | ({"timed": True} if timed else {})
            ends = (times * 0.75, times * 1.5) if timed else (None, None)
            rows.append(row("relative cost", times, *ends, **told))
            for kind, unit in (("cost of a step", 1e-2), ("cost of an epoch", 1.0)):
                names = ("forward passes", "backward passes") if what == "passes" else (what,)
                scale = unit if timed else 1e6
                scaled = [end and end * scale for end in (times, *ends)]
                rows += [row(kind, *scaled, **told | {"what": name}) for name in names]
    return rows


SETTINGS = [{}, {"T": 1}, {"T": 8}, {"tau": 0.5}, {"detach_reset": True}, {"network": "ann-conv-2-4", "T": 1}]


def settings_record(changes, eps_255, how):
    """Of hand-made flags: SR keeps two images fewer in each setting than in the one before."""
    pgd, worst = standard("pgd", eps_255 / 255), protocols.strongest(eps_255, steps=20, long_steps=20, queries=30)
    nets = [("vanilla", None), *(("sr", lam) for lam in LAMBDAS)]

    def found(attacks):
        for i, change in enumerate(changes):
            for e in evaluations(nets, attacks, **how):
                kept = e.flags & (np.arange(len(e.flags)) >= 2 * i * (e.experiment.defense == "sr"))
                yield replace(e, experiment=replace(e.experiment, **change), flags=kept)

    rows = measures.setting_rows([*found([None, pgd])], [*found([None, pgd, worst])], 0.05)
    return record("fig-timesteps-and-leak", rows)


def variants_record(how, eps_255, scale):
    """Of three forms at two λ each, the later the less right; from images that are judged and chosen by alike."""
    attacks = [None, standard("pgd", eps_255 / 255), protocols.strongest(eps_255, steps=20, long_steps=5, queries=9)]
    forms = [("margin", "square", "+", 0.01), ("softmax", "absolute", "central", 0.01), ("margin", "square", "+", 0.1)]
    found = evaluations([("vanilla", None)], attacks, **how)
    for i, (*words, h) in enumerate(forms):
        axes = dict(zip(("confidence", "penalty", "direction"), words, strict=True))
        for e in evaluations([("vanilla", None), *(("sr", lam) for lam in LAMBDAS)], attacks, **how):
            if e.experiment.defense == "sr":
                of = replace(e.experiment, options=e.experiment.options | {"axes": axes, "h": h})
                found.append(replace(e, experiment=of, flags=e.flags & (np.arange(len(e.flags)) >= 2 * i)))
    gradients = {e.experiment.key: gradient(e.experiment, scale) for e in found}
    chosen_by = [e for e in found if e.labels["attack"] != claims.WORST]
    return record("fig-sr-variants", measures.variant_rows(chosen_by, found, gradients, 0.1))


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
GRADIENTLESS += ["fig-sr-variants"]


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


OWN = ["tab-ablation", "tab-cost", "fig-attack-ladder", "tab-masking-checklist", "tab-whitebox", "tab-blackbox"]
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
    assert width == pytest.approx(10.4 * plots.DPI, abs=1)


def test_a_full_disk_leaves_the_older_figure_whole(tmp_path, full_disk):
    path = tmp_path / "figure.png"
    path.write_bytes(b"older")
    with full_disk("figure.png"), pytest.raises(Refused, match="figure.png"):
        plots.save(made("fig-lambda"), path)
    assert path.read_bytes() == b"older" and [p.name for p in tmp_path.iterdir()] == ["figure.png"]


# ---- what is drawn -----------------------------------------------------------------------------------------------


def test_each_training_has_one_colour_of_its_own():
    assert set(plots.COLOURS) == set(claims.TITLES) and len(set(plots.COLOURS.values())) == 10
    for artifact, part in (("tab-ablation", ""), ("tab-ablation", "equal-cost"), ("tab-cost", "")):
        panel = plots.draw(made(artifact), part).axes[0]
        labels = {text.get_text(): to_hex(text.get_color()) for text in panel.get_yticklabels()}
        assert list(labels) == list(claims.TITLES.values())
        assert labels == {claims.TITLES[training]: colour for training, colour in plots.COLOURS.items()}
        drawn = {to_hex(container[0].get_color()) for container in panel.containers}
        assert drawn == set(plots.COLOURS.values())


def marked(panel):
    """What is drawn with whiskers: (colour, line of the panel, marker, whether hollow, value, whether capped)."""
    found = []
    for dot, caps, _ in panel.containers:
        (value,), (y,), face = dot.get_xdata(), dot.get_ydata(), to_hex(dot.get_markerfacecolor())
        colour = to_hex(dot.get_color())
        found.append((colour, round(y), dot.get_marker(), face == "#ffffff", value, bool(caps)))
        assert face in (colour, "#ffffff")
    return found


def test_the_dots_of_the_ablation_are_the_means_and_its_caps_say_what_whiskers_tell():
    found = made("tab-ablation")
    drawn = marked(plots.draw(found).axes[0])
    for y, training in enumerate(claims.TITLES):
        own = claims.select(found, quantity="mean accuracy", training=training, budget=None)
        (clean,), (small, large) = ([r for r in own if r["attack"] == a] for a in ("clean", "PGD-20"))
        capped = training not in FOUR  # one network: over images
        colour = plots.COLOURS[training]
        assert [dot for dot in drawn if dot[1] == y] == [
            (colour, y, "o", True, 100 * clean["value"], capped),
            (colour, y, "o", False, 100 * small["value"], capped),
            (colour, y, "s", False, 100 * large["value"], capped),
        ]


def test_differences_have_the_interval_that_there_is():
    found = made("tab-ablation")
    panel = plots.draw(found).axes[1]
    pairs = [text.get_text().replace("\n", " ") for text in panel.get_yticklabels()]
    assert pairs[:3] == ["SR - vanilla", "AT+SR - AT", "TRADES+SR - TRADES"]
    assert pairs[3:] == ["SR - exact l2", "SR - loss l1", "SR - exact l1", "SR - AT"]
    drawn = marked(panel)
    shown_first = [("sr", "vanilla"), ("at+sr", "at"), ("trades+sr", "trades"), ("sr", "l2")]
    for y, (training, against) in enumerate(shown_first):
        labels = {"training": training, "against": against, "attack": "PGD-20", "budget": None}
        rows = [*claims.select(found, quantity="difference", **labels)]
        assert [dot[4] for dot in drawn if dot[1] == y][1:] == pytest.approx([100 * r["value"] for r in rows])
        single = training == "trades+sr" or against == "l2"
        assert {dot[5] for dot in drawn if dot[1] == y} == {single}
        pair = claims.select(found, quantity="paired difference", **labels)
        shown = findings.ablation.differences(found, **labels)
        assert shown == (pair if single else rows) and all(r["low"] is not None for r in shown)


def test_equal_cost_is_drawn_under_both_budgets_with_its_passes():
    found = made("tab-ablation")
    left, right = plots.draw(found, "equal-cost").axes
    drawn = marked(left)
    for y, training in enumerate(claims.TITLES):
        own = {"quantity": "mean accuracy", "training": training, "attack": claims.WORST}
        for hollow, budget in ((True, "equal epochs"), (False, "equal passes")):
            (r,) = claims.select(found, budget=budget, **own)
            assert (plots.COLOURS[training], y, "o", hollow, 100 * r["value"], True) in drawn
    told = [text.get_text() for text in left.texts]
    assert told[:4] == ["2 → 4", "5 → 10", "4 → 8", "7 → 14"]  # 1 epoch and 2, of 1 + 1, 2 + 3, 2 + 2 and 3 + 4 passes
    against = {dot[0]: dot[4] for dot in marked(right)}
    assert set(against) == set(plots.COLOURS.values()) - {plots.COLOURS["sr"]}
    (r,) = claims.select(
        found, quantity="difference", training="sr", against="rat", attack=claims.WORST, budget="equal passes"
    )
    assert against[plots.COLOURS["rat"]] == pytest.approx(-100 * r["value"])


def test_without_networks_at_equal_cost_there_is_one_panel():
    found = copy.deepcopy(made("tab-ablation"))
    found["rows"] = [r for r in found["rows"] if r.get("budget") != "equal passes"]
    assert len(plots.draw(found, "equal-cost").axes) == 1
    assert findings.headline(found, "equal-cost").startswith("At equal epochs, in the worst case at 16/255, ")
    (head, *_) = cells(tables.markdown(found, "equal-cost"))
    assert "worst of all, equal epochs" in head and not any("passes" in name for name in head[1:4:2])


def test_the_cost_of_a_step_is_drawn_relative_to_vanilla():
    found = made("tab-cost")
    left, right = plots.draw(found).axes
    for what, mark in (("passes", "o"), ("multiply-adds", "s"), ("bytes kept", "D"), ("seconds", "^")):
        drawn = [c[0] for c in left.containers if c[0].get_marker() == mark]
        rows = claims.select(found, quantity="relative cost", what=what)
        assert [dot.get_xdata()[0] for dot in drawn] == [r["value"] for r in rows] and len(rows) == 10
    filled = {to_hex(line.get_color()): line for line in right.lines if line.get_marker() == "o"}
    (r,) = claims.select(found, quantity="mean accuracy", training="sr", attack=claims.WORST, budget="equal passes")
    dot = filled[plots.COLOURS["sr"]]
    assert dot.get_ydata()[0] == 100 * r["value"] and dot.get_xdata()[0] == pytest.approx(10, abs=0.5)
    assert {text.get_text() for text in right.texts} == set(claims.TITLES.values())


@pytest.mark.parametrize("heights", [[90, 50, 10], [50, 50, 50], [2, 1, 0, 0], [0], [], [100 - i for i in range(10)]])
def test_names_lie_apart_in_their_order_and_none_below_the_axis(heights):
    found = plots.cost._apart([float(h) for h in heights], 5)
    gaps = [above - below for above, below in zip(found, found[1:], strict=False)]
    assert all(gap >= 5 - 1e-9 for gap in gaps) and min(found, default=0) >= 0
    if all(a - b >= 5 for a, b in zip(heights, heights[1:], strict=False)):
        assert found == heights


@pytest.mark.parametrize("artifact", ["tab-events", "fig-random-vs-adversarial-events"])
def test_without_trainings_on_event_data_that_is_said(artifact):
    empty = record(artifact, [])
    assert "No training on event data was asked for" in findings.finding(empty)
    assert tables.markdown(empty).strip() == "" and plots.draw(empty).axes
    assert findings.finding(empty).count("Not measured.") == 3 + (artifact == "tab-events")


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
    panel, _ = plots.draw(found).axes
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
    assert [panel.get_title() for panel in panels[0]] == [claims.title(training) for training in FOUR]
    assert len({panel.get_ylim() for panel in panels[:2].flat}) == 1
    for panel, training in zip(panels[0], FOUR, strict=True):
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


def test_the_tables_of_the_ablation_hold_every_mean_and_every_difference():
    found = made("tab-ablation")
    means, differences, weak, weak_differences = map(cells, tables.markdown(found).split("\n\n"))
    assert means[0] == ["training", "interval over", "clean", "PGD-20, 8/255", "PGD-20, 16/255"]
    assert weak[0][2:5] == ["uniform noise, 8/255", "sign noise, 8/255", "FGSM, 8/255"] and len(weak[0]) == 2 + 6
    assert len(means) == len(weak) == 1 + 10
    assert [line[:2] for line in means[1:6]] == [
        *([claims.title(training), "3 seeds"] for training in FOUR),
        ["RAT", "50 images"],
    ]
    for (head, *line), (_, *others) in zip(means[1:], weak[1:], strict=True):
        (training,) = (name for name, title in claims.TITLES.items() if title == head)
        rows = claims.select(found, quantity="mean accuracy", training=training, budget=None)
        strong = [r for r in rows if r["attack"] in ("clean", "PGD-20")]
        assert line[1:] == [claims.percent(r) for r in strong] and len(strong) == 3
        assert others[1:] == [claims.percent(r) for r in rows if r not in strong] and len(rows) == 9
    assert [line[0] for line in differences[1:]] == [line[0] for line in weak_differences[1:]] and len(differences) == 8
    by_name = {line[0]: line for line in differences[1:]}
    (sr,) = claims.select(found, quantity="difference", training="sr", against="vanilla", attack="PGD-20", eps_255=16)
    assert by_name["SR - vanilla"][1] == "3 seeds" and by_name["SR - vanilla"][-1] == claims.points(sr)
    (l2,) = claims.select(found, quantity="paired difference", against="l2", attack="PGD-20", eps_255=16, budget=None)
    assert by_name["SR - exact l2"][1] == "50 images" and by_name["SR - exact l2"][-1] == claims.points(l2)


def test_the_table_of_equal_cost_says_what_each_training_had_and_kept():
    for artifact, part in (("tab-ablation", "equal-cost"), ("tab-cost", "")):
        found = made(artifact)
        head, *lines = cells(tables.markdown(found, part).split("\n\n")[-1])
        assert len(lines) == 10 and head[0] == "training"
        sr = dict(zip(head, lines[1], strict=True))
        assert sr["equal epochs"] == "1 epoch, 5 passes an image"
        assert sr["equal passes"] == "2 epochs, 10 passes an image"
        (r,) = claims.select(found, quantity="mean accuracy", training="sr", attack=claims.WORST, budget="equal passes")
        assert sr["worst of all, equal passes"] == claims.percent(r) and sr["SR minus it, equal passes"] == ""
        at = dict(zip(head, lines[2], strict=True))
        (r,) = claims.select(
            found, quantity="paired difference", against="at", attack=claims.WORST, budget="equal passes"
        )
        assert at["SR minus it, equal passes"] == claims.points(r)


def test_the_table_of_cost_has_units():
    steps, _ = map(cells, tables.markdown(made("tab-cost")).split("\n\n"))
    sr = dict(zip(steps[0], steps[2], strict=True))
    assert sr["passes forward + backward, a step"] == "1.5e+06 + 1.5e+06" == sr["passes forward + backward, an epoch"]
    assert sr["multiply-adds, a step"] == "1.4 M" and sr["bytes kept, a step"] == "1.3 MB"
    assert sr["seconds, a step"] == "15 [11.2, 22.5] ms" and sr["seconds, an epoch"] == "1.5 [1.12, 2.25] s"
    assert sr["seconds, relative to vanilla"] == "1.5 [1.12, 2.25]" and sr["passes, relative to vanilla"] == "1.5"


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
    assert [line[:2] for line in linear[1:]] == [[claims.title(t), s] for t in FOUR for s in "012"]
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
    assert [line[0] for line in lines] == [claims.title(t) for t in FOUR] and {line[1] for line in lines} == {"0"}
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
    assert findings.parts("tab-ablation") == ["", "equal-cost"] and "scale" in findings.parts("thm-ratio")
