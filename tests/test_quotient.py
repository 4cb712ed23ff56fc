"""The finite-difference proposition and the curvature on functions where both can be worked out by hand."""

import itertools
import math

import pytest
import torch
from torch import nn

from paperlib import networks, theory
from paperlib.errors import Refused
from paperlib.networks import rules

SCHEMES = ["forward", "backward", "central"]
Y = torch.tensor([0, 2, 1])
X = torch.linspace(-1, 1, 24, dtype=torch.double).view(3, 2, 2, 2)


def smooth_network():
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 3), nn.Softmax(1)
    return nn.Sequential(*layers).double()


def spiking(name="conv-4"):
    """A spiking network, its f, and two images with their labels."""
    torch.manual_seed(0)
    network = (
        networks.build(name, in_channels=1, image_size=6, num_classes=3, T=2, rule=rules.sigmoid()).double().eval()
    )
    images = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    return network, theory.probabilities(network), images, torch.tensor([0, 1])


# Finite differences -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [0.125, 1.0, 64.0])  # at 64 a clamped point would show
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_quotient_is_exact_on_a_linear_function(scheme, h):
    # integers over a power of two, so that the quotient has no rounding either; the third class is flat in x₂
    W = torch.tensor([[3.0, -1, 2], [0, 5, -4], [-2, 1, 0]], dtype=torch.double)
    x = torch.tensor([[0.5, -0.25, 1], [2, 0, -1], [0.75, 1, 1]], dtype=torch.double)
    assert theory.finite_difference_l1(lambda x: x @ W.T, x, Y, h, scheme).tolist() == [6, 3, 9]
    assert theory.finite_difference_l1(lambda x: 0 * x + 0.5, x, Y, h, scheme).tolist() == [0, 0, 0]


@pytest.mark.parametrize("scheme, error", [("forward", 0.5), ("backward", -0.5), ("central", 0.0)])
def test_the_leading_error_by_hand(scheme, error):
    # f = Σ aᵢxᵢ²/2 with x = (1, -2), a = (3, 1): g = (3, -2), d = (1, -1), dᵀ∇²f d = 4, so the error is ±(h/2)·4
    def f(x):
        return (torch.tensor([3.0, 1.0], dtype=torch.double) * x**2 / 2).sum(1, keepdim=True)

    x, h = torch.tensor([[1.0, -2.0]], dtype=torch.double), 0.25
    result = theory.finite_difference_l1(f, x, torch.tensor([0]), h, scheme)
    assert result.item() == pytest.approx(5 + error * h * 4)


@pytest.mark.parametrize("scheme, factor", [("forward", 2), ("backward", 2), ("central", 4)])
def test_the_order_of_the_error(scheme, factor):
    f = smooth_network()
    exact = theory.l1(theory.true_class_gradient(f, X, Y))
    coarse, fine = (theory.finite_difference_l1(f, X, Y, h, scheme) - exact for h in (2e-3, 1e-3))
    assert (coarse.abs() > 1e-12).all()
    torch.testing.assert_close(coarse / fine, torch.full_like(fine, factor), rtol=0.02, atol=0)


def test_the_default_steps_forward_to_a_higher_probability():
    f = smooth_network()
    d = theory.true_class_gradient(f, X, Y).sign()
    rise = (f(X + 0.01 * d) - f(X))[range(3), Y].detach()
    assert (rise > 0).all()
    torch.testing.assert_close(theory.finite_difference_l1(f, X, Y, 0.01), rise / 0.01)


def test_many_quotients_are_the_single_ones():
    f = smooth_network()
    results = theory.finite_differences(f, X, Y, [1e-3, 0.1, 2], theory.true_class_gradient(f, X, Y).sign())
    assert list(results) == list(itertools.product([1e-3, 0.1, 2], SCHEMES))
    for (h, scheme), quotient in results.items():
        assert torch.equal(quotient, theory.finite_difference_l1(f, X, Y, h, scheme))
        assert not quotient.requires_grad


@pytest.mark.parametrize(
    "schemes, distances",
    [(SCHEMES, [-1, -0.5, 0, 0.5, 1]), (["central"], [-1, -0.5, 0.5, 1]), (["forward"], [0, 0.5, 1])],
)
def test_no_point_is_visited_twice(schemes, distances):
    f, seen, direction = smooth_network(), [], torch.ones_like(X)
    theory.finite_differences(lambda x: (seen.append(x), f(x))[1], X, Y, [0.5, 1, 0.5], direction, schemes)
    assert sorted((point - X).mean().item() for point in seen) == pytest.approx(distances)
    for point in seen:
        torch.testing.assert_close(point, X + (point - X).mean() * direction)


def test_quotients_along_another_direction():
    # f = x₁² + 3x₂ at (1, 0) along (1, -2): f(1 + h, -2h) = 1 + 2h + h² - 6h
    def f(x):
        return x[:, :1] ** 2 + 3 * x[:, 1:]

    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    results = theory.finite_differences(f, x, y, [0.5], torch.tensor([[1.0, -2.0]]))
    assert [results[0.5, scheme].item() for scheme in SCHEMES] == [-3.5, -4.5, -4]


@pytest.mark.parametrize("h", [0, -0.01, math.nan, math.inf, "0.01"])
def test_a_step_that_is_not_above_zero_is_refused(h):
    with pytest.raises(Refused, match="h is .* above 0"):
        theory.finite_difference_l1(lambda x: x, torch.ones(1, 2), torch.tensor([0]), h)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(Refused, match="'upwind'.*forward, backward, central"):
        theory.finite_difference_l1(lambda x: x, torch.ones(1, 2), torch.tensor([0]), 0.1, "upwind")


# Curvature ----------------------------------------------------------------------------------------------------------


def test_curvature_by_hand():
    # f = xᵀAx/2 at (1, 1): g = Ax = (1, -2), d = (1, -1), dᵀAd = 2 + 1 + 3 - 3; at (2, 1): g = (3, -3), the same d
    A = torch.tensor([[2.0, -1], [-1, -1]])
    x, y = torch.tensor([[1.0, 1], [2, 1], [-1, 0]]), torch.tensor([0, 0, 0])
    assert theory.curvature(lambda x: ((x @ A) * x).sum(1, keepdim=True) / 2, x, y).tolist() == [3, 3, 3]


def test_curvature_against_the_hessian_without_a_trace():
    f, x = smooth_network(), X.clone().requires_grad_()
    with torch.no_grad():
        result = theory.curvature(f, x, Y)
    for b, y in enumerate(Y):
        H = torch.autograd.functional.hessian(lambda x, y=y: f(x[None])[0, y], X[b]).view(8, 8)
        d = theory.true_class_gradient(f, X[[b]], Y[[b]]).sign().view(8)
        assert result[b].item() == pytest.approx((d @ H @ d).item())
    assert (result.abs() > 1e-3).all() and not result.requires_grad
    assert x.grad is None and all(parameter.grad is None for parameter in f.parameters())


@pytest.mark.parametrize("scheme, factor", [("forward", 0.5), ("backward", -0.5)])
def test_curvature_is_the_leading_error(scheme, factor):
    f, h = smooth_network(), 1e-4
    error = theory.finite_difference_l1(f, X, Y, h, scheme) - theory.l1(theory.true_class_gradient(f, X, Y))
    torch.testing.assert_close(error, factor * h * theory.curvature(f, X, Y), rtol=1e-2, atol=1e-9)


# Spiking networks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["conv-4", "wrn16"])
def test_the_gradient_of_a_smoothed_network_is_its_slope_and_that_of_a_spiking_one_is_not(name):
    network, f, images, y = spiking(name)
    with network.smoothed():
        slope = theory.finite_difference_l1(f, images, y, 1e-5, "central")
        torch.testing.assert_close(slope, theory.l1(theory.true_class_gradient(f, images, y)), rtol=1e-5, atol=1e-9)
    # with steps this small next to no spike changes
    assert (theory.finite_difference_l1(f, images, y, 1e-5, "central") < 0.9 * slope).all()


@pytest.mark.parametrize("name", ["conv-4", "wrn16"])
def test_curvature_of_a_smoothed_network_against_differences(name):
    network, f, images, y = spiking(name)
    with network.smoothed():
        result, d = theory.curvature(f, images, y), theory.true_class_gradient(f, images, y).sign()
        ahead, here, behind = (f(images + step * d)[range(2), y].detach() for step in (1e-4, 0, -1e-4))
    torch.testing.assert_close(result, (ahead - 2 * here + behind) / 1e-8, rtol=1e-3, atol=1e-5)
    with network.reference_path():
        surrogate = theory.curvature(f, images, y)
    assert surrogate.isfinite().all() and not torch.allclose(surrogate, result)
    with pytest.raises(RuntimeError):
        theory.curvature(f, images, y)  # the fast path is differentiable once
