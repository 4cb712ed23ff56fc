"""The input gradient against hand-made and finite differences; the measures against formulas and their own laws."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import nn

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


# Measures -----------------------------------------------------------------------------------------------------------


@given(rows)
def test_measures_by_their_formulas(g):
    flat = g.numpy().reshape(len(g), -1)
    l1, squares = np.abs(flat).sum(1), (flat**2).sum(1)
    np.testing.assert_allclose(gradients.l1(g), l1)
    np.testing.assert_allclose(gradients.l2(g), np.sqrt(squares))
    np.testing.assert_array_equal(gradients.l0(g, 0), np.count_nonzero(flat, axis=1))
    np.testing.assert_allclose(gradients.participation_number(g), l1**2 / squares)
    if (root := flat.shape[1] ** 0.5) > 1:
        np.testing.assert_allclose(gradients.hoyer(g), (root - l1 / np.sqrt(squares)) / (root - 1), atol=1e-12)


@given(rows)
def test_gini_is_the_mean_absolute_difference(g):
    # relative to twice the mean: Σ_ij |a_i - a_j| / (2m Σ a) over the magnitudes a
    for row, index in zip(g.abs().flatten(1).tolist(), gradients.gini(g).tolist(), strict=True):
        differences = sum(abs(a - b) for a in row for b in row)
        assert index == pytest.approx(differences / (2 * len(row) * sum(row)), abs=1e-12)


@given(rows)
def test_participation_number_lies_between_one_and_l0(g):
    pn = gradients.participation_number(g)
    assert (pn >= 1 - 1e-12).all()
    assert (pn <= gradients.l0(g, 0).double() * (1 + 1e-12)).all()


@given(rows)
def test_hoyer_and_gini_lie_between_their_bounds(g):
    m, gini, hoyer = g[0].numel(), gradients.gini(g), gradients.hoyer(g)
    assert (gini >= -1e-12).all() and (gini <= 1 - 1 / m + 1e-12).all()
    assert hoyer.isnan().all() if m == 1 else (hoyer >= -1e-12).all() and (hoyer <= 1 + 1e-12).all()


@pytest.mark.parametrize("measure", SPARSITIES)
@given(rows, st.floats(1e-12, 1e12), st.randoms(use_true_random=False))
def test_sparsity_knows_neither_scale_nor_sign_nor_order(measure, g, scale, random):
    order = list(range(g[0].numel()))
    random.shuffle(order)
    signs = torch.tensor([random.choice([-1, 1]) for _ in order])
    changed = (g * scale).flatten(1)[:, order] * signs
    torch.testing.assert_close(measure(changed), measure(g), rtol=1e-9, atol=1e-12, equal_nan=True)


@given(rows, st.integers(1, 4))
def test_gini_of_copies_and_among_zeros(g, k):
    # k copies of each coordinate share alike; among k zeros 1 - gini shrinks to its part m/(m + k) of them all
    flat, gini = g.flatten(1), gradients.gini(g)
    m = flat.shape[1]
    torch.testing.assert_close(gradients.gini(flat.repeat(1, k)), gini, rtol=1e-9, atol=1e-12)
    among = gradients.gini(torch.cat([flat, flat.new_zeros(len(flat), k)], 1))
    torch.testing.assert_close(1 - among, (1 - gini) * m / (m + k), rtol=1e-9, atol=1e-12)


@given(rows.filter(lambda g: g[0].numel() > 1), st.floats(0.1, 0.5))
def test_what_the_largest_gives_the_smallest_makes_it_less_sparse(g, part):
    ordered = g.abs().flatten(1).sort(1).values
    gift = part * (ordered[:, -1] - ordered[:, 0])  # half the difference at most, so that neither overtakes the other
    shared = ordered.clone()
    shared[:, 0] += gift
    shared[:, -1] -= gift
    unequal = gift > 1e-3 * ordered[:, -1]
    assert (gradients.participation_number(shared) > gradients.participation_number(ordered))[unequal].all()
    assert (gradients.hoyer(shared) < gradients.hoyer(ordered))[unequal].all()
    assert (gradients.gini(shared) < gradients.gini(ordered))[unequal].all()


def test_participation_number_by_hand():
    # (3, -4): 49/25; one coordinate: 1; five equal ones: 5; (2, 1, 1): 16/6
    g = torch.tensor([[3.0, -4, 0, 0, 0], [0, 0, -7, 0, 0], [2, -2, 2, 2, -2], [2, 1, 1, 0, 0]])
    assert gradients.participation_number(g).tolist() == pytest.approx([1.96, 1, 5, 8 / 3])


def test_hoyer_by_hand():
    # √m = 2: (2 - 7/5)/(2 - 1); one coordinate: 1; four equal ones: 0; (1, 1): 2 - √2; (2, 1, 1): 2 - 4/√6
    g = torch.tensor([[3.0, -4, 0, 0], [0, 0, -7, 0], [2, -2, 2, -2], [0, 1, 0, -1], [2, 1, 1, 0]])
    assert gradients.hoyer(g).tolist() == pytest.approx([0.6, 1, 0, 2 - 2**0.5, 2 - 4 / 6**0.5], abs=1e-6)


def test_gini_by_hand():
    # (3, -4): 1 - 2·(3/7·1.5/4 + 4/7·0.5/4) = 15/28; one coordinate: 1 - 1/4; four equal ones: 0; (1, 1): 1/2;
    # (2, 1, 1): 1 - 2·(1/4·2.5/4 + 1/4·1.5/4 + 2/4·0.5/4) = 3/8; (4, 3, 2, 1): 1/4
    g = torch.tensor([[3.0, -4, 0, 0], [0, 0, -7, 0], [2, -2, 2, -2], [0, 1, 0, -1], [2, 1, 1, 0], [3, -1, 4, 2]])
    assert gradients.gini(g).tolist() == pytest.approx([15 / 28, 3 / 4, 0, 1 / 2, 3 / 8, 1 / 4], abs=1e-6)


def test_a_single_coordinate():
    g = torch.tensor([[[3.0]], [[-1e-30]]])
    assert gradients.participation_number(g).tolist() == [1, 1] and gradients.gini(g).tolist() == [0, 0]
    assert gradients.hoyer(g).isnan().all()  # it is all and one at once


@pytest.mark.parametrize("scale", [1e-45, 1e-30, 1e-20, 1e20, 1e38])
def test_extreme_gradients_keep_their_sparsity(scale):
    # in float32 the squares of 1e-30 are 0, those of 1e20 and the sum of twelve 1e38 infinite
    g = torch.full((3, 3, 4), scale)
    g[1, 1:] = 0
    g[2] *= torch.tensor([1.0, 1, 2, 3])
    assert gradients.participation_number(g).tolist() == pytest.approx([12, 4, 21**2 / 45])
    root = 12**0.5
    assert gradients.hoyer(g).tolist() == pytest.approx(
        [0, (root - 2) / (root - 1), (root - 21 / 45**0.5) / (root - 1)], abs=1e-6
    )
    assert gradients.gini(g).tolist() == pytest.approx([0, 2 / 3, 1 / 4], abs=1e-6)


@pytest.mark.parametrize("measure", SPARSITIES)
def test_a_vanishing_gradient_is_nan_and_disturbs_no_other(measure):
    values = measure(torch.tensor([[0.0, 0.0], [1.0, -3.0], [0.0, -0.0]]))
    assert values.isnan().tolist() == [True, False, True]
    torch.testing.assert_close(values[1:2], measure(torch.tensor([[1.0, -3.0]])))


@pytest.mark.parametrize("measure", MEASURES)
def test_no_samples(measure):
    assert measure(torch.zeros(0, 3, 4)).shape == (0,)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_measure_leaves_its_gradient_alone(measure):
    g = torch.randn(4, 3, 2, 2)
    before = g.clone()
    assert measure(g).shape == (4,) and torch.equal(g, before)


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
        return network(x).softmax(1)[torch.arange(4), Y]

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
