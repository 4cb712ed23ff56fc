"""The ratio theorem and the finite-difference proposition on functions where both can be worked out by hand."""

import itertools
import math
import statistics

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from paperlib import networks, theory
from paperlib.errors import Refused
from paperlib.networks import rules

values = st.one_of(st.just(0.0), st.floats(-1e4, 1e4, width=32).filter(lambda v: abs(v) > 1e-4))
gradients = (
    st.tuples(st.integers(1, 4), st.integers(1, 20))
    .flatmap(lambda shape: arrays(np.float32, shape, elements=values))
    .filter(lambda g: g.any(axis=1).all())
    .map(torch.from_numpy)
)

untimed = settings(deadline=None)  # the first assert_close of a process imports for half a second

MOMENTS = {"uniform": (1 / 3, 1 / 5), "sign": (1.0, 1.0), "triangular": (1 / 6, 1 / 15)}  # E δ², E δ⁴
LAWS = pytest.mark.parametrize("law", MOMENTS)

Y = torch.tensor([0, 2, 1])
X = torch.linspace(-1, 1, 24, dtype=torch.double).view(3, 2, 2, 2)


def smooth_network():
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 3), nn.Softmax(1)
    return nn.Sequential(*layers).double()


def spiking_network(**options):
    torch.manual_seed(0)
    return networks.build("conv-4", in_channels=1, image_size=6, num_classes=3, T=2, **options).eval()


def linear(W):
    """The f of images of any shape whose classes have the rows of W as gradients."""
    return lambda x: x.flatten(1) @ W.T


def logistic(w, margin):
    """Two classes; the probability of the first is σ(margin + w·x)."""

    def f(x):
        rise = torch.sigmoid(margin + x.flatten(1) @ w)
        return torch.stack([rise, 1 - rise], 1)

    return f


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def recorded(f):
    """f, and the list of what it is called with."""
    seen = []

    def recording(x):
        seen.append(x.detach().clone())
        return f(x)

    return recording, seen


# Ratio --------------------------------------------------------------------------------------------------------------


@given(gradients)
def test_ratio_lies_between_its_bounds(g):
    ratio = theory.linear_ratio(g)
    assert (ratio >= 3 * (1 - 1e-5)).all()
    assert (ratio <= 3 * theory.l0(g, threshold=0) * (1 + 1e-5)).all()


def test_ratios_by_hand():
    # (3, -4): 3·49/25; (1, 2, 2): 3·25/9; over an image's three axes: 1, 2, ..., 8: 3·36²/204
    assert theory.linear_ratio(torch.tensor([[3.0, -4.0]])).item() == pytest.approx(5.88)
    assert theory.linear_ratio(torch.tensor([[1.0, 2, -2]])).item() == pytest.approx(25 / 3)
    assert theory.linear_ratio(torch.arange(1.0, 9).view(1, 2, 2, 2)).tolist() == pytest.approx([3 * 36**2 / 204])


def test_equality():
    one = torch.tensor([[0, 0, -0.3, 0]])
    equal = torch.tensor([[0.2, -0.2, 0, 0.2]])
    assert theory.linear_ratio(one).item() == pytest.approx(3)  # the lower bound
    assert theory.linear_ratio(equal).item() == pytest.approx(9)  # the upper, 3·‖g‖₀
    assert theory.l0(equal, 0).item() == 3


def test_a_vanishing_gradient_has_no_ratio():
    assert theory.linear_ratio(torch.tensor([[0.0, 0.0], [0.0, 2.0]])).isnan().tolist() == [True, False]


def test_ratio_from_its_two_vulnerabilities():
    # for a linear f: the largest squared change over the corners of the box, and its mean under uniform noise
    g = torch.tensor([0.5, -1.5, 0.0, 2.0, 0.25, -1.0])
    adversarial = max((g @ torch.tensor(corner)) ** 2 for corner in itertools.product([-1.0, 1.0], repeat=6))
    noise = torch.rand(200_000, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    random = (noise @ g).square().mean()
    assert theory.linear_ratio(g[None]).item() == pytest.approx((adversarial / random).item(), rel=0.01)


@LAWS
@untimed
@given(g=gradients)
def test_each_law_has_its_own_constant(law, g):
    ratio, (random, adversarial) = theory.linear_ratio(g, law), theory.linear_vulnerabilities(g, 0.1, law)
    constant = 1 / MOMENTS[law][0]
    assert (ratio >= constant * (1 - 1e-5)).all()
    assert (ratio <= constant * theory.l0(g, threshold=0) * (1 + 1e-5)).all()
    torch.testing.assert_close(ratio, adversarial / random)


@pytest.mark.parametrize("law, mean_square", [("uniform", 25 / 12), ("sign", 25 / 4), ("triangular", 25 / 24)])
def test_linear_vulnerabilities_by_hand(law, mean_square):
    # g = (3, -4), ε = ½: ε²·25 times E δ², and ε²·7²
    random, adversarial = theory.linear_vulnerabilities(torch.tensor([[[3.0], [-4.0]]]), 0.5, law)
    assert random.tolist() == pytest.approx([mean_square])
    assert adversarial.tolist() == pytest.approx([49 / 4])


@untimed
@given(gradients, st.floats(1e-3, 1e3), st.sampled_from([-1, 1]))
def test_scale_enters_both_vulnerabilities_squared_and_no_ratio(g, scale, sign):
    before, after = theory.linear_vulnerabilities(g, 0.1), theory.linear_vulnerabilities(g * scale * sign, 0.1)
    for ours, scaled in zip(before, after, strict=True):
        torch.testing.assert_close(scaled, ours * scale**2, rtol=1e-4, atol=0)
    torch.testing.assert_close(theory.linear_ratio(g * scale * sign), theory.linear_ratio(g), rtol=1e-4, atol=0)


@untimed
@given(gradients, st.randoms(use_true_random=False))
def test_the_order_of_the_pixels_is_of_no_account(g, random):
    order = list(range(g.shape[1]))
    random.shuffle(order)

    def sizes(g):
        measures = theory.l1, theory.l2, theory.participation_number, theory.hoyer, theory.gini, theory.linear_ratio
        return [theory.l0(g, 0.5).float(), *theory.linear_vulnerabilities(g, 0.1), *(size(g) for size in measures)]

    for ours, shuffled in zip(sizes(g), sizes(g[:, order]), strict=True):
        torch.testing.assert_close(shuffled, ours, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_what_the_linear_forms_refuse():
    g = torch.ones(1, 2)
    with pytest.raises(Refused, match="no law of noise 'gauss'.*uniform, sign, triangular"):
        theory.linear_ratio(g, "gauss")
    with pytest.raises(Refused, match="no law of noise 'gauss'"):
        theory.linear_vulnerabilities(g, 0.1, "gauss")
    for eps in (-1e-9, math.nan, math.inf, "0.1"):
        with pytest.raises(Refused, match="eps is .* of at least 0"):
            theory.linear_vulnerabilities(g, eps)


# Probabilities ------------------------------------------------------------------------------------------------------


def test_probabilities_are_the_softmax():
    z = torch.tensor([[1.0, -2, 0.5], [500, 0, -500]])
    expected = [[math.exp(v - max(row)) / sum(math.exp(u - max(row)) for u in row) for v in row] for row in z.tolist()]
    np.testing.assert_allclose(theory.probabilities(lambda x: x)(z), expected)


def test_a_saturated_probability_still_moves():
    # e^-20: float32 has no number between 1 - 6e-8 and 1
    x = torch.tensor([[20.0, 0.0]])
    assert x.softmax(1)[0, 0] == 1
    f, y = theory.probabilities(lambda x: x), torch.tensor([0])
    assert 1 - f(x)[0, 0].item() == pytest.approx(math.exp(-20), rel=1e-6)
    slope = theory.finite_difference_l1(f, x, y, 0.01, "central")
    assert slope.item() == pytest.approx(2 * math.exp(-20), rel=1e-3)
    assert theory.random_vulnerability(f, x, y, 0.1, 50, generator=seeded()).moved.item() == 1


# Laws of noise ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "law, theirs", [("uniform", scipy.stats.uniform(-1, 2)), ("triangular", scipy.stats.triang(0.5, -1, 2))]
)
def test_noise_follows_its_law(law, theirs):
    drawn = theory.LAWS[law].draw(torch.empty(20_000, dtype=torch.double), seeded())
    assert scipy.stats.kstest(drawn.numpy(), theirs.cdf).pvalue > 1e-3
    assert theory.LAWS[law].second_moment == pytest.approx(theirs.var())


def test_signs_are_fair():
    drawn = theory.LAWS["sign"].draw(torch.empty(20_000), seeded())
    ups = int((drawn == 1).sum())
    assert ups + int((drawn == -1).sum()) == 20_000
    assert scipy.stats.binomtest(ups, 20_000).pvalue > 1e-3
    assert theory.LAWS["sign"].second_moment == 1


@LAWS
def test_coordinates_are_independent(law):
    drawn = theory.LAWS[law].draw(torch.empty(20_000, 2, 2), seeded()).flatten(1)
    products = (drawn[:, :, None] * drawn[:, None]).mean(0)
    torch.testing.assert_close(products, MOMENTS[law][0] * torch.eye(4), rtol=0, atol=5 / 20_000**0.5)


@LAWS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_has_the_shape_and_type_of_the_images(law, dtype):
    drawn = theory.LAWS[law].draw(torch.full((2, 3, 4), 7.0, dtype=dtype), seeded())
    assert drawn.shape == (2, 3, 4) and drawn.dtype == dtype


# Random vulnerability -----------------------------------------------------------------------------------------------


@LAWS
def test_monte_carlo_agrees_with_the_linear_closed_form(law):
    W = torch.randn(3, 8, generator=seeded(), dtype=torch.double)
    got = theory.random_vulnerability(linear(W), X, Y, 0.3, 4000, law, seeded(1))
    expected = [0.3**2 * MOMENTS[law][0] * sum(w * w for w in W[y].tolist()) for y in Y]
    assert ((got.value - torch.tensor(expected)).abs() < 5 * got.error).all()
    assert (got.error < 0.05 * got.value).all()
    torch.testing.assert_close(theory.linear_vulnerabilities(W[Y], 0.3, law)[0], torch.tensor(expected).double())


@LAWS
def test_monte_carlo_agrees_with_a_quadratic_closed_form(law):
    # f = Σ aᵢxᵢ² at 0, where no gradient tells anything: ε⁴·(Σ aᵢ²·E δ⁴ + Σ_{i≠j} aᵢaⱼ·(E δ²)²)
    a, eps = torch.tensor([1.0, -2, 3, 0.5], dtype=torch.double), 0.7
    second, fourth = MOMENTS[law]
    pairs = sum(p * q for p, q in itertools.permutations(a.tolist(), 2))
    expected = eps**4 * (fourth * sum(p * p for p in a.tolist()) + second**2 * pairs)
    got = theory.random_vulnerability(
        lambda x: x.square() @ a[:, None],
        torch.zeros(1, 4, dtype=torch.double),
        torch.tensor([0]),
        eps,
        4000,
        law,
        seeded(),
    )
    assert abs(got.value.item() - expected) <= 5 * got.error.item() + 1e-12  # all signs give the same square
    assert got.error.item() < 0.05 * expected


@pytest.mark.parametrize("law", ["uniform", "triangular"])
def test_the_standard_error_covers(law):
    # 2000 samples that are one and the same, each with noise of its own, are 2000 repetitions
    w = torch.tensor([[1.0, -0.5, 2, 0.25, 0]], dtype=torch.double)
    truth = 0.2**2 * MOMENTS[law][0] * sum(v * v for v in w[0].tolist())
    x, y = torch.zeros(2000, 5, dtype=torch.double), torch.zeros(2000, dtype=torch.long)
    got = theory.random_vulnerability(linear(w), x, y, 0.2, 100, law, seeded())
    covered = ((got.value - truth).abs() < 1.96 * got.error).double().mean().item()
    assert 0.91 < covered < 0.97
    assert statistics.stdev(got.value.tolist()) == pytest.approx(got.error.mean().item(), rel=0.1)


def test_estimates_by_their_definitions():
    f = smooth_network()
    recording, seen = recorded(f)
    got = theory.random_vulnerability(recording, X, Y, 0.5, 7, generator=seeded())
    at_rest, *points = seen
    assert torch.equal(at_rest, X) and len(points) == 7
    for b, y in enumerate(Y):
        changes = [(f(point)[b, y].item() - f(X)[b, y].item()) ** 2 for point in points]
        assert got.value[b].item() == pytest.approx(statistics.mean(changes))
        assert got.error[b].item() == pytest.approx(statistics.stdev(changes) / 7**0.5)
        assert got.largest[b].item() == pytest.approx(max(changes))
    assert got.moved.tolist() == [1, 1, 1]
    far = torch.stack(points) - X
    assert 0.45 < far.max() <= 0.5 + 1e-12 and -0.45 > far.min() >= -0.5 - 1e-12
    assert torch.stack(points).max() > X.max()  # not clamped
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(far.flatten(0, 1), 2))


def test_the_share_that_moved():
    # a step at 0: from just below it, noise crosses it about every second time; from -1 it never does
    def f(x):
        return (x > 0).double()

    x, y = torch.tensor([[-1e-9], [-1.0]]), torch.tensor([0, 0])
    got = theory.random_vulnerability(f, x, y, 0.5, 400, generator=seeded())
    assert got.moved[0].item() == got.value[0].item() and 0.4 < got.moved[0] < 0.6
    assert [field[1].item() for field in got] == [0, 0, 0, 0]


@LAWS
def test_noise_is_decided_by_its_generator(law):
    def vulnerability(generator):
        return theory.random_vulnerability(smooth_network(), X, Y, 0.1, 5, law, generator)

    first, again, other = (vulnerability(seeded(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.value, other.value)


def test_a_generator_keeps_torchs_own_out_of_it():
    f = smooth_network()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    theory.random_vulnerability(f, X, Y, 0.1, 5, generator=seeded())
    theory.adversarial_vulnerability(f, X, Y, 0.1)
    assert torch.equal(torch.get_rng_state(), before)
    own = theory.random_vulnerability(f, X, Y, 0.1, 5)
    assert torch.equal(own.value, theory.random_vulnerability(f, X, Y, 0.1, 5, generator=seeded(5)).value)


def test_noise_keeps_no_graph():
    f, x, modes = smooth_network(), X.clone().requires_grad_(), []

    def watched(images):
        modes.append(torch.is_grad_enabled())
        return f(images)

    got = theory.random_vulnerability(watched, x, Y, 0.1, 3)
    assert modes == [False] * 4
    assert not any(field.requires_grad for field in got)


def test_what_random_vulnerability_refuses():
    def vulnerability(eps=0.1, draws=2, law="uniform"):
        return theory.random_vulnerability(smooth_network(), X, Y, eps, draws, law)

    assert vulnerability().error.isfinite().all()
    for draws in (1, 0, -2, 2.0, True):
        with pytest.raises(Refused, match="draws is .* whole number of at least 2"):
            vulnerability(draws=draws)
    for eps in (-1e-9, math.nan, math.inf, "0.1"):
        with pytest.raises(Refused, match="eps is .* of at least 0"):
            vulnerability(eps=eps)
    with pytest.raises(Refused, match="no law of noise 'gauss'.*uniform, sign, triangular"):
        vulnerability(law="gauss")


# Adversarial vulnerability ------------------------------------------------------------------------------------------


def over_all_corners(f, x, y, eps):
    """max of (f_y(x + εδ) - f_y(x))² over δ in {-1, 1}^m, one sample and one corner at a time."""
    largest = []
    for image, label in zip(x, y, strict=True):
        at_rest = f(image[None])[0, label].item()
        corners = (
            torch.tensor(corner).view(image.shape) for corner in itertools.product([-1.0, 1.0], repeat=image.numel())
        )
        largest.append(max((f((image + eps * corner)[None])[0, label].item() - at_rest) ** 2 for corner in corners))
    return torch.tensor(largest, dtype=torch.double)


@pytest.mark.parametrize("steps", [0, 1, 10])
def test_the_attack_is_exact_on_a_linear_function(steps):
    W = torch.randn(3, 8, generator=seeded(), dtype=torch.double)
    W[2, 3:] = 0
    got = theory.adversarial_vulnerability(linear(W), X, Y, 0.3, steps=steps)
    torch.testing.assert_close(got, over_all_corners(linear(W), X, Y, 0.3))
    torch.testing.assert_close(got, theory.linear_vulnerabilities(W[Y], 0.3)[1])


@pytest.mark.parametrize("margin", [-3.0, 0.0, 3.0])
def test_the_attack_is_exact_on_a_monotone_function(margin):
    # at 3 the attack must take f down and at -3 up, and a sample of the second class the other way round
    f = logistic(torch.randn(8, generator=seeded(), dtype=torch.double), margin)
    y = torch.tensor([0, 1, 0])
    got = theory.adversarial_vulnerability(f, X, y, 0.8)
    torch.testing.assert_close(got, over_all_corners(f, X, y, 0.8))


@untimed
@given(gradients)
def test_the_bounds_hold_for_any_linear_function(W):
    W, y = W.double(), torch.arange(len(W))
    x = torch.zeros(len(W), W.shape[1], dtype=torch.double)
    adversarial = theory.adversarial_vulnerability(linear(W), x, y, 0.1, steps=1)
    ratio = adversarial / (0.1**2 / 3 * W.square().sum(1))
    assert (ratio >= 3 * (1 - 1e-9)).all()
    assert (ratio <= 3 * (W != 0).sum(1).double() * (1 + 1e-9)).all()


def wavy():
    """A function of two pixels that is far from linear, and six samples to attack."""
    f = nn.Sequential(nn.Flatten(), nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 3), nn.Softmax(1)).double()
    generator = seeded(2)
    with torch.no_grad():
        for parameter in f.parameters():
            parameter.normal_(generator=generator)
    return f, torch.rand(6, 1, 1, 2, generator=seeded(9), dtype=torch.double), torch.arange(6) % 3


def best_on_a_grid(f, image, label, eps):
    """The largest squared change on 201×201 points of the box, climbed from there by SciPy."""

    def changes(deltas):
        with torch.no_grad():
            return (f(image + eps * deltas.view(-1, 1, 1, 2))[:, label] - f(image[None])[0, label]).square()

    side = torch.linspace(-1, 1, 201, dtype=torch.double)
    grid = torch.cartesian_prod(side, side)
    found = changes(grid)
    climbed = scipy.optimize.minimize(
        lambda delta: -changes(torch.from_numpy(delta)).item(), grid[found.argmax()].numpy(), bounds=[(-1, 1)] * 2
    )
    return max(found.max().item(), -climbed.fun)


@pytest.mark.parametrize("eps", [0.1, 0.8])
def test_the_attack_claims_no_more_than_there_is(eps):
    f, x, y = wavy()
    best = torch.tensor([best_on_a_grid(f, image, label, eps) for image, label in zip(x, y, strict=True)])
    for steps in (0, 3, 30):
        got = theory.adversarial_vulnerability(f, x, y, eps, steps=steps)
        assert (got <= best * (1 + 1e-6)).all()
        assert (got >= best * 0.999).sum() >= 3


def test_steps_only_add():
    f, x, y = wavy()
    got = torch.stack([theory.adversarial_vulnerability(f, x, y, 0.8, steps=steps) for steps in range(20)])
    assert (got.diff(dim=0) >= 0).all()
    assert (got[-1] > 1.2 * got[0]).any()  # on a function that is far from linear they are worth their time


def test_the_attack_is_at_least_both_corners():
    f, x, y = wavy()
    corner = 0.8 * theory.true_class_gradient(f, x, y).sign()
    changes = [(f(x + way * corner) - f(x))[range(6), y].square() for way in (1, -1)]
    torch.testing.assert_close(
        theory.adversarial_vulnerability(f, x, y, 0.8, steps=0), torch.maximum(*changes).detach()
    )
    assert (changes[0] > changes[1]).unique().tolist() == [False, True]


def test_the_attack_stays_within_the_ball():
    f, x, y = wavy()
    recording, seen = recorded(f)
    theory.adversarial_vulnerability(recording, x, y, 0.8, steps=20)
    far = (torch.stack(seen) - x).abs()
    assert 0.8 - 1e-12 < far.max() <= 0.8 + 1e-12
    assert ((far > 0.01) & (far < 0.79)).any()  # between the corners as well


def test_the_attack_is_not_clamped():
    x, y = torch.tensor([[0.0, 1.0]]), torch.tensor([0])
    assert theory.adversarial_vulnerability(linear(torch.ones(1, 2)), x, y, 1.0).item() == 4


def test_samples_are_attacked_one_by_one():
    f, x, y = wavy()
    together = theory.adversarial_vulnerability(f, x, y, 0.8)
    alone = [theory.adversarial_vulnerability(f, x[[b]], y[[b]], 0.8) for b in range(6)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_the_attack_leaves_no_trace():
    f, x = smooth_network(), X.clone().requires_grad_()
    got = theory.adversarial_vulnerability(f, x, Y, 0.1, steps=2)
    with torch.no_grad():
        assert torch.equal(got, theory.adversarial_vulnerability(f, X, Y, 0.1, steps=2))
    assert not got.requires_grad and x.grad is None and torch.equal(x, X)
    assert all(parameter.grad is None for parameter in f.parameters())


def test_what_the_attack_refuses():
    for eps in (-1e-9, math.nan, math.inf, "0.1"):
        with pytest.raises(Refused, match="eps is .* of at least 0"):
            theory.adversarial_vulnerability(smooth_network(), X, Y, eps)
    for steps in (-1, 2.0, True):
        with pytest.raises(Refused, match="steps is .* whole number of at least 0"):
            theory.adversarial_vulnerability(smooth_network(), X, Y, 0.1, steps=steps)


# The ratio of measured vulnerabilities ------------------------------------------------------------------------------


def measured(f, x, y, eps, *, draws=10, law="uniform", steps=10):
    random = theory.random_vulnerability(f, x, y, eps, draws, law, seeded())
    adversarial = theory.adversarial_vulnerability(f, x, y, eps, steps=steps)
    return adversarial, random, theory.measured_ratio(adversarial, random)


def test_measured_ratios_by_hand():
    # nothing moved; the attack alone; both; a draw that outdid the attack; an attack that did nothing
    values, largest = torch.tensor([0.0, 0, 0.5, 0.5, 0.25]), torch.tensor([0.0, 0, 1, 4, 1])
    random = theory.RandomVulnerability(values, torch.zeros(5), largest, torch.ones(5))
    ratio = theory.measured_ratio(torch.tensor([0.0, 0.25, 3, 3, 0]), random)
    assert ratio[0].isnan() and ratio[1:].tolist() == [math.inf, 6, 8, 4]


@LAWS
def test_the_measured_ratio_of_a_linear_function_is_the_linear_one(law):
    W = torch.randn(3, 8, generator=seeded(), dtype=torch.double)
    _, random, ratio = measured(linear(W), X, Y, 0.3, draws=4000, law=law)
    off = ratio / theory.linear_ratio(W[Y], law) - 1
    assert (off.abs() < 5 * random.error / random.value).all()
    assert (random.error < 0.05 * random.value).all()


def test_one_pixel_has_ratio_three():
    x, y = torch.zeros(1, 1, 1, 1, dtype=torch.double), torch.tensor([0])
    f = linear(torch.tensor([[-0.7]], dtype=torch.double))
    _, random, ratio = measured(f, x, y, 0.1, draws=4000)
    assert theory.linear_ratio(theory.true_class_gradient(f, x, y)).item() == pytest.approx(3)
    assert ratio.item() == pytest.approx(3, abs=5 * (3 * random.error / random.value).item())


@pytest.mark.parametrize("scale", [2.0, -0.25, 1e-3])
def test_a_multiple_of_f_has_its_square_times_the_vulnerability(scale):
    f = smooth_network()
    adversarial, random, ratio = measured(f, X, Y, 0.5)
    adversarial_, random_, ratio_ = measured(lambda x: scale * f(x), X, Y, 0.5)
    torch.testing.assert_close(adversarial_, adversarial * scale**2)
    for field in ("value", "error", "largest"):
        torch.testing.assert_close(getattr(random_, field), getattr(random, field) * scale**2)
    torch.testing.assert_close(ratio_, ratio)


def test_pixels_may_change_places():
    f, order = smooth_network(), torch.tensor([3, 7, 0, 5, 1, 6, 2, 4])
    shuffled, back = X.flatten(1)[:, order], order.argsort()
    adversarial, random, _ = measured(f, X, Y, 0.5, draws=1000)
    adversarial_, random_, _ = measured(lambda x: f(x[:, back]), shuffled, Y, 0.5, draws=1000)
    torch.testing.assert_close(adversarial_, adversarial)
    assert not torch.equal(random_.value, random.value)  # other pixels have the same noise
    assert ((random_.value - random.value).abs() < 5 * (random_.error**2 + random.error**2).sqrt()).all()


def test_no_perturbation_has_no_ratio():
    adversarial, random, ratio = measured(smooth_network(), X, Y, 0)
    assert [adversarial.tolist(), *(field.tolist() for field in random)] == [[0, 0, 0]] * 5
    assert ratio.isnan().all()


def test_a_constant_function_has_no_ratio():
    adversarial, random, ratio = measured(lambda x: 0 * x.flatten(1) + 0.3, X, Y, 0.5)
    assert [adversarial.tolist(), *(field.tolist() for field in random)] == [[0, 0, 0]] * 5
    assert ratio.isnan().all()


def test_where_no_draw_reaches_the_edge_the_ratio_is_infinite():
    # flat but for the corner: 20 pixels that must all rise by more than 0.9 at once
    def f(x):
        return (x.sum(1, keepdim=True) - 18).clamp(min=0) + 0 * x[:, :1]

    x, y = torch.zeros(1, 20), torch.tensor([0])
    random = theory.random_vulnerability(f, x, y, 1.0, 50, generator=seeded())
    corner = (f(x + 1) - f(x)).square()[:, 0]
    assert theory.measured_ratio(corner, random).tolist() == [math.inf] and random.moved.item() == 0


def test_no_ratio_lies_below_one():
    # steps = 0 leaves the attack at the corners, which noise outdoes on a function that is far from linear
    adversarial, random, ratio = measured(*wavy(), 0.8, draws=50, steps=0)
    assert (random.value > adversarial).any()
    assert (ratio >= 1).all()


@pytest.mark.parametrize("kind", ["feed-forward", "spiking", "smoothed"])
def test_any_network_can_be_measured(kind):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 3))
    network = plain if kind == "feed-forward" else spiking_network()
    if kind == "smoothed":
        for neuron in network.neurons():
            neuron.path = "smooth"
    f, x, y = theory.probabilities(network), torch.rand(4, 1, 6, 6), torch.tensor([0, 1, 2, 0])
    adversarial, random, ratio = measured(f, x, y, 0.2, draws=20)
    corner = 0.2 * theory.true_class_gradient(f, x, y).sign()
    for way in (corner, -corner):
        change = (network(x + way).double().softmax(1) - network(x).double().softmax(1))[range(4), y]
        assert (adversarial >= change.square() * (1 - 1e-6)).all()
    assert (random.moved == 1).all() and (random.value < random.largest).all()
    assert ((ratio > 2) & ratio.isfinite()).all()
    assert adversarial.dtype == ratio.dtype == torch.float64


# Outside the linear regime: the logistic functions of section 3, caution 2 ------------------------------------------


def logistic_ratios(w, margin, eps):
    """The measured ratio of ten thousand draws and the linear one; the attack and the noise checked in NumPy."""
    f, x, y = logistic(w, margin), torch.zeros(500, len(w), dtype=torch.double), torch.zeros(500, dtype=torch.long)
    adversarial, random, _ = measured(f, x, y, eps, draws=20)
    moves = [1 / (1 + math.exp(-margin - way * eps * w.abs().sum().item())) for way in (1, -1)]
    at_rest = 1 / (1 + math.exp(-margin))
    assert adversarial[0].item() == pytest.approx(max((move - at_rest) ** 2 for move in moves))

    noise = np.random.default_rng(0).uniform(-eps, eps, (10_000, len(w))) @ w.numpy()
    changes = (1 / (1 + np.exp(-margin - noise)) - at_rest) ** 2
    value, error = random.value.mean().item(), random.value.std().item() / 500**0.5
    assert abs(value - changes.mean()) < 5 * math.hypot(error, changes.std() / 100)
    return adversarial[0].item() / value, theory.linear_ratio(theory.true_class_gradient(f, x[:1], y[:1])).item()


def test_the_lower_bound_fails_where_f_is_steep():
    w = torch.zeros(200, dtype=torch.double)
    w[:53] = 10 * torch.randn(53, generator=seeded(), dtype=torch.double)
    ratio, linear_ratio = logistic_ratios(w, 0.0, 0.1)
    assert 90 < linear_ratio < 3 * 53
    assert 1 < ratio < 2.5


def test_the_upper_bound_fails_where_f_saturates():
    w = 0.6 * torch.randn(200, generator=seeded(), dtype=torch.double)
    ratio, linear_ratio = logistic_ratios(w, 4.0, 0.1)
    assert 300 < linear_ratio < 3 * 200
    assert ratio > 10 * 3 * 200


@pytest.mark.parametrize("margin", [0.0, 4.0])
def test_both_bounds_hold_again_where_the_ball_is_small(margin):
    w = torch.randn(200, generator=seeded(), dtype=torch.double)
    ratio, linear_ratio = logistic_ratios(w, margin, 1e-5)
    assert ratio == pytest.approx(linear_ratio, rel=0.1)


# Finite differences -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [0.125, 1.0, 64.0])
@pytest.mark.parametrize("scheme", ["forward", "backward", "central"])
def test_quotient_is_exact_on_a_linear_function(scheme, h):
    # integers over a power of two, so that the quotient has no rounding either; f's third class is flat in x₂
    W = torch.tensor([[3.0, -1, 2], [0, 5, -4], [-2, 1, 0]], dtype=torch.double)
    x = torch.tensor([[0.5, -0.25, 1], [2, 0, -1], [0.75, 1, 1]], dtype=torch.double)
    got = theory.finite_difference_l1(lambda x: x @ W.T, x, Y, h, scheme)
    assert got.tolist() == [6, 3, 9]


@pytest.mark.parametrize("scheme, error", [("forward", 0.5), ("backward", -0.5), ("central", 0.0)])
def test_leading_error_by_hand(scheme, error):
    # f = Σ aᵢxᵢ²/2 with x = (1, -2), a = (3, 1): g = (3, -2), d = (1, -1), dᵀ∇²f d = 4, so the error is ±(h/2)·4
    def f(x):
        return (torch.tensor([3.0, 1.0], dtype=torch.double) * x**2 / 2).sum(1, keepdim=True)

    x, h = torch.tensor([[1.0, -2.0]], dtype=torch.double), 0.25
    got = theory.finite_difference_l1(f, x, torch.tensor([0]), h, scheme)
    assert got.item() == pytest.approx(5 + error * h * 4)


@pytest.mark.parametrize("scheme, slope", [("forward", 4.75), ("backward", 1.75), ("central", 3.25)])
def test_quotients_of_a_cube_by_hand(scheme, slope):
    # x³ at 1 with h = ½: (3.375 - 1)/h, (1 - 0.125)/h, (3.375 - 0.125)/2h
    got = theory.finite_difference_l1(lambda x: x**3, torch.tensor([[1.0]]), torch.tensor([0]), 0.5, scheme)
    assert got.item() == slope


@pytest.mark.parametrize("scheme, factor", [("forward", 2), ("backward", 2), ("central", 4)])
def test_order_of_the_error(scheme, factor):
    f = smooth_network()
    exact = theory.l1(theory.true_class_gradient(f, X, Y))
    coarse, fine = (theory.finite_difference_l1(f, X, Y, h, scheme) - exact for h in (2e-3, 1e-3))
    assert (coarse.abs() > 1e-12).all()
    torch.testing.assert_close(coarse / fine, torch.full_like(fine, factor), rtol=0.02, atol=0)


def test_forward_is_the_default_and_steps_towards_the_true_class():
    f = smooth_network()
    d = theory.true_class_gradient(f, X, Y).sign()
    rise = (f(X + 0.01 * d) - f(X))[range(3), Y]
    assert (rise > 0).all()
    torch.testing.assert_close(theory.finite_difference_l1(f, X, Y, 0.01), rise.detach() / 0.01)


def test_the_points_are_not_clamped():
    x = torch.tensor([[0.0, 1.0]])
    got = theory.finite_difference_l1(lambda x: x.sum(1, keepdim=True), x, torch.tensor([0]), 1.0)
    assert got.item() == 2  # clamped to [0, 1] the second pixel could not move


def test_true_class_gradient_against_autograd():
    f, x = smooth_network(), X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(sum(f(x)[i, y] for i, y in enumerate(Y)), x)
    got = theory.true_class_gradient(f, X, Y)
    assert torch.equal(got, expected) and not got.requires_grad


def test_a_flat_function_has_no_slope():
    got = theory.finite_difference_l1(lambda x: 0 * x + 0.5, torch.ones(2, 3), torch.tensor([0, 1]), 0.1)
    assert got.tolist() == [0, 0]


def test_a_spiking_network_enters_like_any_other():
    f, images, y = theory.probabilities(spiking_network()), torch.rand(4, 1, 6, 6), torch.tensor([0, 1, 2, 0])
    g = theory.true_class_gradient(f, images, y)
    got = theory.finite_difference_l1(f, images, y, 0.01, "central")
    assert g.shape == images.shape and got.shape == (4,) and not got.requires_grad and got.isfinite().all()


def test_the_gradient_of_a_smoothed_network_is_its_slope():
    # not so of a spiking one: with steps this small next to no spike changes
    network = spiking_network(rule=rules.sigmoid()).double()
    f, y = theory.probabilities(network), torch.tensor([0, 1, 2, 0])
    images = torch.rand(4, 1, 6, 6, generator=seeded(), dtype=torch.double)
    with network.smoothed():
        slope = theory.finite_difference_l1(f, images, y, 1e-5, "central")
        torch.testing.assert_close(slope, theory.l1(theory.true_class_gradient(f, images, y)), rtol=1e-6, atol=1e-9)
    assert (theory.finite_difference_l1(f, images, y, 1e-5, "central") < 0.9 * slope).all()


@pytest.mark.parametrize("h", [0, -0.01, math.nan, math.inf, "0.01"])
def test_a_step_that_is_not_above_zero_is_refused(h):
    with pytest.raises(Refused, match="h is .* above 0"):
        theory.finite_difference_l1(lambda x: x, torch.ones(1, 2), torch.tensor([0]), h)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(Refused, match="'upwind'.*forward, backward, central"):
        theory.finite_difference_l1(lambda x: x, torch.ones(1, 2), torch.tensor([0]), 0.1, "upwind")


def test_many_quotients_are_the_single_ones():
    f = smooth_network()
    got = theory.finite_differences(f, X, Y, [1e-3, 0.1, 2], theory.true_class_gradient(f, X, Y).sign())
    assert list(got) == list(itertools.product([1e-3, 0.1, 2], ["forward", "backward", "central"]))
    for (h, scheme), quotient in got.items():
        assert torch.equal(quotient, theory.finite_difference_l1(f, X, Y, h, scheme))
        assert not quotient.requires_grad


@pytest.mark.parametrize(
    "schemes, along",
    [
        (["forward", "backward", "central"], [-1, -0.5, 0, 0.5, 1]),
        (["central"], [-1, -0.5, 0.5, 1]),
        (["forward"], [0, 0.5, 1]),
    ],
)
def test_no_point_is_visited_twice(schemes, along):
    recording, seen = recorded(smooth_network())
    direction = torch.ones_like(X)
    theory.finite_differences(recording, X, Y, [0.5, 1, 0.5], direction, schemes)
    assert sorted((point - X).mean().item() for point in seen) == pytest.approx(along)
    for point in seen:
        torch.testing.assert_close(point, X + (point - X).mean() * direction)


def test_quotients_along_another_direction():
    # f = x₁² + 3x₂ at (1, 0) along (1, -2): f(1 + h, -2h) = 1 + 2h + h² - 6h
    def f(x):
        return x[:, :1] ** 2 + 3 * x[:, 1:]

    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    got = theory.finite_differences(f, x, y, [0.5], torch.tensor([[1.0, -2.0]]))
    assert {scheme: value.item() for (_, scheme), value in got.items()} == {
        "forward": -3.5,
        "backward": -4.5,
        "central": -4,
    }


# Curvature ----------------------------------------------------------------------------------------------------------


def test_curvature_by_hand():
    # f = xᵀAx/2 at (1, 1): g = Ax = (1, -2), d = (1, -1), dᵀAd = 2 + 1 + 3; at (2, 1): g = (3, -3), the same d
    A = torch.tensor([[2.0, -1], [-1, -1]])
    x, y = torch.tensor([[1.0, 1], [2, 1], [-1, 0]]), torch.tensor([0, 0, 0])
    got = theory.curvature(lambda x: ((x @ A) * x).sum(1, keepdim=True) / 2, x, y)
    assert got.tolist() == [3, 3, 3]


def test_curvature_against_the_hessian():
    f = smooth_network()
    got = theory.curvature(f, X, Y)
    for b, y in enumerate(Y):
        H = torch.autograd.functional.hessian(lambda x, y=y: f(x[None])[0, y], X[b]).view(8, 8)
        d = theory.true_class_gradient(f, X[[b]], Y[[b]]).sign().view(8)
        assert got[b].item() == pytest.approx((d @ H @ d).item())
    assert (got.abs() > 1e-3).all()


def test_curvature_is_the_leading_error():
    f, h = smooth_network(), 1e-4
    exact = theory.l1(theory.true_class_gradient(f, X, Y))
    for scheme, way in (("forward", 0.5), ("backward", -0.5)):
        error = theory.finite_difference_l1(f, X, Y, h, scheme) - exact
        torch.testing.assert_close(error, way * h * theory.curvature(f, X, Y), rtol=1e-2, atol=1e-9)


def test_curvature_of_a_spiking_network_made_smooth():
    network = spiking_network(rule=rules.sigmoid()).double()
    f, y = theory.probabilities(network), torch.tensor([0, 1])
    images = torch.rand(2, 1, 6, 6, generator=seeded(), dtype=torch.double)
    with network.smoothed():
        got, d = theory.curvature(f, images, y), theory.true_class_gradient(f, images, y).sign()
        ahead, here, behind = (f(images + step * d)[range(2), y].detach() for step in (1e-3, 0, -1e-3))
    torch.testing.assert_close(got, (ahead - 2 * here + behind) / 1e-6, rtol=1e-3, atol=0)
    with network.reference_path():
        surrogate = theory.curvature(f, images, y)
    assert surrogate.isfinite().all() and not torch.allclose(surrogate, got)
    with pytest.raises(RuntimeError):
        theory.curvature(f, images, y)  # the fast path is differentiable once


def test_curvature_leaves_no_trace():
    f, x = smooth_network(), X.clone().requires_grad_()
    with torch.no_grad():
        got = theory.curvature(f, x, Y)
    assert not got.requires_grad and x.grad is None and torch.equal(got, theory.curvature(f, X, Y))
    assert all(parameter.grad is None for parameter in f.parameters())
