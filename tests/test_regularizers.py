"""SR and its rivals against slow transcriptions of section 4 of the paper notes, formulas by hand and limits."""

import copy
import math
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from paperlib import attacks, networks, theory
from paperlib.errors import Refused
from paperlib.networks import rules
from paperlib.training import regularizers

H = 0.01
FORMS = {"released": ("margin", "square", "+"), "paper": ("softmax", "absolute", "+")}
ALL = list(product(("margin", "softmax"), ("square", "absolute"), ("+", "-", "central")))
MODES = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
NORMS = pytest.mark.parametrize("norm", ["l1", "l2"])


@pytest.fixture
def batch(tiny):
    """24 test images in float64; two labels in three are wrong, so that many samples are misclassified."""
    images, labels, _ = next(tiny.test.batches(24))
    return images.double(), (labels + torch.arange(24)) % 3


@pytest.fixture
def network(network):
    return network.double()


def axes(form):
    return dict(zip(("confidence", "penalty", "direction"), form, strict=True))


def sigma(u):
    return 1 / (1 + math.exp(-u))


def confidence(z, y, rival, kind):
    if kind == "margin":
        return 1 / (1 + torch.exp(z[rival] - z[y]))
    return torch.exp(z[y]) / sum(torch.exp(z_k) for z_k in z)


def slow_sr(network, images, labels, form, clamp=None):
    """Section 4 word by word: the forwards are batched, as BatchNorm may couple the samples; all else is one by one."""
    kind, penalty, direction = form
    images = images.clone().requires_grad_()
    z = network(images)
    rivals, first = [], []
    for b, y in enumerate(labels.tolist()):
        rival = None
        for k in range(z.shape[1]):
            if k != y and (rival is None or z[b, k].item() > z[b, rival].item()):
                rival = k
        rivals.append(rival)
        first.append(confidence(z[b], y, rival, kind))
    (gradient,) = torch.autograd.grad(sum(first), images, retain_graph=True)
    d = torch.where(gradient > 0, 1.0, torch.where(gradient < 0, -1.0, 0.0)).double()

    def moved(distance):
        x = images.detach() + distance * d
        if clamp is not None:
            x = torch.where(x < clamp[0], clamp[0], torch.where(x > clamp[1], clamp[1], x))
        z = network(x)
        return [confidence(z[b], y, rivals[b], kind) for b, y in enumerate(labels.tolist())]

    if direction == "+":
        quotients = [(above - here) / H for above, here in zip(moved(H), first, strict=True)]
    elif direction == "-":
        quotients = [(here - below) / H for below, here in zip(moved(-H), first, strict=True)]
    else:
        below, above = moved(-H), moved(H)
        quotients = [(a - b) / (2 * H) for a, b in zip(above, below, strict=True)]
    return z, sum(q * q if penalty == "square" else abs(q) for q in quotients) / len(labels)


def slow_loss_difference(network, images, labels, norm):
    """Finlay and Oberman word by word: the forwards are batched, all else is one by one."""

    def losses(z):
        return [-torch.log(confidence(row, y, None, "softmax")) for row, y in zip(z, labels.tolist(), strict=True)]

    images = images.clone().requires_grad_()
    z = network(images)
    first = losses(z)
    (gradient,) = torch.autograd.grad(sum(first), images, retain_graph=True)
    d = torch.zeros_like(images)
    for b, g in enumerate(gradient):
        size = math.sqrt(sum(v * v for v in g.flatten().tolist()))
        for place, v in enumerate(g.flatten().tolist()):
            d[b].view(-1)[place] = ((v > 0) - (v < 0)) if norm == "l1" else v / size
    second = losses(network(images.detach() + H * d))
    return z, sum(((b - a) / H) ** 2 for a, b in zip(first, second, strict=True)) / len(labels)


def assert_agree(network, slow, result, expected, labels):
    """The same logits, penalty, gradients of the weights by both, and running statistics as the slow version."""
    (logits, penalty), (expected_logits, expected_penalty) = result, expected
    assert torch.equal(logits, expected_logits)
    assert penalty.item() == pytest.approx(expected_penalty.item(), rel=1e-10)
    assert penalty > 1e-3
    (0.3 * penalty + cross_entropy(logits, labels)).backward()
    (0.3 * expected_penalty + cross_entropy(expected_logits, labels)).backward()
    for ours, theirs in zip(network.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-10)
    for ours, theirs in zip(network.buffers(), slow.buffers(), strict=True):  # every pass updates BatchNorm
        assert torch.equal(ours, theirs)


@MODES
@pytest.mark.parametrize("form", ALL, ids=" ".join)
def test_sr_equals_the_slow_transcription(network, batch, form, training):
    slow = copy.deepcopy(network).train(training)
    result = regularizers.sr(network.train(training), *batch, **axes(form))
    assert_agree(network, slow, result, slow_sr(slow, *batch, form), batch[1])


@MODES
@NORMS
def test_the_loss_difference_equals_the_slow_transcription(network, batch, norm, training):
    slow = copy.deepcopy(network).train(training)
    result = regularizers.loss_difference(network.train(training), *batch, norm=norm, h=H)
    assert_agree(network, slow, result, slow_loss_difference(slow, *batch, norm), batch[1])


@pytest.mark.parametrize("preset", FORMS)
def test_a_preset_is_a_variant_with_a_name(network, batch, preset):
    assert regularizers.variant(preset) == regularizers.named(" ".join(FORMS[preset])) == FORMS[preset]
    by_name = regularizers.sr(network, *batch, preset=preset)[1]
    assert torch.equal(by_name, regularizers.sr(network, *batch, **axes(FORMS[preset]))[1])
    central = regularizers.sr(network, *batch, preset=preset, direction="central")[1]
    assert torch.equal(central, regularizers.sr(network, *batch, **axes((*FORMS[preset][:2], "central")))[1])
    assert not torch.equal(central, by_name)


def test_the_defaults_are_the_released_form_and_the_l1_norm(network, batch):
    for penalty, options in ((regularizers.sr, {"preset": "released"}), (regularizers.loss_difference, {"norm": "l1"})):
        expected = penalty(network, *batch, h=0.01, update="both", **options)[1]
        assert torch.equal(penalty(network, *batch)[1], expected)


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
    assert penalty.item() == pytest.approx(((sigma(0.009) - sigma(-0.001)) / H) ** 2)


def test_logits_of_a_thousand_do_not_overflow():
    slope = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)

    def network(x):  # sample 0: label and rival tie at 1000; samples 1 and 2: certainly right, certainly wrong
        offsets = torch.tensor([[1000, 1000, -1000], [1000, -1000, -1000], [-1000, 1000, -1000]])
        return offsets + x.flatten()[:, None] * slope

    x, labels = torch.zeros(3, 1, 1, 1, dtype=torch.float64), torch.zeros(3, dtype=torch.long)
    quotient = (sigma(0.01) - 0.5) / H
    for preset, expected in (("released", quotient**2 / 3), ("paper", quotient / 3)):  # e^-2000 = 0: only two classes
        _, penalty = regularizers.sr(network, x, labels, preset=preset)
        assert penalty.item() == pytest.approx(expected, rel=1e-9)
        (gradient,) = torch.autograd.grad(penalty, slope)
        assert gradient.isfinite().all() and gradient[0] > 0


def logistic(*w):
    """Two classes with logits (w·x + 7, 7): p = σ(w·x), and -log p = log(1 + e^-w·x)."""

    def network(x):
        u = x.flatten(1) @ torch.tensor(w, dtype=torch.double)
        return torch.stack([u + 7, torch.full_like(u, 7)], 1)

    return network


@pytest.mark.parametrize(
    ("direction", "quotient"),
    [
        # w = (2, -1, 0.5): along d = (1, -1, 1) the margin grows by ‖w‖₁ = 3.5, over h = 0.01 by 0.035
        ("+", lambda u: (sigma(u + 0.035) - sigma(u)) / 0.01),
        ("-", lambda u: (sigma(u) - sigma(u - 0.035)) / 0.01),
        ("central", lambda u: (sigma(u + 0.035) - sigma(u - 0.035)) / 0.02),
    ],
)
@pytest.mark.parametrize("kind", ["margin", "softmax"])  # of two classes they are the same
def test_sr_of_a_linear_margin_by_hand(kind, direction, quotient):
    x = torch.tensor([[0.5, 0, 0], [-0.4, 0.1, 0.2]], dtype=torch.double).view(2, 1, 1, 3)  # margins 1 and -0.8
    q = [quotient(1.0), quotient(-0.8)]
    for penalty, expected in (("absolute", sum(q) / 2), ("square", (q[0] ** 2 + q[1] ** 2) / 2)):
        form = axes((kind, penalty, direction))
        _, result = regularizers.sr(logistic(2, -1, 0.5), x, torch.tensor([0, 0]), **form)
        assert result.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("norm", "size"), [("l1", 3.5), ("l2", math.sqrt(5.25))])
def test_the_loss_difference_of_a_linear_margin_by_hand(norm, size):
    # along d = -sign w, or -w/‖w‖₂, the margin falls by ‖w‖₁·h, or ‖w‖₂·h
    x = torch.tensor([0.5, 0, 0], dtype=torch.double).view(1, 1, 1, 3)
    q = (math.log(1 + math.exp(-1 + size * 0.02)) - math.log(1 + math.exp(-1))) / 0.02
    _, penalty = regularizers.loss_difference(logistic(2, -1, 0.5), x, torch.tensor([0]), norm=norm, h=0.02)
    assert penalty.item() == pytest.approx(q**2, rel=1e-9)


@NORMS
def test_a_sample_without_a_loss_gradient_adds_nothing(norm):
    labels = torch.tensor([0, 1, 1, 1])
    assert regularizers.loss_difference(logistic(*[0.0] * 8), IMAGES, labels, norm=norm)[1].item() == 0


# Probes -------------------------------------------------------------------------------------------------------------


def probes(network, images, labels, **options):
    """The images of each pass but the first."""
    seen = []
    handle = network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    regularizers.sr(network, images, labels, **options)
    handle.remove()
    assert torch.equal(seen[0], images)
    return seen[1:]


@MODES
def test_the_probe_of_the_paper_form_is_a_backward_fgsm_step_where_samples_do_not_interact(network, batch, training):
    # where they do, the gradient of the sum of probabilities is another than that of the sum of losses
    images, labels = batch
    (probe,) = probes(network.train(training), images, labels, preset="paper")
    fgsm = attacks.fgsm.__wrapped__(network, images, labels, eps=H, bounds=(-1, 2))  # attacks refuse training mode
    same = (((probe - images) / H).round() == -((fgsm - images) / H).round()).double().mean().item()
    assert 0.3 < same < 0.99 if training else same == 1


@MODES
def test_a_clamped_probe_stays_within_the_bounds(network, tiny, training):
    images, labels, _ = next(tiny.test.batches(24))
    images = (images > 0.3).double()  # only 0 and 1
    slow, free = copy.deepcopy(network).train(training), copy.deepcopy(network).train(training)
    for form in (("margin", "square", "+"), ("softmax", "absolute", "-"), ("margin", "absolute", "central")):
        result = regularizers.sr(network.train(training), images, labels, clamp=(0.0, 1.0), **axes(form))
        expected = slow_sr(slow, images, labels, form, clamp=(0.0, 1.0))[1].item()
        assert result[1].item() == pytest.approx(expected, rel=1e-10)
        unclamped = regularizers.sr(free, images, labels, **axes(form))[1].item()
        assert abs(expected - unclamped) > 0.05 * unclamped
    below, above = probes(network, images, labels, clamp=(0.0, 1.0), direction="central")
    for x in (below, above):
        assert x.min() == 0 and x.max() == 1 and (x != images).double().mean() > 0.2
    assert not ((below != images) & (above != images)).any()  # half of either probe is cut off, each on its side
    (free_probe,) = probes(network, images, labels)
    assert free_probe.min() < 0 and free_probe.max() > 1


def test_clamping_changes_nothing_where_no_probe_leaves_the_bounds(network, batch):
    images, labels = 0.1 + 0.8 * batch[0], batch[1]
    free, clamped = (regularizers.sr(network, images, labels, clamp=clamp)[1] for clamp in (None, (0.0, 1.0)))
    assert torch.equal(free, clamped)


# Refusals, and what is left alone -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "softmax"}, "There is no SR preset 'softmax'. Allowed: released, paper."),
        ({"confidence": "logit"}, "There is no confidence of SR 'logit'. Allowed: margin, softmax."),
        ({"penalty": "l1"}, "There is no penalty of SR 'l1'. Allowed: square, absolute."),
        ({"direction": "both"}, r"There is no direction of SR 'both'. Allowed: \+, -, central\."),
        ({"direction": None}, "There is no direction of SR None."),
        ({"probe": "+"}, r"An SR variant cannot take {'probe': '\+'}: .*'probe'.* It takes .*confidence: str"),
    ],
)
def test_an_unknown_variant_is_refused_in_one_sentence(network, batch, options, message):
    for refuse in (lambda: regularizers.sr(network, *batch, **options), lambda: regularizers.variant(**options)):
        with pytest.raises(Refused, match=message) as refusal:
            refuse()
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("words", ["margin square", "margin square + clean", "square margin +", ""])
def test_words_that_name_no_variant_are_refused(words):
    with pytest.raises(Refused, match="names no SR variant; it must be a word each for confidence|no confidence of SR"):
        regularizers.named(words)


@pytest.mark.parametrize("penalty", [regularizers.sr, regularizers.loss_difference])
def test_steps_and_updates_that_there_are_not_are_refused(network, batch, penalty):
    for h in (0, -0.01, float("nan"), float("inf"), "0.01"):
        with pytest.raises(Refused, match="^h is .*; it must be a finite number above 0.$"):
            penalty(network, *batch, h=h)
    with pytest.raises(Refused, match="^There is no update 'none'. Allowed: both, clean.$"):
        penalty(network, *batch, update="none")
    with pytest.raises(Refused, match="^There is no norm 'linf'. Allowed: l1, l2.$"):
        regularizers.loss_difference(network, *batch, norm="linf")


@pytest.mark.parametrize(
    "penalty", [regularizers.sr, regularizers.loss_difference, regularizers.exact_l1, regularizers.exact_l2]
)
def test_the_images_are_left_as_they_are(penalty):
    images = IMAGES.clone()
    penalty(smooth_network(), images, LABELS)[1].backward()
    assert torch.equal(images, IMAGES) and not images.requires_grad


# Running statistics -------------------------------------------------------------------------------------------------

PENALTIES = {
    **{
        d: lambda *batch, d=d, **options: regularizers.sr(*batch, direction=d, **options) for d in ("+", "-", "central")
    },
    **{n: lambda *batch, n=n, **options: regularizers.loss_difference(*batch, norm=n, **options) for n in ("l1", "l2")},
}


def state(network):
    return {name: value.clone() for name, value in network.named_buffers()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(params=["spiking", "plain", "cumulative"])
def normalised(request, network):
    """A network with BatchNorm in training mode: ours, or torch's with an exponential or a cumulative average."""
    if request.param == "spiking":
        return network.train()
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3, momentum=None if request.param == "cumulative" else 0.1)
    return nn.Sequential(nn.Conv2d(1, 3, 3), norm, nn.Tanh(), nn.Flatten(), nn.Linear(108, 3)).double().train()


@pytest.mark.parametrize("name", PENALTIES)
def test_with_update_clean_only_clean_passes_move_the_statistics(normalised, batch, name):
    plain, both, clean = (copy.deepcopy(normalised) for _ in range(3))
    with torch.no_grad():
        plain(batch[0])
    expected = PENALTIES[name](both, *batch, update="both")
    result = PENALTIES[name](clean, *batch, update="clean")
    assert equal(state(clean), state(plain)) and not equal(state(both), state(plain))
    assert all(map(torch.equal, result, expected))
    result[1].backward()
    expected[1].backward()
    for ours, theirs in zip(clean.parameters(), both.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


@MODES
def test_unremembered_passes_are_normalised_as_before(normalised, batch, training):
    network, x = normalised.train(training), batch[0]
    before = state(network)
    with torch.no_grad(), regularizers.unremembered(network):
        inside = network(x)
    assert equal(state(network), before)
    with torch.no_grad():
        assert torch.equal(network(x), inside)
    assert equal(state(network), before) != training


def test_statistics_move_again_behind_the_block_and_behind_an_exception(normalised, batch):
    norms = [module for module in normalised.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    plain = copy.deepcopy(normalised)
    with regularizers.unremembered(normalised), regularizers.unremembered(normalised):
        normalised(batch[0])
    with pytest.raises(KeyError), regularizers.unremembered(normalised):
        normalised(batch[0])
        raise KeyError
    assert equal(state(normalised), state(plain))
    normalised(batch[0])
    plain(batch[0])
    assert equal(state(normalised), state(plain)) and momenta and [norm.momentum for norm in norms] == momenta


def test_a_norm_without_statistics_and_any_function_may_be_unremembered(batch):
    network = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False)).double()
    with regularizers.unremembered(network), regularizers.unremembered(torch.exp):
        network(batch[0])
    assert not network[0].track_running_stats


# The exact norms ----------------------------------------------------------------------------------------------------

IMAGES = torch.linspace(-1, 1, 32, dtype=torch.double).cos().view(4, 2, 2, 2)
LABELS = torch.tensor([0, 2, 1, 1])
EXACT = {"l1": regularizers.exact_l1, "l2": regularizers.exact_l2}


def smooth_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def slow_norm(value, network, images, labels, norm):
    """Norm of the gradient of `value`(logits, label) sample by sample, (B,)."""
    norms = []
    for image, label in zip(images, labels.tolist(), strict=True):
        leaf = image[None].clone().requires_grad_()
        value(network(leaf)[0], label).backward(inputs=[leaf])
        entries = leaf.grad.flatten().tolist()
        norms.append(sum(map(abs, entries)) if norm == "l1" else math.sqrt(sum(v * v for v in entries)))
    return norms


def probability(z, label):
    return confidence(z, label, None, "softmax")


def slopes(value, weights, h=1e-6):
    """∂ value() / ∂ each entry of `weights`, by central differences."""
    result = torch.zeros_like(weights)
    with torch.no_grad():
        for i in range(weights.numel()):
            before = weights.view(-1)[i].item()
            weights.view(-1)[i] = before + h
            above = value()
            weights.view(-1)[i] = before - h
            result.view(-1)[i] = (above - value()) / (2 * h)
            weights.view(-1)[i] = before
    return result


@NORMS
def test_the_exact_norms_by_hand(norm):
    # p = σ(w·x) with w·x = ln 3: p = ¾, so the gradients are ±(3/16)·w, ‖w‖₁ = 7 and ‖w‖₂ = 5
    x = math.log(3) * torch.tensor([[1 / 3, 0, 0.2], [1 / 3, 0, 0.3]], dtype=torch.double)
    logits, penalty = EXACT[norm](logistic(3, -4, 0), x, torch.tensor([0, 1]))
    assert penalty.item() == pytest.approx(3 / 16 * (7 if norm == "l1" else 5))
    assert torch.equal(logits, logistic(3, -4, 0)(x))


@NORMS
def test_the_exact_norms_and_their_weight_gradients_against_finite_differences(norm):
    network = smooth_network()
    logits, penalty = EXACT[norm](network, IMAGES, LABELS)
    assert torch.equal(logits, network(IMAGES)) and penalty > 0.01

    def slow():
        with torch.enable_grad():
            return sum(slow_norm(probability, network, IMAGES, LABELS, norm)) / 4

    assert penalty.item() == pytest.approx(slow())
    (0.7 * penalty + cross_entropy(logits, LABELS)).backward()
    for parameter in network.parameters():
        expected = slopes(lambda: 0.7 * slow() + cross_entropy(network(IMAGES), LABELS).item(), parameter)
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-5, atol=1e-8)


def test_sr_of_the_paper_tends_to_the_exact_l1():
    network = smooth_network().eval()
    _, exact = regularizers.exact_l1(network, IMAGES, LABELS)
    expected, errors = torch.autograd.grad(exact, network.parameters()), []
    for h in (1e-3, 1e-5):
        _, penalty = regularizers.sr(network, IMAGES, LABELS, preset="paper", h=h)
        gradients = torch.autograd.grad(penalty, network.parameters())
        pairs = [(penalty, exact), *zip(gradients, expected, strict=True)]
        errors.append(max((ours - theirs).abs().max().item() for ours, theirs in pairs))
    assert errors[0] < 1e-2
    assert errors[1] == pytest.approx(errors[0] / 100, rel=0.05)  # of first order in h


@NORMS
def test_the_loss_difference_tends_to_the_squared_norm(norm):
    network = smooth_network()

    def loss(z, label):
        return cross_entropy(z[None], torch.tensor([label]))

    exact = sum(v * v for v in slow_norm(loss, network, IMAGES, LABELS, norm)) / 4
    errors = [
        regularizers.loss_difference(network, IMAGES, LABELS, norm=norm, h=h)[1].item() - exact
        for h in (1e-2, 1e-3, 1e-4)
    ]
    assert 1e-6 < abs(errors[0]) < 0.4 * exact
    assert errors[1:] == pytest.approx([errors[0] / 10, errors[1] / 10], rel=0.1)  # of first order in h


def test_the_exact_l1_of_a_spiking_network_needs_the_reference_path(network, batch):
    images, labels = batch
    f = theory.probabilities(network)
    expected = theory.l1(theory.true_class_gradient(f, images, labels)).mean().item()  # once, on the fast path
    with network.reference_path():
        logits, penalty = regularizers.exact_l1(network, images, labels)
    torch.testing.assert_close(logits, network(images))
    assert penalty.item() == pytest.approx(expected) and penalty > 1e-2
    penalty.backward()
    for parameter in network.parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any()
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
        for parameter in network.parameters():
            expected = slopes(lambda: penalty().item(), parameter)
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-8)


def test_the_exact_l1_in_training_is_that_of_the_whole_batch(network, batch):
    # BatchNorm couples the samples: the gradient is that of the sum over the batch, and its statistics move once
    images, labels = batch
    slow = copy.deepcopy(network).train()
    leaf = images.clone().requires_grad_()
    total = sum(map(probability, slow(leaf), labels.tolist()))
    (gradient,) = torch.autograd.grad(total, leaf)
    with network.train().reference_path():
        _, penalty = regularizers.exact_l1(network, images, labels)
    assert penalty.item() == pytest.approx(gradient.abs().sum().item() / len(labels))
    for ours, theirs in zip(network.buffers(), slow.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


@NORMS
def test_a_sample_without_any_gradient_adds_nothing(norm):
    # the hidden units of the dead sample are silent, so its logits do not depend on its image
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(0.1, 1, generator=torch.Generator().manual_seed(0))
    alive = torch.rand(1, 1, 2, 2, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    _, one = EXACT[norm](network, alive, torch.tensor([1]))
    _, two = EXACT[norm](network, torch.cat([alive, torch.full_like(alive, -9.0)]), torch.tensor([1, 1]))
    assert two.item() == pytest.approx(one.item() / 2) and one > 1e-3
    parameters = list(network.parameters())
    gradients = (torch.autograd.grad(penalty, parameters, allow_unused=True) for penalty in (two, one))
    for result, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(result, expected / 2)
        assert result.isfinite().all()
