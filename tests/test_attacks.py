"""Attacks: torchattacks as the oracle, their ball under random inputs, and noise that belongs to its sample alone."""

import inspect
import json
import math
from dataclasses import asdict, replace

import pytest
import torch
import torchattacks
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from paperlib import attacks
from paperlib.attacks import protocols
from paperlib.attacks.attack import Attack
from paperlib.attacks.core import Asked, Ball, another, over_mean, round_noise, sign_noise, uniform_noise
from paperlib.attacks.ensembles import Ensemble, Transfer
from paperlib.attacks.gradient import mim
from paperlib.errors import Refused
from paperlib.store.experiment import Experiment
from paperlib.theory.gradients import in_batches, loss_gradient
from paperlib.training.loop import Schedule

EPS = 0.1
FIXED = ["fgsm", "rfgsm", "pgd", "mim"]  # steps of a length given beforehand, for every sample
ROUND = ["fgsm-l2", "pgd-l2", "mim-l2", "apgd-l2"]
IN_PIXELS = [name for name in attacks.ATTACKS if name not in attacks.FLIPS]  # those of events: test_attacks_events.py
EVERY = [*IN_PIXELS, *ROUND]
EACH = pytest.mark.parametrize("name", EVERY)
EACH_BY_NAME = pytest.mark.parametrize("name", IN_PIXELS)


@pytest.fixture
def batch(tiny):
    images, labels, _ = next(tiny.test.batches(40))
    return images.double(), labels


@pytest.fixture
def network(network):
    return network.double()


def attack(name, eps=EPS, **options):
    """The attack called `name` before any "-l2", with what it takes of `options` and of the small defaults here."""
    name, *norm = name.split("-")
    defaults = {"alpha": eps / 2, "steps": 2} if name == "rfgsm" else {"alpha": eps / 3, "steps": 4}
    options = defaults | {"queries": 6, "draws": 3} | options | ({"norm": norm[0]} if norm else {})
    takes = inspect.signature(attacks.ATTACKS[name]).parameters
    return attacks.Attack(name, eps, {option: value for option, value in options.items() if option in takes})


def run(name, network, images, labels, *, eps=EPS, bounds=(0, 1), seed=0, index=None, batch_size=None, **options):
    bound = attack(name, eps, **options).bind(seed=seed, index=index, batch_size=batch_size)
    return bound(network, images, labels, bounds=bounds)


def lengths(x):
    return x.flatten(1).norm(dim=1)


def slope(x):
    """Logits of two classes whose gradient is easy: raising a pixel speaks for class 1, more so further right."""
    z = (x * (1 + torch.arange(x.shape[-1]))).flatten(1).sum(1)
    return torch.stack([-z, z], dim=1)


# Against another library -------------------------------------------------------------------------------------------


def test_fgsm_equals_torchattacks(network, batch):
    ours = attacks.fgsm(network, *batch, eps=EPS, bounds=(0, 1))
    torch.testing.assert_close(ours, torchattacks.FGSM(network, eps=EPS)(*batch), rtol=0, atol=1e-12)
    assert not torch.equal(ours, batch[0])


@pytest.mark.parametrize(("alpha", "steps"), [(0.02, 10), (0.25, 3)])  # α < ε, and α > ε, where projection is all
def test_pgd_equals_torchattacks(network, batch, alpha, steps):
    ours = attacks.pgd(network, *batch, eps=EPS, alpha=alpha, steps=steps, bounds=(0, 1), random_start=False)
    theirs = torchattacks.PGD(network, eps=EPS, alpha=alpha, steps=steps, random_start=False)(*batch)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("alpha", "steps"), [(0.03, 10), (0.3, 3)])
def test_pgd_in_l2_equals_torchattacks(network, batch, alpha, steps):
    context = {"eps": EPS, "alpha": alpha, "steps": steps, "random_start": False}
    ours = attacks.pgd(network, *batch, bounds=(0, 1), norm="l2", **context)
    theirs = torchattacks.PGDL2(network, eps_for_division=1e-40, **context)(*batch)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert not torch.equal(ours, batch[0])


@pytest.mark.parametrize(("alpha", "steps"), [(0.02, 10), (0.25, 3)])
@pytest.mark.parametrize("mu", [1.0, 0.5, 0.0])
def test_mim_equals_torchattacks(network, batch, alpha, steps, mu):
    ours = mim(network, *batch, eps=EPS, alpha=alpha, steps=steps, bounds=(0, 1), mu=mu)
    theirs = torchattacks.MIFGSM(network, eps=EPS, alpha=alpha, steps=steps, decay=mu)(*batch)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 3])
def test_rfgsm_equals_torchattacks_where_their_step_is_ours_and_from_the_same_start(network, batch, steps, monkeypatch):
    # theirs starts α away and steps by α, ours by ε - α: the same at α = ε/2
    monkeypatch.setattr(torch, "randn_like", lambda x: 0.7 * sign_noise(x, 5, None))
    theirs = torchattacks.RFGSM(network, eps=EPS, alpha=EPS / 2, steps=steps)(*batch)
    ours = attacks.rfgsm(network, *batch, eps=EPS, alpha=EPS / 2, steps=steps, bounds=(0, 1), seed=5)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


# The attacks among themselves and by hand ------------------------------------------------------------------------


def test_pgd_with_one_full_step_is_fgsm(network, batch):
    one = attacks.pgd(network, *batch, eps=EPS, alpha=EPS, steps=1, bounds=(0, 1), random_start=False)
    assert torch.equal(one, attacks.fgsm(network, *batch, eps=EPS, bounds=(0, 1)))


def test_mim_without_momentum_is_pgd_and_with_it_is_not(network, batch):
    common = {"eps": EPS, "alpha": 0.02, "steps": 6, "bounds": (0, 1)}
    for norm in ("linf", "l2"):
        plain = attacks.pgd(network, *batch, random_start=False, norm=norm, **common)
        torch.testing.assert_close(mim(network, *batch, mu=0, norm=norm, **common), plain, rtol=0, atol=1e-12)
        assert not torch.allclose(mim(network, *batch, norm=norm, **common), plain)


def test_one_fgsm_step_by_hand():
    images, labels = torch.tensor([[[[0.0, 0.5, 0.95]]], [[[0.0, 0.5, 0.95]]]]), torch.tensor([0, 1])
    expected = torch.tensor([[[[0.1, 0.6, 1.0]]], [[[0.0, 0.4, 0.85]]]])
    torch.testing.assert_close(attacks.fgsm(slope, images, labels, eps=0.1, bounds=(0, 1)), expected)


def test_one_fgsm_step_in_l2_by_hand():
    # the gradient is along (1, 2, 3)/√14; in the second image the third pixel stops at its bound
    images, labels = torch.tensor([[[[0.0, 0.5, 0.6]]], [[[0.0, 0.5, 0.95]]]]), torch.tensor([0, 0])
    a = 0.1 / math.sqrt(14)
    expected = torch.tensor([[[[a, 0.5 + 2 * a, 0.6 + 3 * a]]], [[[a, 0.5 + 2 * a, 1.0]]]])
    torch.testing.assert_close(attacks.fgsm(slope, images, labels, eps=0.1, bounds=(0, 1), norm="l2"), expected)


def test_rfgsm_starts_at_a_corner_of_length_alpha_and_goes_the_rest():
    images, labels = torch.full((1, 1, 4, 8), 5.0, dtype=torch.float64), torch.tensor([0])
    x = attacks.rfgsm(slope, images, labels, eps=1, alpha=0.25, bounds=(0, 9))
    assert sorted((x - images).unique().tolist()) == [0.5, 1.0]  # -0.25 + 0.75 and 0.25 + 0.75


def test_pgd_starts_with_the_uniform_noise_of_its_seed(network, batch):
    context = {"seed": 3, "index": torch.arange(40) + 7}
    still = attacks.pgd(network, *batch, eps=EPS, alpha=0, steps=1, bounds=(0, 1), **context)
    assert torch.equal(still, run("uniform", network, *batch, **context))
    assert not torch.equal(still, batch[0])
    still = attacks.pgd(network, *batch, eps=EPS, alpha=0, steps=1, bounds=(0, 1), norm="l2", **context)
    assert torch.equal(still, (batch[0] + EPS * round_noise(batch[0], **context)).clamp(0, 1))


def test_an_attack_takes_any_callable_and_leaves_its_input_alone():
    images, labels = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 0])
    for name in EVERY:
        x = run(name, lambda x: slope(x).detach() + slope(x), images, labels)
        assert x.shape == images.shape
        assert not torch.equal(x, images)
        assert not x.requires_grad
    assert (images == 0.5).all()


@pytest.mark.parametrize("name", [*attacks.GRADIENT, *ROUND])
def test_gradient_attacks_raise_the_loss_and_leave_no_weight_gradients(network, batch, name):
    images, labels = batch
    clean, attacked = (cross_entropy(network(x), labels) for x in (images, run(name, network, images, labels)))
    assert attacked > clean + 0.1
    assert all(weight.grad is None for weight in network.parameters())


# The ball ----------------------------------------------------------------------------------------------------------


@st.composite
def cases(draw):
    """Images anywhere within bounds, many at the bounds themselves, and any radius up to twice their distance."""
    low, high = draw(st.sampled_from([(0, 1), (0, 7), (-1.5, 0.25)]))  # pixels, event counts, anything
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 2)), 2, draw(st.integers(1, 3)))
    unit = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1, width=32))
    values = draw(st.lists(unit, min_size=math.prod(shape), max_size=math.prod(shape)))
    images = (low + (high - low) * torch.tensor(values).view(shape)).clamp(low, high)
    labels = torch.tensor(draw(st.lists(st.integers(0, 1), min_size=shape[0], max_size=shape[0])))
    return images, labels, draw(st.floats(0, 2)) * (high - low), (low, high), draw(st.integers(0, 2**31))


@EACH
@given(case=cases(), part=st.floats(0, 1), steps=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_every_attack_stays_within_eps_and_bounds(name, case, part, steps):
    images, labels, eps, (low, high), seed = case
    alpha = part * eps if name == "rfgsm" else 3 * part * eps
    options = {"alpha": alpha, "steps": steps, "seed": seed, "batch_size": 2}
    x = run(name, slope, images, labels, eps=eps, bounds=(low, high), **options)
    assert x.shape == images.shape
    assert x.dtype == images.dtype
    assert (x >= low).all()
    assert (x <= high).all()
    size = lengths(x - images) if name in ROUND else (x - images).flatten(1).abs().amax(1)
    assert (size <= eps * (1 + 1e-5) + 1e-6 * (high - low)).all()


@EACH
def test_with_radius_zero_nothing_moves(network, batch, name):
    alpha = 0 if name == "rfgsm" else 0.1
    assert torch.equal(run(name, network, *batch, eps=0, alpha=alpha), batch[0])


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize(("low", "high"), [(0, 7), (-1.5, 0.25)])
def test_the_whole_range_between_the_bounds_is_used(name, low, high):
    images, labels = torch.full((2, 1, 4, 4), 0.2), torch.tensor([0, 1])  # the attack goes up, then down
    alpha = 1 if name == "rfgsm" else 9
    x = run(name, lambda x: slope(x) / 99, images, labels, eps=9, bounds=(low, high), alpha=alpha, steps=1)
    assert (x[0] == high).all()
    assert (x[1] == low).all()


@given(case=cases())
@settings(max_examples=60, deadline=None)
def test_projection_in_l2_moves_no_one_within_and_the_others_straight_towards_their_image(case):
    images, _, eps, (low, high), seed = case
    images = images.double()
    ball = Ball(images, eps, (-math.inf, math.inf), "l2")
    outside = images + (high - low) * uniform_noise(images, seed, None)
    x = ball.project(outside)
    for image, far, near in zip(images, outside, x, strict=True):
        reach = (far - image).norm()
        expected = far if reach <= eps else image + eps / reach * (far - image)
        torch.testing.assert_close(near, expected)
        assert reach > eps or torch.equal(near, far)
    clamped = Ball(images, eps, (low, high), "l2").project(outside)
    torch.testing.assert_close(clamped, x.clamp(low, high))


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e-42, 1e30])  # 1e-25² vanishes in 32 bits; 1e-42 is subnormal
def test_the_direction_has_length_1_whatever_the_gradients_scale(scale):
    gradient = scale * torch.tensor([[[3.0, 0.0]], [[0.0, -4.0]], [[0.0, 0.0]]])
    images = torch.zeros_like(gradient)
    assert Ball(images, 1, (0, 1), "linf").direction(gradient).tolist() == [[[1, 0]], [[0, -1]], [[0, 0]]]
    torch.testing.assert_close(lengths(Ball(images, 1, (0, 1), "l2").direction(gradient)), torch.tensor([1.0, 1, 0]))


def test_a_step_of_alpha_in_l2_is_that_long():
    images, labels = torch.rand(3, 1, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 0])
    x = attacks.pgd(slope, images, labels, eps=5, alpha=0.3, steps=2, bounds=(-9, 9), random_start=False, norm="l2")
    torch.testing.assert_close(lengths(x - images), torch.full((3,), 0.6, dtype=torch.float64))


def test_over_mean_by_hand():
    x = torch.tensor([[1.0, -3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert over_mean(x).tolist() == [[1, -3, 0, 0], [0, 0, 0, 0]]
    assert over_mean(x / 4).tolist() == over_mean(x).tolist()


# Stopping at the first success -------------------------------------------------------------------------------------


def test_until_broken_keeps_what_broke_a_sample_and_changes_nothing_for_the_others(network, batch):
    images, labels = batch
    common = {"eps": EPS, "alpha": 0.05, "steps": 6, "bounds": (0, 1), "seed": 1, "batch_size": 16}
    exhaustive = attacks.pgd(network, images, labels, **common)
    stopped = attacks.pgd(network, images, labels, until_broken=True, **common)
    stands, stood = (in_batches(network, x, 16).argmax(1) == labels for x in (stopped, exhaustive))
    # each iterate of the exhaustive run: alone it tells when a sample broke first, and what it looked like then
    start = run("uniform", network, images, labels, seed=1)
    iterates = [start] + [attacks.pgd(network, images, labels, **common | {"steps": n}) for n in range(1, 7)]
    broken = torch.stack([in_batches(network, x, 16).argmax(1) != labels for x in iterates])  # (7, B)
    first = torch.where(broken.any(0), broken.int().argmax(0), 6)
    expected = torch.stack(iterates)[first, torch.arange(len(labels))]
    assert torch.equal(stopped, expected)
    assert torch.equal(stands, ~broken.any(0))
    assert (stands <= stood).all()  # at least as strong
    assert torch.equal(stopped[stands], exhaustive[stands])
    assert stands.any() and (first == 0).any() and ((first > 0) & (first < 6)).any()  # every kind of sample was there


def test_until_broken_asks_no_more_when_all_are_broken():
    calls = []

    def network(x):
        calls.append(len(x))
        return slope(x)

    images, labels = torch.full((3, 1, 1, 1), 0.5), torch.zeros(3, dtype=torch.long)  # class 1 wins everywhere: broken
    x = attacks.pgd(network, images, labels, eps=0.1, alpha=0.1, steps=9, bounds=(0, 1), until_broken=True)
    assert calls == [3]
    assert torch.equal(x, run("uniform", network, images, labels))


# Ascending something else ------------------------------------------------------------------------------------------


def test_pgd_ascends_the_cross_entropy_unless_it_is_told_otherwise(network, batch):
    images, labels = batch
    common = {"eps": EPS, "alpha": 0.04, "steps": 4, "bounds": (0, 1), "seed": 1}

    def loss(logits, labels):
        return cross_entropy(logits, labels, reduction="none")

    expected = attacks.pgd(network, images, labels, **common)
    assert torch.equal(attacks.pgd(network, images, labels, ascend=loss, **common), expected)
    assert not torch.equal(attacks.pgd(network, images, labels, ascend=lambda z, y: z[:, 0], **common), expected)


def test_pgd_on_another_number_by_hand():
    # logits (-z, z), z = x₀ + 2x₁: of class 0 the cross-entropy grows with every pixel, and its logit falls
    images, labels = torch.tensor([[[[0.5, 0.5]]]]), torch.tensor([0])
    common = {"eps": 0.1, "alpha": 0.04, "steps": 5, "bounds": (0, 1), "random_start": False}
    up = attacks.pgd(slope, images, labels, **common)
    down = attacks.pgd(slope, images, labels, ascend=lambda z, y: z.gather(1, y[:, None]).squeeze(1), **common)
    torch.testing.assert_close(up.flatten(), torch.tensor([0.6, 0.6]))
    torch.testing.assert_close(down.flatten(), torch.tensor([0.4, 0.4]))


def test_pgd_ascends_each_samples_own_number_as_a_slow_loop_does(network, batch):
    images, labels = batch[0][:9], batch[1][:9]
    start, weights = run("uniform", network, images, labels, seed=3), torch.arange(1.0, 4.0, dtype=torch.double)

    def ascend(logits, labels):
        return ((logits * weights).sum(1) - labels).square()

    found = attacks.pgd(network, images, labels, eps=EPS, alpha=0.03, steps=3, bounds=(0, 1), seed=3, ascend=ascend)
    for i in range(9):
        x = start[i : i + 1]
        for _ in range(3):
            x = x.detach().requires_grad_()
            z = network(x)[0]
            ((z[0] + 2 * z[1] + 3 * z[2] - labels[i].item()) ** 2).backward(inputs=[x])
            x = (x.detach() + 0.03 * x.grad.sign()).clamp(images[i] - EPS, images[i] + EPS).clamp(0, 1)
        torch.testing.assert_close(found[i : i + 1], x, rtol=0, atol=1e-12)


def test_what_pgd_ascends_is_given_the_samples_still_moving(network, batch):
    images, labels = batch
    given, common = [], {"eps": EPS, "alpha": 0.05, "steps": 6, "bounds": (0, 1), "seed": 1}

    def loss(logits, labels):
        given.append((len(logits), labels.clone()))
        return cross_entropy(logits, labels, reduction="none")

    stopped = attacks.pgd(network, images, labels, until_broken=True, ascend=loss, **common)
    assert torch.equal(stopped, attacks.pgd(network, images, labels, until_broken=True, **common))
    sizes = [count for count, _ in given]
    assert sizes[0] == 40 and sizes == sorted(sizes, reverse=True) and 0 < sizes[-1] < 40
    assert all(len(of) == count for count, of in given)
    assert torch.equal(given[0][1], labels)
    assert (network(stopped).argmax(1) == labels).sum() <= sizes[-1]


# Noise ---------------------------------------------------------------------------------------------------------


@EACH
def test_a_sample_gets_the_same_perturbation_in_any_company(network, batch, name):
    (images, labels), index = batch, torch.arange(40) * 3 + 1000
    whole = run(name, network, images, labels, seed=2, index=index)
    some = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:13]
    part = run(name, network, images[some], labels[some], seed=2, index=index[some])
    torch.testing.assert_close(part, whole[some], rtol=0, atol=1e-12)


@pytest.mark.parametrize("noise", [uniform_noise, sign_noise, round_noise])
def test_noise_depends_on_seed_and_index_and_on_nothing_else(noise):
    images = torch.rand(4, 2, 5, 5)
    index = torch.tensor([9, 4, 9, 0])
    torch.manual_seed(1)
    draws = noise(images, 3, index)
    torch.manual_seed(2)
    assert torch.equal(noise(1 - images, 3, index), draws)
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(noise(images, 4, index)[0], draws[0])
    assert torch.equal(noise(images, 3, None), noise(images, 3, torch.arange(4)))
    assert noise(images.double(), 3, index).dtype == torch.float64


def test_another_draw_is_that_of_no_other_seed_or_sample():
    images, index = torch.zeros(4, 1, 1, 8), torch.arange(4)
    assert torch.equal(uniform_noise(images, another(3, 0), index), uniform_noise(images, 3, index))
    draws = [uniform_noise(images, another(seed, draw), index) for seed in range(4) for draw in range(4)]
    assert len(torch.cat(draws).unique(dim=0)) == 4**3


def test_uniform_noise_has_the_moments_of_its_law():
    images = torch.full((200, 1, 10, 10), 0.5, dtype=torch.float64)
    delta = run("uniform", slope, images, torch.zeros(200, dtype=torch.long)) - images
    # n = 20,000 draws of U[-ε, ε]: mean 0, variance ε²/3, fourth moment ε⁴/5; tolerances of four standard errors
    assert delta.mean().item() == pytest.approx(0, abs=4 * EPS / math.sqrt(3 * 20_000))
    assert delta.square().mean().item() == pytest.approx(EPS**2 / 3, abs=4 * EPS**2 * math.sqrt(4 / 45 / 20_000))
    assert delta.pow(4).mean().item() == pytest.approx(EPS**4 / 5, abs=4 * EPS**4 * math.sqrt(16 / 225 / 20_000))
    assert 0.999 * EPS < delta.abs().max() <= EPS
    neighbours = (delta[..., 1:] * delta[..., :-1]).mean().item()
    assert neighbours == pytest.approx(0, abs=4 * EPS**2 / 3 / math.sqrt(18_000))


@pytest.mark.parametrize("shape", [(1, 1, 2), (2, 3, 4)])
def test_round_noise_has_the_moments_of_its_law(shape):
    n, m = 5000, math.prod(shape)
    noise = round_noise(torch.zeros(n, *shape, dtype=torch.float64), 0, None).flatten(1)
    # the volume within radius r is r^m of the ball's: U[0, 1], of mean 1/2, variance 1/12 and fourth moment 1/80
    volume = noise.norm(dim=1).pow(m)
    assert volume.max() <= 1 + 1e-5
    assert volume.mean().item() == pytest.approx(1 / 2, abs=4 / math.sqrt(12 * n))
    assert (volume - 1 / 2).square().mean().item() == pytest.approx(1 / 12, abs=4 * math.sqrt(1 / 180 / n))
    # no direction is preferred: uniform in the ball, each coordinate has mean 0 and variance 1/(m + 2)
    assert noise.mean(0).abs().max() < 5 / math.sqrt((m + 2) * n)
    torch.testing.assert_close(
        noise.T @ noise / n, torch.eye(m).double() / (m + 2), rtol=0, atol=5 / (m * math.sqrt(n))
    )


def test_sign_noise_is_plus_or_minus_eps():
    images = torch.full((200, 1, 10, 10), 0.5, dtype=torch.float64)
    x = run("sign", slope, images, torch.zeros(200, dtype=torch.long), eps=0.25)
    assert x.unique().tolist() == [0.25, 0.75]
    assert (x > 0.5).double().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(20_000))


def test_noise_is_clamped_by_the_bounds_alone():
    images = torch.tensor([0.0, 0.5, 1.0]).repeat(100).view(100, 1, 1, 3)
    x = run("sign", slope, images, torch.zeros(100, dtype=torch.long), eps=0.25)
    assert [x[..., column].unique().tolist() for column in range(3)] == [[0.0, 0.25], [0.25, 0.75], [0.75, 1.0]]


# Fixed batches -----------------------------------------------------------------------------------------------------


def test_the_network_sees_batches_of_one_size_only():
    sizes = []

    def network(x):
        sizes.append(len(x))
        return slope(x)

    images, labels = torch.rand(7, 1, 2, 2), torch.tensor([0, 1, 0, 1, 0, 1, 0])
    logits, gradient = loss_gradient(network, images, labels, 3)
    assert torch.equal(in_batches(network, images, 3), logits)
    assert sizes == [3] * 6
    assert torch.equal(logits, slope(images))
    whole = loss_gradient(slope, images, labels, None)[1]
    assert gradient.shape == images.shape
    torch.testing.assert_close(gradient, whole)


def test_the_gradient_is_that_of_each_samples_own_loss():
    # CE of class 0 of two logits (-z, z) is log(1 + e^(2z)), so its gradient is 2·σ(2z)·(1, 2), z = x₀ + 2x₁
    images = torch.tensor([[[[0.1, 0.2]]], [[[0.3, 0.0]]]], dtype=torch.float64)
    _, gradient = loss_gradient(slope, images, torch.tensor([0, 0]), None)
    for row, z in zip(gradient, (0.5, 0.3), strict=True):
        assert row.flatten().tolist() == pytest.approx([2 / (1 + math.exp(-2 * z)), 4 / (1 + math.exp(-2 * z))])


def test_the_loss_may_be_another():
    # of the logit z = x₀ + 2x₁ of the own class alone, squared: gradient 2z·(1, 2), and -z of class 0 has the same
    images = torch.tensor([[[[0.1, 0.2]]], [[[0.3, 0.0]]]], dtype=torch.float64)
    labels = torch.tensor([1, 0])
    _, gradient = loss_gradient(slope, images, labels, 2, lambda z, y: z.gather(1, y[:, None]).squeeze(1).square())
    torch.testing.assert_close(gradient.flatten(1), torch.tensor([[1.0, 2.0], [0.6, 1.2]], dtype=torch.float64))


# By name -----------------------------------------------------------------------------------------------------------


def test_the_standard_attacks():
    pgd, rfgsm, sign = (attacks.standard(name, 0.1) for name in ("pgd", "rfgsm", "sign"))
    assert pgd.options == {"alpha": pytest.approx(0.0125), "steps": 20, "until_broken": True}
    assert attacks.standard("pgd", 0.2, steps=5).options["alpha"] == pytest.approx(0.1)
    assert rfgsm.options == {"alpha": 0.05}
    assert (pgd.title, rfgsm.title, sign.title) == ("PGD-20", "RFGSM", "sign noise")


NUMBERS, OTHERS = [-0.1, math.nan, math.inf], ["0.1", None, True]


@pytest.mark.parametrize("eps", NUMBERS + OTHERS)
@EACH_BY_NAME
def test_a_radius_that_is_no_length_is_refused(name, eps):
    with pytest.raises(Refused, match="^eps is .*; it must be a finite number of at least 0.$"):
        attacks.Attack(name, eps)


@pytest.mark.parametrize("eps", NUMBERS + OTHERS)
@EACH_BY_NAME
def test_the_standard_attacks_refuse_it_too(name, eps):
    with pytest.raises(Refused, match="^eps is"):
        attacks.standard(name, eps)


@pytest.mark.parametrize("eps", [-0.1, "0.1"])
@EACH
def test_the_functions_refuse_it_too(network, batch, name, eps):
    of = attack(name, 0)
    with pytest.raises(Refused, match="^eps is"):
        attacks.ATTACKS[of.name](network, *batch, eps=eps, bounds=(0, 1), **of.options)


def test_what_else_is_refused(network, batch):
    with pytest.raises(Refused, match="no attack 'gpd'. Allowed: uniform, sign, fgsm, rfgsm, pgd"):
        attacks.Attack("gpd", 0.1)
    with pytest.raises(Refused, match="alpha is 0.2; .*eps = 0.1"):
        attacks.rfgsm(network, *batch, eps=0.1, alpha=0.2, bounds=(0, 1))
    for alpha, steps, message in ((-1, 3, "alpha is -1"), (float("nan"), 3, "alpha is nan"), (0.1, 0, "steps is 0")):
        with pytest.raises(Refused, match=f"^{message}"):
            attacks.pgd(network, *batch, eps=0.1, alpha=alpha, steps=steps, bounds=(0, 1))
    for name in ("fgsm", "pgd", "mim"):
        with pytest.raises(Refused, match="^There is no norm 'l1'. Allowed: linf, l2.$"):
            attacks.ATTACKS[name](network, *batch, bounds=(0, 1), **attack(name, EPS).options, eps=EPS, norm="l1")
    for options, message in (
        ({"mu": -0.5}, "mu is -0.5"),
        ({"steps": 0}, "steps is 0"),
        ({"alpha": -1}, "alpha is -1"),
    ):
        with pytest.raises(Refused, match=f"^{message}"):
            run("mim", network, *batch, **options)
    with pytest.raises(TypeError, match="bounds"):  # they belong to the data: there is no default
        attacks.fgsm(network, *batch, eps=0.1)


# By name: titles, budgets, and the rule that an attack brings ---------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "rule", "title"),
    [
        ("uniform", {}, {}, "uniform noise"),
        ("sign", {}, {}, "sign noise"),
        ("fgsm", {}, {}, "FGSM"),
        ("fgsm", {"norm": "l2"}, {}, "FGSM in l2"),
        ("fgsm", {"eot": 10}, {"name": "rate"}, "FGSM EOT 10 rate"),
        ("rfgsm", {"alpha": 0.05}, {"name": "atan", "gamma": 2.0}, "RFGSM atan 2"),
        ("pgd", {"alpha": 0.01, "steps": 10}, {}, "PGD-10"),
        ("pgd", {"alpha": 0.01, "steps": 10, "eot": 1, "norm": "linf"}, {}, "PGD-10"),
        ("pgd", {"alpha": 0.01, "steps": 10}, {"name": "sigmoid", "slope": 4.0}, "PGD-10 sigmoid 4"),
        ("pgd", {"alpha": 0.01, "steps": 10}, {"name": "triangle", "gamma": 0.25}, "PGD-10 triangle 0.25"),
        ("pgd", {"alpha": 0.01, "steps": 10, "norm": "l2", "eot": 5}, {"name": "pdsg"}, "PGD-10 EOT 5 in l2 pdsg"),
        ("mim", {"alpha": 0.01, "steps": 7}, {}, "MIM-7"),
        ("apgd", {"steps": 20, "loss": "ce"}, {}, "APGD-CE-20"),
        ("apgd", {"steps": 20, "loss": "dlr", "restarts": 3}, {}, "APGD-DLR-20 ×3"),
        ("apgd", {"steps": 20, "restarts": 1}, {}, "APGD-20"),
        ("sa_pgd", {"steps": 9}, {"name": "assg"}, "SA-PGD-9 assg"),
        ("overwritten_eot", {"alpha": 0.01, "steps": 10, "draws": 4}, {}, "PGD-10 EOT 4 overwritten"),
        ("square", {"queries": 200}, {}, "Square-200"),
        ("random_search", {"draws": 50}, {}, "Random search-50"),
    ],
)
def test_titles(name, options, rule, title):
    assert Attack(name, 0.1, options, rule).title == title


def source(defense="vanilla", network="conv-2-4"):
    options = {"at": {"eps": 0.1, "alpha": 0.1, "steps": 1}}.get(defense, {})
    schedule = Schedule(epochs=1, batch_size=10, lr=0.1, momentum=0.9, weight_decay=0.0)
    return Experiment({"name": "tiny"}, network, 4, 1.0, "triangle", "float32", defense, options, schedule, 0)


def protocol(name):
    if name == "ladder":
        return protocols.ladder([4, 8], steps=5)
    if name == "released":
        return protocols.released([4, 8], [7, 10])
    if name == "widths":
        return protocols.widths(8, [0.25, 0.5, 1, 2], steps=5)
    if name == "black box":
        sources = [source(), source("at"), source(network="conv-8")]
        return protocols.black_box(8, sources=sources, steps=5, queries=20)
    if name == "expectations":
        return protocols.expectations(8, [2, 5], steps=5)
    return protocols.rungs(8, steps=5, gammas=[0.25, 1.0, 2.0], long_steps=9, queries=20, source=source())


PROTOCOLS = ["ladder", "released", "widths", "black box", "expectations", "rungs"]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_no_two_attacks_of_a_protocol_share_a_title_at_one_radius(name):
    given = [one for one in protocol(name) if one is not None]
    members = [member for one in given if isinstance(one, Ensemble) for member in one.members]
    assert len({(one.title, one.eps) for one in given}) == len(given)
    told = {}
    for one in [*given, *members]:
        own = one.members[0] if isinstance(one, Ensemble) and len(one.members) == 1 else one
        assert told.setdefault((one.title, one.eps), own) == own, one.title


def test_the_rungs_climb_and_each_holds_those_below():
    rungs = protocol("rungs")
    for lower, upper in zip(rungs, rungs[1:], strict=False):
        assert upper.members[: len(lower.members)] == lower.members
        assert len(upper.members) > len(lower.members)
    kinds = {member.name for member in rungs[-1].members if isinstance(member, Attack)}
    assert kinds == {"uniform", "fgsm", "pgd", "sa_pgd", "apgd", "apgd_square"}
    assert isinstance(rungs[-1].members[-1], Transfer) and rungs[-1].title == protocols.WORST
    used = {member.rule.get("name") for member in rungs[-1].members if isinstance(member, Attack)}
    assert {None, "triangle", "sigmoid", "atan", "rectangle", "exponential", "rate", "assg", "pdsg"} == used


def test_the_rule_is_part_of_the_attack():
    own = attacks.standard("pgd", 0.1, steps=5)
    by_rate = attacks.standard("pgd", 0.1, steps=5, rule={"name": "rate"})
    assert own != by_rate == replace(own, rule={"name": "rate"})
    wide, narrow = (replace(own, rule={"name": "triangle", "gamma": gamma}) for gamma in (1.0, 0.5))
    assert wide != narrow and wide.title != narrow.title
    spec = asdict(narrow)
    assert spec["rule"] == {"name": "triangle", "gamma": 0.5}
    assert Attack(**json.loads(json.dumps(spec))) == narrow  # what is kept of it on disk says all


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"name": "ratte"}, "no backward rule 'ratte'. Allowed: triangle"),
        ({"name": "sigmoid", "gamma": 4.0}, "'sigmoid' cannot take {'gamma': 4.0}"),
        ({"name": "triangle", "gamma": 0}, "gamma is 0; it must be a finite number above 0"),
        ({"name": "assg", "a": 0.5}, "a is 0.5"),
        ({"name": "pdsg", "a": 0.5}, "'pdsg' cannot take"),
        ({"gamma": 1.0}, "backward rule cannot take {'gamma': 1.0}"),
    ],
)
def test_an_unknown_rule_or_width_is_refused_at_once(rule, message):
    with pytest.raises(Refused, match=message):
        Attack("pgd", 0.1, {}, rule)
    with pytest.raises(Refused, match=message):
        attacks.standard("fgsm", 0.1, rule=rule)


def test_an_option_that_the_attack_does_not_take_is_refused():
    for name, option in (
        ("fgsm", "steps"),
        ("square", "eot"),
        ("pgd", "draws"),
        ("pgd", "seed"),
        ("pgd", "bounds"),
        ("pgd", "ascend"),
    ):
        with pytest.raises(Refused, match=f"no option of {name} '{option}'"):
            Attack(name, 0.1, {option: 1})


def test_a_network_without_backward_rules_is_refused_in_a_sentence():
    images, labels = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    by_rate = attacks.standard("fgsm", 0.1, rule={"name": "rate"})
    for network in (slope, Asked(slope, images, labels, None)):
        with pytest.raises(Refused, match="^FGSM rate brings a backward rule; a network of your own needs"):
            by_rate.bind()(network, images, labels, bounds=(0, 1))


RULES = [{"name": "sigmoid", "slope": 4.0}, {"name": "rate"}, {"name": "triangle", "gamma": 0.5}, {"name": "assg"}]


@pytest.mark.parametrize("name", attacks.GRADIENT)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["name"])
def test_an_attack_by_a_rule_is_the_attack_inside_the_rules_block(network, batch, name, rule):
    one, context = attack(name, 0.04), {"seed": 3, "index": torch.arange(40) + 5, "batch_size": 40}
    before = [neuron.rule for neuron in network.neurons()]
    found = replace(one, rule=rule).bind(**context)(network, *batch, bounds=(0, 1))
    assert all(neuron.rule is own for neuron, own in zip(network.neurons(), before, strict=True))
    with network.backward_rule(**rule):
        expected = one.bind(**context)(network, *batch, bounds=(0, 1))
    assert torch.equal(found, expected)
    assert not torch.equal(found, one.bind(**context)(network, *batch, bounds=(0, 1)))


def test_after_an_exception_the_network_has_its_own_rule_again(network, batch):
    before = [neuron.rule for neuron in network.neurons()]

    def stop(*_):
        raise KeyboardInterrupt

    hook = network.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        attacks.standard("pgd", 0.1, rule={"name": "rate"}).bind()(network, *batch, bounds=(0, 1))
    hook.remove()
    assert all(neuron.rule is own for neuron, own in zip(network.neurons(), before, strict=True))


def test_whatever_the_rule_it_leaves_the_forward_pass_alone(network, batch):
    # attacks that see logits alone bring no other images by another rule
    for name in ("uniform", "square", "random_search"):
        one = attack(name, 0.04)
        plain, ruled = (a.bind(seed=0)(network, *batch, bounds=(0, 1)) for a in (one, replace(one, rule=RULES[0])))
        assert torch.equal(plain, ruled)


class Steadfast:
    """Three classes of which the first always wins, with a gradient everywhere; counts what a sample costs."""

    def __init__(self):
        self.forward = self.backward = 0

    def __call__(self, x):
        self.forward += 1
        x = 1 * x  # a tensor of this call alone
        if x.requires_grad:
            x.register_hook(self._looked_back)
        z = (x * x.detach()).flatten(1).mean(1)
        return torch.stack([50 + z, z.square(), -z], dim=1)

    def _looked_back(self, gradient):
        self.backward += 1


LOOKS = {"apgd": 1, "sa_pgd": 1, "square": 1, "apgd_square": 2}  # at the clean image, beside what it may spend
SPENDING = [
    *((name, {}) for name in IN_PIXELS),
    ("fgsm", {"eot": 4}),
    ("rfgsm", {"steps": 3, "eot": 2}),
    ("pgd", {"steps": 5, "eot": 3}),
    ("pgd", {"steps": 5, "until_broken": True}),
    ("apgd", {"steps": 5, "restarts": 3}),
    ("apgd", {"steps": 5, "restarts": 2, "eot": 2}),
    ("square", {"queries": 11}),
    ("random_search", {"draws": 11}),
]


@pytest.mark.parametrize(("name", "options"), SPENDING)
def test_a_sample_that_never_breaks_costs_what_the_attack_says(name, options):
    one, network = attack(name, **options), Steadfast()
    images, labels = torch.rand(3, 1, 4, 4), torch.zeros(3, dtype=torch.long)
    one.bind()(network, images, labels, bounds=(0, 1))
    if name == "overwritten_eot":  # of its draws the last alone is followed back
        assert (network.forward, network.backward) == (one.gradients, one.options["steps"])
        return
    assert network.backward == one.gradients
    last_iterates = one.options.get("restarts", 1) if name.startswith("apgd") else 0
    assert network.forward - network.backward == one.queries + LOOKS.get(name, 0) + last_iterates
