"""The ratio theorem and the finite-difference proposition on functions where both can be worked out by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
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


# Finite differences -------------------------------------------------------------------------------------------------

Y = torch.tensor([0, 2, 1])
X = torch.linspace(-1, 1, 24, dtype=torch.double).view(3, 2, 2, 2)


def smooth_network():
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 3), nn.Softmax(1)
    return nn.Sequential(*layers).double()


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
    torch.manual_seed(0)
    network = networks.build("conv-4", in_channels=1, image_size=6, num_classes=3, T=2).eval()
    images = torch.rand(4, 1, 6, 6)

    def f(x):
        return network(x).softmax(1)

    y = torch.tensor([0, 1, 2, 0])
    g = theory.true_class_gradient(f, images, y)
    got = theory.finite_difference_l1(f, images, y, 0.01, "central")
    assert g.shape == images.shape and got.shape == (4,) and not got.requires_grad and got.isfinite().all()


@pytest.mark.parametrize("h", [0, -0.01, math.nan, math.inf, "0.01"])
def test_a_step_that_is_not_above_zero_is_refused(h):
    with pytest.raises(Refused, match="h is .* above 0"):
        theory.finite_difference_l1(lambda x: x, torch.ones(1, 2), torch.tensor([0]), h)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(Refused, match="'upwind'.*forward, backward, central"):
        theory.finite_difference_l1(lambda x: x, torch.ones(1, 2), torch.tensor([0]), 0.1, "upwind")
