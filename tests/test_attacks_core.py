"""The ball, the laws of noise, gradients in batches of one size, and `Queried`: what it counts and what it averages."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from toys import Toy, slope, toy_batch

from paperlib import attacks, networks
from paperlib.attacks.core import Ball, Queried, another, over_mean, round_noise, shares, sign_noise, uniform_noise
from paperlib.errors import Refused
from paperlib.theory.gradients import in_batches, loss_gradient, padded

# The ball ----------------------------------------------------------------------------------------------------------


def lengths(x):
    return x.flatten(1).norm(dim=1)


@given(seed=st.integers(0, 2**31), eps=st.floats(0, 3), bounds=st.sampled_from([(0, 1), (0, 7), (-1.5, 0.25)]))
@settings(max_examples=60, deadline=None)
def test_projection_in_l2_moves_no_one_within_and_the_others_straight_towards_their_image(seed, eps, bounds):
    low, high = bounds
    images = (low + (high - low) * (0.5 + 0.6 * uniform_noise(torch.zeros(3, 2, 2, 3).double(), seed, None))).clamp(
        low, high
    )
    outside = images + (high - low) * uniform_noise(images, seed + 1, None)
    x = Ball(images, eps, (-math.inf, math.inf), "l2").project(outside)
    for image, far, near in zip(images, outside, x, strict=True):
        reach = (far - image).norm()
        torch.testing.assert_close(near, far if reach <= eps else image + eps / reach * (far - image))
        assert reach > eps or torch.equal(near, far)
    torch.testing.assert_close(Ball(images, eps, bounds, "l2").project(outside), x.clamp(low, high))


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e-42, 1e30])  # 1e-25² vanishes in 32 bits; 1e-42 is subnormal
def test_the_direction_has_length_1_whatever_the_gradients_scale(scale):
    gradient = scale * torch.tensor([[[3.0, 0.0]], [[0.0, -4.0]], [[0.0, 0.0]]])
    images = torch.zeros_like(gradient)
    assert Ball(images, 1, (0, 1), "linf").direction(gradient).tolist() == [[[1, 0]], [[0, -1]], [[0, 0]]]
    torch.testing.assert_close(lengths(Ball(images, 1, (0, 1), "l2").direction(gradient)), torch.tensor([1.0, 1, 0]))


def test_over_mean_by_hand():
    x = torch.tensor([[1.0, -3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert over_mean(x).tolist() == over_mean(x / 4).tolist() == [[1, -3, 0, 0], [0, 0, 0, 0]]


@given(st.integers(0, 10**6), st.integers(1, 500))
def test_the_parts_of_a_budget_are_whole_as_equal_as_can_be_and_sum_to_it(budget, steps):
    parts = shares(budget, steps)
    assert len(parts) == steps and sum(parts) == budget and max(parts) - min(parts) <= 1
    assert all(type(part) is int for part in parts)


# Noise ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [uniform_noise, sign_noise, round_noise])
def test_noise_depends_on_seed_and_index_and_on_nothing_else(noise):
    images, index = torch.rand(4, 2, 5, 5), torch.tensor([9, 4, 9, 0])
    torch.manual_seed(1)
    draws = noise(images, 3, index)
    torch.manual_seed(2)
    assert torch.equal(noise(1 - images, 3, index), draws)
    assert torch.equal(draws[0], draws[2]) and not torch.equal(draws[0], draws[1])
    assert not torch.equal(noise(images, 4, index)[0], draws[0])
    assert torch.equal(noise(images, 3, None), noise(images, 3, torch.arange(4)))
    assert noise(images.double(), 3, index).dtype == torch.float64


def test_another_draw_is_that_of_no_other_seed_or_sample():
    images, index = torch.zeros(4, 1, 1, 8), torch.arange(4)
    assert torch.equal(uniform_noise(images, another(3, 0), index), uniform_noise(images, 3, index))
    draws = [uniform_noise(images, another(seed, draw), index) for seed in range(4) for draw in range(4)]
    assert len(torch.cat(draws).unique(dim=0)) == 4**3


def test_uniform_noise_has_the_moments_of_its_law():
    eps, images = 0.1, torch.full((200, 1, 10, 10), 0.5, dtype=torch.float64)
    delta = attacks.uniform(None, images, None, eps=eps, bounds=(0, 1)) - images
    # n = 20,000 draws of U[-ε, ε]: mean 0, variance ε²/3, fourth moment ε⁴/5; tolerances of four standard errors
    assert delta.mean().item() == pytest.approx(0, abs=4 * eps / math.sqrt(3 * 20_000))
    assert delta.square().mean().item() == pytest.approx(eps**2 / 3, abs=4 * eps**2 * math.sqrt(4 / 45 / 20_000))
    assert delta.pow(4).mean().item() == pytest.approx(eps**4 / 5, abs=4 * eps**4 * math.sqrt(16 / 225 / 20_000))
    assert 0.999 * eps < delta.abs().max() <= eps
    neighbours = (delta[..., 1:] * delta[..., :-1]).mean().item()
    assert neighbours == pytest.approx(0, abs=4 * eps**2 / 3 / math.sqrt(18_000))


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
    variance, error = torch.eye(m).double() / (m + 2), 5 / (m * math.sqrt(n))
    torch.testing.assert_close(noise.T @ noise / n, variance, rtol=0, atol=error)


def test_sign_noise_is_plus_or_minus_eps_clamped_by_the_bounds_alone():
    images = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64).repeat(20_000).view(200, 1, 100, 3)
    assert sign_noise(images, 0, None).unique().tolist() == [-1, 1]
    x = attacks.sign(None, images, None, eps=0.25, bounds=(0, 1))
    assert [x[..., column].unique().tolist() for column in range(3)] == [[0.0, 0.25], [0.25, 0.75], [0.75, 1.0]]
    up = (x[..., 1] > 0.5).double()
    assert up.mean().item() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(20_000))


# Batches and losses --------------------------------------------------------------------------------------------------


def test_the_network_sees_batches_of_the_sizes_of_padded_only():
    sizes = []

    def network(x):
        sizes.append(len(x))
        return slope(x)

    images, labels = torch.rand(77, 1, 2, 2), torch.arange(77) % 2
    logits, gradient = loss_gradient(network, images, labels, 29)
    assert torch.equal(in_batches(network, images, 29), logits)
    assert sizes == [32, 32, 16] * 2
    assert torch.equal(logits, slope(images))
    assert gradient.shape == images.shape
    torch.testing.assert_close(gradient, loss_gradient(slope, images, labels, None)[1])
    assert [padded(count) for count in (1, 16, 17, 20, 99, 100)] == [16, 16, 20, 20, 100, 100]


@pytest.mark.parametrize("name, channels, pixels", [("conv-8-16", 1, 28), ("conv-32-64-64-128", 3, 32)])
def test_a_sample_has_the_same_bits_in_batches_of_every_size(name, channels, pixels):
    torch.manual_seed(0)
    images, labels = torch.rand(60, channels, pixels, pixels), torch.arange(60) % 10
    network = networks.build(name, in_channels=channels, image_size=pixels, num_classes=10, T=2)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # else no spike passes all layers
            module.momentum, module.weight.data = 1.0, 3 * module.weight.data
    network(images)
    network.eval()
    logits, gradient = loss_gradient(network, images, labels, 60)
    assert len(logits.unique(dim=0)) > 50 and (gradient != 0).flatten(1).any(1).all()
    for count in (1, 17, 26):  # padded to 16, 20 and 28
        rows = slice(30, 30 + count)
        part = loss_gradient(network, images[rows], labels[rows], 60)
        assert torch.equal(part[0], logits[rows]) and torch.equal(part[1], gradient[rows])
        assert torch.equal(in_batches(network, images[rows], 60), logits[rows])


def test_the_gradient_is_that_of_each_samples_own_loss():
    # CE of class 0 of two logits (-z, z) is log(1 + e^(2z)), so its gradient is 2·σ(2z)·(1, 2), z = x₀ + 2x₁
    images = torch.tensor([[[[0.1, 0.2]]], [[[0.3, 0.0]]]], dtype=torch.float64)
    _, gradient = loss_gradient(slope, images, torch.tensor([0, 0]), None)
    for row, z in zip(gradient, (0.5, 0.3), strict=True):
        assert row.flatten().tolist() == pytest.approx([2 / (1 + math.exp(-2 * z)), 4 / (1 + math.exp(-2 * z))])
    # another loss: z² of the logit of the own class, whose gradient is 2z·(1, 2) for either class
    square = lambda z, y: z.gather(1, y[:, None]).squeeze(1).square()  # noqa: E731
    _, gradient = loss_gradient(slope, images, torch.tensor([1, 0]), 2, square)
    torch.testing.assert_close(gradient.flatten(1), torch.tensor([[1.0, 2.0], [0.6, 1.2]], dtype=torch.float64))


# Queried -------------------------------------------------------------------------------------------------------------


class Noisy:
    """A network that adds noise to its images."""

    stochastic = True

    def __init__(self, network):
        self.network = network

    def __call__(self, x):
        return self.network(x + 0.2 * torch.randn(x.shape, dtype=x.dtype))


@pytest.fixture
def batch():
    return toy_batch()


def test_an_attack_that_calls_the_network_in_its_own_way_is_counted_too(batch):
    images, labels = batch
    queried = Queried(Toy(), images, labels, None)
    for _ in range(2):
        leaf = images.clone().requires_grad_()
        torch.autograd.grad(cross_entropy(queried(leaf), labels), leaf)
    with torch.no_grad():
        queried(images)
        queried(images[:10])  # half of them, it cannot know which
    assert (queried.forward == 3.5).all() and (queried.backward == 2).all()
    assert queried.calls[-1] == list(range(10))  # what else the network has can be reached


def test_only_the_rows_that_were_asked_for_are_computed_and_counted(batch):
    images, labels = batch
    network, rows = Toy(), torch.tensor([17, 3, 4])
    queried = Queried(network, images, labels, None)
    logits = queried.logits(images[rows], rows)
    torch.testing.assert_close(logits, Toy()(images)[rows])
    assert queried.correct(images[rows], rows).tolist() == (logits.argmax(1) == labels[rows]).tolist()
    assert queried.forward.nonzero().squeeze(1).tolist() == [3, 4, 17] and queried.forward.sum() == 6
    assert network.calls == [[17, 3, 4]] * 2 and not queried.backward.any()


def test_gradients_that_vanished_are_counted_for_each_draw(batch):
    images, labels = batch
    network = Toy()
    queried = Queried(network, images, labels, None)
    queried.gradient(images, eot=3)
    assert queried.vanished.tolist() == [3.0 * (number % 5 == 0) for number in range(len(images))]


def test_the_smallest_images_are_vectors():
    x = attacks.fgsm(lambda x: torch.stack([x.sum(1), -x.sum(1)], 1), torch.zeros(2, 3), torch.tensor([0, 1]), **ANY)
    torch.testing.assert_close(x, torch.tensor([[-0.15] * 3, [0.15] * 3]))


@pytest.mark.parametrize("eot", [1, 2, 6])
def test_the_gradient_is_the_mean_of_as_many_draws(batch, eot):
    images, labels = batch
    network = Noisy(Toy())
    torch.manual_seed(5)
    logits, gradient = Queried(network, images, labels, 8).gradient(images, eot=eot)
    torch.manual_seed(5)
    draws = [loss_gradient(network, images, labels, 8) for _ in range(eot)]
    torch.testing.assert_close(logits, torch.stack([z for z, _ in draws]).mean(0), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(gradient, torch.stack([g for _, g in draws]).mean(0), rtol=1e-12, atol=1e-14)
    assert len({g.sum().item() for _, g in draws}) == eot


@pytest.mark.parametrize("eot", [0, -1, 1.0, True])
def test_a_number_of_draws_that_cannot_be_is_refused(batch, eot):
    with pytest.raises(Refused, match="eot is .*; it must be a whole number of at least 1"):
        attacks.pgd(Toy(), *batch, eot=eot, **ANY)


ANY = {"eps": 0.15, "bounds": (-math.inf, math.inf)}


def test_fgsm_steps_along_the_mean_of_its_draws(batch):
    images, labels = batch
    network, total = Noisy(Toy()), torch.zeros_like(images)
    torch.manual_seed(2)
    x = attacks.fgsm(network, images, labels, eot=5, **ANY)
    torch.manual_seed(2)
    for _ in range(5):
        leaf = images.clone().requires_grad_()
        total += torch.autograd.grad(cross_entropy(network(leaf), labels, reduction="sum"), leaf)[0]
    assert torch.equal(x, images + 0.15 * total.sign())
    torch.manual_seed(2)
    assert not torch.equal(attacks.fgsm(network, images, labels, **ANY), x)


def test_overwritten_eot_keeps_the_last_draw(batch):
    images, labels = batch
    network, options = Noisy(Toy()), {"alpha": 0.15 / 4, "steps": 3, "seed": 7} | ANY
    torch.manual_seed(3)
    overwritten = attacks.overwritten_eot(network, images, labels, draws=4, **options)
    torch.manual_seed(3)
    x = images + 0.15 * uniform_noise(images, 7, None)
    for _ in range(3):
        for _ in range(3):
            network(x)  # drawn, and thrown away
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(network(leaf), labels, reduction="sum"), leaf)
        x = images + (x + 0.15 / 4 * gradient.sign() - images).clamp(-0.15, 0.15)
    torch.testing.assert_close(overwritten, x, rtol=0, atol=1e-12)
    torch.manual_seed(3)
    assert not torch.allclose(attacks.pgd(network, images, labels, eot=4, **options), overwritten)
