"""The input gradient against hand-made and finite differences; the measures against formulas and their own laws."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import nn

from paperlib import gradients
from paperlib.errors import Refused

values = st.one_of(st.just(0.0), st.floats(-1e3, 1e3).filter(lambda v: abs(v) > 1e-3))
rows = (
    array_shapes(min_dims=2, max_dims=4, max_side=5)
    .flatmap(lambda shape: arrays(float, shape, elements=values))
    .filter(lambda g: np.abs(g).reshape(len(g), -1).any(axis=1).all())  # no row vanishes
    .map(torch.from_numpy)
)


# Measures -----------------------------------------------------------------------------------------------------------


@given(rows)
def test_measures_by_their_formulas(g):
    flat = g.numpy().reshape(len(g), -1)
    l1, squares = np.abs(flat).sum(1), (flat**2).sum(1)
    np.testing.assert_allclose(gradients.l1(g), l1)
    np.testing.assert_allclose(gradients.l2(g), np.sqrt(squares))
    np.testing.assert_array_equal(gradients.l0(g, 0), np.count_nonzero(flat, axis=1))
    np.testing.assert_allclose(gradients.participation_number(g), l1**2 / squares)


@given(rows)
def test_participation_number_lies_between_one_and_l0(g):
    pn = gradients.participation_number(g)
    assert (pn >= 1 - 1e-12).all()
    assert (pn <= gradients.l0(g, 0).double() * (1 + 1e-12)).all()


@given(rows, st.floats(1e-12, 1e12), st.sampled_from([-1, 1]), st.randoms(use_true_random=False))
def test_participation_number_knows_neither_scale_nor_order(g, scale, sign, random):
    order = list(range(g[0].numel()))
    random.shuffle(order)
    changed = (g * sign * scale).flatten(1)[:, order]
    torch.testing.assert_close(gradients.participation_number(changed), gradients.participation_number(g))


def test_participation_number_by_hand():
    # (3, -4): 49/25; one coordinate: 1; five equal ones: 5; (2, 1, 1): 16/6
    g = torch.tensor([[3.0, -4, 0, 0, 0], [0, 0, -7, 0, 0], [2, -2, 2, 2, -2], [2, 1, 1, 0, 0]])
    assert gradients.participation_number(g).tolist() == pytest.approx([1.96, 1, 5, 8 / 3])


@pytest.mark.parametrize("scale", [1e-45, 1e-30, 1e-20, 1e20, 1e38])
def test_extreme_gradients_keep_their_participation_number(scale):
    # in float32 the squares of 1e-30 are 0 and those of 1e20 infinite
    g = torch.full((2, 3, 4), scale)
    g[1, 1:] = 0
    assert gradients.participation_number(g).tolist() == pytest.approx([12, 4])


def test_a_vanishing_gradient_is_nan_and_disturbs_no_other():
    pn = gradients.participation_number(torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, -0.0]]))
    assert pn.isnan().tolist() == [True, False, True] and pn[1].item() == pytest.approx(2)


def test_l0_counts_strictly_above_its_threshold():
    g = torch.tensor([[0.5, -0.5, 0.25, 0.0], [1e-45, -0.75, 0.0, -0.0]])
    assert gradients.l0(g, 0).tolist() == [3, 2]
    assert gradients.l0(g, 0.25).tolist() == [2, 1]
    assert gradients.l0(g, 0.5).tolist() == [0, 1]


@pytest.mark.parametrize("threshold", [-1e-9, float("nan"), float("inf"), None, "0"])
def test_a_threshold_that_is_no_magnitude_is_refused(threshold):
    with pytest.raises(Refused, match="threshold is .* of at least 0"):
        gradients.l0(torch.ones(1, 2), threshold)


# The gradient itself ------------------------------------------------------------------------------------------------


def smooth():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.Tanh(), nn.Linear(7, 3)).double()


X = torch.linspace(-1, 1, 48, dtype=torch.double).view(4, 3, 2, 2)
Y = torch.tensor([0, 2, 1, 1])


def test_gradient_by_hand():
    # value = Σ x³ per sample: gradient 3x², each row its own
    g = gradients.input_gradient(lambda x: (x**3).flatten(1).sum(1), X)
    torch.testing.assert_close(g, 3 * X**2)


def test_gradient_against_finite_differences():
    network, h = smooth(), 1e-6

    def value(x):
        return gradients.true_probability(network, x, Y)

    g = gradients.input_gradient(value, X)
    assert g.shape == X.shape
    for i in range(12):
        step = torch.zeros(12, dtype=torch.double).index_fill(0, torch.tensor(i), h).view(3, 2, 2)
        torch.testing.assert_close(
            g.flatten(1)[:, i], (value(X + step) - value(X - step)) / (2 * h), rtol=1e-6, atol=1e-9
        )


def test_gradient_leaves_no_trace():
    network, images = smooth(), X.clone().requires_grad_()
    with torch.no_grad():  # asked for or not, and whatever the images' own graph
        g = gradients.input_gradient(lambda x: network(x)[:, 0], images * 1)
        own = gradients.input_gradient(lambda x: network(x)[:, 0], images)
    assert torch.equal(g, own) and not g.requires_grad
    assert images.grad is None and images.requires_grad and torch.equal(images.detach(), X)
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


def test_true_probability_is_the_softmax_at_the_label():
    logits = smooth()(X).detach().numpy()
    by_hand = [np.exp(z[y]) / np.exp(z).sum() for z, y in zip(logits, Y.tolist(), strict=True)]
    np.testing.assert_allclose(gradients.true_probability(smooth(), X, Y).detach(), by_hand)


def test_true_probability_of_large_logits_is_no_nan():
    p = gradients.true_probability(lambda x: x, torch.tensor([[500.0, 0.0], [-500.0, 500.0]]), torch.tensor([0, 0]))
    assert p.tolist() == [1, 0]
