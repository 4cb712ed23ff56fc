"""Norms and sparsities of gradients against their formulas and laws; the input gradient against finite differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import nn

from paperlib import theory
from paperlib.errors import Refused
from paperlib.theory import gradients

values = st.one_of(st.just(0.0), st.floats(-1e3, 1e3).filter(lambda v: abs(v) > 1e-3))
rows = (
    array_shapes(min_dims=2, max_dims=4, max_side=5)
    .flatmap(lambda shape: arrays(float, shape, elements=values))
    .filter(lambda g: np.abs(g).reshape(len(g), -1).any(axis=1).all())  # no row vanishes
    .map(torch.from_numpy)
)
SPARSITIES = [gradients.participation_number, gradients.hoyer, gradients.gini]
MEASURES = [gradients.l1, gradients.l2, *SPARSITIES]


# Norms and sparsities -----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(rows)
def test_norms_and_sparsities_by_their_formulas_and_bounds(g):
    flat = g.numpy().reshape(len(g), -1)
    l1, squares, m = np.abs(flat).sum(1), (flat**2).sum(1), flat.shape[1]
    np.testing.assert_allclose(gradients.l1(g), l1)
    np.testing.assert_allclose(gradients.l2(g), np.sqrt(squares))
    np.testing.assert_array_equal(gradients.l0(g, 0), np.count_nonzero(flat, axis=1))
    pn, hoyer, gini = (sparsity(g) for sparsity in SPARSITIES)
    np.testing.assert_allclose(pn, l1**2 / squares)
    assert (pn >= 1 - 1e-12).all() and (pn <= gradients.l0(g, 0).double() * (1 + 1e-12)).all()
    if m > 1:
        np.testing.assert_allclose(hoyer, (m**0.5 - l1 / np.sqrt(squares)) / (m**0.5 - 1), atol=1e-12)
        assert (hoyer >= -1e-12).all() and (hoyer <= 1 + 1e-12).all()
    else:
        assert hoyer.isnan().all()  # a single coordinate is all and one at once
    # Gini is the mean absolute difference relative to twice the mean: Σ_ij |a_i - a_j| / (2m Σ a)
    differences = np.abs(np.abs(flat)[:, :, None] - np.abs(flat)[:, None]).sum((1, 2))
    np.testing.assert_allclose(gini, differences / (2 * m * l1), atol=1e-12)
    assert (gini >= -1e-12).all() and (gini <= 1 - 1 / m + 1e-12).all()


@pytest.mark.parametrize("measure", SPARSITIES)
@settings(deadline=None)
@given(rows, st.floats(1e-12, 1e12), st.randoms(use_true_random=False))
def test_sparsity_knows_neither_scale_nor_sign_nor_order(measure, g, scale, random):
    order = list(range(g[0].numel()))
    random.shuffle(order)
    signs = torch.tensor([random.choice([-1, 1]) for _ in order])
    changed = (g * scale).flatten(1)[:, order] * signs
    torch.testing.assert_close(measure(changed), measure(g), rtol=1e-9, atol=1e-12, equal_nan=True)


def test_sparsities_by_hand():
    # √m = 2; (3, -4): 49/25, 2 - 7/5, 1 - 2·(3/7·1.5/4 + 4/7·0.5/4); one coordinate; four equal ones; (2, 1, 1): 16/6,
    # 2 - 4/√6, 1 - 2·(1/4·2.5/4 + 1/4·1.5/4 + 2/4·0.5/4)
    g = torch.tensor([[3.0, -4, 0, 0], [0, 0, -7, 0], [2, -2, 2, -2], [2, 1, 1, 0]])
    assert gradients.participation_number(g).tolist() == pytest.approx([1.96, 1, 4, 8 / 3])
    assert gradients.hoyer(g).tolist() == pytest.approx([0.6, 1, 0, 2 - 4 / 6**0.5], abs=1e-6)
    assert gradients.gini(g).tolist() == pytest.approx([15 / 28, 3 / 4, 0, 3 / 8], abs=1e-6)


@pytest.mark.parametrize("scale", [1e-45, 1e-30, 1e-20, 1e20, 1e38])
def test_extreme_gradients_keep_their_sparsity(scale):
    # in float32 the squares of 1e-30 are 0, those of 1e20 and the sum of twelve 1e38 infinite
    g, root = torch.full((3, 3, 4), scale), 12**0.5
    g[1, 1:] = 0
    g[2] *= torch.tensor([1.0, 1, 2, 3])
    assert gradients.participation_number(g).tolist() == pytest.approx([12, 4, 21**2 / 45])
    hoyer = [0, (root - 2) / (root - 1), (root - 21 / 45**0.5) / (root - 1)]
    assert gradients.hoyer(g).tolist() == pytest.approx(hoyer, abs=1e-6)
    assert gradients.gini(g).tolist() == pytest.approx([0, 2 / 3, 1 / 4], abs=1e-6)


@pytest.mark.parametrize("measure", SPARSITIES)
def test_a_vanishing_gradient_is_nan_and_disturbs_no_other(measure):
    result = measure(torch.tensor([[0.0, 0.0], [1.0, -3.0], [0.0, -0.0]]))
    assert result.isnan().tolist() == [True, False, True]
    torch.testing.assert_close(result[1:2], measure(torch.tensor([[1.0, -3.0]])))


@pytest.mark.parametrize("measure", MEASURES)
def test_a_measure_takes_no_samples_and_leaves_its_gradient_alone(measure):
    assert measure(torch.zeros(0, 3, 4)).shape == (0,)
    g = torch.randn(4, 3, 2, 2)
    before = g.clone()
    assert measure(g).shape == (4,) and torch.equal(g, before)


def test_l0_counts_strictly_above_its_threshold():
    g = torch.tensor([[0.5, -0.5, 0.25, 0.0], [1e-45, -0.75, 0.0, -0.0]])
    assert [gradients.l0(g, threshold).tolist() for threshold in (0, 0.25, 0.5)] == [[3, 2], [2, 1], [0, 1]]


@pytest.mark.parametrize("threshold", [-1e-9, float("nan"), float("inf"), None, "0"])
def test_a_threshold_that_is_no_magnitude_is_refused(threshold):
    with pytest.raises(Refused, match="threshold is .* of at least 0"):
        gradients.l0(torch.ones(1, 2), threshold)


# The gradient itself ------------------------------------------------------------------------------------------------

X = torch.linspace(-1, 1, 48, dtype=torch.double).view(4, 3, 2, 2)
Y = torch.tensor([0, 2, 1, 1])


def smooth():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.Tanh(), nn.Linear(7, 3), nn.Softmax(1)).double()


def test_the_true_class_gradient_against_finite_differences():
    f, h = smooth(), 1e-6
    g = theory.true_class_gradient(f, X, Y)
    assert g.shape == X.shape
    for i in range(12):
        step = torch.zeros(12, dtype=torch.double).index_fill(0, torch.tensor(i), h).view(3, 2, 2)
        expected = (f(X + step) - f(X - step))[range(4), Y] / (2 * h)
        torch.testing.assert_close(g.flatten(1)[:, i], expected, rtol=1e-6, atol=1e-9)


def test_the_input_gradient_leaves_no_trace():
    f, images = smooth(), X.clone().requires_grad_()
    with torch.no_grad():  # asked for or not, and whatever graph the images have
        g = gradients.input_gradient(lambda x: f(x)[:, 0], images * 1)
        again, plain = (gradients.input_gradient(lambda x: f(x)[:, 0], x) for x in (images, X))
    assert torch.equal(g, again) and torch.equal(g, plain) and not g.requires_grad and not X.requires_grad
    assert images.grad is None and images.requires_grad and torch.equal(images.detach(), X)
    assert all(p.grad is None and p.requires_grad for p in f.parameters())


def test_probabilities_are_the_softmax_in_sixty_four_bits():
    z = torch.tensor([[1.0, -2, 0.5], [500, 0, -500], [20, 0, -500]])
    expected = [[math.exp(v - max(row)) / sum(math.exp(u - max(row)) for u in row) for v in row] for row in z.tolist()]
    p = theory.probabilities(lambda x: x)(z)
    np.testing.assert_allclose(p, expected)
    # e^-20: float32 has no number between 1 - 6e-8 and 1
    assert z.softmax(1)[2, 0] == 1 and 1 - p[2, 0].item() == pytest.approx(math.exp(-20), rel=1e-6)


def test_the_margin_is_the_distance_to_the_best_of_the_other_classes():
    z, y = torch.tensor([[1.0, 4, 2], [3, 0, -1], [5, 5, 0]]), torch.tensor([1, 2, 0])
    assert gradients.margin(z, y).tolist() == [4 - 2, -1 - 3, 0]
