"""Backward rules against formulas by hand, numerical integrals and finite differences."""

import inspect
import math

import pytest
import snntorch as snn
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from paperlib.errors import Refused
from paperlib.networks import rules

SMOOTH = {  # each with its height at the threshold: k/4, γ/2, 1/γ, 1/(2γ)
    "sigmoid": (rules.sigmoid(), 1.0),
    "sigmoid 1.5": (rules.sigmoid(1.5), 0.375),
    "atan": (rules.atan(), 1.0),
    "atan 3": (rules.atan(3.0), 1.5),
    "triangle": (rules.triangle(), 1.0),
    "triangle 0.5": (rules.triangle(0.5), 2.0),
    "exponential": (rules.exponential(), 0.5),
    "exponential 0.25": (rules.exponential(0.25), 2.0),
}
STEPS = {**SMOOTH, "rectangle": (rules.rectangle(), 1.0), "rectangle 0.4": (rules.rectangle(0.4), 2.5)}
WIDTHS = {"triangle": "gamma", "sigmoid": "slope", "atan": "gamma", "rectangle": "gamma", "exponential": "gamma"}
NAMES = [*WIDTHS, "straight-through", "rate", "assg", "pdsg"]
LN2, LN3, PI = math.log(2), math.log(3), math.pi


def derivative(rule, *u):
    return rule.derivative(torch.tensor(u, dtype=torch.double)).tolist()


def integral(rule, *u):
    return rule.integral(torch.tensor(u, dtype=torch.double)).tolist()


@pytest.mark.parametrize(
    "rule, values",
    [
        # 1 - |u|, (0.5 - |u|)/0.25, (2 - |u|)/4
        (rules.triangle(), {-2: 0, -1: 0, -0.75: 0.25, 0: 1, 0.25: 0.75, 1: 0, 3: 0}),
        (rules.triangle(0.5), {-0.5: 0, -0.25: 1, 0: 2, 0.375: 0.5, 0.75: 0}),
        (rules.triangle(2.0), {-3: 0, -1: 0.25, 0: 0.5, 1.5: 0.125}),
        # σ(ln 3) = 3/4, so at u = ±(ln 3)/k the slope is k·3/16
        (rules.sigmoid(), {0: 1, LN3 / 4: 0.75, -LN3 / 4: 0.75}),
        (rules.sigmoid(2.0), {0: 0.5, LN3 / 2: 0.375}),
        # 1/(1 + (πu)²), ½/(1 + (πu/2)²)
        (rules.atan(), {0: 1, 1 / PI: 0.5, -2 / PI: 0.2}),
        (rules.atan(1.0), {0: 0.5, 2 / PI: 0.25}),
        # 1/γ strictly inside ±γ/2: both edges belong to the outside
        (rules.rectangle(), {-3: 0, -0.5: 0, -0.4375: 1, 0: 1, 0.4375: 1, 0.5: 0, 1: 0}),
        (rules.rectangle(0.5), {-0.25: 0, 0: 2, 0.125: 2, 0.25: 0, 0.4: 0}),
        # ½ at 0 and half of that at ±ln 2; exp(-2|u|)
        (rules.exponential(), {0: 0.5, LN2: 0.25, -LN2: 0.25, 1e6: 0, -1e6: 0}),
        (rules.exponential(0.5), {0: 1, LN2: 1 / 4, -LN3: 1 / 9}),
        (rules.straight_through(), dict.fromkeys([-1e6, -0.5, 0, 0.1, 7], 1)),
    ],
)
def test_derivatives_by_hand(rule, values):
    assert derivative(rule, *values) == pytest.approx(list(values.values()))


@pytest.mark.parametrize(
    "rule, values",
    [
        # (1 + u/γ)²/2 below the threshold, 1 - (1 - u/γ)²/2 above
        (rules.triangle(), {-2: 0, -1: 0, -0.5: 0.125, 0: 0.5, 0.25: 0.71875, 1: 1, 3: 1}),
        (rules.triangle(0.5), {-0.5: 0, -0.25: 0.125, 0: 0.5, 0.125: 0.71875, 0.5: 1}),
        (rules.sigmoid(), {LN3 / 4: 0.75, -LN3 / 4: 0.25}),  # σ(±ln 3)
        (rules.atan(), {1 / PI: 0.75, -1 / PI: 0.25}),  # atan 1 = π/4
        (rules.rectangle(0.5), {-1: 0, -0.25: 0, -0.125: 0.25, 0: 0.5, 0.125: 0.75, 0.25: 1, 1: 1}),
        (rules.exponential(0.5), {LN2 / -2: 0.25, LN2 / 2: 0.75}),
    ],
)
def test_integrals_by_hand(rule, values):
    assert integral(rule, *values) == pytest.approx(list(values.values()))


@pytest.mark.parametrize(
    "tau, values",
    [
        # (0.8 + 0.2τ)/(1 + τ) on [1 - τ, 2] and 0.2 on [0, 1 - τ]; where they meet, the sum
        (1.0, {-5: 0, -1e-9: 0, -0.0: 0.7, 1e-9: 0.5, 1: 0.5, 2: 0.5, 2 + 1e-9: 0, 5: 0}),
        (0.5, {-0.1: 0, 0: 0.2, 0.25: 0.2, 0.5 - 1e-9: 0.2, 0.5: 0.8, 0.5 + 1e-9: 0.6, 1: 0.6, 2: 0.6, 2.1: 0}),
        (0.0, {-0.1: 0, 0: 0.2, 0.5: 0.2, 1: 1, 1.5: 0.8, 2: 0.8, 2.5: 0}),
    ],
)
def test_the_rate_rule_by_hand(tau, values):
    slopes = rules.rate().slope(torch.tensor([*values], dtype=torch.double), tau).tolist()
    assert slopes == pytest.approx(list(values.values()))


@pytest.mark.parametrize("tau", [0.0, 0.25, 0.5, 0.75, 0.9, 1.0])
def test_the_rate_map_rises_by_one(tau):
    # 0.2 on a stretch of 1 - τ, (0.8 + 0.2τ)/(1 + τ) on one of 1 + τ: together 0.2 - 0.2τ + 0.8 + 0.2τ = 1
    x = torch.linspace(-1, 3, 400_002, dtype=torch.double)
    assert torch.trapezoid(rules.rate().slope(x, tau), x).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", STEPS)
def test_a_derivative_is_even_falling_and_of_area_one(name):
    rule, height = STEPS[name]
    u = torch.linspace(-200, 200, 400_001, dtype=torch.double)
    slope = rule.derivative(u)
    # outside ±200 the atan rule still holds 2/(π·πγ/2·200); a jump costs the sum a point, a kink a point squared
    error = {"atan": 2e-3, "rectangle": 3e-3, "exponential": 2e-6}.get(rule.name, 1e-9)
    assert torch.trapezoid(slope, u).item() == pytest.approx(1, abs=error)
    assert (slope >= 0).all() and (slope[200_000:].diff() <= 0).all() and torch.allclose(slope, slope.flip(0))
    assert slope[200_000].item() == pytest.approx(height)


@pytest.mark.parametrize("name", STEPS)
def test_an_integral_is_the_area_below_the_derivative(name):
    rule, height = STEPS[name]
    kinks = [k / height for k in (-1, -0.5, 0.5, 1)]  # of those rules that have any
    for u in (-3.7, -1.0, -0.3, -0.01, 0.02, 0.15, 0.45, 1.2, 9.0):
        low, high = sorted((0, u))
        area, _ = quad(lambda v: derivative(rule, v)[0], low, high, points=[k for k in kinks if low < k < high] or None)
        assert integral(rule, u) == pytest.approx([0.5 + math.copysign(area, u)], abs=1e-9)


@pytest.mark.parametrize("name", STEPS)
def test_an_integral_rises_from_zero_to_one(name):
    rule, _ = STEPS[name]
    assert integral(rule, -math.inf, 0, math.inf) == [0, 0.5, 1]
    assert integral(rule, -1e9, 1e9) == pytest.approx([0, 1], abs=1e-9)
    u = torch.linspace(-20, 20, 40_001, dtype=torch.double)
    area, single = rule.integral(u), rule.integral(u.float())
    assert (area.diff() >= 0).all()
    torch.testing.assert_close(area + area.flip(0), torch.ones_like(u))  # its two sides are alike
    for values in (area, single):
        assert values.min() >= 0 and values.max() <= 1
    torch.testing.assert_close(single.double(), area, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", STEPS)
@settings(deadline=None)
@given(u=st.just(0.0) | st.floats(-4, 4))
def test_autograd_of_an_integral_is_the_derivative(name, u):
    rule, height = STEPS[name]
    kink = {"rectangle": 0.5 / height}.get(rule.name, math.inf)
    assume(abs(abs(u) - kink) > 1e-9)
    point = torch.tensor([u], dtype=torch.double, requires_grad=True)
    (slope,) = torch.autograd.grad(rule.integral(point), point)
    assert slope.tolist() == pytest.approx(derivative(rule, u), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", SMOOTH)
def test_a_derivative_and_its_integral_can_be_differentiated_further(name):
    u = torch.tensor([-1.7, -0.3, -0.1, 0.2, 0.45, 0.8, 1.4], dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(SMOOTH[name][0].derivative, u)
    assert torch.autograd.gradgradcheck(SMOOTH[name][0].integral, u)


def test_which_rules_have_an_integral_and_which_runs_in_c():
    built = [rules.build(name) for name in rules.RULES]
    assert {rule.name for rule in built if getattr(rule, "integral", None)} == WIDTHS.keys()
    assert rules.from_surrogate(snn.surrogate.atan()).integral is None
    # `half_width` sends the backward pass to C, which knows the triangle alone
    assert rules.triangle(0.3).half_width == 0.3
    assert [rule.name for rule in built if getattr(rule, "half_width", None)] == ["triangle"]


EVERY = [*(rule for rule, _ in STEPS.values()), rules.straight_through(), rules.from_surrogate(snn.surrogate.atan())]
FUNCTIONS = [*(r.derivative for r in EVERY), *(r.integral for r in EVERY if r.integral)]


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
@pytest.mark.parametrize("function", [*FUNCTIONS, lambda mean: rules.rate().slope(mean, 0.9)])
def test_a_rule_leaves_its_argument_alone(function, dtype):
    u = torch.randn(2, 3, 4, dtype=dtype)
    before = u.clone()
    value = function(u)
    assert torch.equal(u, before) and value.shape == u.shape and value.dtype == dtype


@pytest.mark.parametrize(
    "surrogate, formula",
    [
        (snn.surrogate.atan(alpha=2.0), lambda u: 1 / (1 + (PI * u) ** 2)),
        (snn.surrogate.fast_sigmoid(slope=25), lambda u: 1 / (1 + 25 * u.abs()) ** 2),
        (snn.surrogate.custom_surrogate(lambda u, grad, spikes: grad * 3 * u**2), lambda u: 3 * u**2),
    ],
)
def test_the_rule_of_an_snntorch_surrogate(surrogate, formula):
    u = torch.linspace(-1.5, 1.5, 31)
    with torch.no_grad():  # as inside the backward of the fused neuron
        assert torch.allclose(rules.from_surrogate(surrogate).derivative(u), formula(u))


# By name ------------------------------------------------------------------------------------------------------------


def test_rules_are_built_by_name_with_their_width():
    assert [rules.build(name).name for name in NAMES] == NAMES == list(rules.RULES)
    widths = {name: derivative(rules.build(name, **{option: 0.5}), 0)[0] for name, option in WIDTHS.items()}
    assert widths == {"triangle": 2, "sigmoid": 0.125, "atan": 0.25, "rectangle": 2, "exponential": 1}


@pytest.mark.parametrize("width", [0, -1.0, math.nan, math.inf, "1", None, True])
@pytest.mark.parametrize("name", [*WIDTHS, "assg"])
def test_a_width_that_is_no_positive_number_is_refused(name, width):
    (option,) = inspect.signature(rules.RULES[name]).parameters
    with pytest.raises(Refused, match=rf"{option} is .* above 0"):
        rules.build(name, **{option: width})


@pytest.mark.parametrize("name", ["box", "straight_through"])  # the name of the function is not that of the rule
def test_an_unknown_rule_is_refused(name):
    with pytest.raises(Refused, match=f"'{name}'.*triangle, sigmoid, atan, rectangle, exponential, straight-through"):
        rules.build(name)


@pytest.mark.parametrize(
    "name, options, takes",
    [
        ("triangle", {"slope": 1.0}, "gamma"),
        ("sigmoid", {"gamma": 1.0}, "slope"),
        ("rectangle", {"gamma": 1.0, "width": 1.0}, "gamma"),
        ("straight-through", {"gamma": 1.0}, r"\(\)"),
        ("rate", {"tau": 0.5}, r"\(\)"),  # τ is the neuron's
        ("assg", {"gamma": 2.0}, "a: float"),
        ("pdsg", {"sigma": 1.0}, r"\(\)"),
    ],
)
def test_an_option_that_a_rule_does_not_take_is_refused(name, options, takes):
    with pytest.raises(Refused, match=f"'{name}' cannot take .*{list(options)[-1]}.* It takes .*{takes}"):
        rules.build(name, **options)
