"""SR against a slow transcription of section 4 of the paper notes, its edges by hand, and its two identities."""

import copy
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from paperlib import attacks, regularizers
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
