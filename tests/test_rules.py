"""Backward rules against formulas worked out by hand, numerical integrals and finite differences."""

import inspect
import math

import pytest
import snntorch as snn
import torch
from hypothesis import assume, given
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
WIDE = [name for name, make in rules.RULES.items() if inspect.signature(make).parameters]  # those that take a width


def at(rule, *u):
    return rule.derivative(torch.tensor(u, dtype=torch.double)).tolist()


def rate_at(tau, *mean):
    return rules.rate().slope(torch.tensor(mean, dtype=torch.double), tau).tolist()


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


def test_rectangle_by_hand():
    # 1/γ strictly inside ±γ/2: both edges belong to the outside
    assert at(rules.rectangle(), -3, -0.5, -0.4375, 0, 0.4375, 0.5, 1) == [0, 0, 1, 1, 1, 0, 0]
    assert at(rules.rectangle(0.5), -0.25, 0, 0.125, 0.25, 0.4) == [0, 2, 2, 0, 0]
    assert at(rules.rectangle(4.0), -2, -1.75, 0, 1.75) == [0, 0.25, 0.25, 0.25]


def test_exponential_by_hand():
    # γ = 1: ½ at 0 and half of that at ±ln 2;  γ = 0.5: exp(-2|u|)
    assert at(rules.exponential(), 0, math.log(2), -math.log(2)) == pytest.approx([0.5, 0.25, 0.25])
    assert at(rules.exponential(0.5), 0, math.log(2), -math.log(3)) == pytest.approx([1, 1 / 4, 1 / 9])
    assert at(rules.exponential(), 1e6, -1e6) == [0, 0]


def test_straight_through_by_hand():
    assert at(rules.straight_through(), -1e6, -0.5, 0, 0.1, 7) == [1, 1, 1, 1, 1]


def test_rate_by_hand_without_leak():
    # τ = 1: (0.8 + 0.2)/2 on [0, 2], and 0.2 more on [0, 0]
    assert rate_at(1.0, -1e-9, 0, 1e-9, 1, 2, 2 + 1e-9, -5, 5) == pytest.approx([0, 0.7, 0.5, 0.5, 0.5, 0, 0, 0])
    assert rate_at(1.0, -0.0) == pytest.approx([0.7])


def test_rate_by_hand_with_leak():
    # τ = 0.5: 0.9/1.5 = 0.6 on [0.5, 2] and 0.2 on [0, 0.5]: 0.8 where they meet
    mean = [-0.1, 0, 0.25, 0.5 - 1e-9, 0.5, 0.5 + 1e-9, 1, 2, 2.1]
    assert rate_at(0.5, *mean) == pytest.approx([0, 0.2, 0.2, 0.2, 0.8, 0.6, 0.6, 0.6, 0])


def test_rate_by_hand_without_memory():
    # τ = 0: 0.8 on [1, 2] and 0.2 on [0, 1]
    assert rate_at(0.0, -0.1, 0, 0.5, 1, 1.5, 2, 2.5) == pytest.approx([0, 0.2, 0.2, 1, 0.8, 0.8, 0])


@pytest.mark.parametrize("tau", [0.0, 0.25, 0.5, 0.75, 0.9, 1.0])
def test_the_rate_map_rises_by_its_slopes(tau):
    # 0.2 on a stretch of 1 - τ, (0.8 + 0.2τ)/(1 + τ) on one of 1 + τ: together 0.2 - 0.2τ + 0.8 + 0.2τ = 1
    x = torch.linspace(-1, 3, 400_002, dtype=torch.double)
    assert torch.trapezoid(rules.rate().slope(x, tau), x).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", STEPS)
def test_a_rule_is_the_derivative_of_a_unit_step(name):
    rule, tallest = STEPS[name]
    u = torch.linspace(-200, 200, 400_001, dtype=torch.double)
    slope = rule.derivative(u)
    # outside ±200 the atan rule still holds 2/(π·πγ/2·200); a jump costs the sum a point, a kink a point squared
    error = {"atan": 2e-3, "rectangle": 3e-3, "exponential": 2e-6}.get(rule.name, 1e-9)
    assert torch.trapezoid(slope, u).item() == pytest.approx(1, abs=error)
    assert (slope >= 0).all() and slope[200_000] == slope.max()
    assert torch.allclose(slope, slope.flip(0))  # even in u
    assert (slope[200_000:].diff() <= 0).all()  # and falling
    assert slope.max().item() == pytest.approx(tallest)


@pytest.mark.parametrize("name", SMOOTH)
def test_a_rule_can_be_differentiated_once_more(name):
    u = torch.tensor([-1.7, -0.3, -0.1, 0.2, 0.45, 0.8, 1.4], dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(SMOOTH[name][0].derivative, u)


# Integrals ----------------------------------------------------------------------------------------------------------


def area_at(rule, *u):
    return rule.integral(torch.tensor(u, dtype=torch.double)).tolist()


def test_integrals_by_hand():
    # the triangle's halves are parabolas: (1 + u/γ)²/2 below the threshold, 1 - (1 - u/γ)²/2 above
    assert area_at(rules.triangle(), -2, -1, -0.5, 0, 0.25, 1, 3) == [0, 0, 0.125, 0.5, 0.71875, 1, 1]
    assert area_at(rules.triangle(0.5), -0.5, -0.25, 0, 0.125, 0.5) == [0, 0.125, 0.5, 0.71875, 1]
    assert area_at(rules.sigmoid(), math.log(3) / 4, -math.log(3) / 4) == pytest.approx([0.75, 0.25])  # σ(±ln 3)
    assert area_at(rules.atan(), 1 / math.pi, -1 / math.pi) == pytest.approx([0.75, 0.25])  # atan 1 = π/4
    assert area_at(rules.rectangle(0.5), -1, -0.25, -0.125, 0, 0.125, 0.25, 1) == [0, 0, 0.25, 0.5, 0.75, 1, 1]
    assert area_at(rules.exponential(0.5), math.log(2) / -2, math.log(2) / 2) == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize("name", STEPS)
def test_an_integral_is_the_area_below_the_derivative(name):
    rule, tallest = STEPS[name]
    kinks = [k / tallest for k in (-1, -0.5, 0.5, 1)]  # of those rules that have any
    for u in (-3.7, -1.0, -0.3, -0.01, 0.02, 0.15, 0.45, 1.2, 9.0):
        low, high = sorted((0, u))
        area, _ = quad(lambda v: at(rule, v)[0], low, high, points=[k for k in kinks if low < k < high] or None)
        assert area_at(rule, u) == pytest.approx([0.5 + math.copysign(area, u)], abs=1e-9)


@pytest.mark.parametrize("name", STEPS)
def test_an_integral_rises_from_zero_to_one(name):
    rule, _ = STEPS[name]
    assert area_at(rule, -math.inf, 0, math.inf) == [0, 0.5, 1]
    assert area_at(rule, -1e9, 1e9) == pytest.approx([0, 1], abs=1e-9)
    u = torch.linspace(-20, 20, 40_001, dtype=torch.double)
    area = rule.integral(u)
    assert (area.diff() >= 0).all() and area.min() >= 0 and area.max() <= 1
    torch.testing.assert_close(area + area.flip(0), torch.ones_like(u))  # its two sides are alike
    single = rule.integral(u.float())
    assert single.min() >= 0 and single.max() <= 1
    torch.testing.assert_close(single.double(), area, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", STEPS)
@given(u=st.floats(-4, 4))
def test_autograd_of_an_integral_is_the_derivative(name, u):
    rule, tallest = STEPS[name]
    kink = {"rectangle": 0.5 / tallest, "exponential": 0}.get(rule.name, math.inf)  # of the derivative
    assume(abs(abs(u) - kink) > 1e-9)
    point = torch.tensor([u], dtype=torch.double, requires_grad=True)
    (slope,) = torch.autograd.grad(rule.integral(point), point)
    assert slope.tolist() == pytest.approx(at(rule, u), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", STEPS)
def test_at_the_threshold_the_slope_of_an_integral_is_the_rules_own(name):
    rule, tallest = STEPS[name]
    threshold = torch.zeros(1, dtype=torch.double, requires_grad=True)
    (slope,) = torch.autograd.grad(rule.integral(threshold), threshold)
    assert slope.item() == pytest.approx(tallest)


@pytest.mark.parametrize("name", SMOOTH)
def test_an_integral_can_be_differentiated_twice(name):
    u = torch.tensor([-1.7, -0.3, -0.1, 0.2, 0.45, 0.8, 1.4], dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradgradcheck(SMOOTH[name][0].integral, u)


def test_only_a_unit_step_has_an_integral():
    built = [rules.build(name) for name in rules.RULES]
    unit = {rule.name for rule, _ in STEPS.values()}
    assert {rule.name for rule in built if getattr(rule, "integral", None)} == unit
    assert rules.from_surrogate(snn.surrogate.atan()).integral is None


# What all share -----------------------------------------------------------------------------------------------------

EVERY = [*(rule for rule, _ in STEPS.values()), rules.straight_through(), rules.from_surrogate(snn.surrogate.atan())]


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
@pytest.mark.parametrize("rule", EVERY, ids=lambda rule: rule.name)
def test_a_rule_leaves_its_argument_alone(rule, dtype):
    u = torch.randn(2, 3, 4, dtype=dtype)
    before = u.clone()
    for function in (rule.derivative, rule.integral):
        if function is not None:
            value = function(u)
            assert torch.equal(u, before) and value.shape == u.shape and value.dtype == u.dtype


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_rate_leaves_its_argument_alone(dtype):
    mean = torch.randn(2, 3, 4, dtype=dtype)
    before = mean.clone()
    slope = rules.rate().slope(mean, 0.9)
    assert torch.equal(mean, before) and slope.shape == mean.shape and slope.dtype == dtype


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
    names = ["triangle", "sigmoid", "atan", "rectangle", "exponential", "straight-through", "rate", "assg", "pdsg"]
    assert [rules.build(name).name for name in names] == names == list(rules.RULES)
    assert at(rules.build("triangle", gamma=0.5), 0) == [2]
    assert at(rules.build("sigmoid", slope=8.0), 0) == [2]
    assert at(rules.build("rectangle", gamma=0.25), 0) == [4]
    assert at(rules.build("exponential", gamma=0.25), 0) == [2]


def test_only_the_triangle_says_that_it_is_one():
    # `half_width` sends the backward pass to C, which knows the triangle alone
    assert rules.triangle(0.3).half_width == 0.3
    assert [name for name in rules.RULES if getattr(rules.build(name), "half_width", None)] == ["triangle"]


@pytest.mark.parametrize("width", [0, -1.0, math.nan, math.inf, "1", None, True])
@pytest.mark.parametrize("name", WIDE)
def test_a_width_that_is_no_positive_number_is_refused(name, width):
    with pytest.raises(Refused, match=r"(gamma|slope|a) is .* above 0"):
        rules.RULES[name](width)
    (option,) = inspect.signature(rules.RULES[name]).parameters
    with pytest.raises(Refused, match=rf"{option} is .* above 0"):
        rules.build(name, **{option: width})


def test_unknown_rule_is_refused():
    with pytest.raises(Refused, match="'box'.*triangle, sigmoid, atan, rectangle, exponential, straight-through, rate"):
        rules.build("box")
    with pytest.raises(Refused, match="'straight_through'"):  # the function's name is not the rule's
        rules.build("straight_through")


@pytest.mark.parametrize(
    "name, options, takes",
    [
        ("triangle", {"slope": 1.0}, "gamma"),
        ("sigmoid", {"gamma": 1.0}, "slope"),
        ("atan", {"alpha": 2.0}, "gamma"),
        ("rectangle", {"gamma": 1.0, "width": 1.0}, "gamma"),
        ("exponential", {"slope": 1.0}, "gamma"),
        ("straight-through", {"gamma": 1.0}, r"\(\)"),
        ("rate", {"tau": 0.5}, r"\(\)"),  # τ is the neuron's
        ("assg", {"gamma": 2.0}, "a: float"),
        ("pdsg", {"sigma": 1.0}, r"\(\)"),
    ],
)
def test_an_option_that_a_rule_does_not_take_is_refused(name, options, takes):
    with pytest.raises(Refused, match=f"'{name}' cannot take .*{list(options)[-1]}.* It takes .*{takes}"):
        rules.build(name, **options)
