"""SR and its rivals against slow transcriptions of section 4 of the paper notes, edges by hand, identities."""

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
PRESETS = pytest.mark.parametrize("preset", FORMS)
VARIANTS = pytest.mark.parametrize("form", ALL, ids=" ".join)


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


def slow_sr(network, images, labels, form, clamp=None):
    """Section 4 read aloud: the forwards are batched, as BatchNorm may couple the samples; all else is one by one."""
    of, penalty, direction = form
    images = images.clone().requires_grad_()
    z = network(images)
    rivals, first = [], []
    for b, y in enumerate(labels.tolist()):
        runner_up = None
        for k in range(z.shape[1]):
            if k != y and (runner_up is None or z[b, k].item() > z[b, runner_up].item()):
                runner_up = k
        rivals.append(runner_up)
        first.append(confidence(z[b], y, runner_up, of))
    (gradient,) = torch.autograd.grad(sum(first), images, retain_graph=True)
    d = torch.where(gradient > 0, 1.0, torch.where(gradient < 0, -1.0, 0.0)).double()

    def moved(by):
        x = images.detach() + by * d
        if clamp is not None:
            x = torch.where(x < clamp[0], clamp[0], torch.where(x > clamp[1], clamp[1], x))
        return [confidence(z[b], labels[b], rivals[b], of) for z in [network(x)] for b in range(len(labels))]

    if direction == "+":
        quotients = [(above - here) / H for above, here in zip(moved(H), first, strict=True)]
    elif direction == "-":
        quotients = [(here - below) / H for below, here in zip(moved(-H), first, strict=True)]
    else:
        below, above = moved(-H), moved(H)
        quotients = [(a - b) / (2 * H) for a, b in zip(above, below, strict=True)]
    return z, sum(q * q if penalty == "square" else abs(q) for q in quotients) / len(labels)


def confidence(z, y, rival, of):
    if of == "margin":
        return 1 / (1 + torch.exp(z[rival] - z[y]))
    return torch.exp(z[y]) / sum(torch.exp(z_k) for z_k in z)


def agree(network, theirs, found, expected, labels):
    """Logits, penalty, gradients of the weights by both, and running statistics, with those of the slow version."""
    (logits, penalty), (expected_logits, expected_penalty) = found, expected
    assert torch.equal(logits, expected_logits)
    assert penalty.item() == pytest.approx(expected_penalty.item(), rel=1e-10)
    assert penalty > 1e-3
    (0.3 * penalty + cross_entropy(logits, labels)).backward()
    (0.3 * expected_penalty + cross_entropy(expected_logits, labels)).backward()
    for (name, ours), oracle in zip(network.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(
            ours.grad, oracle.grad, rtol=1e-8, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}"
        )
    for ours, oracle in zip(network.buffers(), theirs.buffers(), strict=True):  # every pass updates BatchNorm
        assert torch.equal(ours, oracle)


@MODES
@VARIANTS
def test_sr_equals_the_slow_transcription(network, batch, form, training):
    images, labels = batch
    theirs = copy.deepcopy(network).train(training)
    found = regularizers.sr(network.train(training), images, labels, **axes(form))
    agree(network, theirs, found, slow_sr(theirs, images, labels, form), labels)


@PRESETS
def test_a_preset_is_a_variant_with_a_name(network, batch, preset):
    assert regularizers.variant(preset) == FORMS[preset]
    by_name = regularizers.sr(network, *batch, preset=preset)[1]
    assert torch.equal(by_name, regularizers.sr(network, *batch, **axes(FORMS[preset]))[1])
    moved = regularizers.sr(network, *batch, preset=preset, direction="central")[1]
    assert torch.equal(moved, regularizers.sr(network, *batch, **axes((*FORMS[preset][:2], "central")))[1])
    assert not torch.equal(moved, by_name)


def test_sr_is_by_default_the_released_form(network, batch):
    expected = regularizers.sr(network, *batch, preset="released", h=0.01)[1]
    assert torch.equal(regularizers.sr(network, *batch)[1], expected)


@PRESETS
def test_the_penalty_alone_reaches_the_weights(network, batch, preset):
    theirs = copy.deepcopy(network)
    regularizers.sr(network, *batch, preset=preset)[1].backward()
    slow_sr(theirs, *batch, FORMS[preset])[1].backward()
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


@pytest.mark.parametrize(
    ("direction", "quotients"),
    [
        # p = σ(w·x) with w = (2, -1, 0.5): along d = (1, -1, 1) the margin grows by ‖w‖₁ = 3.5, over h = 0.01 by 0.035
        ("+", lambda u: (sigma(u + 0.035) - sigma(u)) / 0.01),
        ("-", lambda u: (sigma(u) - sigma(u - 0.035)) / 0.01),
        ("central", lambda u: (sigma(u + 0.035) - sigma(u - 0.035)) / 0.02),
    ],
)
@pytest.mark.parametrize("of", ["margin", "softmax"])  # of two classes they are the same
def test_a_linear_margin_by_hand(of, direction, quotients):
    w = torch.tensor([2.0, -1, 0.5], dtype=torch.double)

    def network(x):
        u = x.flatten(1) @ w
        return torch.stack([u + 7, torch.full_like(u, 7)], 1)

    x = torch.tensor([[0.5, 0, 0], [-0.4, 0.1, 0.2]], dtype=torch.double).view(2, 1, 1, 3)  # margins 1 and -0.8
    q = [quotients(1.0), quotients(-0.8)]
    for penalty, expected in (("absolute", sum(q) / 2), ("square", (q[0] ** 2 + q[1] ** 2) / 2)):
        found = regularizers.sr(network, x, torch.tensor([0, 0]), confidence=of, penalty=penalty, direction=direction)
        assert found[1].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("slope", [0.3, -0.3])
def test_only_the_central_quotient_is_exact_for_a_quadratic(slope):
    # p(x) = 0.45 + slope·x + 0.4·x² at x = 0: d = sign slope, and whichever way that is p″·h/2 = 0.4·h is the error
    def network(x):
        p = 0.45 + slope * x.flatten() + 0.4 * x.flatten().square()
        return torch.stack([torch.logit(p), torch.zeros_like(p)], 1)

    x = torch.zeros(1, 1, 1, 1, dtype=torch.double)
    for direction, expected in (("+", 0.3 + 0.4 * 0.1), ("-", 0.3 - 0.4 * 0.1), ("central", 0.3)):
        for of in ("margin", "softmax"):
            form = axes((of, "absolute", direction))
            _, found = regularizers.sr(network, x, torch.tensor([0]), h=0.1, **form)
            assert found.item() == pytest.approx(expected, rel=1e-12)


def shown(network, images, labels, **options):
    """What each pass but the first is shown."""
    seen = []
    handle = network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    regularizers.sr(network, images, labels, **options)
    handle.remove()
    assert torch.equal(seen[0], images)
    return seen[1:]


def probes(network, images, labels, preset):
    """d = (x₂ - x)/h, from what the second pass is shown."""
    (second,) = shown(network, images, labels, preset=preset)
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


@MODES
def test_the_probabilitys_gradient_is_that_of_the_loss_scaled_where_samples_do_not_interact(network, batch, training):
    # ∇f_y = -f_y·∇CE of each sample; a normalised batch has gradients of sums, whose terms are scaled one by one
    network.train(training)
    leaf, labels = batch[0].clone().requires_grad_(), batch[1]
    z = network(leaf)
    f_y = z.softmax(1)[torch.arange(len(z)), labels]
    (of_probability,) = torch.autograd.grad(f_y.sum(), leaf, retain_graph=True)
    (of_loss,) = torch.autograd.grad(cross_entropy(z, labels, reduction="sum"), leaf)
    off = (of_probability + f_y.detach().view(-1, 1, 1, 1) * of_loss).abs().max() / of_probability.abs().max()
    assert off > 0.01 if training else off < 1e-12


@MODES
def test_a_clamped_probe_stays_within_the_bounds(network, tiny, training):
    images, labels, _ = next(tiny.test.batches(24))
    images = (images > 0.3).double()  # only 0 and 1
    theirs, free = copy.deepcopy(network).train(training), copy.deepcopy(network).train(training)
    for form in (("margin", "square", "+"), ("softmax", "absolute", "-"), ("margin", "absolute", "central")):
        found = regularizers.sr(network.train(training), images, labels, clamp=(0.0, 1.0), **axes(form))
        expected = slow_sr(theirs, images, labels, form, clamp=(0.0, 1.0))[1].item()
        assert found[1].item() == pytest.approx(expected, rel=1e-10)
        unclamped = regularizers.sr(free, images, labels, **axes(form))[1].item()
        assert abs(expected - unclamped) > 0.05 * unclamped
    seen = shown(network, images, labels, clamp=(0.0, 1.0), direction="central")
    assert len(seen) == 2
    for x, other in zip(seen, reversed(seen), strict=True):
        assert x.min() == 0 and x.max() == 1
        assert ((x != images) & (other != images)).sum() == 0  # half of either probe is cut off, each on its side
        assert (x != images).double().mean() > 0.2


def test_clamping_changes_nothing_where_no_probe_strays(network, batch):
    images, labels = 0.1 + 0.8 * batch[0], batch[1]
    free, clamped = (regularizers.sr(network, images, labels, clamp=clamp)[1] for clamp in (None, (0.0, 1.0)))
    assert torch.equal(free, clamped)


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
    with pytest.raises(Refused, match="no update 'none'. Allowed: both, clean"):
        regularizers.sr(network, *batch, update="none")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"confidence": "logit"}, "There is no confidence of SR 'logit'. Allowed: margin, softmax."),
        ({"penalty": "l1"}, "There is no penalty of SR 'l1'. Allowed: square, absolute."),
        ({"direction": "both"}, r"There is no direction of SR 'both'. Allowed: \+, -, central\."),
        ({"direction": None}, "There is no direction of SR None."),
        ({"probe": "+"}, r"An SR variant cannot take {'probe': '\+'}: .*'probe'.* It takes .*confidence: str"),
    ],
)
def test_a_variant_that_there_is_not_is_refused_in_one_sentence(network, batch, given, message):
    for asked in (lambda: regularizers.sr(network, *batch, **given), lambda: regularizers.variant("paper", **given)):
        with pytest.raises(Refused, match=message) as refusal:
            asked()
        assert "\n" not in str(refusal.value)


# Running statistics -------------------------------------------------------------------------------------------------

PENALTIES = {
    "+": regularizers.sr,
    "-": lambda *given, **how: regularizers.sr(*given, direction="-", **how),
    "central": lambda *given, **how: regularizers.sr(*given, direction="central", **how),
    "loss l1": regularizers.loss_difference,
    "loss l2": lambda *given, **how: regularizers.loss_difference(*given, norm="l2", **how),
}


def state(network):
    return {name: value.clone() for name, value in network.named_buffers()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def plain(momentum=0.1):
    """Torch's own BatchNorm, which `networks` has none of."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3, momentum=momentum)
    return nn.Sequential(nn.Conv2d(1, 3, 3), norm, nn.Tanh(), nn.Flatten(), nn.Linear(108, 3)).double().train()


@pytest.mark.parametrize("kind", ["spiking", "plain", "cumulative"])
@pytest.mark.parametrize("name", PENALTIES)
def test_clean_passes_alone_move_the_statistics_where_that_is_asked(network, batch, name, kind):
    if kind != "spiking":
        network = plain(None if kind == "cumulative" else 0.1)
    images, labels = batch
    oracle, both, clean = (copy.deepcopy(network).train() for _ in range(3))
    with torch.no_grad():
        oracle(images)
    first = PENALTIES[name](both, images, labels, update="both")
    found = PENALTIES[name](clean, images, labels, update="clean")
    assert equal(state(clean), state(oracle))
    assert not equal(state(both), state(oracle))
    for ours, theirs in zip(found, first, strict=True):
        assert torch.equal(ours, theirs)
    found[1].backward()
    first[1].backward()
    for ours, theirs in zip(clean.parameters(), both.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("kind", ["spiking", "plain", "cumulative"])
@MODES
def test_unremembered_passes_are_normalised_as_ever(network, batch, kind, training):
    if kind != "spiking":
        network = plain(None if kind == "cumulative" else 0.1)
    x, before = batch[0], state(network.train(training))
    with torch.no_grad(), regularizers.unremembered(network):
        inside = network(x)
    assert equal(state(network), before)
    with torch.no_grad():
        assert torch.equal(network(x), inside)
    assert equal(state(network), before) != training


@pytest.mark.parametrize("kind", ["spiking", "plain"])
def test_statistics_move_again_behind_the_block_and_behind_an_exception(network, batch, kind):
    network = (network if kind == "spiking" else plain(0.3)).train()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if kind == "plain":
        norms[0].momentum = 0.7
    oracle = copy.deepcopy(network)
    with regularizers.unremembered(network), regularizers.unremembered(network):
        network(batch[0])
    with pytest.raises(KeyError), regularizers.unremembered(network):
        network(batch[0])
        raise KeyError
    assert equal(state(network), state(oracle))
    network(batch[0])
    oracle(batch[0])
    assert equal(state(network), state(oracle))
    assert norms and all(norm.momentum == (0.1 if kind == "spiking" else 0.7) for norm in norms)


def test_a_norm_that_never_remembers_still_does_not(batch):
    network = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False)).double()
    with regularizers.unremembered(network):
        network(batch[0])
    assert not network[0].track_running_stats


def test_any_callable_may_be_unremembered():
    with regularizers.unremembered(torch.exp):
        pass


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
        confidence(network(leaf)[0], label, None, "softmax").backward(inputs=[leaf])
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


def normed_network():
    """The same with a BatchNorm in training mode, which couples the samples."""
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)
    return nn.Sequential(*layers).double().train()


@pytest.mark.parametrize("make", [smooth_network, normed_network])
@VARIANTS
def test_weight_gradients_of_sr_against_finite_differences(make, form):
    network, (of, penalty, direction) = make(), form
    z = network(IMAGES)
    rivals = [max((k for k in range(3) if k != y), key=lambda k: row[k]) for row, y in zip(z, LABELS, strict=True)]

    def total(x):
        rows = zip(network(x), LABELS, rivals, strict=True)
        return [confidence(row, y, rival, of) for row, y, rival in rows]

    leaf = IMAGES.clone().requires_grad_()
    d = torch.autograd.grad(sum(total(leaf)), leaf)[0].sign()  # it and the rivals are constants
    low, high = {"+": (0, H), "-": (-H, 0), "central": (-H, H)}[direction]

    def loss():
        differences = zip(total(IMAGES + high * d), total(IMAGES + low * d), strict=True)
        quotients = [((above - below) / (high - low)).item() for above, below in differences]
        own = sum(q**2 if penalty == "square" else abs(q) for q in quotients) / len(quotients)
        return 0.7 * own + cross_entropy(network(IMAGES), LABELS).item()

    logits, found = regularizers.sr(network, IMAGES, LABELS, **axes(form))
    (0.7 * found + cross_entropy(logits, LABELS)).backward()
    for parameter in network.parameters():
        torch.testing.assert_close(parameter.grad, slopes(loss, parameter), rtol=1e-5, atol=1e-7)


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
    total = sum(confidence(row, label, None, "softmax") for row, label in zip(z, labels.tolist(), strict=True))
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


# The exact l2 -------------------------------------------------------------------------------------------------------


def test_the_exact_l2_by_hand():
    # as the exact l1 above: (3/16)·w with ‖(3, -4, 0)‖₂ = 5, and of the second sample ‖(0, 1, 0)‖₂ = 1
    w = torch.tensor([3.0, -4, 0], dtype=torch.double)

    def network(x):
        u = (x * torch.stack([w, torch.tensor([0.0, 1, 0])])).sum(1)
        return torch.stack([u, 0 * u], 1)

    x = math.log(3) * torch.tensor([[1 / 3, 0, 0.2], [0.3, 1, 0.2]], dtype=torch.double)
    logits, penalty = regularizers.exact_l2(network, x, torch.tensor([0, 1]))
    assert penalty.item() == pytest.approx(3 / 16 * (5 + 1) / 2)
    assert torch.equal(logits, network(x))


def slow_l2(network, images, labels):
    """Sample by sample: the root of the squares of ∂p_y/∂x summed, averaged over the samples."""
    total = 0
    for image, label in zip(images, labels.tolist(), strict=True):
        leaf = image[None].clone().requires_grad_()
        confidence(network(leaf)[0], label, None, "softmax").backward(inputs=[leaf])
        total += math.sqrt(sum(v * v for v in leaf.grad.flatten().tolist()))
    return total / len(labels)


def test_the_exact_l2_and_its_weight_gradients_against_finite_differences():
    network = smooth_network()
    logits, penalty = regularizers.exact_l2(network, IMAGES, LABELS)
    assert torch.equal(logits, network(IMAGES))
    assert penalty.item() == pytest.approx(slow_l2(network, IMAGES, LABELS))
    (0.7 * penalty + cross_entropy(logits, LABELS)).backward()

    def loss():
        with torch.enable_grad():
            own = slow_l2(network, IMAGES, LABELS)
        return 0.7 * own + cross_entropy(network(IMAGES), LABELS).item()

    for parameter in network.parameters():
        torch.testing.assert_close(parameter.grad, slopes(loss, parameter), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("exact", [regularizers.exact_l1, regularizers.exact_l2])
def test_a_sample_without_any_gradient_adds_nothing(exact):
    # the first hidden units of the dead sample are silent, so its logits do not depend on its image
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(0.1, 1, generator=torch.Generator().manual_seed(0))
    alive = torch.rand(1, 1, 2, 2, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    both = torch.cat([alive, torch.full_like(alive, -9.0)])
    _, one = exact(network, alive, torch.tensor([1]))
    _, two = exact(network, both, torch.tensor([1, 1]))
    assert two.item() == pytest.approx(one.item() / 2) and one > 1e-3
    parameters = list(network.parameters())
    pairs = zip(*(torch.autograd.grad(p, parameters, allow_unused=True) for p in (two, one)), strict=True)
    for found, expected in pairs:
        torch.testing.assert_close(found, expected / 2)
        assert found.isfinite().all()


# The difference of losses ------------------------------------------------------------------------------------------

NORMS = pytest.mark.parametrize("norm", ["l1", "l2"])


def slow_loss_difference(network, images, labels, norm, h=H):
    """Finlay and Oberman read aloud: the forwards are batched, all else is one by one."""
    images = images.clone().requires_grad_()
    z = network(images)
    first = [-torch.log(confidence(row, y, None, "softmax")) for row, y in zip(z, labels.tolist(), strict=True)]
    (gradient,) = torch.autograd.grad(sum(first), images, retain_graph=True)
    d = torch.zeros_like(images)
    for b, g in enumerate(gradient):
        size = math.sqrt(sum(v * v for v in g.flatten().tolist()))
        for place, v in enumerate(g.flatten().tolist()):
            d[b].view(-1)[place] = ((v > 0) - (v < 0)) if norm == "l1" else v / size
    moved = network(images.detach() + h * d)
    second = [-torch.log(confidence(row, y, None, "softmax")) for row, y in zip(moved, labels.tolist(), strict=True)]
    return z, sum(((b - a) / h) ** 2 for a, b in zip(first, second, strict=True)) / len(labels)


@MODES
@NORMS
def test_the_loss_difference_equals_the_slow_transcription(network, batch, norm, training):
    images, labels = batch
    theirs = copy.deepcopy(network).train(training)
    found = regularizers.loss_difference(network.train(training), images, labels, norm=norm, h=H)
    with torch.enable_grad():
        expected = slow_loss_difference(theirs, images.detach(), labels, norm)
    agree(network, theirs, found, expected, labels)


@pytest.mark.parametrize(("norm", "size"), [("l1", 3.5), ("l2", math.sqrt(5.25))])
def test_the_loss_difference_by_hand(norm, size):
    # ℓ = log(1 + e^-w·x) with w = (2, -1, 0.5); along d = -sign w, or -w/‖w‖₂, the margin falls by ‖w‖₁·h, or ‖w‖₂·h
    w = torch.tensor([2.0, -1, 0.5], dtype=torch.double)

    def network(x):
        u = x.flatten(1) @ w
        return torch.stack([u, 0 * u], 1)

    x = torch.tensor([0.5, 0, 0], dtype=torch.double).view(1, 1, 1, 3)
    q = (math.log(1 + math.exp(-1 + size * 0.02)) - math.log(1 + math.exp(-1))) / 0.02
    _, penalty = regularizers.loss_difference(network, x, torch.tensor([0]), norm=norm, h=0.02)
    assert penalty.item() == pytest.approx(q**2, rel=1e-9)


@NORMS
def test_the_loss_difference_tends_to_the_squared_norm(norm):
    network, total = smooth_network(), 0
    for image, label in zip(IMAGES, LABELS.tolist(), strict=True):
        leaf = image[None].clone().requires_grad_()
        cross_entropy(network(leaf), torch.tensor([label])).backward(inputs=[leaf])
        values = leaf.grad.flatten().tolist()
        total += sum(abs(v) for v in values) ** 2 if norm == "l1" else sum(v * v for v in values)
    off = [
        regularizers.loss_difference(network, IMAGES, LABELS, norm=norm, h=h)[1].item() - total / 4
        for h in (1e-2, 1e-3, 1e-4)
    ]
    assert abs(off[0]) < 0.1 * total and abs(off[0]) > 1e-6
    assert off[1] == pytest.approx(off[0] / 10, rel=0.1)  # the error is of first order in h
    assert off[2] == pytest.approx(off[1] / 10, rel=0.1)


def test_the_loss_difference_is_by_default_that_of_l1_at_the_released_h(network, batch):
    expected = regularizers.loss_difference(network, *batch, norm="l1", h=0.01, update="both")[1]
    assert torch.equal(regularizers.loss_difference(network, *batch)[1], expected)


@NORMS
@pytest.mark.parametrize("make", [smooth_network, normed_network])
def test_weight_gradients_of_the_loss_difference_against_finite_differences(make, norm):
    network = make()
    leaf = IMAGES.clone().requires_grad_()
    (g,) = torch.autograd.grad(cross_entropy(network(leaf), LABELS, reduction="sum"), leaf)
    d = g.sign() if norm == "l1" else g / g.square().sum((1, 2, 3), keepdim=True).sqrt()  # a constant

    def loss():
        above, here = (cross_entropy(network(x), LABELS, reduction="none") for x in (IMAGES + H * d, IMAGES))
        return (0.7 * ((above - here) / H).square().mean() + here.mean()).item()

    logits, found = regularizers.loss_difference(network, IMAGES, LABELS, norm=norm, h=H)
    (0.7 * found + cross_entropy(logits, LABELS)).backward()
    for parameter in network.parameters():
        torch.testing.assert_close(parameter.grad, slopes(loss, parameter), rtol=1e-5, atol=1e-7)


@NORMS
def test_a_sample_without_a_loss_gradient_adds_nothing(norm):
    def network(x):
        u = x.flatten(1).sum(1)
        return torch.stack([0 * u, 0 * u + 1], 1)

    _, penalty = regularizers.loss_difference(network, IMAGES, LABELS.clamp(max=1), norm=norm)
    assert penalty.item() == 0


def test_what_the_loss_difference_refuses(network, batch):
    for options, message in (
        ({"norm": "linf"}, "There is no norm 'linf'. Allowed: l1, l2."),
        ({"h": 0}, "h is 0; it must be a finite number above 0."),
        ({"update": "clear"}, "There is no update 'clear'. Allowed: both, clean."),
    ):
        with pytest.raises(Refused) as refusal:
            regularizers.loss_difference(network, *batch, **options)
        assert str(refusal.value) == message
