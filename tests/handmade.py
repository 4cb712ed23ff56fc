"""Records made by hand: rows around given numbers, and for each artifact the record that its notebook would make."""

import copy
import math
from dataclasses import replace
from functools import cache
from unittest.mock import patch

import numpy as np
import torch

from paperlib import labels, paths, records, theory
from paperlib.attacks import protocols
from paperlib.attacks.attack import Attack, standard
from paperlib.measures import (
    accuracy,
    certified,
    checklist,
    cost,
    exact,
    landscape,
    predictors,
    queries,
    quotient,
    ratio,
    settings,
    spikes,
    variants,
)
from paperlib.measures.statistics import Interval
from paperlib.profiles import parameters
from paperlib.store.evaluations import Evaluation
from paperlib.store.experiment import Experiment
from paperlib.training.loop import Schedule

FOUR = [("vanilla", None), ("sr", 0.01), ("at", None), ("at+sr", 0.01)]  # the paper's trainings with their λ
RIVALS = [("rat", None), ("trades", None), ("trades+sr", 0.01), ("l2", 1.0), ("loss-l1", 0.001), ("exact-l1", 0.1)]
LAMBDAS = (0.01, 0.1)  # the first is the trainings' own
PGD_20 = {"attack": "pgd", "steps": 20}  # the labels of an attack
SETTINGS = [{}, {"T": 1}, {"T": 8}, {"tau": 0.5}, {"detach_reset": True}, {"network": "ann-conv-2-4", "T": 1}]


def row(quantity, value, low=None, high=None, *, over=labels.SEEDS, n=100, seeds=(0, 1, 2), doubts=(), **told):
    """A row with these numbers, None where there is none, and these labels."""
    numbers = (math.nan if number is None else number for number in (value, low, high))
    interval = Interval(*numbers, n, "by hand", over)
    return records.row(interval, seeds=list(seeds), experiments=[], doubts=doubts, quantity=quantity, **told)


def record(artifact, rows, arrays=None, **changes):
    """A checked record around `rows`, of 100 made-up images, with the notebook's own parameters but for `changes`."""
    source = paths.NOTEBOOKS / f"{artifact}.py"
    defaults = {p.name: p.default for p in parameters.declared(source).values()} if source.exists() else {}
    provenance = {
        "profile": "smoke",
        "parameters": defaults | {"samples": 100, "device": "auto"} | changes,
        "data": {"name": "tiny", "title": "Stripes", "sha256": "0" * 64},
        "recipe": 1,
        "device": "cpu",
        "arithmetic": "portable",
    }
    with (
        patch.object(records, "code_version", lambda: ("f" * 40, True)),
        patch.object(records, "packages", lambda: {"python": "3"}),
    ):
        return records.build(artifact, rows=rows, arrays=arrays, **provenance)


def cells(table):
    """Rows of a Markdown table as lists of cells, without the ruler."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [line for line in lines if not set("".join(line)) <= set(":-")]


def experiment(defense, lam=None, *, seed=0):
    """An untrained network: `lam` is the weight of its penalty."""
    adversarial = defense.startswith(("at", "rat", "trades"))
    options = {"eps": 0.1, "alpha": 0.1, "steps": 1} if adversarial else {}
    options |= {} if lam is None else {"lam": lam}
    schedule = Schedule(1, 10, 0.1, 0.9, 0.0)
    return Experiment({"name": "tiny"}, "conv-2-4", 4, 1.0, "triangle", "float32", defense, options, schedule, seed)


def evaluations(trainings, attacks, *, seeds, share=None, n=50):
    """One a training (defense, λ), seed and attack, with flags that fall with ε; `share` fixes them all instead."""
    made_ = []
    for i, training in enumerate(trainings):
        for seed in seeds:
            for attack in attacks:
                strong = not isinstance(attack, Attack) or attack.name in ("pgd", "sparse_flips", "retiming")
                eps = 0 if attack is None else attack.eps / (200 if attack.norm in ("l0", "moves") else 1)
                loss = eps * (8 - i if strong else 1)
                right = 0.9 - 0.02 * seed - loss if share is None else share
                flags = np.arange(n) < round(n * min(1, max(0, right)))
                passes = np.full(n, 1 if attack is None else 2 * attack.gradients)
                made_.append(Evaluation(attack, flags, passes, experiment=experiment(*training, seed=seed)))
    return made_


def changed(evaluation, **changes):
    """The same evaluation of a network that differs by these `changes`."""
    return replace(evaluation, experiment=replace(evaluation.experiment, **changes))


def losing(evaluation, images):
    """The same evaluation with the first `images` broken as well."""
    return replace(evaluation, flags=evaluation.flags & (np.arange(len(evaluation.flags)) >= images))


def gradient(of, scale):
    """(30, 1, 4, 4), of another sparsity in every network; the first vanishes."""
    drawn = torch.randn(30, 1, 4, 4, generator=torch.Generator().manual_seed(len(str(of)) + of.seed))
    drawn = drawn * (drawn.abs() > 0.2 * of.seed) * scale
    drawn[0] = 0
    return drawn


# ---- the record of each artifact ---------------------------------------------------------------------------------


def made(artifact, *, seeds=(0, 1, 2), share=None, eps_255=(8, 16), scale=1.0):
    """The record that the artifact's notebook would make, from hand-made flags and gradients, as the caller's own.

    `share` fixes every accuracy, `scale` multiplies every gradient.
    """
    return copy.deepcopy(_made(artifact, seeds, share, eps_255, scale))


@cache
def _made(artifact, seeds, share, eps_255, scale):
    return MAKERS[artifact](artifact, {"seeds": seeds, "share": share}, eps_255, scale)


def noise_record(artifact, flags, eps_255, _):
    noise = [standard(law, k * e / 255) for law in ("uniform", "sign") for e in eps_255 for k in (1, 2, 4)]
    noise = list({(a.name, round(a.eps, 9)): a for a in noise}.values())
    attacks = [None], noise, [standard("pgd", e / 255) for e in eps_255]
    clean, noisy, attacked = (evaluations(FOUR[:1], some, **flags) for some in attacks)
    rows = accuracy.mean_rows(clean + noisy + attacked) + accuracy.accuracy_rows(clean + noisy + attacked)
    rows += accuracy.gap_rows(noisy, attacked, factors=[1, 2, 4])
    sizes = [a.labels | {"eps_255": round(a.eps * 255, 6), "seeds": []} for a in noise]
    return record(artifact, rows + [row("noise energy kept", 0.5, 0.4, 0.6, **size) for size in sizes])


def budgets_record(artifact, flags, eps_255, _):
    """Ten trainings at equal epochs, and at equal passes the other way round."""
    ten, one = [*FOUR, *RIVALS], flags | {"seeds": flags["seeds"][:1]}
    strong = [None, protocols.strongest(eps_255[-1], steps=20, long_steps=20, queries=300)]
    cheap, dear = evaluations(ten, strong, **one), evaluations(ten[::-1], strong, **one)
    dear = [changed(e, schedule=replace(e.experiment.schedule, epochs=2)) for e in dear]
    rows = cost.budget_rows({labels.EPOCHS: cheap, labels.PASSES: dear})
    if artifact == "tab-cost":
        return record(artifact, step_rows([name for name, _ in ten]) + rows)
    ladder = protocols.ladder(eps_255, steps=20)
    found = evaluations(FOUR, ladder, **flags) + evaluations(RIVALS, ladder, **one)
    pairs = [("sr", "vanilla"), ("at+sr", "at"), ("trades+sr", "trades")]
    pairs += [("sr", rival) for rival in ("l2", "loss-l1", "exact-l1", "at")]
    rows += accuracy.mean_rows(found) + accuracy.accuracy_rows(found)
    rows += [r for pair in pairs for r in accuracy.difference_rows(found, *pair)]
    for i, (training, _) in enumerate(ten):
        for epoch, share in ((1, 0.5), (2, 0.6 + 0.01 * i)):
            rows.append(row("validation accuracy", share, share - 0.1, share + 0.1, training=training, epoch=epoch))
    return record(artifact, rows)


def step_rows(trainings):
    """Of hand-made steps, of which each takes half as much again as the one before it."""
    rows = []
    for i, training in enumerate(trainings):
        sizes = {"passes": 1.5**i, "multiply-adds": 1.4**i, "bytes kept": 1.3**i, "seconds": 1.5**i}
        for what, times in sizes.items():
            timed = what == "seconds"
            own = {"training": training, "seeds": [0]} | ({"timed": True} if timed else {})
            ends = (times * 0.75, times * 1.5) if timed else (None, None)
            rows.append(row("relative cost", times, *ends, what=what, **own))
            names = ("forward passes", "backward passes") if what == "passes" else (what,)
            for quantity, unit in (("cost of a step", 1e-2), ("cost of an epoch", 1.0)):
                numbers = [end and end * (unit if timed else 1e6) for end in (times, *ends)]
                rows += [row(quantity, *numbers, what=name, **own) for name in names]
    return rows


def attacks_record(artifact, flags, eps_255, _):
    eps, source = eps_255[-1], experiment("vanilla")
    short = {"steps": 10, "queries": 30}
    attacks = {
        "tab-whitebox": protocols.released(eps_255, [10, 30]),
        "tab-blackbox": protocols.black_box(
            eps, sources=[source, replace(experiment("at+sr", 0.01), network="vgg11")], **short
        ),
    }
    found = evaluations(FOUR, attacks[artifact], **flags)
    rows = accuracy.mean_rows(found) + accuracy.difference_rows(found, "sr", "vanilla")
    rows += accuracy.difference_rows(found, "at+sr", "at") + accuracy.accuracy_rows(found)
    return record(artifact, rows + accuracy.pass_rows(found))


def ladder_record(artifact, flags, eps_255, _):
    """In two phases, at one radius more than the ladder's; one image after another breaks while Square searches."""
    budget = {"steps": 20, "long_steps": 20, "queries": 300}
    noise, fgsm, pgd, apgd, worst = protocols.rungs(eps_255[-1], **budget)
    weak, strong = [None, noise, fgsm, pgd], [apgd, worst]
    if len(eps_255) > 1:
        weak.append(standard("pgd", eps_255[0] / 255))
        strong.append(protocols.strongest(eps_255[0], **budget))
    wide = evaluations(FOUR, weak, n=100, **flags)
    narrow = accuracy.in_two_phases(evaluations(FOUR, strong, **flags), wide)
    found = wide + narrow
    rows = accuracy.mean_rows(found) + accuracy.difference_rows(found, "sr", "vanilla")
    rows += accuracy.difference_rows(found, "at+sr", "at") + accuracy.accuracy_rows(found) + accuracy.pass_rows(found)
    spent = np.linspace(305, 5, len(narrow[0].flags))
    searched = [replace(e, passes=e.passes + spent) for e in narrow if e.attack == worst]
    return record(artifact, rows + queries.query_rows(searched, queries=300), strong_samples=50)


def certified_record(artifact, flags, eps_255, _):
    """Of 50 images five fewer are certified than PGD leaves, and the strongest attack leaves two fewer than PGD."""
    attacks = [None, *(standard("pgd", e / 255, steps=10) for e in eps_255)]
    under_attack = evaluations(FOUR, attacks, **flags)
    found = []
    for e in under_attack:
        if e.attack:
            found.append(certified.Certified(e.experiment, e.attack.eps, losing(e, 5).flags))
    checks = [certified.Check(e.experiment, 40, 0) for e in under_attack if e.attack is None]
    strongest = [protocols.strongest(e, steps=10, long_steps=20, queries=300) for e in eps_255]
    under_attack += [losing(e, 2) for e in evaluations(FOUR, strongest, **flags)]
    rows = certified.certified_rows(found) + accuracy.mean_rows(under_attack) + certified.check_rows(checks)
    rows += certified.difference_rows(found, "sr", "vanilla") + certified.difference_rows(found, "at+sr", "at")
    return record(artifact, rows)


def maps_record(artifact, flags, eps_255, scale):
    """Of the paper's trainings, SR at two λ, and two penalties of which the second has gradients of equal l1."""
    attacks = [
        standard("pgd", eps_255[-1] / 255),
        protocols.strongest(eps_255[-1], steps=20, long_steps=20, queries=30),
    ]
    observed = evaluations([*FOUR, ("sr", LAMBDAS[1])], attacks, **flags)
    trained = evaluations([RIVALS[-1], RIVALS[3]], [None, *attacks], **flags)
    networks = {e.experiment.key: e.experiment for e in observed + trained}
    gradients = {key: gradient(e, scale) for key, e in networks.items()}
    rows = [r for key, e in networks.items() for r in predictors.sparsity_rows(e, gradients[key])]
    rows += predictors.correlation_rows(rows, observed)
    rows += predictors.matched_rows(gradients, rows, trained, ["exact-l1", "l2"])
    rows += accuracy.accuracy_rows([e for e in observed + trained if e.attack])
    first = {e.defense: key for key, e in reversed(networks.items()) if e.options.get("lam") != LAMBDAS[1]}
    maps = {name: records.array(gradients[first[name]][:2]) for name, _ in FOUR}
    return record(artifact, rows, {"images": np.linspace(0, 1, 32).reshape(2, 1, 4, 4).tolist(), "maps": maps})


def lambda_record(artifact, flags, eps_255, _):
    eps = eps_255[-1]
    worst = protocols.strongest(eps, steps=20, long_steps=20, queries=30)
    others = {"at+sr": [FOUR[2], *(("at+sr", lam) for lam in LAMBDAS)], "l2": [FOUR[0], RIVALS[3]]}
    swept = [FOUR[0], *(("sr", lam) for lam in LAMBDAS)]
    found, rest = (
        evaluations(networks, [None, standard("pgd", eps / 255), worst], **flags)
        for networks in (swept, [*others["at+sr"], RIVALS[3]])
    )
    rows = accuracy.mean_rows(found) + accuracy.accuracy_rows(found) + accuracy.choice_rows(found, 0.02, used=0.01)
    sweeps = {
        training: [e.experiment for e in found + rest if (e.experiment.defense, e.labels.get("lam")) in networks]
        for training, networks in others.items()
    }
    return record(
        artifact, rows + accuracy.weight_rows(found + rest, sweeps, 0.02, used={"at+sr": 0.01, "l2": 3}.__getitem__)
    )


def widths_record(artifact, flags, eps_255, _):
    swept = protocols.rules_at(eps_255[-1], [0.5, 1.0], steps=3)
    found = evaluations(FOUR, swept, **flags)
    rows = accuracy.mean_rows(found) + accuracy.contrast_rows(found, [(other, swept[1]) for other in swept[2:]])
    return record(artifact, rows + accuracy.pass_rows(found) + accuracy.accuracy_rows(found))


def variants_record(artifact, flags, eps_255, scale):
    """Of three forms at two λ each, the later the less right; by images that judge and choose alike."""
    eps = eps_255[-1]
    attacks = [None, standard("pgd", eps / 255), protocols.strongest(eps, steps=20, long_steps=5, queries=9)]
    forms = [("margin", "square", "+", 0.01), ("softmax", "absolute", "central", 0.01), ("margin", "square", "+", 0.1)]
    found = evaluations(FOUR[:1], attacks, **flags)
    for i, (*factors, h) in enumerate(forms):
        axes = dict(zip(("confidence", "penalty", "direction"), factors, strict=True))
        for e in evaluations([FOUR[0], *(("sr", lam) for lam in LAMBDAS)], attacks, **flags):
            if e.experiment.defense == "sr":
                found.append(losing(changed(e, options=e.experiment.options | {"axes": axes, "h": h}), 2 * i))
    gradients = {e.experiment.key: gradient(e.experiment, scale) for e in found}
    chosen_by = [e for e in found if e.labels["attack"] != labels.WORST]
    return record(artifact, variants.variant_rows(chosen_by, found, gradients, 0.1))


def settings_record(artifact, flags, eps_255, _, changes=SETTINGS):
    """Of settings in each of which SR keeps two images fewer than in the one before."""
    eps = eps_255[-1]
    worst = protocols.strongest(eps, steps=20, long_steps=20, queries=30)
    found = [
        losing(changed(e, **change), 2 * i if e.experiment.defense == "sr" else 0)
        for i, change in enumerate(changes)
        for e in evaluations(
            [FOUR[0], *(("sr", lam) for lam in LAMBDAS)], [None, standard("pgd", eps / 255), worst], **flags
        )
    ]
    chosen_by = [e for e in found if e.labels["attack"] != labels.WORST]
    return record(artifact, settings.setting_rows(chosen_by, found, 0.05))


def expectations_record(artifact, flags, eps_255, _):
    given = {"eps_255": eps_255[-1], "draws": [2, 3], "steps": 4}
    found = evaluations(FOUR[:2], protocols.expectations(**given), **flags)
    found = [changed(e, network="poisson-conv-2-4") for e in found]
    rows = accuracy.mean_rows(found) + accuracy.contrast_rows(found, protocols.expectation_pairs(**given))
    for training, seed in dict.fromkeys((e.experiment.defense, e.experiment.seed) for e in found):
        own = {"training": training, "seeds": [seed]}
        rows += [row("mean over draws", 0.9, 0.8, 0.95, **own), row("spread over draws", 0.01, **own)]
        rows += [row("undecided", 0.05, 0.01, 0.1, **own)]
    return record(artifact, rows + accuracy.pass_rows(found) + accuracy.accuracy_rows(found))


def checklist_record(artifact, flags, eps_255, scale):
    given = {"steps": 10, "long_steps": 50, "queries": 30, "source": experiment("vanilla")}
    asked = protocols.checklist(eps_255[-1], [*eps_255, 48], **given)
    found = evaluations(FOUR, asked.attacks, **flags)
    found = [replace(e, passes=np.full(len(e.flags), 2), vanished=float(scale == 0)) for e in found]
    rows = checklist.checklist_rows(found, {e.experiment.key: asked for e in found})
    return record(artifact, rows + scaled_rows(0.9 if flags["share"] is None else flags["share"]))


def scaled_rows(clean):
    """The scale control of a network of which PGD leaves nothing at c = 1 and everything at c = 100, APGD half."""
    rows = []
    attacks = {"": {"attack": "clean"}, "CE": {"attack": "pgd", "steps": 10}}
    attacks |= {"DLR": {"attack": "apgd", "loss": "dlr", "steps": 10}}
    for loss, attack in attacks.items():
        for c in (1.0, 100.0):
            own = {"training": "vanilla", "eps_255": 16.0 if loss else 0.0, "scale": c} | attack
            left = clean * {"": 1, "CE": c > 1, "DLR": 0.5}[loss]
            rows.append(row("scaled accuracy", left, left, left, **own))
            if loss and c > 1:
                lost = -left if loss == "CE" else 0.0
                rows.append(row("check", lost, lost - 0.05, lost + 0.05, check=f"scale, {loss}", **own))
    return rows


def events_record(artifact, flags, eps_255, _):
    """On radii in counts and budgets of whole events."""
    eps_counts, budgets = [e / 200 for e in eps_255], [2 * e for e in eps_255]

    def found(trainings, attacks):
        network = {"data": {"name": "saccades:mnist5k", "T": 4}, "network": "events-conv-2-4"}
        return [changed(e, **network) for e in evaluations(trainings, attacks, **flags)]

    if artifact == "tab-events":
        moved, worst_moved = protocols.in_time(budgets, budgets[0], steps=5)
        ladder = found(FOUR, protocols.on_events(eps_counts, budgets, steps=10, flip_steps=5) + moved)
        short = {"steps": 10, "long_steps": 20, "queries": 30, "flip_steps": 5}
        worst = found(FOUR, [*protocols.worst_on_events(eps_counts[0], budgets[0], **short), worst_moved])
        rows = accuracy.mean_rows(ladder) + accuracy.mean_rows(worst)
        clean = [r for r in rows if r["attack"] == labels.CLEAN]
        rows += [r | {"quantity": "mean accuracy, counts cut to [0, 1]", "value": r["value"] / 2} for r in clean]
        for pair in (("sr", "vanilla"), ("at+sr", "at")):
            rows += accuracy.difference_rows(ladder, *pair) + accuracy.difference_rows(worst, *pair)
        return record(artifact, rows + accuracy.accuracy_rows(ladder))
    noise, attacked = protocols.random_on_events(eps_counts, budgets, (1, 2, 4), steps=20, flip_steps=20)
    clean, noisy, attacked = (found(FOUR[:2], attacks) for attacks in ([None], noise, attacked))
    rows = accuracy.mean_rows(clean + noisy + attacked) + accuracy.accuracy_rows(clean + noisy + attacked)
    return record(artifact, rows + accuracy.gap_rows(noisy, attacked, factors=[1, 2, 4]))


def ratio_record(artifact, flags, eps_255, scale):
    """Of hand-made vulnerabilities: the attack reaches what first order says, noise half as much or nothing at all."""
    networks = [e.experiment for e in evaluations(FOUR, [None], **flags)]
    rows = exact.exact_rows(draws=200) + [r for e in networks for r in ratio.ratio_rows(e, gradient(e, scale))]
    found = []
    for regime in labels.REGIMES:
        for e in networks:
            g = gradient(e, scale)
            for eps in eps_255:
                noise, attack = theory.linear_vulnerabilities(g, eps / 255)
                noise = torch.where(torch.arange(30) % 7 == 1, 0, noise / 2)
                random = theory.RandomVulnerability(noise, noise / 9, noise * 2, (noise > 0).double())
                confidence = torch.linspace(0.01, 0.99, 30)
                found.append(ratio.Vulnerabilities(e, regime, float(eps), g, confidence, random, attack))
    worst = [
        row("ratio over bound", v, v and v / 2, v and 2 * v, bound=side, eps_255=e, training="sr", log_odds=2.5)
        for side, top in (("upper", 400.0), ("lower", 2.0))
        for e, v in ((0.1, None), (16.0, top if scale else None), (48.0, 0.4 if scale else None))
    ]
    gradients = {e.key: gradient(e, scale) for e in networks}
    survived = [Evaluation(standard("pgd", 0.1), np.arange(30) % (2 + e.seed) == 0, experiment=e) for e in networks]
    names = ["l1", "l2", "ρ_rand", "ρ_adv", "ratio", "participation number", "participation number, two classes"]
    names += ["Hoyer", "Gini", "same decisions", "no gradient in 32 bits"]
    control = [
        row("scaled", c * scale, what=name, scale=c, eps_255=16.0, training="vanilla")
        for name in names
        for c in (0.5, 1.0, 2.0)
    ]
    arrays = {"quartiles": ratio.quantiles(found), "saturation": ratio.saturation(found), "pixels": 16}
    arrays |= {"worst": {side: np.linspace(0, 1, 16).reshape(1, 4, 4).tolist() for side in ("upper", "lower")}}
    rows += ratio.vulnerability_rows(found) + worst + control
    return record(artifact, rows + predictors.predictor_rows(gradients, found, survived, [0.0, 0.01]), arrays)


def landscape_record(artifact, flags, _, scale):
    """Of hand-made losses: along the attack they climb the less the later the training; of no image where all fail."""
    t = np.arange(-3, 4) * 16.0
    n, found = 0 if flags["share"] == 0 else 5, []
    for i, training in enumerate(FOUR):
        level = np.linspace(0.01, 0.1, n)[:, None]
        loss = {"attack": level * np.exp(scale * t / (16 + 8 * i)), "random": level * (1 + scale * np.sin(t) ** 2)}
        right = {name: values < (9 if flags["share"] else 0.2) for name, values in loss.items()}
        of = experiment(*training, seed=flags["seeds"][0])
        found.append(landscape.Landscape(of, t, loss, right, np.full(n, scale == 0)))
    grid = np.add.outer(np.abs(t), t) / 50
    plane = {"t_255": t.tolist(), "loss": {}, "right": {}}
    if n:
        plane |= {"image": np.linspace(0, 1, 16).reshape(1, 4, 4).tolist()}
        plane["loss"] = {name: (np.exp(scale * grid) / (1 + i)).tolist() for i, (name, _) in enumerate(FOUR)}
        plane["right"] = {name: (np.array(loss) < 3).tolist() for name, loss in plane["loss"].items()}
    arrays = {"curves": landscape.landscape_curves(found), "plane": plane}
    return record(artifact, landscape.landscape_rows(found), arrays)


def spikes_record(artifact, flags, eps_255, _):
    """Of hand-made counts: the attack moves twice as many spikes as the noise, or both none where `share` is 0."""
    on_events, found = artifact.endswith("-events"), []
    noise, attack = standard("sign", eps_255[-1] / 255), standard("pgd", eps_255[-1] / 255)
    if on_events:
        noise, attack = standard("random_flips", 20), standard("sparse_flips", 20, steps=5)
    for i, training in enumerate(FOUR):
        for seed in flags["seeds"]:
            fired = np.full((2, 4), 0.2 + 0.1 * i + 0.01 * seed if flags["share"] is None else flags["share"])
            synops = np.vstack([np.full(4, 100.0 * on_events), 1e4 * fired])
            margin = np.array([3.0, 2.0, 1.0, -1.0])
            doing = {
                name: spikes.Doing(fired, fired * moved, synops, margin - 10 * moved, np.full(4, 20.0) * (moved > 0))
                for name, moved in (("clean", 0), ("noise", 0.1), ("attack", 0.2))
            }
            of = experiment(*training, seed=seed)
            if on_events:
                of = replace(of, data={"name": "saccades:mnist5k", "T": 4}, network="events-conv-2-4")
            attacks = {"clean": None, "noise": noise, "attack": attack}
            found.append(spikes.Watched(of, attacks, doing, np.array([30, 10]), 0 if on_events else 500, 64))
    rows = spikes.spiking_rows(found, [("sr", "vanilla"), ("at+sr", "at")], mac_pj=4.6, ac_pj=0.9)
    shown = {name: spiking_network(flags["share"], on_events) for name, _ in FOUR}
    return record(artifact, rows, {"shown": shown})


def spiking_network(share, on_events):
    """What one network with two layers and three steps does, as `spikes.illustrated` tells it."""
    silent = share == 0
    trains = {"clean": [[1, 0, 1], [0, 1, 0]], "noise": [[1, 0, 1], [0, 0, 1]], "attack": [[0, 1, 1], [0, 1, 0]]}
    membranes = {"clean": [1.2, 0.4, 1.1], "noise": [1.3, 0.4, 1.0], "attack": [0.9, 1.5, 1.2]}
    if silent:
        trains = {name: [] for name in trains}
        membranes = {name: [0.3, 0.6, 0.9] for name in membranes}
    layer = {"neurons": 30, "active": 0 if silent else 2, "trains": trains, "membranes": membranes}
    picture = np.linspace(0, 1, 32 if on_events else 16).reshape(-1, 4, 4).tolist()
    return {
        "label": 2,
        "classes": {"clean": 2, "noise": 2, "attack": 0},
        "pictures": dict.fromkeys(trains, picture),
        "changed": {"clean": [], "noise": [[0, 1]] * on_events, "attack": [[2, 3], [3, 0]] * on_events},
        "threshold": 1.0,
        "layers": [{"layer": 1} | layer, {"layer": 2} | layer],
    }


def quotient_record(artifact, flags, _, scale):
    """Of hand-made quotients that err by a curvature of -2 ‖g‖₁, and of a step function as far as the true one goes."""
    networks, found = [e.experiment for e in evaluations(FOUR, [None], **flags)], []
    for e in networks:
        l1 = theory.l1(gradient(e, scale)).double().numpy()
        for regime in labels.REGIMES:
            smooth = regime == labels.SMOOTH
            values = {
                (h, scheme): l1 * (1 + h * sign) if smooth or h == 0.01 else l1 * 0
                for h in (1e-5, 1e-2)
                for scheme, sign in {"forward": -1, "backward": 1, "central": 0}.items()
            }
            curvature = -2 * l1 if smooth else None
            found += [quotient.Quotients(e, regime, p, l1, values, curvature) for p in quotient.PRECISIONS]
    rows = quotient.quotient_rows(found, used=0.01) + quotient.curvature_rows(found)
    for e in networks:
        own = {"training": e.defense, "seeds": [e.seed]}
        rows += [row("accuracy", 0.9, 0.8, 0.95, regime=regime, **own) for regime in labels.REGIMES]
    for name, _ in FOUR:
        for regime in labels.REGIMES:
            for layer in (1, 2):
                own = {"training": name, "regime": regime, "layer": layer, "h": 0.01}
                numbers = (0.5, 0.2, 0.8) if scale else (None, None, None)
                rows += [row("cosine", *numbers, **own), row("norm ratio", *numbers, **own)]
    for penalty, times in (("finite difference", 2.0), ("double back propagation", 3.0)):
        rows += [row(quantity, times, penalty=penalty) for quantity in ("multiply-adds", "bytes kept")]
    arrays = {"used_h": 0.01, "window": quotient.WINDOW, "curvature": quotient.curvatures(found, 0.01)}
    return record(artifact, rows, arrays)


MAKERS = {
    "fig-random-vs-adversarial": noise_record,
    "tab-ablation": budgets_record,
    "tab-cost": budgets_record,
    "fig-attack-ladder": ladder_record,
    "fig-certified": certified_record,
    "tab-masking-checklist": checklist_record,
    "tab-whitebox": attacks_record,
    "tab-blackbox": attacks_record,
    "fig-gradient-maps": maps_record,
    "fig-spikes": spikes_record,
    "thm-ratio": ratio_record,
    "prop-finite-difference": quotient_record,
    "fig-lambda": lambda_record,
    "fig-sr-variants": variants_record,
    "fig-timesteps-and-leak": settings_record,
    "fig-landscape": landscape_record,
    "fig-surrogate-width": widths_record,
    "tab-poisson-eot": expectations_record,
    "tab-events": events_record,
    "fig-random-vs-adversarial-events": events_record,
    "fig-spikes-events": spikes_record,
}
