"""Backward rules against formulas worked out by hand, numerical integrals and finite differences."""

import math

import pytest
import snntorch as snn
import torch

from paperlib import rules
from paperlib.errors import Refused

ALL = [rules.triangle(), rules.triangle(0.5), rules.sigmoid(), rules.sigmoid(1.5), rules.atan(), rules.atan(3.0)]
TALLEST = [1.0, 2.0, 1.0, 0.375, 1.0, 1.5]  # at the threshold: 1/γ, k/4, γ/2


def at(rule, *u):
    return rule.derivative(torch.tensor(u, dtype=torch.double)).tolist()


def test_triangle_by_hand():
    # γ = 1: 1 - |u|;  γ = 0.5: (0.5 - |u|)/0.25;  γ = 2: (2 - |u|)/4
    assert at(rules.triangle(), -2, -1, -0.75, 0, 0.25, 1, 3) == [0, 0, 0.25, 1, 0.75, 0, 0]
    assert at(rules.triangle(0.5), -0.5, -0.25, 0, 0.375, 0.75) == [0, 1, 2, 0.5, 0]
    assert at(rules.triangle(2.0), -3, -1, 0, 1.5) == [0, 0.25, 0.5, 0.125]


def test_sigmoid_by_hand():
    # σ(ln 3) = 3/4, so at u = ±(ln 3)/k the slope is k·3/16
    assert at(rules.sigmoid(), 0, math.log(3) / 4, -math.log(3) / 4) == pytest.approx([1, 0.75, 0.75])
    assert at(rules.sigmoid(2.0), 0, math.log(3) / 2) == pytest.approx([0.5, 0.375])


def test_atan_by_hand():
    # γ = 2: 1/(1 + (πu)²);  γ = 1: ½/(1 + (πu/2)²)
    assert at(rules.atan(), 0, 1 / math.pi, -2 / math.pi) == pytest.approx([1, 0.5, 0.2])
    assert at(rules.atan(1.0), 0, 2 / math.pi) == pytest.approx([0.5, 0.25])


@pytest.mark.parametrize("rule, tallest", list(zip(ALL, TALLEST, strict=True)))
def test_a_rule_is_the_derivative_of_a_unit_step(rule, tallest):
    u = torch.linspace(-200, 200, 400_001, dtype=torch.double)
    slope = rule.derivative(u)
    tail = 2e-3 if rule.name == "atan" else 1e-9  # outside ±200 the atan rule still holds 2/(π·πγ/2·200)
    assert torch.trapezoid(slope, u).item() == pytest.approx(1, abs=tail)
    assert (slope >= 0).all() and slope.argmax() == 200_000
    assert torch.allclose(slope, slope.flip(0))  # even in u
    assert slope.max().item() == pytest.approx(tallest)


@pytest.mark.parametrize("rule", ALL)
def test_a_rule_can_be_differentiated_once_more(rule):
    u = torch.tensor([-1.7, -0.3, -0.1, 0.2, 0.45, 0.8, 1.4], dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(rule.derivative, u)


@pytest.mark.parametrize("rule", [*ALL, rules.from_surrogate(snn.surrogate.atan())])
def test_a_rule_leaves_its_argument_alone(rule):
    u = torch.randn(2, 3, 4, dtype=torch.double)
    before = u.clone()
    slope = rule.derivative(u)
    assert torch.equal(u, before) and slope.shape == u.shape and slope.dtype == u.dtype


@pytest.mark.parametrize(
    "surrogate, formula",
    [
        (snn.surrogate.atan(alpha=2.0), lambda u: 1 / (1 + (math.pi * u) ** 2)),
        (snn.surrogate.fast_sigmoid(slope=25), lambda u: 1 / (1 + 25 * u.abs()) ** 2),
        (snn.surrogate.custom_surrogate(lambda u, grad, spikes: grad * 3 * u**2), lambda u: 3 * u**2),
    ],
)
def test_rule_inside_an_snntorch_surrogate(surrogate, formula):
    u = torch.linspace(-1.5, 1.5, 31)
    with torch.no_grad():  # as inside the backward of the fused neuron
        assert torch.allclose(rules.from_surrogate(surrogate).derivative(u), formula(u))


def test_build_by_name():
    assert {name: rules.build(name).name for name in rules.RULES} == {n: n for n in ("triangle", "sigmoid", "atan")}
    assert at(rules.build("triangle", gamma=0.5), 0) == [2]
    assert at(rules.build("sigmoid", slope=8.0), 0) == [2]


@pytest.mark.parametrize("width", [0, -1.0, math.nan, math.inf, "1", None, True])
@pytest.mark.parametrize("make", rules.RULES.values())
def test_a_width_that_is_no_positive_number_is_refused(make, width):
    with pytest.raises(Refused, match=r"(gamma|slope) is .* above 0"):
        make(width)


def test_unknown_rule_is_refused():
    with pytest.raises(Refused, match="'box'.*triangle, sigmoid, atan"):
        rules.build("box")
