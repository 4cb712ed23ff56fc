"""APGD and SA-PGD: literal transcriptions for one sample, torchattacks, problems with a known answer, and company."""

import itertools
import math

import pytest
import torch
import torchattacks
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from paperlib.attacks.adaptive import apgd, checkpoints, dlr, sa_pgd
from paperlib.attacks.core import uniform_noise
from paperlib.attacks.gradient import pgd
from paperlib.errors import Refused
from paperlib.theory.gradients import in_batches

EPS = {"linf": 0.04, "l2": 0.2}  # about a third of `tiny` survives
EACH_NORM = pytest.mark.parametrize("norm", EPS)
EACH_LOSS = pytest.mark.parametrize("loss", ["ce", "dlr"])
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


def singly(*parts):
    """One sample of each of `parts` after the other, in batches of 1."""
    return zip(*(part.split(1) for part in parts), strict=True)


def slope(x):
    """Three classes; class 0 wins everywhere, the others fall behind the brighter the image, each in its own way."""
    z = x.flatten(1).mean(1)
    return torch.stack([3 + z, z.square() - 50, -z - 50], dim=1)


class Asked:
    """A network that writes down what it was asked: how many images, and whether for their gradient."""

    def __init__(self, network):
        self.network, self.images, self.gradients = network, [], 0

    def __call__(self, x):
        self.images.append(x.detach().clone())
        self.gradients += len(x) * x.requires_grad
        return self.network(x)


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
    assert all(gap >= 1 for gap in gaps)
    assert marks[-1] <= steps
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


# Against the algorithms as they are printed ------------------------------------------------------------------------


def slow_apgd(network, image, label, start, *, eps, steps, loss, norm, seen):
    """Algorithm 1 of arXiv 2003.01690 in its own letters, for one image; W and the two conditions from lists.

    `seen` learns what happened at checkpoints: (the first?, condition 1, no higher maximum, condition 2).
    """

    def f(x):
        z = network(x)[0]
        if loss == "ce":
            return cross_entropy(z[None], label)
        pi = z.argsort(descending=True)
        rival = pi[1] if pi[0] == label else pi[0]
        return -(z[label] - z[rival]) / (z[pi[0]] - z[pi[2]])

    def step(x):
        leaf = x.clone().requires_grad_()
        g = torch.autograd.grad(f(leaf), leaf)[0]
        return g.sign() if norm == "linf" else g / g.pow(2).sum().sqrt() if g.any() else g

    def project(x):
        delta = x - image
        if norm == "linf":
            delta = delta.clamp(-eps, eps)
        elif delta.pow(2).sum().sqrt() > eps:
            delta = eps * delta / delta.pow(2).sum().sqrt()
        return (image + delta).clamp(0, 1)

    def wrong(x):
        return network(x).argmax() != label

    p = [0, 0.22]
    while p[-1] < 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    w = [math.ceil(round(q * steps, 6)) for q in p if q <= 1]
    x, values, x_max, f_max = [start], [f(start).item()], start, [f(start).item()]
    eta, raised = [2 * eps, 2 * eps], [None]  # eta[k], raised[k]: of step k
    if wrong(start):
        return start
    for k in range(1, steps + 1):
        z = project(x[-1] + eta[k] * step(x[-1]))
        new = z if k == 1 else project(x[-1] + 0.75 * (z - x[-1]) + 0.25 * (x[-1] - x[-2]))
        if wrong(new):
            return new
        value = f(new).item()
        raised.append(value > values[-1])
        x_max = new if value > f_max[-1] else x_max
        f_max.append(max(value, f_max[-1]))
        eta.append(eta[k])
        if k in w:
            before = max(mark for mark in w if mark < k)
            condition_1 = sum(raised[before + 1 : k + 1]) < 0.75 * (k - before)
            condition_2 = eta[before] == eta[k] and f_max[before] == f_max[k]
            seen.add((before == 0, condition_1, f_max[before] == f_max[k], condition_2))
            if condition_1 or condition_2:
                eta[k + 1], new, value = eta[k] / 2, x_max, f_max[k]
        x.append(new)
        values.append(value)
    return x_max


@EACH_LOSS
@EACH_NORM
@pytest.mark.parametrize("steps", [1, 13, 30])
def test_apgd_is_algorithm_1_of_its_paper(network, batch, norm, loss, steps):
    images, labels = (part[:24] for part in batch)
    images, labels = (part[stands(network, images, labels, 1)] for part in (images, labels))
    options = {"eps": EPS[norm], "norm": norm, "seed": 4, "batch_size": 1}
    start = pgd(network, images, labels, alpha=0, steps=1, bounds=(0, 1), **options)
    fast = apgd(network, images, labels, steps=steps, bounds=(0, 1), loss=loss, **options)
    rest = {"eps": EPS[norm], "steps": steps, "loss": loss, "norm": norm, "seen": set()}
    slow = [slow_apgd(network, *one, **rest) for one in singly(images, labels, start)]
    torch.testing.assert_close(fast, torch.cat(slow), rtol=0, atol=1e-9)
    flags = stands(network, fast, labels)
    assert flags.any() and not flags.all()


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

        options = {"eps": 0.5, "steps": 22, "seed": 1, "batch_size": 1}
        start = pgd(network, images, labels, alpha=0, bounds=(0, 1), **options)
        fast = apgd(network, images, labels, bounds=(0, 1), **options)
        rest = {"eps": 0.5, "steps": 22, "loss": "ce", "norm": "linf", "seen": seen}
        slow = [slow_apgd(network, *one, **rest) for one in singly(images, labels, start)]
        torch.testing.assert_close(fast, torch.cat(slow), rtol=0, atol=1e-9)
    assert {(True, False, True, True), (False, False, True, True), (False, False, True, False)} <= seen


def slow_sa_pgd(network, image, label, noise, eps, steps):
    """Section 6 of the paper notes, pixel by pixel, for one image."""
    pixels, stretch = image.flatten().tolist(), max(abs(u) for u in noise.flatten().tolist())
    x = [min(max(p + eps * u / stretch, 0), 1) for p, u in zip(pixels, noise.flatten().tolist(), strict=True)]
    m, v, eta, gaps = [0.0] * len(x), [0.0] * len(x), eps, [22, 19, 16, 13, 10, 7, 6, 6]
    halvings = [math.ceil(sum(gaps[: n + 1]) * steps / 100) for n in range(len(gaps))]
    for k in range(1, steps + 1):
        leaf = torch.tensor(x, dtype=torch.float64).view_as(image).requires_grad_()
        z = network(leaf)
        if z.argmax() != label:
            break
        g = torch.autograd.grad(cross_entropy(z, label), leaf)[0].flatten().tolist()
        mean, mean_square = sum(abs(a) for a in g) / len(g), sum(a * a for a in g) / len(g)
        for i, a in enumerate(g):
            m[i] = 0.5 * m[i] + a / mean
            v[i] = 0.8 * v[i] + a * a / mean_square
            step = min(max(eta * m[i] / (math.sqrt(v[i]) + 1e-12), -eta), eta)
            x[i] = min(max(x[i] + step, pixels[i] - eps, 0), pixels[i] + eps, 1)
        eta = eta / 2 if k in halvings else eta
    return torch.tensor(x, dtype=torch.float64).view_as(image)


@pytest.mark.parametrize("steps", [1, 13, 30])
def test_sa_pgd_is_the_formulas_of_the_paper_notes(network, batch, steps):
    images, labels = (part[:24] for part in batch)
    images, labels = (part[stands(network, images, labels, 1)] for part in (images, labels))
    fast = sa_pgd(network, images, labels, eps=0.04, steps=steps, bounds=(0, 1), seed=4, batch_size=1)
    noise = uniform_noise(images, 4, None)
    slow = [slow_sa_pgd(network, *one, 0.04, steps) for one in singly(images, labels, noise)]
    torch.testing.assert_close(fast, torch.cat(slow), rtol=0, atol=1e-9)
    flags = stands(network, fast, labels)
    assert flags.any() and not flags.all()


# Against another library -------------------------------------------------------------------------------------------


@EACH_LOSS
@EACH_NORM
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
    plain = stands(network, pgd(network, images, labels, alpha=EPS["linf"] / 8, until_broken=True, **pixels), labels)
    for attack in (apgd, sa_pgd):
        assert stands(network, attack(network, images, labels, **pixels), labels).sum() < plain.sum()


# Problems with a known answer --------------------------------------------------------------------------------------


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
    for i in range(5):
        x = apgd(hill(summit[i], weights), images[i : i + 1], torch.tensor([0]), eps=0.2, steps=100, bounds=(0, 1))
        torch.testing.assert_close(x[0], summit[i].clamp(low[i], high[i]), rtol=0, atol=0.2 / 50)


@pytest.mark.parametrize("reach", [0.5, 2.0])
def test_apgd_climbs_a_round_hill_to_the_nearest_point_of_the_ball(reach):
    generator = torch.Generator().manual_seed(0)
    images = torch.full((5, 1, 4, 4), 0.5, dtype=torch.float64)
    away = torch.randn(5, 1, 4, 4, dtype=torch.float64, generator=generator)
    away = 0.2 * away / away.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    top = images + min(reach, 1) * away
    x = apgd(
        hill(images + reach * away, 1.0), images, torch.zeros(5).long(), eps=0.2, steps=100, bounds=(0, 1), norm="l2"
    )
    torch.testing.assert_close(x, top, rtol=0, atol=0.2 / 50)


def test_sa_pgd_climbs_to_the_corner():
    images, labels = torch.full((2, 1, 3, 3), 0.5, dtype=torch.float64), torch.tensor([0, 0])
    corner = images + 0.1 * torch.tensor([-1.0, 1, 1, -1, 1, -1, 1, 1, -1]).view(3, 3)
    x = sa_pgd(hill(corner * 3 - images * 2, 1.0), images, labels, eps=0.1, steps=20, bounds=(0, 1))
    torch.testing.assert_close(x, corner)


# The ball, and gradients of zero -----------------------------------------------------------------------------------


@st.composite
def cases(draw):
    """Images anywhere within bounds, many at the bounds themselves, and any radius up to twice their distance."""
    low, high = draw(st.sampled_from([(0, 1), (0, 7), (-1.5, 0.25)]))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 2)), 2, draw(st.integers(1, 3)))
    unit = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1, width=32))
    values = draw(st.lists(unit, min_size=math.prod(shape), max_size=math.prod(shape)))
    images = (low + (high - low) * torch.tensor(values).view(shape)).clamp(low, high)
    return images, draw(st.floats(0, 2)) * (high - low), (low, high), draw(st.integers(0, 2**31))


@EACH
@given(case=cases(), steps=st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_results_stay_within_eps_and_bounds(variant, case, steps):
    images, eps, (low, high), seed = case
    labels = torch.zeros(len(images), dtype=torch.long)
    x = run(variant, slope, images, labels, eps=eps, steps=steps, bounds=(low, high), seed=seed, batch_size=2)
    delta = (x - images).flatten(1)
    size = delta.norm(dim=1) if "l2" in variant else delta.abs().amax(1)
    assert (x.shape, x.dtype) == (images.shape, images.dtype)
    assert ((low <= x) & (x <= high)).all()
    assert (size <= eps * (1 + 1e-5) + 1e-6 * (high - low)).all()


@EACH
def test_a_constant_network_does_no_harm(variant):
    images, labels = torch.rand(3, 1, 4, 4), torch.zeros(3, dtype=torch.long)
    for logits in ([1.0, 0.0, -1.0], [0.0, 0.0, 0.0]):  # plain, and with nothing to divide by in DLR
        x = run(variant, lambda x, z=logits: torch.tensor(z) + 0 * x.flatten(1).sum(1, keepdim=True), images, labels)
        assert x.isfinite().all()
        assert ((x - images).flatten(1).norm(dim=1) > 0).all()  # the start it never leaves


@EACH
def test_one_sample_without_a_gradient_changes_nothing_for_the_others(variant):
    def network(x):  # flat for dark images: neither sample hears of the other
        return torch.where(x.flatten(1).mean(1, keepdim=True) > 0.5, slope(x), slope(torch.ones_like(x)))

    images, labels = torch.stack([torch.full((1, 4, 4), level) for level in (0.2, 0.8)]), torch.zeros(2).long()
    both = run(variant, network, images, labels)
    alone = run(variant, network, images[1:], labels[1:], index=torch.tensor([1]))
    assert both.isfinite().all()
    assert torch.equal(both[1:], alone)


@EACH
def test_with_radius_zero_nothing_moves(variant, network, batch):
    assert torch.equal(run(variant, network, *batch, eps=0), batch[0])


# When a sample stops, and what it costs ----------------------------------------------------------------------------


@EACH
def test_a_sample_returns_its_first_misclassified_iterate_and_is_asked_about_no_more(variant, network, batch):
    kinds = set()
    for i in range(30):
        asked = Asked(network)
        image, label = batch[0][i : i + 1], batch[1][i : i + 1]
        x = run(variant, asked, image, label, index=torch.tensor([i]))
        iterates = asked.images
        wrong = [not stands(network, iterate, label).item() for iterate in iterates]
        kinds.add((wrong[0], any(wrong)))
        assert torch.equal(iterates[0], image)
        assert wrong.count(True) == wrong[-1:].count(True)
        if wrong[-1]:
            assert torch.equal(x, iterates[-1])
    assert kinds == {(True, True), (False, True), (False, False)}  # wrong from the start, broken, never broken


@EACH
def test_an_already_wrong_sample_comes_back_unchanged_for_one_look(variant):
    asked, images = Asked(slope), torch.rand(4, 1, 3, 3)
    x = run(variant, asked, images, torch.ones(4, dtype=torch.long))
    assert torch.equal(x, images)
    assert (len(asked.images), asked.gradients) == (1, 0)


@pytest.mark.parametrize("steps", [1, 9, 25])
def test_nothing_is_asked_twice(steps):
    images, labels = torch.rand(4, 1, 3, 3), torch.zeros(4, dtype=torch.long)
    looks = {}  # calls, and gradients of a sample
    for name, attack, options in (
        ("once", apgd, {}),
        ("three times", apgd, {"restarts": 3}),
        ("sa", sa_pgd, {}),
    ):
        asked = Asked(slope)
        attack(asked, images, labels, eps=0.1, steps=steps, bounds=(0, 1), **options)
        looks[name] = (len(asked.images), asked.gradients / len(images))
    # the clean look; APGD judges its last iterate by a look forward, SA-PGD leaves that to whoever evaluates
    assert looks == {
        "once": (1 + steps + 1, steps),
        "three times": (1 + 3 * (steps + 1), 3 * steps),
        "sa": (1 + steps, steps),
    }


def test_restarts_start_elsewhere_move_who_still_stands_and_keep_the_highest_loss(network, batch):
    images, labels = batch
    common = {"eps": EPS["linf"], "steps": 6, "bounds": (0, 1), "batch_size": 40}
    results = [apgd(network, images, labels, restarts=n, **common) for n in (1, 2, 4)]
    flags = [stands(network, x, labels, 40) for x in results]
    for (x, stood), (y, standing) in itertools.pairwise(zip(results, flags, strict=True)):
        assert torch.equal(x[~stood], y[~stood])
        assert (standing <= stood).all()
        losses = [cross_entropy(network(part[standing]), labels[standing], reduction="none") for part in (x, y)]
        assert (losses[1] >= losses[0]).all()
        assert (losses[1] > losses[0]).any()
    assert flags[2].sum() < flags[0].sum()


# Whose result it is ------------------------------------------------------------------------------------------------


@EACH
def test_a_sample_has_its_result_in_any_company(variant, network, batch):
    (images, labels), index = batch, torch.arange(120) * 3 + 1000
    whole = run(variant, network, images, labels, seed=2, index=index, batch_size=16)
    assert 10 < stands(network, whole, labels, 16).sum() < 100
    for count in (120, 41, 1):  # another order, some of them, one alone
        some = torch.randperm(120, generator=torch.Generator().manual_seed(count))[:count]
        part = run(variant, network, images[some], labels[some], seed=2, index=index[some], batch_size=16)
        assert torch.equal(part, whole[some])


@EACH
def test_the_seed_and_the_index_decide(variant, network, batch):
    images, labels = (part[:20] for part in batch)
    index = torch.arange(20)
    torch.manual_seed(1)
    first = run(variant, network, images, labels, seed=3)
    torch.manual_seed(2)
    assert torch.equal(run(variant, network, images, labels, seed=3, index=index), first)
    assert not torch.equal(run(variant, network, images, labels, seed=4), first)
    assert not torch.equal(run(variant, network, images, labels, seed=3, index=index + 1), first)


@EACH
def test_input_and_weights_are_left_alone(variant, network, batch):
    images, labels = batch
    before = images.clone()
    x = run(variant, network, images, labels)
    assert torch.equal(images, before)
    assert not x.requires_grad
    assert all(weight.grad is None for weight in network.parameters())


# Refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": -0.1}, "eps is -0.1"),
        ({"steps": 0}, "steps is 0"),
        ({"restarts": 0}, "restarts is 0"),
        ({"loss": "cw"}, "There is no loss 'cw'. Allowed: ce, dlr."),
        ({"norm": "l1"}, "There is no norm 'l1'. Allowed: linf, l2."),
    ],
)
def test_what_apgd_refuses(options, message):
    images, labels = torch.rand(2, 1, 2, 2), torch.tensor([0, 0])
    with pytest.raises(Refused, match=f"^{message}"):
        apgd(slope, images, labels, **{"eps": 0.1, "steps": 2, "bounds": (0, 1)} | options)


def test_what_else_is_refused():
    images, labels = torch.rand(2, 1, 2, 2), torch.tensor([0, 0])
    with pytest.raises(Refused, match="classes under the loss 'dlr' is 2; .* at least 3"):
        apgd(hill(images[0], 1.0), images, labels, eps=0.1, steps=2, bounds=(0, 1), loss="dlr")
    for options, message in (({"eps": math.nan}, "eps is nan"), ({"steps": 1.5}, "steps is 1.5")):
        with pytest.raises(Refused, match=f"^{message}"):
            sa_pgd(slope, images, labels, **{"eps": 0.1, "steps": 2, "bounds": (0, 1)} | options)
    with pytest.raises(TypeError, match="norm"):  # its clipped steps are those of l∞
        sa_pgd(slope, images, labels, eps=0.1, steps=2, bounds=(0, 1), norm="l2")
    for attack in (apgd, sa_pgd):
        with pytest.raises(TypeError, match="bounds"):
            attack(slope, images, labels, eps=0.1, steps=2)
