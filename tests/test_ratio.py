"""The ratio theorem on functions where both vulnerabilities can be worked out by hand."""

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


def wavy():
    """A function of two pixels that is far from linear, and six samples to attack."""
    f = nn.Sequential(nn.Flatten(), nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 3), nn.Softmax(1)).double()
    generator = seeded(2)
    with torch.no_grad():
        for parameter in f.parameters():
            parameter.normal_(generator=generator)
    return f, torch.rand(6, 1, 1, 2, generator=seeded(9), dtype=torch.double), torch.arange(6) % 3


def linear(W):
    """The f of images of any shape whose classes have the rows of W as gradients."""
    return lambda x: x.flatten(1) @ W.T


def logistic(w, margin):
    """Two classes; the probability of the first is σ(margin + w·x)."""

    def f(x):
        rise = torch.sigmoid(margin + x.flatten(1) @ w)
        return torch.stack([rise, 1 - rise], 1)

    return f


def normal(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.double)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def recorded(f):
    """f, and the list of what it is called with."""
    seen = []

    def recording(x):
        seen.append(x.detach().clone())
        return f(x)

    return recording, seen


def measured(f, x, y, eps, *, draws=10, law="uniform", steps=10):
    """Adversarial vulnerability, random vulnerability, and their ratio."""
    random = theory.random_vulnerability(f, x, y, eps, draws, law, seeded())
    adversarial = theory.adversarial_vulnerability(f, x, y, eps, steps=steps)
    return adversarial, random, theory.measured_ratio(adversarial, random)


# To first order -----------------------------------------------------------------------------------------------------


@LAWS
@untimed
@given(g=gradients, scale=st.floats(1e-3, 1e3), sign=st.sampled_from([-1, 1]))
def test_a_linear_ratio_is_bounded_and_free_of_scale(law, g, scale, sign):
    ratio, (random, adversarial) = theory.linear_ratio(g, law), theory.linear_vulnerabilities(g, 0.1, law)
    constant = 1 / MOMENTS[law][0]
    assert (ratio >= constant * (1 - 1e-5)).all()
    assert (ratio <= constant * theory.l0(g, threshold=0) * (1 + 1e-5)).all()
    torch.testing.assert_close(ratio, adversarial / random)
    scaled = theory.linear_vulnerabilities(g * scale * sign, 0.1, law)
    torch.testing.assert_close(scaled, (random * scale**2, adversarial * scale**2), rtol=1e-4, atol=0)
    torch.testing.assert_close(theory.linear_ratio(g * scale * sign, law), ratio, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    "gradient, ratio",
    [
        ([3.0, -4.0], 3 * 49 / 25),
        ([1.0, 2, -2], 3 * 25 / 9),
        ([[[1.0, 2], [3, 4]], [[5, 6], [7, 8]]], 3 * 36**2 / 204),  # over the three axes of an image
        ([0, 0, -0.3, 0], 3),  # the lower bound
        ([0.2, -0.2, 0, 0.2], 9),  # the upper one, 3·‖g‖₀
    ],
)
def test_linear_ratios_by_hand(gradient, ratio):
    assert theory.linear_ratio(torch.tensor([gradient])).tolist() == pytest.approx([ratio])


def test_a_vanishing_gradient_has_no_ratio():
    assert theory.linear_ratio(torch.tensor([[0.0, 0.0], [0.0, 2.0]])).isnan().tolist() == [True, False]


@pytest.mark.parametrize("law, mean_square", [("uniform", 25 / 12), ("sign", 25 / 4), ("triangular", 25 / 24)])
def test_linear_vulnerabilities_by_hand(law, mean_square):
    # g = (3, -4), ε = ½: ε²·25 times E δ², and ε²·7²
    random, adversarial = theory.linear_vulnerabilities(torch.tensor([[[3.0], [-4.0]]]), 0.5, law)
    assert random.tolist() == pytest.approx([mean_square])
    assert adversarial.tolist() == pytest.approx([49 / 4])


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
    assert ups + int((drawn == -1).sum()) == 20_000 and scipy.stats.binomtest(ups, 20_000).pvalue > 1e-3
    assert theory.LAWS["sign"].second_moment == 1


@LAWS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coordinates_are_independent_and_of_the_type_of_the_images(law, dtype):
    drawn = theory.LAWS[law].draw(torch.full((20_000, 2, 2), 7.0, dtype=dtype), seeded())
    assert drawn.shape == (20_000, 2, 2) and drawn.dtype == dtype
    flat = drawn.flatten(1).double()
    products = flat.T @ flat / 20_000
    torch.testing.assert_close(products, MOMENTS[law][0] * torch.eye(4).double(), rtol=0, atol=5 / 20_000**0.5)


# Random vulnerability -----------------------------------------------------------------------------------------------


@LAWS
def test_monte_carlo_agrees_with_a_quadratic_closed_form(law):
    # f = Σ aᵢxᵢ² at 0, where no gradient tells anything: ε⁴·(Σ aᵢ²·E δ⁴ + Σ_{i≠j} aᵢaⱼ·(E δ²)²)
    a, eps = [1.0, -2, 3, 0.5], 0.7
    second, fourth = MOMENTS[law]
    expected = fourth * sum(p * p for p in a) + second**2 * sum(p * q for p, q in itertools.permutations(a, 2))
    f, x = linear(torch.tensor([a], dtype=torch.double)), torch.zeros(1, 4, dtype=torch.double)
    result = theory.random_vulnerability(lambda x: f(x.square()), x, torch.tensor([0]), eps, 4000, law, seeded())
    assert abs(result.value.item() - eps**4 * expected) <= 5 * result.error.item() + 1e-12  # all signs: equal squares
    assert result.error.item() < 0.05 * eps**4 * expected


@pytest.mark.parametrize("law", ["uniform", "triangular"])
def test_the_standard_error_covers(law):
    # 2000 samples that are one and the same, each with noise of its own, are 2000 repetitions
    w = torch.tensor([[1.0, -0.5, 2, 0.25, 0]], dtype=torch.double)
    truth = 0.2**2 * MOMENTS[law][0] * sum(v * v for v in w[0].tolist())
    x, y = torch.zeros(2000, 5, dtype=torch.double), torch.zeros(2000, dtype=torch.long)
    result = theory.random_vulnerability(linear(w), x, y, 0.2, 100, law, seeded())
    covered = ((result.value - truth).abs() < 1.96 * result.error).double().mean().item()
    assert 0.91 < covered < 0.97
    assert statistics.stdev(result.value.tolist()) == pytest.approx(result.error.mean().item(), rel=0.1)


def test_estimates_by_their_definitions():
    f = smooth_network()
    recording, seen = recorded(f)
    result = theory.random_vulnerability(recording, X, Y, 0.5, 7, generator=seeded())
    clean, *points = seen
    assert torch.equal(clean, X) and len(points) == 7
    for b, y in enumerate(Y):
        changes = [(f(point)[b, y].item() - f(X)[b, y].item()) ** 2 for point in points]
        assert result.value[b].item() == pytest.approx(statistics.mean(changes))
        assert result.error[b].item() == pytest.approx(statistics.stdev(changes) / 7**0.5)
        assert result.largest[b].item() == pytest.approx(max(changes))
    assert result.moved.tolist() == [1, 1, 1]
    noise = torch.stack(points) - X
    assert 0.45 < noise.max() <= 0.5 + 1e-12 and -0.45 > noise.min() >= -0.5 - 1e-12
    assert torch.stack(points).max() > X.max()  # not clamped
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(noise.flatten(0, 1), 2))


def test_the_share_that_moved():
    # a step at 0: from just below it, noise crosses it about every second time; from -1 it never does
    x, y = torch.tensor([[-1e-9], [-1.0]]), torch.tensor([0, 0])
    result = theory.random_vulnerability(lambda x: (x > 0).double(), x, y, 0.5, 400, generator=seeded())
    assert result.moved[0].item() == result.value[0].item() and 0.4 < result.moved[0] < 0.6
    assert [field[1].item() for field in result] == [0, 0, 0, 0]


@LAWS
def test_a_generator_decides_the_noise_and_without_one_torchs_does(law):
    def vulnerability(generator=None):
        return theory.random_vulnerability(smooth_network(), X, Y, 0.1, 5, law, generator).value

    first, again, other = (vulnerability(seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    f = smooth_network()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    theory.random_vulnerability(f, X, Y, 0.1, 5, law, seeded())
    theory.adversarial_vulnerability(f, X, Y, 0.1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(theory.random_vulnerability(f, X, Y, 0.1, 5, law).value, vulnerability(seeded(5)))


def test_noise_keeps_no_graph():
    f, modes = smooth_network(), []

    def watched(images):
        modes.append(torch.is_grad_enabled())
        return f(images)

    result = theory.random_vulnerability(watched, X.clone().requires_grad_(), Y, 0.1, 3)
    assert modes == [False] * 4 and not any(field.requires_grad for field in result)


# Adversarial vulnerability ------------------------------------------------------------------------------------------


def over_all_corners(f, x, y, eps):
    """max of (f_y(x + εδ) - f_y(x))² over δ in {-1, 1}^m, one sample and one corner at a time."""
    largest = []
    for image, label in zip(x, y, strict=True):
        clean, corners = f(image[None])[0, label].item(), itertools.product([-1.0, 1.0], repeat=image.numel())
        points = (image + eps * torch.tensor(corner).view(image.shape) for corner in corners)
        largest.append(max((f(point[None])[0, label].item() - clean) ** 2 for point in points))
    return torch.tensor(largest, dtype=torch.double)


@pytest.mark.parametrize("steps", [0, 1, 10])
def test_the_attack_is_exact_on_a_linear_function(steps):
    W = normal(3, 8)
    W[2, 3:] = 0
    result = theory.adversarial_vulnerability(linear(W), X, Y, 0.3, steps=steps)
    torch.testing.assert_close(result, over_all_corners(linear(W), X, Y, 0.3))
    torch.testing.assert_close(result, theory.linear_vulnerabilities(W[Y], 0.3)[1])


@pytest.mark.parametrize("margin", [-3.0, 0.0, 3.0])
def test_the_attack_is_exact_on_a_monotone_function(margin):
    # at 3 the attack must take f down and at -3 up, and a sample of the second class the other way round
    f, y = logistic(normal(8), margin), torch.tensor([0, 1, 0])
    torch.testing.assert_close(theory.adversarial_vulnerability(f, X, y, 0.8), over_all_corners(f, X, y, 0.8))


def best_on_a_grid(f, image, label, eps):
    """The largest squared change on 201×201 points of the box, climbed from there by SciPy."""

    def changes(deltas):
        with torch.no_grad():
            return (f(image + eps * deltas.view(-1, 1, 1, 2))[:, label] - f(image[None])[0, label]).square()

    side = torch.linspace(-1, 1, 201, dtype=torch.double)
    grid = torch.cartesian_prod(side, side)
    on_grid = changes(grid)
    climbed = scipy.optimize.minimize(
        lambda delta: -changes(torch.from_numpy(delta)).item(), grid[on_grid.argmax()].numpy(), bounds=[(-1, 1)] * 2
    )
    return max(on_grid.max().item(), -climbed.fun)


@pytest.mark.parametrize("eps", [0.1, 0.8])
def test_the_attack_claims_no_more_than_there_is(eps):
    f, x, y = wavy()
    best = torch.tensor([best_on_a_grid(f, image, label, eps) for image, label in zip(x, y, strict=True)])
    for steps in (0, 3, 30):
        result = theory.adversarial_vulnerability(f, x, y, eps, steps=steps)
        assert (result <= best * (1 + 1e-6)).all()
        assert (result >= best * 0.999).sum() >= 3


def test_the_attack_begins_with_the_better_corner_and_steps_only_add():
    f, x, y = wavy()
    corner = 0.8 * theory.true_class_gradient(f, x, y).sign()
    changes = [(f(x + side * corner) - f(x))[range(6), y].square().detach() for side in (1, -1)]
    results = torch.stack([theory.adversarial_vulnerability(f, x, y, 0.8, steps=steps) for steps in range(20)])
    torch.testing.assert_close(results[0], torch.maximum(*changes))
    assert (changes[0] > changes[1]).unique().tolist() == [False, True]
    assert (results.diff(dim=0) >= 0).all()
    assert (results[-1] > 1.2 * results[0]).any()  # on a function that is far from linear they are worth their time


def test_the_attack_stays_within_the_ball_by_the_step_sizes_of_frank_and_wolfe():
    f, x, y = wavy()
    recording, seen = recorded(f)
    theory.adversarial_vulnerability(recording, x, y, 0.8, steps=20)
    distances = (torch.stack(seen) - x).abs()
    assert 0.8 - 1e-12 < distances.max() <= 0.8 + 1e-12
    assert ((distances > 0.01) & (distances < 0.79)).any()  # between the corners as well
    # behind x, its gradient and the corner: 2/3 of the way to the next corner, which is on the same side or opposite
    turned = distances[3] < 0.79
    assert turned.any()
    torch.testing.assert_close(distances[3], torch.where(turned, 0.8 / 3, 0.8).double())


def test_the_points_of_a_search_by_hand():
    # f_y = -(x - 0.1)² at 0: from the corner 1 go 2/3 of the way to -1, then 2/4 of the way to 1, then 2/5 to -1
    recording, seen = recorded(lambda x: -(x - 0.1).square())
    x, y = torch.zeros(1, 1, dtype=torch.double), torch.tensor([0])
    theory.adversarial_vulnerability(recording, x, y, 1.0, steps=6)
    upwards = [float(point) for point in seen if not torch.equal(point, x)][:4]
    assert upwards == pytest.approx([1, 1 - 2 * 2 / 3, -1 / 3 + 4 / 3 * 2 / 4, 1 / 3 - 4 / 3 * 2 / 5])


def test_samples_are_attacked_one_by_one():
    f, x, y = wavy()
    alone = [theory.adversarial_vulnerability(f, x[[b]], y[[b]], 0.8) for b in range(6)]
    torch.testing.assert_close(theory.adversarial_vulnerability(f, x, y, 0.8), torch.cat(alone))


def test_the_attack_leaves_no_trace():
    f, x = smooth_network(), X.clone().requires_grad_()
    result = theory.adversarial_vulnerability(f, x, Y, 0.1, steps=2)
    with torch.no_grad():
        assert torch.equal(result, theory.adversarial_vulnerability(f, X, Y, 0.1, steps=2))
    assert not result.requires_grad and x.grad is None and torch.equal(x, X)
    assert all(parameter.grad is None for parameter in f.parameters())


@pytest.mark.parametrize(
    "options, sentence",
    [
        *((dict(eps=eps), "eps is .* of at least 0") for eps in (-1e-9, math.nan, math.inf, "0.1")),
        *((dict(draws=draws), "draws is .* whole number of at least 2") for draws in (1, 0, -2, 2.0, True)),
        *((dict(steps=steps), "steps is .* whole number of at least 0") for steps in (-1, 2.0, True)),
        (dict(law="gauss"), "no law of noise 'gauss'.*uniform, sign, triangular"),
    ],
)
def test_what_is_no_radius_draw_step_or_law_is_refused(options, sentence):
    f, g, eps, law = smooth_network(), torch.ones(1, 2), options.get("eps", 0.1), options.get("law", "uniform")
    calls = {
        "draws": lambda: theory.random_vulnerability(f, X, Y, eps, options.get("draws", 2), law),
        "steps": lambda: theory.adversarial_vulnerability(f, X, Y, eps, steps=options.get("steps", 2)),
        "eps": lambda: theory.linear_vulnerabilities(g, eps, law),
        "law": lambda: theory.linear_ratio(g, law),
    }
    takes = {"eps": ["draws", "steps", "eps"], "law": ["draws", "eps", "law"]}
    for name, call in calls.items():
        if name in takes.get(*options, [*options]):
            with pytest.raises(Refused, match=sentence):
                call()


# The ratio of measured vulnerabilities ------------------------------------------------------------------------------


def test_measured_ratios_by_hand():
    # nothing moved; the attack alone; both; a draw that outdid the attack; an attack that did nothing; a rounded mean
    means, largest = torch.tensor([0.0, 0, 0.5, 0.5, 0.25, 1 + 1e-6]), torch.tensor([0.0, 0, 1, 4, 1, 1])
    random = theory.RandomVulnerability(means, torch.zeros(6), largest, torch.ones(6))
    ratio = theory.measured_ratio(torch.tensor([0.0, 0.25, 3, 3, 0, 1]), random)
    assert ratio[0].isnan() and ratio[1:].tolist() == [math.inf, 6, 8, 4, 1]


@LAWS
def test_the_measured_ratio_of_a_linear_function_is_the_linear_one(law):
    W = normal(3, 8)
    _, random, ratio = measured(linear(W), X, Y, 0.3, draws=4000, law=law)
    error = ratio / theory.linear_ratio(W[Y], law) - 1
    assert (error.abs() < 5 * random.error / random.value).all()
    assert (random.error < 0.05 * random.value).all()


@pytest.mark.parametrize("scale", [2.0, -0.25, 1e-3])
def test_a_multiple_of_f_has_its_square_times_the_vulnerability(scale):
    f = smooth_network()
    adversarial, random, ratio = measured(f, X, Y, 0.5)
    scaled = measured(lambda x: scale * f(x), X, Y, 0.5)
    torch.testing.assert_close(scaled[0], adversarial * scale**2)
    torch.testing.assert_close(scaled[1][:3], tuple(field * scale**2 for field in random[:3]))
    torch.testing.assert_close(scaled[2], ratio)


@pytest.mark.parametrize(
    "f, eps", [(smooth_network(), 0), (lambda x: 0 * x.flatten(1) + 0.3, 0.5)], ids=["ε = 0", "flat"]
)
def test_where_nothing_changes_there_is_no_ratio(f, eps):
    adversarial, random, ratio = measured(f, X, Y, eps)
    assert [adversarial.tolist(), *(field.tolist() for field in random)] == [[0, 0, 0]] * 5
    assert ratio.isnan().all()


@pytest.mark.parametrize("kind", ["feed-forward", "spiking", "smoothed"])
def test_any_network_can_be_measured(kind):
    torch.manual_seed(0)
    if kind == "feed-forward":
        network = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 3))
    else:
        network = networks.build("conv-4", in_channels=1, image_size=6, num_classes=3, T=2).eval()
        network.neurons()[0].path = "smooth" if kind == "smoothed" else "fast"
    f, x, y = theory.probabilities(network), torch.rand(4, 1, 6, 6), torch.tensor([0, 1, 2, 0])
    adversarial, random, ratio = measured(f, x, y, 0.2, draws=20)
    corner = 0.2 * theory.true_class_gradient(f, x, y).sign()
    for delta in (corner, -corner):
        change = (network(x + delta).double().softmax(1) - network(x).double().softmax(1))[range(4), y]
        assert (adversarial >= change.square() * (1 - 1e-6)).all()
    assert (random.moved == 1).all() and (random.value < random.largest).all()
    assert ((ratio > 2) & ratio.isfinite()).all()
    assert adversarial.dtype == ratio.dtype == torch.float64


# Outside the linear regime: the logistic functions of section 3, caution 2 ------------------------------------------


def logistic_ratios(w, margin, eps):
    """The measured ratio of ten thousand draws and the linear one; attack and noise are checked in NumPy."""
    f, x, y = logistic(w, margin), torch.zeros(500, len(w), dtype=torch.double), torch.zeros(500, dtype=torch.long)
    adversarial, random, _ = measured(f, x, y, eps, draws=20)
    clean, *moves = (1 / (1 + math.exp(-margin - side * eps * w.abs().sum().item())) for side in (0, 1, -1))
    assert adversarial[0].item() == pytest.approx(max((move - clean) ** 2 for move in moves))

    noise = np.random.default_rng(0).uniform(-eps, eps, (10_000, len(w))) @ w.numpy()
    changes = (1 / (1 + np.exp(-margin - noise)) - clean) ** 2
    value, error = random.value.mean().item(), random.value.std().item() / 500**0.5
    assert abs(value - changes.mean()) < 5 * math.hypot(error, changes.std() / 100)
    return adversarial[0].item() / value, theory.linear_ratio(theory.true_class_gradient(f, x[:1], y[:1])).item()


def test_the_lower_bound_fails_where_f_is_steep():
    w = torch.zeros(200, dtype=torch.double)
    w[:53] = 10 * normal(53)
    ratio, linear_ratio = logistic_ratios(w, 0.0, 0.1)
    assert 90 < linear_ratio < 3 * 53 and 1 < ratio < 2.5


def test_the_upper_bound_fails_where_f_saturates():
    ratio, linear_ratio = logistic_ratios(0.6 * normal(200), 4.0, 0.1)
    assert 300 < linear_ratio < 3 * 200 and ratio > 10 * 3 * 200


@pytest.mark.parametrize("margin", [0.0, 4.0])
def test_both_bounds_hold_again_where_the_ball_is_small(margin):
    ratio, linear_ratio = logistic_ratios(normal(200), margin, 1e-5)
    assert ratio == pytest.approx(linear_ratio, rel=0.1)
