"""SR against a slow transcription of section 4 of the paper notes, its edges by hand, its identities; the exact l1."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from paperlib import attacks, networks, regularizers, rules, theory
from paperlib.errors import Refused

H = 0.01
MODES = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
PRESETS = pytest.mark.parametrize("preset", ["released", "paper"])


@pytest.fixture
def batch(tiny):
    """24 test images in float64; two labels in three are wrong, so that many samples are misclassified."""
    images, labels, _ = next(tiny.test.batches(24))
    return images.double(), (labels + torch.arange(24)) % 3


@pytest.fixture
def network(network):
    return network.double()


def slow_sr(network, images, labels, preset):
    """Section 4 read aloud: the forwards are batched, as BatchNorm may couple the samples; all else is one by one."""
    images = images.clone().requires_grad_()
    z = network(images)
    rivals, first = [], []
    for b, y in enumerate(labels.tolist()):
        runner_up = None
        for k in range(z.shape[1]):
            if k != y and (runner_up is None or z[b, k].item() > z[b, runner_up].item()):
                runner_up = k
        rivals.append(runner_up)
        first.append(confidence(z[b], y, runner_up, preset))
    (gradient,) = torch.autograd.grad(sum(first), images, retain_graph=True)
    d = torch.where(gradient > 0, 1.0, torch.where(gradient < 0, -1.0, 0.0)).double()
    z2 = network(images.detach() + H * d)
    penalty = 0
    for b, y in enumerate(labels.tolist()):
        q = (confidence(z2[b], y, rivals[b], preset) - first[b]) / H
        penalty = penalty + (q * q if preset == "released" else abs(q))
    return z, penalty / len(labels)


def confidence(z, y, rival, preset):
    if preset == "released":
        return 1 / (1 + torch.exp(z[rival] - z[y]))
    return torch.exp(z[y]) / sum(torch.exp(z_k) for z_k in z)


@MODES
@PRESETS
def test_sr_equals_the_slow_transcription(network, batch, preset, training):
    images, labels = batch
    theirs = copy.deepcopy(network).train(training)
    network.train(training)
    logits, penalty = regularizers.sr(network, images, labels, preset=preset)
    expected_logits, expected = slow_sr(theirs, images, labels, preset)
    assert torch.equal(logits, expected_logits)
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-10)
    assert penalty > 1e-3

    (0.3 * penalty + cross_entropy(logits, labels)).backward()
    (0.3 * expected + cross_entropy(expected_logits, labels)).backward()
    for (name, ours), oracle in zip(network.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(
            ours.grad, oracle.grad, rtol=1e-8, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}"
        )
    for ours, oracle in zip(network.buffers(), theirs.buffers(), strict=True):  # both passes update BatchNorm
        assert torch.equal(ours, oracle)


@PRESETS
def test_the_penalty_alone_reaches_the_weights(network, batch, preset):
    theirs = copy.deepcopy(network)
    regularizers.sr(network, *batch, preset=preset)[1].backward()
    slow_sr(theirs, *batch, preset)[1].backward()
    for ours, oracle in zip(network.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, oracle.grad, rtol=1e-8, atol=1e-10)
        assert oracle.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("logits", "label", "rival"),
    [
        ([1.0, 3.0, 2.0], 1, 2),  # correct: the runner-up
        ([1.0, 3.0, 2.0], 0, 1),  # misclassified: the winner
        ([5.0, 1.0, 1.0], 0, 1),  # a tie goes to the lower class, above the label,
        ([1.0, 1.0, 5.0], 2, 0),  # below it,
        ([2.0, 7.0, 2.0], 1, 0),  # and on both sides
        ([4.0, 4.0, 4.0], 0, 1),  # a tie with the label itself
        ([-1e30, -1e30, 0.0], 2, 0),
    ],
)
def test_the_runner_up_by_hand(logits, label, rival):
    assert regularizers.runner_up(torch.tensor([logits]), torch.tensor([label])).tolist() == [rival]


def test_the_runner_up_is_frozen():
    # y = 0.  At x = 0 class 1 leads class 2 by 0.001; d = +1, and at x = 0.01 class 2 leads: z = (0, -0.009, 0.01).
    def network(x):
        x = x.flatten()
        return torch.stack([0 * x, 0.001 - x, x], dim=1)

    _, penalty = regularizers.sr(network, torch.zeros(1, 1, 1, 1, dtype=torch.float64), torch.tensor([0]))
    q = (sigma(0.009) - sigma(-0.001)) / H
    assert penalty.item() == pytest.approx(q**2)


def sigma(u):
    return 1 / (1 + math.exp(-u))


def test_logits_of_a_thousand_do_not_overflow():
    slope = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)

    def network(x):  # sample 0: label and rival tie at 1000; samples 1 and 2: certainly right, certainly wrong
        offsets = torch.tensor([[1000, 1000, -1000], [1000, -1000, -1000], [-1000, 1000, -1000]])
        return offsets + x.flatten()[:, None] * slope

    x, labels = torch.zeros(3, 1, 1, 1, dtype=torch.float64), torch.zeros(3, dtype=torch.long)
    released = (sigma(0.01) - 0.5) / H
    for preset, expected in (("released", released**2 / 3), ("paper", released / 3)):  # e^-2000 = 0: only two classes
        _, penalty = regularizers.sr(network, x, labels, preset=preset)
        assert penalty.item() == pytest.approx(expected, rel=1e-9)
        (gradient,) = torch.autograd.grad(penalty, slope)
        assert gradient.isfinite().all()
        assert gradient[0] > 0


def probes(network, images, labels, preset):
    """d = (x₂ - x)/h, from what the second pass is shown."""
    seen = []
    handle = network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    regularizers.sr(network, images, labels, preset=preset)
    handle.remove()
    first, second = seen
    assert torch.equal(first, images)
    return (second - images) / H


@MODES
def test_the_probe_of_the_paper_form_is_a_backward_fgsm_step_where_samples_do_not_interact(network, batch, training):
    network.train(training)
    images, labels = batch
    d = probes(network, images, labels, "paper")
    fgsm = attacks.fgsm(network, images, labels, eps=H, bounds=(-1, 2))
    same = (d.round() == -((fgsm - images) / H).round()).double().mean().item()
    assert same == 1 if not training else 0.3 < same < 0.99


@MODES
def test_probability_and_margin_share_signs_where_samples_do_not_interact(network, batch, training):
    network.train(training)
    images, labels = batch
    leaf = images.clone().requires_grad_()
    z = network(leaf)
    rows, rival = torch.arange(len(z)), regularizers.runner_up(z, labels)
    (gradient,) = torch.autograd.grad((z[rows, labels] - z[rows, rival]).sum(), leaf)
    same = (probes(network, images, labels, "released").round() == gradient.sign()).double().mean().item()
    assert same == 1 if not training else 0.3 < same < 0.99


@PRESETS
def test_the_probe_is_not_clamped(network, tiny, preset):
    images, labels, _ = next(tiny.test.batches(24))
    images = (images > 0.3).double()  # only 0 and 1
    d = probes(network, images, labels, preset)
    assert d.round().unique().tolist() in ([-1, 1], [-1, 0, 1])
    outside = ((images == 0) & (d < -0.5)) | ((images == 1) & (d > 0.5))
    assert outside.double().mean() > 0.2


def test_the_images_are_left_as_they_are(network, batch):
    images, labels = batch
    before = images.clone()
    regularizers.sr(network, images, labels)
    assert torch.equal(images, before)
    assert not images.requires_grad


def test_what_sr_refuses(network, batch):
    with pytest.raises(Refused, match="no SR preset 'softmax'. Allowed: released, paper"):
        regularizers.sr(network, *batch, preset="softmax")
    for h in (0, -0.01, float("nan"), float("inf"), "0.01"):
        with pytest.raises(Refused, match="^h is .*above 0"):
            regularizers.sr(network, *batch, h=h)


# The exact l1 -------------------------------------------------------------------------------------------------------

IMAGES = torch.linspace(-1, 1, 32, dtype=torch.double).cos().view(4, 2, 2, 2)
LABELS = torch.tensor([0, 2, 1, 1])


def smooth_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def slow_l1(network, images, labels):
    """Sample by sample and class by class: |∂p_y/∂x| summed, averaged over the samples."""
    total = 0
    for image, label in zip(images, labels.tolist(), strict=True):
        leaf = image[None].clone().requires_grad_()
        confidence(network(leaf)[0], label, None, "paper").backward(inputs=[leaf])
        total += sum(abs(v) for v in leaf.grad.flatten().tolist())
    return total / len(labels)


def slopes(value, weights, h=1e-6):
    """∂ value() / ∂ each entry of `weights`, by stepping it."""
    found = torch.zeros_like(weights)
    with torch.no_grad():
        for i in range(weights.numel()):
            own = weights.view(-1)[i].item()
            weights.view(-1)[i] = own + h
            above = value()
            weights.view(-1)[i] = own - h
            found.view(-1)[i] = (above - value()) / (2 * h)
            weights.view(-1)[i] = own
    return found


def test_the_exact_l1_by_hand():
    # logits (w·x, 0) with w·x = ln 3: p = ¾, so the gradients are ±(3/16)·w; ‖w‖₁ = 3.5 and, for the second, 1
    w = torch.tensor([2.0, -1, 0.5], dtype=torch.double)

    def network(x):
        u = (x * torch.stack([w, torch.tensor([0.0, 1, 0])])).sum(1)
        return torch.stack([u, 0 * u], 1)

    x = math.log(3) * torch.tensor([[0.5, 0, 0], [0.3, 1, 0.2]], dtype=torch.double)
    _, penalty = regularizers.exact_l1(network, x, torch.tensor([0, 1]))
    assert penalty.item() == pytest.approx(3 / 16 * (3.5 + 1) / 2)


def test_the_exact_l1_is_the_gradient_summed():
    network = smooth_network()
    logits, penalty = regularizers.exact_l1(network, IMAGES, LABELS)
    assert torch.equal(logits, network(IMAGES))
    assert penalty.item() == pytest.approx(slow_l1(network, IMAGES, LABELS))
    assert penalty > 0.05


def test_weight_gradients_of_the_exact_l1_against_finite_differences():
    network = smooth_network()
    logits, penalty = regularizers.exact_l1(network, IMAGES, LABELS)
    (0.7 * penalty + cross_entropy(logits, LABELS)).backward()

    def loss():
        with torch.enable_grad():
            own = slow_l1(network, IMAGES, LABELS)
        return 0.7 * own + cross_entropy(network(IMAGES), LABELS).item()

    for parameter in network.parameters():
        torch.testing.assert_close(parameter.grad, slopes(loss, parameter), rtol=1e-5, atol=1e-8)


def test_sr_of_the_paper_tends_to_the_exact_l1():
    network = smooth_network().eval()
    _, exact = regularizers.exact_l1(network, IMAGES, LABELS)
    expected = torch.autograd.grad(exact, network.parameters())
    off = []
    for h in (1e-3, 1e-5):
        _, penalty = regularizers.sr(network, IMAGES, LABELS, preset="paper", h=h)
        got = torch.autograd.grad(penalty, network.parameters())
        pairs = [(penalty, exact), *zip(got, expected, strict=True)]
        off.append(max((ours - theirs).abs().max().item() for ours, theirs in pairs))
    assert off[0] < 1e-2
    assert off[1] == pytest.approx(off[0] / 100, rel=0.05)  # the error is of first order in h


def test_the_exact_l1_of_a_spiking_network_needs_the_reference_path(network, batch):
    images, labels = batch
    f = theory.probabilities(network)
    expected = theory.l1(theory.true_class_gradient(f, images, labels)).mean().item()  # once, on the fast path
    with network.reference_path():
        logits, penalty = regularizers.exact_l1(network, images, labels)
    torch.testing.assert_close(logits, network(images))
    assert penalty.item() == pytest.approx(expected) and penalty > 1e-2
    penalty.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name

    with pytest.raises(RuntimeError, match="differentiate twice"):
        regularizers.exact_l1(network, images, labels)[1].backward()


def test_weight_gradients_of_a_smoothed_network_against_finite_differences():
    torch.manual_seed(0)
    options = {"in_channels": 1, "image_size": 6, "num_classes": 3, "T": 2, "rule": rules.sigmoid()}
    network = networks.build("conv-2", **options).double().eval()
    images = torch.rand(2, 1, 6, 6, dtype=torch.double, generator=torch.Generator().manual_seed(0))

    def penalty():
        with torch.enable_grad():
            return regularizers.exact_l1(network, images, LABELS[:2])[1]

    with network.smoothed():
        penalty().backward()
        for name, parameter in network.named_parameters():
            expected = slopes(lambda: penalty().item(), parameter)
            torch.testing.assert_close(
                parameter.grad, expected, rtol=1e-4, atol=1e-8, msg=lambda m, name=name: f"{name}: {m}"
            )


def test_the_exact_l1_in_training_is_that_of_the_whole_batch(network, batch):
    # BatchNorm couples the samples: the gradient is that of the batch's sum, and its statistics move once
    images, labels = batch
    theirs = copy.deepcopy(network).train()
    leaf = images.clone().requires_grad_()
    z = theirs(leaf)
    total = sum(confidence(row, label, None, "paper") for row, label in zip(z, labels.tolist(), strict=True))
    (gradient,) = torch.autograd.grad(total, leaf)
    network.train()
    with network.reference_path():
        _, penalty = regularizers.exact_l1(network, images, labels)
    assert penalty.item() == pytest.approx(gradient.abs().sum().item() / len(labels))
    for ours, oracle in zip(network.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(ours, oracle)


def test_the_exact_l1_leaves_the_images_as_they_are():
    images = IMAGES.clone()
    regularizers.exact_l1(smooth_network(), images, LABELS)[1].backward()
    assert torch.equal(images, IMAGES) and not images.requires_grad
