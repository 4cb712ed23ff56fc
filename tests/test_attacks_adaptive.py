"""APGD and SA-PGD: slow transcriptions of their papers, torchattacks, problems with a known answer, and what they ask.

The transcriptions drop nobody from the batch, so they also serve networks that couple their samples.
"""

import itertools
import math

import pytest
import torch
import torchattacks
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from toys import Coupled, Toy, toy_batch

from paperlib.attacks.adaptive import apgd, checkpoints, dlr, sa_pgd
from paperlib.attacks.core import round_noise, uniform_noise
from paperlib.attacks.gradient import pgd
from paperlib.errors import Refused
from paperlib.theory.gradients import in_batches

EPS = {"linf": 0.04, "l2": 0.2}  # about a third of `tiny` survives
VARIANTS = {
    "apgd-ce": (apgd, {}),
    "apgd-dlr": (apgd, {"loss": "dlr"}),
    "apgd-l2": (apgd, {"norm": "l2"}),
    "apgd-twice": (apgd, {"restarts": 2}),
    "sa_pgd": (sa_pgd, {}),
}
EACH = pytest.mark.parametrize("variant", VARIANTS)


@pytest.fixture
def batch(tiny):
    images, labels, _ = next(tiny.test.batches(120))
    return images.double(), labels


@pytest.fixture
def network(network):
    return network.double()


def run(variant, network, images, labels, **context):
    attack, options = VARIANTS[variant]
    eps = EPS[options.get("norm", "linf")]
    return attack(network, images, labels, **{"eps": eps, "steps": 8, "bounds": (0, 1)} | options | context)


def stands(network, x, labels, batch_size=None):
    return in_batches(network, x, batch_size).argmax(1) == labels


# The schedule and the loss by hand ---------------------------------------------------------------------------------


def test_the_checkpoints_by_hand():
    # p: 22, +19 = 41, +16 = 57, +13 = 70, +10 = 80, +7 = 87, then +6 (4 is too small) = 93, 99 %; the next is past 100
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(50) == [11, 21, 29, 35, 40, 44, 47, 50]  # ⌈20.5⌉, ⌈28.5⌉, ⌈43.5⌉, ⌈46.5⌉, ⌈49.5⌉
    assert checkpoints(10) == [3, 5, 6, 7, 8, 9, 10]  # ⌈2.2⌉ ⌈4.1⌉ ⌈5.7⌉ 7 8 ⌈8.7⌉ ⌈9.3⌉ and ⌈9.9⌉ once
    assert checkpoints(1) == [1]


@given(steps=st.integers(1, 2000))
def test_checkpoints_lie_among_the_steps_and_gaps_never_grow_by_more_than_rounding(steps):
    marks = [0, *checkpoints(steps)]
    gaps = [b - a for a, b in itertools.pairwise(marks)]
    assert all(gap >= 1 for gap in gaps) and marks[-1] <= steps
    assert all(b <= a + 1 for a, b in itertools.pairwise(gaps))


def test_dlr_by_hand():
    logits = torch.tensor([[3.0, 1.0, 0.0], [3.0, 1.0, 0.0], [4.0, 3.0, 1.0], [2.0, 2.0, 2.0]])
    values = dlr(logits, torch.tensor([0, 2, 1, 0]))  # -(3-1)/3, -(0-3)/3, -(3-4)/(4-1), and nothing over nothing
    torch.testing.assert_close(values, torch.tensor([-2 / 3, 1.0, 1 / 3, 0.0]))


@given(scale=st.floats(0.01, 100), shift=st.floats(-100, 100))
def test_dlr_sees_neither_scale_nor_shift_of_the_logits_and_its_sign_is_the_flag(scale, shift):
    logits = torch.randn(50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 7
    values = dlr(logits, labels)
    torch.testing.assert_close(dlr(scale * logits + shift, labels), values, rtol=1e-6, atol=1e-6)
    assert torch.equal(values < 0, logits.argmax(1) == labels)


# The algorithms as they are printed ----------------------------------------------------------------------------------


def slow_dlr(logits, labels):
    """Of each sample by sorting, (B,)."""
    values = []
    for z, label in zip(logits, labels, strict=True):
        pi = z.argsort(descending=True)
        rival = pi[1] if pi[0] == label else pi[0]
        values.append(-(z[label] - z[rival]) / (z[pi[0]] - z[pi[2]]))
    return torch.stack(values)


def slow_cross_entropy(logits, labels):
    return cross_entropy(logits, labels, reduction="none")


def look(network, x, labels, loss=slow_cross_entropy):
    """Logits, the losses and their gradient, all samples at once."""
    leaf = x.clone().requires_grad_()
    logits = network(leaf)
    losses = loss(logits, labels)
    return logits.detach(), losses.detach(), torch.autograd.grad(losses.sum(), leaf)[0]


def project(x, images, bounds, eps, norm="linf"):
    delta = x - images
    if norm == "linf":
        delta = delta.clamp(-eps, eps)
    elif delta.square().sum().sqrt() > eps:  # of one image
        delta = eps * delta / delta.square().sum().sqrt()
    return (images + delta).clamp(*bounds)


def slow_pgd(network, images, labels, *, steps, eps, bounds, alpha, until_broken):
    """Nobody is ever left out; who is broken stands still."""
    x = project(images + eps * uniform_noise(images, 0, None), images, bounds, eps)
    broken = torch.zeros(len(images), dtype=torch.bool)
    for _ in range(steps):
        logits, _, gradient = look(network, x, labels)
        broken |= (logits.argmax(1) != labels) & until_broken
        moved = project(x + alpha * gradient.sign(), images, bounds, eps)
        x = torch.where(broken.view(-1, 1, 1, 1), x, moved)
    return x


def slow_sa_pgd(network, images, labels, *, steps, eps, bounds):
    """The formulas of section 6 of the paper notes, one sample after the other behind each look at all of them."""
    with torch.no_grad():
        still = network(images).argmax(1) == labels
    noise = uniform_noise(images, 0, None)
    x = images.clone()
    for i in still.nonzero().flatten():
        x[i] = project(images[i] + eps * noise[i] / noise[i].abs().max(), images[i], bounds, eps)
    m, v, eta = torch.zeros_like(x), torch.zeros_like(x), eps
    marks = {math.ceil(round(p * steps, 6)) for p in (0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99)}
    for k in range(1, steps + 1):
        logits, _, gradient = look(network, x, labels)
        still &= logits.argmax(1) == labels
        for i in still.nonzero().flatten():
            g = gradient[i]
            size = g.abs().mean()
            g = g / size if size else g
            square = g**2 / (g**2).mean() if size else g
            m[i], v[i] = m[i] / 2 + g, 0.8 * v[i] + square
            step = (eta * m[i] / (v[i].sqrt() + 1e-12)).clamp(-eta, eta)
            x[i] = project(x[i] + step, images[i], bounds, eps)
        if k in marks:
            eta /= 2
    return x


def climber(image, start, steps, bounds, eps, norm, seen):
    """Algorithm 1 of arXiv 2003.01690 for one image: yields where to look, is sent (loss, gradient, wrong).

    `seen` learns what happened at checkpoints: (the first?, condition 1, no higher maximum, condition 2).
    """
    p = [0, 0.22]
    while p[-1] < 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    marks = [math.ceil(round(q * steps, 6)) for q in p if q <= 1]
    x = before = best = start
    value, gradient, wrong = yield x
    if wrong:
        return x
    highest, uphill, eta = value, gradient, 2 * eps
    rises, mark, since, halved = [], value, 0, False
    for k in range(steps):
        if k in marks and k > 0:
            few = sum(rises[since:k]) < 0.75 * (k - since)
            stuck = not halved and highest == mark
            seen.add((since == 0, few, bool(highest == mark), bool(stuck)))
            halved = few or stuck
            if halved:
                eta, x, value, gradient = eta / 2, best, highest, uphill
            mark, since = highest, k
        direction = gradient.sign()
        if norm == "l2":
            direction = gradient / gradient.square().sum().sqrt() if gradient.any() else gradient
        target = project(x + eta * direction, image, bounds, eps, norm)
        share = 1 if k == 0 else 0.75
        new = project(x + share * (target - x) + (1 - share) * (x - before), image, bounds, eps, norm)
        before, x = x, new
        last, (value, gradient, wrong) = value, (yield x)
        rises.append(bool(value > last))
        if wrong:
            return x
        if value > highest:
            best, highest, uphill = x, value, gradient
    return best


def slow_apgd(network, images, labels, *, steps, eps, bounds, loss="ce", norm="linf", seed=0, seen=None):
    """Climbers in step, each of which has its own; whoever is done stays in the batch where he was last shown."""
    loss, seen = {"ce": slow_cross_entropy, "dlr": slow_dlr}[loss], set() if seen is None else seen
    with torch.no_grad():
        still = (network(images).argmax(1) == labels).tolist()
    noise = {"linf": uniform_noise, "l2": round_noise}[norm](images, seed, None)
    starts = (images + eps * noise).clamp(*bounds)
    climbers = {
        i: climber(images[i], starts[i], steps, bounds, eps, norm, seen) for i, right in enumerate(still) if right
    }
    shown, result = images.clone(), images.clone()
    for i, one in climbers.items():
        shown[i] = next(one)
    for k in range(steps + 1):
        if not climbers:
            break
        if k < steps:
            logits, losses, gradient = look(network, shown, labels, loss)
        else:
            with torch.no_grad():
                logits = network(shown)
            losses, gradient = loss(logits, labels), torch.zeros_like(shown)
        wrong = logits.argmax(1) != labels
        for i in list(climbers):
            try:
                shown[i] = climbers[i].send((losses[i], gradient[i], bool(wrong[i])))
            except StopIteration as done:
                result[i] = done.value
                del climbers[i]
    return result


def one_by_one(network):
    return lambda x: torch.cat([network(image) for image in x.split(1)])


@pytest.mark.parametrize("steps", [1, 13, 30])
@pytest.mark.parametrize(
    ("attack", "slow", "options"),
    [
        (apgd, slow_apgd, {"loss": "ce", "norm": "linf"}),
        (apgd, slow_apgd, {"loss": "dlr", "norm": "linf"}),
        (apgd, slow_apgd, {"loss": "ce", "norm": "l2"}),
        (apgd, slow_apgd, {"loss": "dlr", "norm": "l2"}),
        (sa_pgd, slow_sa_pgd, {}),
    ],
)
def test_an_attack_is_the_algorithm_of_its_paper(network, batch, attack, slow, options, steps):
    images, labels = (part[:20] for part in batch)
    options = options | {"eps": EPS[options.get("norm", "linf")], "steps": steps, "bounds": (0, 1)}
    fast = attack(network, images, labels, batch_size=1, **options)
    torch.testing.assert_close(fast, slow(one_by_one(network), images, labels, **options), rtol=0, atol=1e-9)
    right, flags = stands(network, images, labels), stands(network, fast, labels)
    assert flags.any() and (right & ~flags).any() and not right.all()


def test_apgd_is_algorithm_1_where_a_run_rises_and_yet_finds_nothing_higher():
    # On rugged ground a step may fall far and the next ones rise, not as high as before: condition 2 alone decides,
    # at the first checkpoint (pixels 3, frequency 8) and at later ones, unless the step was halved before.
    seen = set()
    for pixels, frequency in ((3, 8), (5, 4)):
        generator = torch.Generator().manual_seed(0)
        waves = frequency * torch.randn(30, pixels, dtype=torch.float64, generator=generator)
        images = torch.rand(150, 1, 1, pixels, dtype=torch.float64, generator=generator)
        labels = torch.zeros(150, dtype=torch.long)

        def network(x, waves=waves):  # class 0 wins everywhere
            z = (x.flatten(1) @ waves.T).sin().mean(1) - 2
            return torch.stack([torch.zeros_like(z), z], dim=1)

        options = {"eps": 0.5, "steps": 22, "seed": 1, "bounds": (0, 1)}
        fast = apgd(network, images, labels, **options)
        torch.testing.assert_close(fast, slow_apgd(network, images, labels, seen=seen, **options), rtol=0, atol=1e-9)
    assert {(True, False, True, True), (False, False, True, True), (False, False, True, False)} <= seen


SLOW = {
    "pgd": (pgd, slow_pgd, {"until_broken": False, "alpha": 0.03}),
    "pgd until broken": (pgd, slow_pgd, {"until_broken": True, "alpha": 0.03}),
    "sa_pgd": (sa_pgd, slow_sa_pgd, {}),
    "apgd": (apgd, slow_apgd, {}),
}


@pytest.mark.parametrize("case", SLOW)
def test_a_coupled_network_is_attacked_as_by_a_loop_that_drops_nobody(case):
    attack, slow, options = SLOW[case]
    options = options | {"eps": 0.15, "bounds": (-math.inf, math.inf), "steps": 11}
    images, labels = toy_batch()
    x = attack(Coupled(), images, labels, batch_size=3, **options)  # no batch size splits it
    torch.testing.assert_close(x, slow(Coupled(), images, labels, **options), rtol=0, atol=1e-12)
    assert not torch.allclose(attack(Toy(), images, labels, **options), x)


@pytest.mark.parametrize("rule", ["assg", "pdsg"])
@pytest.mark.parametrize("case", SLOW)
def test_a_spiking_network_by_a_coupled_rule_is_attacked_so_too(network, batch, case, rule):
    attack, slow, options = SLOW[case]
    images, labels = (part[:40] for part in batch)
    options = options | {"steps": 9, "eps": 0.04, "bounds": (0, 1)}
    with network.backward_rule(rule):
        expected = slow(network, images, labels, **options)
    with network.backward_rule(rule):
        x = attack(network, images, labels, batch_size=7, **options)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-12)
    assert 0 < stands(network, x, labels).sum() < 40


# Strength ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("norm", EPS)
def test_apgd_breaks_as_much_as_torchattacks_does(network, batch, norm, loss):
    images, labels = batch
    theirs_norm = {"linf": "Linf", "l2": "L2"}[norm]
    ours, theirs = 0, 0
    for seed in range(3):  # neither draws the other's start: within two samples of 120 on average
        context = {"eps": EPS[norm], "steps": 20, "loss": loss, "seed": seed}
        ours += stands(network, apgd(network, *batch, norm=norm, bounds=(0, 1), **context), labels).sum()
        theirs += stands(network, torchattacks.APGD(network, norm=theirs_norm, **context)(*batch), labels).sum()
    assert ours <= theirs + 3 * 2
    assert 3 * 20 < ours < 3 * 80


def test_the_adaptive_attacks_break_more_than_pgd(network, batch):
    images, labels = batch
    pixels = {"eps": EPS["linf"], "bounds": (0, 1), "steps": 20}
    plain = stands(network, pgd(network, images, labels, until_broken=True, **pixels), labels)
    for attack in (apgd, sa_pgd):
        assert stands(network, attack(network, images, labels, **pixels), labels).sum() < plain.sum()


def hill(summit, weights):
    """Two classes; class 0 wins everywhere, and least so at the `summit` of a concave quadratic."""

    def network(x):
        z = -1 - (weights * (x - summit).square()).flatten(1).sum(1)
        return torch.stack([torch.zeros_like(z), z], dim=1)

    return network


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("reach", [0.5, 2.0])  # the summit within the ball, and mostly outside
def test_apgd_climbs_a_concave_hill_to_the_top_of_the_box(reach, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(5, 1, 4, 4, dtype=torch.float64, generator=generator)
    away = 2 * torch.rand(5, 1, 4, 4, dtype=torch.float64, generator=generator) - 1
    summit, weights = images + 0.2 * reach * away, 1 + torch.rand(1, 4, 4, dtype=torch.float64, generator=generator)
    low, high = (images - 0.2).clamp_min(0), (images + 0.2).clamp_max(1)
    zeros = torch.zeros(5, dtype=torch.long)  # classes, and one noise for all
    x = apgd(hill(summit, weights), images, zeros, eps=0.2, steps=100, bounds=(0, 1), index=zeros)
    torch.testing.assert_close(x, summit.clamp(low, high), rtol=0, atol=0.2 / 50)


@pytest.mark.parametrize("reach", [0.5, 2.0])
def test_apgd_climbs_a_round_hill_to_the_nearest_point_of_the_ball(reach):
    generator = torch.Generator().manual_seed(0)
    images = torch.full((5, 1, 4, 4), 0.5, dtype=torch.float64)
    away = torch.randn(5, 1, 4, 4, dtype=torch.float64, generator=generator)
    away = 0.2 * away / away.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    network, context = hill(images + reach * away, 1.0), {"eps": 0.2, "bounds": (0, 1), "norm": "l2"}
    x = apgd(network, images, torch.zeros(5).long(), steps=100, **context)
    torch.testing.assert_close(x, images + min(reach, 1) * away, rtol=0, atol=0.2 / 50)


def test_sa_pgd_climbs_to_the_corner():
    images, labels = torch.full((2, 1, 3, 3), 0.5, dtype=torch.float64), torch.tensor([0, 0])
    corner = images + 0.1 * torch.tensor([-1.0, 1, 1, -1, 1, -1, 1, 1, -1]).view(3, 3)
    x = sa_pgd(hill(corner * 3 - images * 2, 1.0), images, labels, eps=0.1, steps=20, bounds=(0, 1))
    torch.testing.assert_close(x, corner)


@EACH
def test_a_constant_network_does_no_harm(variant):
    images, labels = torch.rand(3, 1, 4, 4), torch.zeros(3, dtype=torch.long)
    for logits in ([1.0, 0.0, -1.0], [0.0, 0.0, 0.0]):  # plain, and with nothing to divide by in DLR
        x = run(variant, lambda x, z=logits: torch.tensor(z) + 0 * x.flatten(1).sum(1, keepdim=True), images, labels)
        assert x.isfinite().all()
        assert ((x - images).flatten(1).norm(dim=1) > 0).all()  # the start it never leaves


# When a sample stops -------------------------------------------------------------------------------------------------


@EACH
def test_a_sample_returns_its_first_misclassified_iterate_and_is_asked_about_no_more(variant, network, batch):
    kinds = set()
    for i in range(30):
        image, label, shown, gradients = batch[0][i : i + 1], batch[1][i : i + 1], [], []

        def listening(x, shown=shown, gradients=gradients):
            shown.append(x.detach().clone())
            gradients.append(x.requires_grad)
            return network(x)

        x = run(variant, listening, image, label, index=torch.tensor([i]))
        wrong = [not stands(network, iterate, label).item() for iterate in shown]
        kinds.add((wrong[0], any(wrong)))
        assert torch.equal(shown[0], image) and not gradients[0]  # a look forward at the image
        assert wrong.count(True) == wrong[-1:].count(True)
        if wrong[-1]:
            assert torch.equal(x, shown[-1])
    assert kinds == {(True, True), (False, True), (False, False)}  # wrong from the start, broken, never broken


def test_restarts_start_elsewhere_move_who_still_stands_and_keep_the_highest_loss(network, batch):
    images, labels = batch
    common = {"eps": EPS["linf"], "steps": 6, "bounds": (0, 1), "batch_size": 40}
    results = [apgd(network, images, labels, restarts=n, **common) for n in (1, 2, 4)]
    flags = [stands(network, x, labels, 40) for x in results]
    for (x, stood), (y, standing) in itertools.pairwise(zip(results, flags, strict=True)):
        assert torch.equal(x[~stood], y[~stood])
        assert (standing <= stood).all()
        losses = [cross_entropy(network(part[standing]), labels[standing], reduction="none") for part in (x, y)]
        assert (losses[1] >= losses[0]).all() and (losses[1] > losses[0]).any()
    assert flags[2].sum() < flags[0].sum()


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attack", "options", "message"),
    [
        (apgd, {"steps": 0}, "steps is 0"),
        (apgd, {"restarts": 0}, "restarts is 0"),
        (apgd, {"loss": "cw"}, "There is no loss 'cw'. Allowed: ce, dlr."),
        (apgd, {"norm": "l1"}, "There is no norm 'l1'. Allowed: linf, l2."),
        (apgd, {"loss": "dlr"}, "the number of classes under the loss 'dlr' is 2; .* at least 3"),
        (sa_pgd, {"steps": 1.5}, "steps is 1.5"),
    ],
)
def test_what_cannot_be_used_is_refused(attack, options, message):
    images, labels = torch.rand(2, 1, 2, 2), torch.tensor([0, 0])
    with pytest.raises(Refused, match=f"^{message}"):
        attack(hill(images, 1.0), images, labels, **{"eps": 0.1, "steps": 2, "bounds": (0, 1)} | options)
