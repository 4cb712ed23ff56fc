"""Networks against the paper's layers run on the T-fold batch, one after the other, with plain BatchNorm and loops."""

import copy
import io
from contextlib import contextmanager, nullcontext

import pytest
import snntorch as snn
import torch
import torch.nn.functional as F
from conftest import scatter
from torch import nn

from paperlib import networks
from paperlib.attacks.attack import Attack
from paperlib.attacks.evaluation import chance
from paperlib.errors import Refused
from paperlib.networks import rules
from paperlib.networks.architectures import WideBlock
from paperlib.networks.network import Network
from paperlib.networks.neurons import LIF, NormedLIF

# C convolution and BatchNorm, N neuron, P average pool, L linear; section 2 of the paper notes
VGG11 = "CNP CNCNP CNCNCNP CNCN LNLNL".replace(" ", "")
MEAN, STD = (0.375, 0.5), (0.25, 0.125)  # exact in float32, in which the network keeps them
PLANS = {"conv-4": "CNPL", "conv-4-6": "CNPCNPL", "vgg11": VGG11}


def small(name="conv-4-6", seed=0, **options):
    """A network of two channels in float64, its BatchNorm and readout away from where they start."""
    torch.manual_seed(seed)
    defaults = dict(in_channels=2, image_size=8, num_classes=3, T=3, mean=MEAN, std=STD)
    network = networks.build(name, **{**defaults, **options}).double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            scatter(module)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.bias)
        elif isinstance(module, WideBlock):
            nn.init.uniform_(module.mix, 0.3, 0.9)
    return network


def pictures(*shape, seed=1):
    return torch.rand(shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def spiking(x, T, *, tau=1.0):
    """The paper's neuron on (T·B, ...), its reset attached, its surrogate the triangle."""
    v, spikes = 0, []
    for current in x.unflatten(0, (T, -1)):
        m = tau * v + current
        slope = (1 - (m.detach() - 1).abs()).clamp(min=0)
        spikes.append((m.detach() >= 1).double() + slope * (m - m.detach()))
        v = (1 - spikes[-1]) * m
    return torch.cat(spikes)


def smooth(x, T, *, tau=1.0):
    """The same neuron with the area below that triangle, two parabolas, for a spike, and its own gradient."""
    v, spikes = 0, []
    for current in x.unflatten(0, (T, -1)):
        m = tau * v + current
        below, above = m.clamp(0, 1), (2 - m).clamp(0, 1)  # 1 + u, 1 - u
        spikes.append(torch.where(m < 1, below**2 / 2, 1 - above**2 / 2))
        v = (1 - spikes[-1]) * m
    return torch.cat(spikes)


def by_the_paper(network, images, plan, mean, std, neuron=spiking):
    """Logits and every BatchNorm's new running statistics, layer by layer on all T·B images, from the raw weights."""
    T, weights, statistics = network.T, list(network.parameters()), []
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    per_channel = (torch.tensor(v, dtype=torch.double).view(-1, 1, 1) for v in (mean, std))
    x = ((images - next(per_channel)) / next(per_channel)).repeat(T, 1, 1, 1)
    for layer in plan:
        if layer == "C":
            weight, bias, scale, shift, *weights = weights
            norm, *norms = norms
            statistics.append((norm.running_mean.clone(), norm.running_var.clone()))
            x = F.conv2d(x, weight, bias, padding=1)
            x = F.batch_norm(x, *statistics[-1], scale, shift, training=network.training)
        elif layer == "N":
            x = neuron(x, T)
        elif layer == "P":
            x = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
        else:
            weight, bias, *weights = weights
            x = x.flatten(1) @ weight.T + bias
    assert not weights and not norms
    return x.unflatten(0, (T, -1)).mean(0), statistics  # the mean over time comes last


def wide_by_the_paper(network, images, mean, std, neuron=spiking):
    """The same for WRN-16: pre-activation blocks, a shortcut that takes the activated input where the width changes."""
    T, statistics, tau = network.T, [], next((neuron.tau for neuron in network.neurons()), 1.0)
    weight = {name.removeprefix("body."): parameter for name, parameter in network.named_parameters()}
    running = {name.removeprefix("body."): buffer.clone() for name, buffer in network.named_buffers()}

    def active(x, norm):
        statistics.append((running[f"{norm}.running_mean"], running[f"{norm}.running_var"]))
        scale, shift = weight.pop(f"{norm}.weight"), weight.pop(f"{norm}.bias")
        return neuron(F.batch_norm(x, *statistics[-1], scale, shift, training=network.training), T, tau=tau)

    per_channel = (torch.tensor(v, dtype=torch.double).view(-1, 1, 1) for v in (mean, std))
    x = ((images - next(per_channel)) / next(per_channel)).repeat(T, 1, 1, 1)
    x = F.conv2d(x, weight.pop("stem.weight"), padding=1)  # no neuron behind it
    for block, (width, stride) in enumerate([(64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1)]):
        spikes = active(x, f"{block}.norm1")
        residual = F.conv2d(spikes, weight.pop(f"{block}.conv1.0.weight"), stride=stride, padding=1)
        residual = F.conv2d(active(residual, f"{block}.norm2"), weight.pop(f"{block}.conv2.0.weight"), padding=1)
        if x.shape[1] != width:
            x = F.conv2d(spikes, weight.pop(f"{block}.shortcut.0.weight"), stride=stride)
        mix = weight.pop(f"{block}.mix")
        x = mix[0] * x + mix[1] * residual
    x = active(x, "6").mean((2, 3))  # 8×8 of 32×32 pixels
    x = x @ weight.pop("head.weight").T + weight.pop("head.bias")
    assert not weight
    return x.unflatten(0, (T, -1)).mean(0), statistics


@pytest.mark.parametrize("neuron", [spiking, smooth])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", [*PLANS, "wrn16"])
def test_network_is_the_papers_layers_on_the_repeated_batch(name, training, neuron):
    options = dict(T=2, tau=0.9) if name == "wrn16" else dict(T=2 if name == "vgg11" else 4)
    network = small(name, **options).train(training)
    images, labels = pictures(3, 2, 8, 8), torch.tensor([0, 2, 1])
    results = []
    for oracle in (True, False):  # the oracle first: the network then changes its running statistics
        leaf = images.clone().requires_grad_()
        if oracle and name == "wrn16":
            logits, statistics = wide_by_the_paper(network, leaf, mean=MEAN, std=STD, neuron=neuron)
        elif oracle:
            logits, statistics = by_the_paper(network, leaf, PLANS[name], mean=MEAN, std=STD, neuron=neuron)
        else:
            with network.smoothed() if neuron is smooth else nullcontext():
                logits = network(leaf)
        results.append((logits, torch.autograd.grad(F.cross_entropy(logits, labels), [leaf, *network.parameters()])))
    (expected, expected_gradients), (logits, gradients) = results
    assert logits.shape == (3, 3) and logits.std() > 0.01
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-11)
    assert gradients[0].abs().max() > 1e-6
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-7, atol=1e-10)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close([(m.running_mean, m.running_var) for m in norms], statistics, rtol=1e-9, atol=1e-12)


# The switches of the neuron, in whole networks ------------------------------------------------------------------------


def exact(name="conv-4-6", **options):
    """A network in which no number is rounded, so that membranes meet the threshold exactly, and often.

    Weights and images are few eighths; BatchNorm divides by 1 and shifts by eighths.
    """
    network = small(name, **{**dict(T=4, mean=None, std=None), **options}).float().eval()
    generator = torch.Generator().manual_seed(5)

    def eighths(tensor, low, high):
        tensor.copy_(torch.randint(low, high + 1, tensor.shape, generator=generator) / 8)

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
                module.running_var.fill_(1), module.weight.fill_(1)
                eighths(module.running_mean, -2, 0), eighths(module.bias, 0, 3)
            elif isinstance(module, (nn.Conv2d, nn.Linear)):
                for parameter in module.parameters():
                    eighths(parameter, -2, 2)
            elif isinstance(module, WideBlock):
                module.mix.fill_(0.5)
    return network


def eighths_of_pictures(*shape):
    return (pictures(*shape) * 8).round().float() / 8


def with_leaky(network, images, *, tau, fire_at, detach):
    """`conv-4-6` from torch's own layers and snnTorch's neurons, step after step: logits, spikes, weights."""
    convolutions, norms = ([m for m in network.modules() if isinstance(m, t)] for t in (nn.Conv2d, nn.BatchNorm2d))

    def spike(u):  # by its value a comparison, by its gradient the triangle
        fired = (u >= 0 if fire_at == ">=" else u > 0).float()
        return fired + (1 - u.detach().abs()).clamp(min=0) * (u - u.detach())

    stages = []
    for convolution, theirs in zip(convolutions, norms, strict=True):
        norm = nn.BatchNorm2d(theirs.num_features, eps=theirs.eps).eval()
        norm.load_state_dict(theirs.state_dict())
        leaky = snn.Leaky(beta=tau, spike_grad=spike, reset_mechanism="zero", reset_delay=detach)
        stages.append((convolution, norm, leaky))
    membranes, logits, spikes = [None] * len(stages), [], []
    for _ in range(network.T):
        x = images
        for place, (convolution, norm, leaky) in enumerate(stages):
            current = norm(convolution(x))
            before = torch.zeros_like(current) if membranes[place] is None else membranes[place]
            fired, membranes[place] = leaky(current, before)
            x = nn.AvgPool2d(2)(fired)
            spikes.append(fired)
        logits.append(network.head(x.flatten(1)))
    weights = [parameter for layers in stages for layer in layers[:2] for parameter in layer.parameters()]
    return torch.stack(logits).mean(0), spikes, [*weights, *network.head.parameters()]


@pytest.mark.parametrize("tau", [1.0, 0.5])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("fire_at", [">=", ">"])
def test_switches_against_a_network_of_stepped_leakys(fire_at, detach, tau):
    network, images = exact(tau=tau, fire_at=fire_at, detach_reset=detach), eighths_of_pictures(5, 2, 8, 8)
    results = []
    for plain in (False, True):
        leaf = images.clone().requires_grad_()
        if plain:
            logits, spikes, weights = with_leaky(network, leaf, tau=tau, fire_at=fire_at, detach=detach)
        else:
            logits, weights = network(leaf), network.parameters()
        loss = F.cross_entropy(logits, torch.tensor([0, 1, 2, 0, 1]))
        results.append((logits, *torch.autograd.grad(loss, [leaf, *weights])))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1].any()
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)
    assert 0.05 < torch.cat([s.flatten() for s in spikes]).mean() < 0.95


@pytest.mark.parametrize("name", ["conv-4-6", "wrn16"])
def test_each_switch_matters(name):
    images = eighths_of_pictures(5, 2, 8, 8)
    states, results = exact(name).state_dict(), {}
    for fire_at, detach in ((">=", False), (">=", True), (">", False), (">", True)):
        network = exact(name, fire_at=fire_at, detach_reset=detach)
        network.load_state_dict(states)  # the same keys, whatever the switches
        leaf = images.clone().requires_grad_()
        logits = network(leaf)
        results[fire_at, detach] = logits, torch.autograd.grad(logits.square().sum(), leaf)[0]
    for fire_at in (">=", ">"):
        assert torch.equal(results[fire_at, False][0], results[fire_at, True][0])
        assert not torch.allclose(results[fire_at, False][1], results[fire_at, True][1])
    assert not torch.equal(results[">=", False][0], results[">", False][0])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["conv-4-6", "vgg11", "wrn16"])
def test_fast_and_reference_path_give_the_same_bits(name, training):
    # where all is in float32 one spike that moved would show; so would statistics that differ in their last bit
    fast = small(name, T=3, tau=0.9).float().train(training)
    slow, images, outs = copy.deepcopy(fast), pictures(4, 2, 8, 8).float(), {}
    for network in (fast, slow):
        for at, module in network.named_modules():
            if isinstance(module, (NormedLIF, LIF)):
                module.register_forward_hook(lambda m, x, y, key=(network, at): outs.__setitem__(key, y))
    logits = fast(images)
    with slow.reference_path():
        expected = slow(images)
    for at in [at for network, at in outs if network is fast]:
        assert torch.equal(outs[fast, at], outs[slow, at])
    assert torch.equal(logits, expected)


def test_two_passes_may_share_one_backward():
    # as in training with SR: statistics are updated between a pass and its backward
    network, images = small().train(), pictures(3, 2, 8, 8)
    other = copy.deepcopy(network)
    (network(images).square() + network(images + 0.01)).sum().backward()
    other(images).square().sum().backward()
    other(images + 0.01).sum().backward()
    for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


# Shapes -------------------------------------------------------------------------------------------------------------


def layer_shapes(name, *, channels, size, classes, T):
    """(layer, input shape, output shape) without batch and time, in order of use, and the network."""
    network, seen = networks.build(name, in_channels=channels, image_size=size, num_classes=classes, T=T), []

    def note(module, given, out):
        folded = 2 if isinstance(module, (LIF, NormedLIF)) else 1
        seen.append((type(module).__name__, tuple(given[0].shape[folded:]), tuple(out.shape[folded:])))

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, NormedLIF, LIF, nn.Linear)):
            module.register_forward_hook(note)
    with torch.no_grad():
        assert network.eval()(torch.rand(2, channels, size, size)).shape == (2, classes)
    return seen, network


def test_vgg11_has_the_papers_layers():
    seen, network = layer_shapes("vgg11", channels=3, size=32, classes=10, T=2)
    expected, channels, size = [], 3, 32
    for width, pooled in ((64, 1), (128, 0), (256, 1), (512, 0), (512, 0), (512, 1), (512, 0), (512, 0)):
        here = (width, size, size)
        expected.append(("Conv2d", (channels, size, size), here))
        channels, size = width, size // 2 if pooled else size
        expected.append(("NormedLIF", here, (width, size, size)))
    for features, width in ((512 * 16, 4096), (4096, 4096)):
        expected += [("Linear", (features,), (width,)), ("LIF", (width,), (width,))]
    assert seen == [*expected, ("Linear", (4096,), (10,))]

    ends = [3, 64, 128, 256, 512, 512, 512, 512, 512]
    convolutions = sum(9 * a * b + 3 * b for a, b in zip(ends, ends[1:], strict=False))  # bias, BatchNorm's two
    linear = (8192 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 10
    assert sum(p.numel() for p in network.parameters()) == convolutions + linear == 61_377_034
    assert all(m.bias is not None for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
    assert {(m.kernel_size, m.padding, m.stride) for m in network.modules() if isinstance(m, nn.Conv2d)} == {
        ((3, 3), (1, 1), (1, 1))
    }


def test_wrn16_has_the_papers_layers():
    seen, network = layer_shapes("wrn16", channels=3, size=32, classes=100, T=2)
    expected = [("Conv2d", (3, 32, 32), (16, 32, 32))]
    channels, size = 16, 32
    for width, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
        before, here = (channels, size, size), (width, size // stride, size // stride)
        expected.append(("NormedLIF", before, before))
        if channels != width:
            expected.append(("Conv2d", before, here))  # the shortcut
        expected += [("Conv2d", before, here), ("NormedLIF", here, here), ("Conv2d", here, here)]
        channels, size = width, size // stride
    assert seen == [*expected, ("NormedLIF", (256, 8, 8), (256, 8, 8)), ("Linear", (256,), (100,))]

    ends = [16, 64, 64, 128, 128, 256, 256]
    pairs = list(zip(ends, ends[1:], strict=False))
    blocks = sum(9 * a * b + 9 * b * b + 2 * (a + b) + (a * b if a != b else 0) + 2 for a, b in pairs)
    count = 9 * 3 * 16 + blocks + 2 * 256 + 257 * 100
    assert sum(p.numel() for p in network.parameters()) == count
    assert count == 2_748_890 + 12 + 90 * 257  # the usual WRN-16-4 for 10 classes, the scalars, 90 classes more
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.bias is None for m in convolutions)
    assert sum(m.kernel_size == (3, 3) for m in convolutions) == 13 and len(convolutions) == 16


@pytest.mark.parametrize(
    "name, size, readout",
    [
        ("conv-16-32", 28, 32 * 7 * 7),
        ("conv-8", 5, 8 * 2 * 2),  # an odd row is dropped by the pool
        ("conv-4-4-6", 8, 6),
        ("vgg11", 48, 4096),
        ("wrn16", 28, 256),
        ("wrn16", 9, 256),  # the average is over whatever is left
        ("wrn16", 4, 256),
    ],
)
def test_shapes_of_small_networks(name, size, readout):
    seen, network = layer_shapes(name, channels=1, size=size, classes=10, T=2)
    assert seen[-1] == ("Linear", (readout,), (10,))
    if name == "vgg11":
        assert ("Linear", (512 * 36,), (4096,)) in seen  # as for event frames


# What goes in, what comes out ---------------------------------------------------------------------------------------


def test_normalisation_is_inside():
    plain = small(mean=None, std=None).eval()
    inside = small().eval()
    images = pictures(4, 2, 8, 8)
    shift, scale = (torch.tensor(v, dtype=torch.double).view(2, 1, 1) for v in (MEAN, STD))
    torch.testing.assert_close(inside(images), plain((images - shift) / scale))
    assert not torch.allclose(inside(images), plain(images))
    assert inside.state_dict().keys() == plain.state_dict().keys()
    assert not {"mean", "std"} & inside.state_dict().keys()  # they belong to the data set


@pytest.mark.parametrize("name", ["conv-4-6", "wrn16"])
def test_in_eval_mode_samples_do_not_interact(name):
    network, images = small(name).eval(), pictures(5, 2, 8, 8)
    together, before = network(images), {k: v.clone() for k, v in network.state_dict().items()}
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone)
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(leaf)[2].sum(), leaf)
    assert gradient[2].any() and not gradient[[0, 1, 3, 4]].any()
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_in_train_mode_batch_norm_couples_them():
    leaf = pictures(5, 2, 8, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(small().train()(leaf)[2].sum(), leaf)
    assert gradient[0].any()


def test_no_state_passes_between_calls_or_networks():
    a, b = small(seed=0).eval(), small(seed=1).eval()
    x, y = pictures(3, 2, 8, 8), pictures(4, 2, 8, 8, seed=2)
    first = a(x), b(y)
    b(x), a(y)
    assert torch.equal(a(x), first[0]) and torch.equal(b(y), first[1])


def test_images_are_left_alone():
    images = pictures(3, 2, 8, 8)
    before = images.clone()
    small().train()(images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
@pytest.mark.parametrize("name", ["conv-4-6", "wrn16"])
def test_precision_follows_the_network(name, dtype):
    network = small(name).to(dtype).eval()
    leaf = pictures(2, 2, 8, 8).to(dtype).requires_grad_()
    logits = network(leaf)
    logits.sum().backward()
    assert logits.dtype == leaf.grad.dtype == dtype
    assert {p.grad.dtype for p in network.parameters()} == {dtype}


def test_no_images():
    network = small().eval()
    assert network(pictures(0, 2, 8, 8)).shape == (0, 3)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["conv-4-6", "wrn16"])
def test_a_copy_is_the_same_network_and_its_own(name, training):
    network, images = small(name).train(training), pictures(3, 2, 8, 8)
    twin = copy.deepcopy(network)
    first = twin(images)
    kept = {k: v.clone() for k, v in twin.state_dict().items()}
    assert torch.equal(network(images), first)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
    network(images + 1)
    assert all(torch.equal(v, kept[k]) for k, v in twin.state_dict().items())
    with network.backward_rule("atan"), network.reference_path():
        assert {n.rule.name for n in twin.neurons()} == {"triangle"}
        assert all(n.path == "fast" for n in twin.neurons())


@pytest.mark.parametrize("precision", networks.PRECISIONS)
@pytest.mark.parametrize("name", ["conv-4-6", "wrn16"])
def test_a_state_goes_through_a_file(name, precision):
    network, images, file = small(name, precision=precision).float().eval(), pictures(3, 2, 8, 8).float(), io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other = small(name, seed=7, precision=precision).float().eval()
    assert not torch.equal(other(images), network(images))
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert torch.equal(other(images), network(images))
    plain = small(name, seed=8).float()
    plain.load_state_dict(network.state_dict(), strict=True)  # precision is no part of the state


# Building -----------------------------------------------------------------------------------------------------------


def test_the_seed_decides_the_weights():
    def weights(seed):
        torch.manual_seed(seed)
        network = networks.build("conv-4-6", in_channels=1, image_size=8, num_classes=3, T=2)
        return torch.cat([p.flatten() for p in network.parameters()])

    assert torch.equal(weights(3), weights(3)) and not torch.equal(weights(3), weights(4))


def test_initialisation():
    torch.manual_seed(0)
    network = networks.build("conv-64-32", in_channels=3, image_size=16, num_classes=50, T=2)
    first, second = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    for convolution, fan_out in ((first, 64 * 9), (second, 32 * 9)):
        assert convolution.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.06)
        assert convolution.bias.any()
    assert not network.head.bias.any()
    assert network.head.weight.abs().max().item() == pytest.approx((32 * 16) ** -0.5, rel=0.01)  # as PyTorch makes it


def test_initialisation_of_wrn16():
    torch.manual_seed(0)
    network = networks.build("wrn16", in_channels=3, image_size=8, num_classes=50, T=2)
    for convolution in (m for m in network.modules() if isinstance(m, nn.Conv2d)):
        fan_out = convolution.weight[:, 0].numel()
        assert convolution.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
    assert not network.head.bias.any()
    assert [m.mix.tolist() for m in network.modules() if isinstance(m, WideBlock)] == [[0.5, 0.5]] * 6
    assert len(network.neurons()) == 13 and len({id(n) for n in network.neurons()}) == 13
    assert {m.steps for m in network.modules() if isinstance(m, NormedLIF)} == {2}


@pytest.mark.parametrize("name", ["conv-4-6", "vgg11", "wrn16"])
def test_every_parameter_is_trained(name):
    network = small(name).train()
    F.cross_entropy(network(pictures(4, 2, 8, 8)), torch.tensor([0, 1, 2, 0])).backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_neurons_get_their_options():
    rule = rules.sigmoid()
    network = small(T=2, tau=0.5, rule=rule, fire_at=">", detach_reset=True)
    neurons = [m for m in network.modules() if isinstance(m, LIF)]
    assert len(neurons) == 2
    for lif in neurons:
        assert (lif.rule, lif.tau, lif.threshold, lif.fire_at, lif.detach_reset) == (rule, 0.5, 1.0, ">", True)
    default = next(m for m in small().modules() if isinstance(m, LIF))
    assert (default.rule.name, default.tau, default.fire_at, default.detach_reset) == ("triangle", 1.0, ">=", False)


# The reference path -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["conv-4-6", "wrn16"])
def test_reference_path_gives_the_same_network(name, training):
    network, images = small(name, tau=0.5).train(training), pictures(3, 2, 8, 8)

    def run():
        leaf = images.clone().requires_grad_()
        logits = network(leaf)
        return logits, torch.autograd.grad(logits.square().sum(), leaf, create_graph=True)[0]

    fast = run()
    with network.reference_path():
        slow = run()
        slow[1].square().sum().backward()  # twice differentiable
    torch.testing.assert_close(fast, slow)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        fast[1].square().sum().backward()


def test_reference_path_ends_with_its_block():
    network = small()
    with pytest.raises(KeyError), network.reference_path():
        raise KeyError
    leaf = pictures(2, 2, 8, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(network(leaf).square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("block", [Network.reference_path, Network.smoothed])
def test_a_checkpoint_does_not_depend_on_the_path(block):
    network = small()
    names = set(network.state_dict())
    with block(network):
        assert set(network.state_dict()) == names
    assert set(network.state_dict()) == names


def test_paths_nest_and_end_with_their_blocks():
    network = small()

    def now():
        (path,) = {neuron.path for neuron in network.neurons()}
        return path

    with network.reference_path():
        with network.reference_path():
            pass
        assert now() == "reference"
        with network.smoothed():
            with network.reference_path():
                assert now() == "reference"
            assert now() == "smooth"
        assert now() == "reference"
        with pytest.raises(KeyError), network.smoothed():
            raise KeyError
        assert now() == "reference"
    assert now() == "fast"


@pytest.mark.parametrize("block", [Network.reference_path, Network.smoothed])
def test_each_neuron_has_its_own_path_back(block):
    network = small()
    network.neurons()[1].path = "reference"
    with block(network):
        assert len({neuron.path for neuron in network.neurons()}) == 1
    assert [neuron.path for neuron in network.neurons()] == ["fast", "reference"]


# Another backward rule ------------------------------------------------------------------------------------------------

ALONE = [name for name in rules.RULES if name not in ("assg", "pdsg")]  # those that couple no samples
RULES = [(name, {}) for name in ALONE] + [("triangle", {"gamma": 0.5}), ("sigmoid", {"slope": 2.0})]


def logits_and_gradient(network, images):
    leaf = images.clone().requires_grad_()
    logits = network(leaf)
    return logits.detach(), torch.autograd.grad(F.cross_entropy(logits, torch.arange(len(images)) % 3), leaf)[0]


@pytest.mark.parametrize("network_name", ["conv-4-6", "wrn16"])
@pytest.mark.parametrize("name, options", RULES)
def test_backward_rule_is_that_of_a_network_built_with_it(name, options, network_name):
    network, images = small(network_name, tau=0.9).eval(), pictures(3, 2, 8, 8)
    other = small(network_name, tau=0.9, rule=rules.build(name, **options)).eval()
    other.load_state_dict(network.state_dict())
    own = logits_and_gradient(network, images)
    with network.backward_rule(name, **options):
        within = logits_and_gradient(network, images)
    expected, after = logits_and_gradient(other, images), logits_and_gradient(network, images)
    assert torch.equal(within[0], own[0]) and torch.equal(within[0], expected[0])
    assert torch.equal(within[1], expected[1])
    assert torch.equal(after[1], own[1])
    assert torch.allclose(within[1], own[1]) == (name == "triangle" and not options)


def test_backward_rule_belongs_to_the_forward_pass():
    network, leaf = small().eval(), pictures(3, 2, 8, 8).requires_grad_()

    def gradient_of(logits):
        return torch.autograd.grad(logits.square().sum(), leaf)[0]

    own = network(leaf)
    with network.backward_rule("sigmoid"):
        within = network(leaf)
        inside = gradient_of(network(leaf))
        own = gradient_of(own)  # of a pass before the block
    assert torch.equal(gradient_of(within), inside)
    assert torch.equal(gradient_of(network(leaf)), own) and not torch.allclose(own, inside)


def test_backward_rules_nest_and_end_with_their_blocks():
    network = small(rule=rules.exponential(0.3))

    def now():
        (name,) = {neuron.rule.name for neuron in network.neurons()}
        return name

    with network.backward_rule("sigmoid"):
        with network.backward_rule("rate"):
            assert now() == "rate"
        assert now() == "sigmoid"
        with pytest.raises(KeyError), network.backward_rule("atan"):
            assert now() == "atan"
            raise KeyError
        assert now() == "sigmoid"
    assert now() == "exponential"


def test_each_neuron_has_its_own_rule_back():
    network = small()
    first, second = network.neurons()
    first.rule, second.rule = rules.atan(), rules.sigmoid()
    before = first.rule, second.rule
    with network.backward_rule("triangle", gamma=0.5):
        assert first.rule.half_width == second.rule.half_width == 0.5
    assert first.rule is before[0] and second.rule is before[1]


@pytest.mark.parametrize("name, options", [("box", {}), ("triangle", {"slope": 1.0}), ("sigmoid", {"slope": 0})])
def test_a_backward_rule_that_is_refused_changes_nothing(name, options):
    network = small()
    before = [neuron.rule for neuron in network.neurons()]
    with network.backward_rule("atan"):
        with pytest.raises(Refused), network.backward_rule(name, **options):
            pytest.fail("the block must not begin")
        assert {neuron.rule.name for neuron in network.neurons()} == {"atan"}
    assert [neuron.rule for neuron in network.neurons()] == before


@pytest.mark.parametrize("name", [name for name in ALONE if name != "rate"])
def test_backward_rule_on_the_reference_path(name):
    network, images = small(tau=0.9).eval(), pictures(3, 2, 8, 8)
    with network.backward_rule(name):
        fast = logits_and_gradient(network, images)
        with network.reference_path():
            torch.testing.assert_close(fast, logits_and_gradient(network, images))


def test_the_reference_path_refuses_the_rate_rule():
    network = small().eval()
    with pytest.raises(Refused, match="rate rule"), network.reference_path(), network.backward_rule("rate"):
        network(pictures(1, 2, 8, 8))
    network(pictures(1, 2, 8, 8))  # and all is as before


# Smooth spikes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["triangle", "sigmoid", "atan"])
@pytest.mark.parametrize("name", ["conv-4-6", "wrn16"])
def test_the_gradient_of_the_smooth_network_is_exact(name, rule):
    # against central differences along eight directions; the surrogate gradient is none of this function, nor of any
    network, images, h = small(name, tau=0.9).eval(), pictures(1, 2, 8, 8), 1e-6
    along = torch.randn(8, 2, 8, 8, dtype=torch.double, generator=torch.Generator().manual_seed(2))

    def gradient():
        leaf = images.clone().requires_grad_()
        return torch.autograd.grad(network(leaf)[0, 1], leaf)[0]

    with network.backward_rule(rule):
        surrogate = gradient()
        with network.smoothed():
            exact = gradient()
            differences = (network(images + h * along) - network(images - h * along))[:, 1] / (2 * h)
    assert differences.abs().max() > 1e-3
    torch.testing.assert_close((exact * along).sum((1, 2, 3)), differences, rtol=1e-5, atol=1e-7)
    assert not torch.allclose((surrogate * along).sum((1, 2, 3)), differences, rtol=1e-2)


@pytest.mark.parametrize("name", ["conv-4-6", "wrn16"])
def test_the_smooth_network_can_be_differentiated_twice(name):
    # the Hessian of the loss times a direction, against central differences of its gradient
    network, images, h = small(name, rule=rules.sigmoid(), tau=0.9).eval(), pictures(2, 2, 8, 8), 1e-5
    along = torch.randn(images.shape, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    with network.smoothed():
        ends = [logits_and_gradient(network, images + way * along)[1] for way in (h, -h)]
        leaf = images.clone().requires_grad_()
        loss = F.cross_entropy(network(leaf), torch.tensor([0, 1]))
        (first,) = torch.autograd.grad(loss, leaf, create_graph=True)
        (second,) = torch.autograd.grad((first * along).sum(), leaf)
    assert second.abs().max() > 1e-4
    torch.testing.assert_close(second, (ends[0] - ends[1]) / (2 * h), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name, T, same", [("conv-4", 1, True), ("conv-4", 2, False), ("conv-4-6", 1, False)])
def test_with_one_layer_and_one_step_the_surrogate_gradient_is_exact(name, T, same):
    # later steps and later layers see other membranes
    network, images = small(name, T=T).eval(), pictures(3, 2, 8, 8)

    def jacobian():
        leaf = images.clone().requires_grad_()
        logits = network(leaf)
        return logits, torch.stack([torch.autograd.grad(k.sum(), leaf, retain_graph=True)[0] for k in logits.T])

    logits, surrogate = jacobian()
    with network.smoothed():
        areas, exact = jacobian()
    assert surrogate.any() and not torch.allclose(areas, logits)
    assert torch.allclose(surrogate, exact, rtol=1e-9, atol=1e-14) == same


@pytest.mark.parametrize("name", ["conv-4-6", "wrn16"])
def test_narrow_smooth_spikes_are_spikes(name):
    network, images = small(name, tau=0.9).eval(), pictures(4, 2, 8, 8)
    logits = network(images)
    with network.smoothed():
        assert not torch.allclose(network(images), logits)
        with network.backward_rule("triangle", gamma=1e-9):  # no membrane is as near to its threshold
            torch.testing.assert_close(network(images), logits, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["conv-4-6", "wrn16"])
def test_smoothing_leaves_the_network_as_it_was(name):
    network, images = small(name).float().eval(), pictures(3, 2, 8, 8).float()
    state = {k: v.clone() for k, v in network.state_dict().items()}
    before = logits_and_gradient(network, images)
    for failing in (False, True):
        with pytest.raises(KeyError) if failing else nullcontext(), network.smoothed():
            within = logits_and_gradient(network, images)
            if failing:
                raise KeyError
        after = logits_and_gradient(network, images)
        for a, b, c in zip(after, before, within, strict=True):
            assert torch.equal(a, b) and not torch.allclose(a, c)
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())


def test_smoothing_belongs_to_the_forward_pass():
    network, leaf = small().eval(), pictures(3, 2, 8, 8).requires_grad_()
    own = network(leaf)
    with network.smoothed():
        within, again = network(leaf), network(leaf)
        (own,) = torch.autograd.grad(own.sum(), leaf)  # of a pass before the block
        (inside,) = torch.autograd.grad(again.sum(), leaf)
    assert torch.equal(torch.autograd.grad(within.sum(), leaf)[0], inside)
    assert torch.equal(torch.autograd.grad(network(leaf).sum(), leaf)[0], own) and not torch.allclose(own, inside)


@pytest.mark.parametrize("name, options", [("sigmoid", {"slope": 2}), ("triangle", {"gamma": 0.5}), ("rectangle", {})])
def test_a_backward_rule_decides_what_is_smooth(name, options):
    network, images = small(tau=0.9).eval(), pictures(3, 2, 8, 8)
    other = small(tau=0.9, rule=rules.build(name, **options)).eval()
    other.load_state_dict(network.state_dict())
    with network.smoothed(), network.backward_rule(name, **options):
        inner = logits_and_gradient(network, images)
    with network.backward_rule(name, **options), network.smoothed():
        outer = logits_and_gradient(network, images)
    with network.smoothed(), other.smoothed():
        own, expected = (logits_and_gradient(net, images) for net in (network, other))
    for a, b, c, d in zip(inner, outer, expected, own, strict=True):
        assert torch.equal(a, c) and torch.equal(b, c) and not torch.allclose(c, d)


@pytest.mark.parametrize("rule", ["rate", "straight-through"])
@pytest.mark.parametrize("name", ["conv-4-6", "vgg11"])
def test_smoothing_refuses_rules_without_an_integral(name, rule):
    network, images = small(name).eval(), pictures(1, 2, 8, 8)
    before = network(images)
    with network.smoothed():
        with network.backward_rule(rule), pytest.raises(Refused, match=f"rule {rule} has no integral"):
            network(images)
        network(images)
    assert torch.equal(network(images), before)


# Sixteen bits ---------------------------------------------------------------------------------------------------------


def pair(name, **options):
    """The same weights in both precisions, in eval mode."""
    plain = small(name, **options).float().eval()
    halved = small(name, precision="bfloat16", **options).float().eval()
    halved.load_state_dict(plain.state_dict())
    return plain, halved


def traced(network, images):
    """Input and output of the convolutions, linear layers, neurons and norms, in order of use."""
    seen, handles = [], []
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, LIF, NormedLIF)):
            note = lambda m, given, out: seen.append((m, given[0].detach(), out.detach()))  # noqa: E731
            handles.append(module.register_forward_hook(note))
    network(images)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("name", ["conv-8-16", "vgg11", "wrn16"])
def test_sixteen_bits_change_the_logits_a_little(name):
    # a spike that moves moves others, so that in a deep network without training only the mean over images stays
    plain, halved = pair(name, T=4)
    images = pictures(32, 2, 8, 8).float()
    with torch.no_grad():
        expected, logits = plain(images), halved(images)
    assert logits.dtype == torch.float and not torch.equal(logits, expected)
    assert (logits - expected).mean(0).abs().max() < 0.1 * expected.abs().mean()
    if name == "conv-8-16":
        assert (logits - expected).abs().mean() < 0.2 * (expected - expected.mean(0)).abs().mean()


@pytest.mark.parametrize("name", ["conv-8-16", "vgg11", "wrn16"])
def test_every_layer_in_sixteen_bits_is_that_layer(name):
    # each on the input that it was given: products within the rounding, spikes exactly, as if all had been in float32
    _, halved = pair(name)
    for module, given, out in traced(halved, pictures(3, 2, 8, 8).float()):
        with torch.no_grad():
            expected = module(given.float())
        if isinstance(module, (LIF, NormedLIF)):
            assert torch.equal(out.float(), expected) and 0 < expected.mean() < 1
        else:
            torch.testing.assert_close(out.float(), expected, rtol=2**-7, atol=0.02 * expected.std().item())


@pytest.mark.parametrize("name", ["conv-8-16", "vgg11", "wrn16"])
def test_sixteen_bits_are_those_of_the_bodys_products(name):
    _, halved = pair(name)
    stem, *middle, head = traced(halved, pictures(3, 2, 8, 8).float())
    assert stem[0] is halved.stem and head[0] is halved.head
    for _, given, out in (stem, head):
        assert given.dtype == out.dtype == torch.float
        assert not torch.equal(out, out.bfloat16().float())  # nor were they ever rounded
    products = [out.dtype for module, _, out in middle if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert products and set(products) == {torch.bfloat16}
    first = next(given for module, given, _ in middle if isinstance(module, NormedLIF))
    assert first.dtype == torch.float and torch.equal(first[0], stem[2])


def test_no_perturbation_of_an_image_is_rounded_away():
    # 1e-5 of values around 1 is a hundredth of what 16 bits can tell apart; the first currents and membranes see it
    _, halved = pair("conv-8-16")
    images = pictures(64, 2, 8, 8).float()
    changed = images + 1e-5 * torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    (_, _, one), (_, given, _), *_ = traced(halved, images)
    (_, _, other), *_ = traced(halved, changed)
    assert (one != other).double().mean() > 0.9
    assert (one.bfloat16() != other.bfloat16()).double().mean() < 0.1
    gradient = logits_and_gradient(halved, images)[1]
    assert gradient.dtype == torch.float and not torch.equal(gradient, gradient.bfloat16().float())


@pytest.mark.parametrize("name", ["conv-8-16", "wrn16"])
def test_sixteen_bits_leave_the_weights_and_statistics_at_thirty_two(name):
    _, halved = pair(name)
    halved.train()
    before = {k: v.clone() for k, v in halved.state_dict().items()}
    F.cross_entropy(halved(pictures(4, 2, 8, 8).float()), torch.tensor([0, 1, 2, 0])).backward()
    for p in halved.parameters():
        assert p.dtype == p.grad.dtype == torch.float and p.grad.isfinite().all() and p.grad.any()
    for key, value in halved.state_dict().items():
        assert value.dtype == before[key].dtype
        if "running" in key:
            assert value.dtype == torch.float and not torch.equal(value, before[key])


def test_gradients_in_sixteen_bits_point_the_same_way():
    plain, halved = pair("conv-8-16", T=4)
    images = pictures(16, 2, 8, 8).float()
    (_, one), (_, other) = logits_and_gradient(plain, images), logits_and_gradient(halved, images)
    assert not torch.equal(one, other)
    assert torch.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.9


@pytest.mark.parametrize("name", ["conv-8-16", "vgg11", "wrn16"])
def test_smooth_spikes_in_sixteen_bits(name):
    # nothing jumps, so that rounding moves every logit and every gradient a little, in a deep network as well
    plain, halved = pair(name, T=4)
    images = pictures(8, 2, 8, 8).float()
    with plain.smoothed(), halved.smoothed():
        (expected, one), (logits, other) = (logits_and_gradient(network, images) for network in (plain, halved))
    assert logits.dtype == other.dtype == torch.float and not torch.equal(logits, expected)
    assert (logits - expected).abs().max() < 0.02 * expected.abs().max()
    assert torch.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.99


def test_sixteen_bits_end_with_the_forward_pass():
    _, halved = pair("conv-4-6")
    halved(pictures(2, 2, 8, 8).float())
    assert not torch.is_autocast_enabled("cpu")
    with pytest.raises(RuntimeError):
        halved(pictures(2, 2, 4, 4).float())  # too small for the readout
    assert not torch.is_autocast_enabled("cpu")


def test_float32_is_the_default():
    assert small().precision == "float32"
    outs = [out.dtype for _, _, out in traced(small().float().eval(), pictures(2, 2, 8, 8).float())]
    assert set(outs) == {torch.float}


# Refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed, sentence",
    [
        (dict(name="resnet"), "no network 'resnet'.*vgg11, wrn16, conv-"),
        (dict(name="wrn-16"), "no network 'wrn-16'"),
        (dict(name="wrn16", image_size=3), "wrn16 halves its input 2 times.*3 pixels"),
        (dict(name="wrn16", image_size=0), "wrn16 halves its input"),
        (dict(name="wrn16", T=0), "T is 0"),
        (dict(precision="float16"), "no precision 'float16'.*float32, bfloat16"),
        (dict(precision="bf16"), "no precision 'bf16'"),
        (dict(precision=None), "no precision None"),
        (dict(precision=torch.bfloat16), "no precision torch.bfloat16"),
        (dict(name="conv"), "no network 'conv'"),
        (dict(name="conv-"), "no network 'conv-'"),
        (dict(name="conv-16-x"), "no network 'conv-16-x'"),
        (dict(name="conv-16-0"), "no network 'conv-16-0'"),
        (dict(T=0), "T is 0"),
        (dict(T=2.5), "T is 2.5.*whole number"),
        (dict(num_classes=0), "num_classes is 0"),
        (dict(image_size=3), "conv-4-6 halves its input 2 times.*3.*too small"),
        (dict(image_size=0), "too small"),
        (dict(image_size=-16), "too small"),
        (dict(name="vgg11", image_size=7), "vgg11 halves its input 3 times.*7.*too small"),
        (dict(tau=1.5), "tau is 1.5"),
        (dict(name="ann-conv-4"), "^ann-conv-4 is given T = 2, tau = 1; without spikes it takes T = 1 and tau = 1.$"),
        (dict(name="ann-vgg11", T=1, tau=0.5), "ann-vgg11 is given T = 1, tau = 0.5; without spikes"),
        (dict(name="ann-wrn16", T=1, detach_reset=True), "T = 1, tau = 1 and a detached reset; without spikes"),
        (dict(name="ann-wrn16", T=1, image_size=3), "ann-wrn16 halves its input 2 times.*3 pixels"),
        (dict(fire_at="<"), "fire_at '<'"),
    ],
)
def test_refused(changed, sentence):
    options = {"name": "conv-4-6", "in_channels": 1, "image_size": 8, "num_classes": 3, "T": 2, **changed}
    with pytest.raises(Refused, match=sentence):
        networks.build(options.pop("name"), **options)


# Poisson input --------------------------------------------------------------------------------------------------------


@contextmanager
def frames_of(network):
    """A list that takes what the stem is shown, (T·B, C, H, W), at each pass inside the block."""
    seen = []
    hook = network.stem.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        hook.remove()


def shown(network, images):
    with frames_of(network) as seen:
        network(images)
    return seen[0].detach().unflatten(0, (network.T, len(images)))


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
@pytest.mark.parametrize("name", ["poisson-conv-4-6", "poisson-vgg11", "poisson-wrn16"])
def test_poisson_frames_are_spikes(name, dtype):
    network, images = small(name).to(dtype).eval(), pictures(4, 2, 8, 8).to(dtype)
    frames = shown(network, images.requires_grad_())
    assert frames.shape == (3, 4, 2, 8, 8) and frames.dtype == dtype
    assert ((frames == 0) | (frames == 1)).all() and 0.4 < frames.mean() < 0.6
    assert network(images).shape == (4, 3)


def test_poisson_frames_have_the_pixels_rates():
    # 20,000 draws a pixel: five standard errors are below 0.018
    network, images = small("poisson-conv-1", image_size=2, T=20_000).eval(), pictures(3, 2, 2, 2)
    torch.testing.assert_close(shown(network, images).mean(0), images, rtol=0, atol=0.018)


def test_no_two_poisson_draws_are_shared():
    frames = shown(small("poisson-conv-4", T=60).eval(), torch.full((4, 2, 8, 8), 0.5, dtype=torch.double))
    for flat in (frames.flatten(1), frames.transpose(0, 1).flatten(1), frames.flatten(0, 1).flatten(1).T):
        # of steps, of samples, of pixels: each pair agrees in about half of its places
        centred = flat - flat.mean(1, keepdim=True)
        centred = centred / centred.norm(dim=1, keepdim=True)
        assert (centred @ centred.T).fill_diagonal_(0).abs().max() < 0.5


def test_poisson_pixels_saturate():
    images = torch.tensor([-0.5, -0.0, 0.0, 1.0, 1.7], dtype=torch.double).repeat(2, 2, 5, 1)[..., :5]
    for dtype in (torch.double, torch.float, torch.bfloat16):
        network = small("poisson-conv-4", image_size=5, T=500).to(dtype).eval()
        assert torch.equal(shown(network, images.to(dtype)), (images >= 1).to(dtype).expand(500, 2, 2, 5, 5))


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-24])  # the least and the largest that torch draws
@pytest.mark.parametrize("dtype", [torch.double, torch.float, torch.bfloat16], ids=str)
def test_the_rarest_poisson_draws(dtype, draw, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape: torch.full(shape, draw))
    images = torch.tensor([-0.5, 0.0, 2.0**-40, 0.5, 1.0, 1.5], dtype=dtype).expand(1, 2, 6, 6)
    fires = images > 0 if draw == 0 else images >= 1
    network = small("poisson-conv-4", image_size=6, T=1).to(dtype).eval()
    assert torch.equal(shown(network, images)[0], fires.to(dtype))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["conv-4-6", "vgg11", "wrn16"])
def test_of_black_and_white_images_poisson_is_direct_encoding(name, training):
    options = dict(mean=None, std=None, tau=0.9)
    direct, poisson = small(name, **options).train(training), small(f"poisson-{name}", **options).train(training)
    poisson.load_state_dict(direct.state_dict(), strict=True)
    images, found = pictures(3, 2, 8, 8).round(), []
    for network in (direct, poisson):
        leaf = images.clone().requires_grad_()
        logits = network(leaf)
        loss = F.cross_entropy(logits, torch.tensor([0, 2, 1]))
        found.append((logits, *torch.autograd.grad(loss, [leaf, *network.parameters()])))
    torch.testing.assert_close(*found, rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(direct.state_dict(), poisson.state_dict())


def test_poisson_network_is_the_papers_layers_on_its_frames():
    network, images, T = small("poisson-conv-4", T=5, tau=0.9).eval(), pictures(3, 2, 8, 8), 5
    leaf = images.clone().requires_grad_()
    with frames_of(network) as seen:
        logits = network(leaf)
    found = torch.autograd.grad(logits.square().sum(), [leaf, *network.parameters()])
    frames = seen[0].detach().requires_grad_()
    norm = network.body[0]
    x = F.conv2d(frames, network.stem.weight, network.stem.bias, padding=1)
    x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    x = F.avg_pool2d(spiking(x, T, tau=0.9), 2).flatten(1)
    expected = (x @ network.head.weight.T + network.head.bias).unflatten(0, (T, 3)).mean(0)
    torch.testing.assert_close(logits, expected)
    by_frames, *others = torch.autograd.grad(expected.square().sum(), [frames, *network.parameters()])
    straight_through = by_frames.unflatten(0, (T, 3)).sum(0)
    torch.testing.assert_close(found, (straight_through, *others))
    assert straight_through.any()


def test_poisson_input_is_not_normalised():
    network = small("poisson-conv-4").eval()
    other = small("poisson-conv-4", mean=None, std=None).eval()
    with chance(0):
        logits = network(pictures(3, 2, 8, 8))
    with chance(0):
        assert torch.equal(logits, other(pictures(3, 2, 8, 8)))


def test_a_poisson_network_draws_anew_and_by_its_seed():
    network, images = small("poisson-conv-4-6", T=8).eval(), pictures(4, 2, 8, 8)

    def drawn(seed):
        with chance(seed):
            return network(images), network(images)

    first = drawn(3)
    assert not torch.equal(*first)
    assert all(map(torch.equal, drawn(3), first))
    assert not torch.equal(drawn(4)[0], first[0])


@pytest.mark.parametrize("dtype", [torch.float, torch.bfloat16])
def test_a_seeds_draws_are_the_same_in_every_precision(dtype):
    images = pictures(3, 2, 8, 8).to(dtype).double()  # the same numbers in either
    wide, narrow = small("poisson-conv-4").eval(), small("poisson-conv-4").to(dtype).eval()
    with chance(4):
        drawn = shown(wide, images)
    with chance(4):
        assert torch.equal(drawn, shown(narrow, images.to(dtype)).double())


def test_a_direct_network_draws_nothing():
    network, before = small().eval(), torch.get_rng_state()
    logits_and_gradient(network, pictures(3, 2, 8, 8))
    assert torch.equal(torch.get_rng_state(), before)
    assert not network.stochastic and not network.coupled


def test_a_poisson_network_is_coupled():
    # a sample's draws depend on its place: moved, it gets others
    network, images = small("poisson-conv-4", T=8).eval(), pictures(4, 2, 8, 8)
    assert network.stochastic and network.coupled
    with chance(0):
        together = network(images)
    with chance(0):
        assert not torch.equal(network(images[1:])[0], together[1])


@pytest.mark.parametrize("precision", networks.PRECISIONS)
@pytest.mark.parametrize("name", ["poisson-conv-4-6", "poisson-wrn16"])
def test_a_poisson_network_trains(name, precision):
    network = small(name, precision=precision).float().train()
    images, labels = pictures(8, 2, 8, 8).float(), torch.arange(8) % 3
    weights = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    before = [weight.clone() for weight in weights]
    optimiser, losses = torch.optim.SGD(network.parameters(), lr=0.05), []
    for _ in range(12):
        with chance(0):
            loss = F.cross_entropy(network(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert all(not torch.equal(a, b) for a, b in zip(before, weights, strict=True))
    assert min(losses[6:]) < losses[0]


@pytest.mark.parametrize("rule", rules.RULES)
def test_backward_rule_of_a_poisson_network(rule):
    network, images = small("poisson-conv-4-6", tau=0.9).eval(), pictures(3, 2, 8, 8)
    with chance(0):
        own = logits_and_gradient(network, images)
    with chance(0), network.backward_rule(rule):
        within = logits_and_gradient(network, images)
    assert torch.equal(own[0], within[0]) and within[1].any()
    assert torch.equal(own[1], within[1]) == (rule == "triangle")


def test_reference_path_of_a_poisson_network():
    network, images = small("poisson-conv-4-6", tau=0.9).eval(), pictures(3, 2, 8, 8)
    with chance(0):
        own = logits_and_gradient(network, images)
    with chance(0), network.reference_path():
        torch.testing.assert_close(logits_and_gradient(network, images), own)


def test_a_poisson_network_without_images():
    assert small("poisson-conv-4-6").eval()(pictures(0, 2, 8, 8)).shape == (0, 3)


def test_poisson_names():
    for name in ("vgg11", "wrn16", "conv-8-16"):
        assert networks.architecture(f"poisson-{name}") == networks.architecture(name)
    for name in ("poisson-", "poisson", "poisson-poisson-conv-4", "poisson-box", "poisson-conv-", "conv-4-poisson-"):
        with pytest.raises(Refused, match=f"no network '{name}'.*vgg11.*behind poisson-"):
            networks.architecture(name)


# Twins without spikes -------------------------------------------------------------------------------------------------

TWINS = ["ann-conv-4", "ann-conv-4-6", "ann-vgg11", "ann-wrn16"]


def rectified(x, T, *, tau=1.0):
    """What stands for a neuron in a twin."""
    return torch.where(x > 0, x, 0.0)


def twin(name="ann-conv-4-6", **options):
    return small(name, T=1, **options)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", TWINS)
def test_a_twin_is_the_papers_layers_with_rectifiers(name, training):
    network, images, labels = twin(name).train(training), pictures(3, 2, 8, 8), torch.tensor([0, 2, 1])
    results = []
    for oracle in (True, False):  # the oracle first: the network then changes its running statistics
        leaf = images.clone().requires_grad_()
        if oracle and name == "ann-wrn16":
            logits, statistics = wide_by_the_paper(network, leaf, mean=MEAN, std=STD, neuron=rectified)
        elif oracle:
            plan = PLANS[name.removeprefix("ann-")]
            logits, statistics = by_the_paper(network, leaf, plan, mean=MEAN, std=STD, neuron=rectified)
        else:
            logits = network(leaf)
        results.append((logits, torch.autograd.grad(F.cross_entropy(logits, labels), [leaf, *network.parameters()])))
    (expected, expected_gradients), (logits, gradients) = results
    assert logits.shape == (3, 3) and logits.std() > 0.01
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-11)
    assert gradients[0].abs().max() > 1e-6
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-7, atol=1e-10)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    torch.testing.assert_close([(m.running_mean, m.running_var) for m in norms], statistics, rtol=1e-9, atol=1e-12)


def test_a_twin_is_a_plain_network_of_torchs_layers():
    network = twin().eval()
    first, second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
    block = [nn.ReLU(), nn.AvgPool2d(2)]
    layers = [first, nn.BatchNorm2d(4), *block, second, nn.BatchNorm2d(6), *block, nn.Flatten(), nn.Linear(24, 3)]
    plain = nn.Sequential(*layers).double()
    plain.load_state_dict(dict(zip(plain.state_dict(), network.state_dict().values(), strict=True)))
    images = pictures(5, 2, 8, 8)
    shift, scale = (torch.tensor(v, dtype=torch.double).view(2, 1, 1) for v in (MEAN, STD))
    torch.testing.assert_close(network(images), plain.eval()((images - shift) / scale), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_has_the_weights_of_its_spiking_network(name):
    ours, spiking_one = twin(name).state_dict(), small(name.removeprefix("ann-"), T=4).state_dict()
    assert ours.keys() == spiking_one.keys()
    assert all(torch.equal(value, spiking_one[key]) for key, value in ours.items())
    network = twin(name)
    assert not network.neurons() and not network.coupled and not network.stochastic


@pytest.mark.parametrize("name", ["ann-conv-4-6", "ann-wrn16"])
def test_no_rule_and_no_path_changes_a_twin(name):
    network, images = twin(name).eval(), pictures(4, 2, 8, 8)
    own = logits_and_gradient(network, images)
    blocks = [network.backward_rule("sigmoid", slope=4.0), network.backward_rule("pdsg"), network.backward_rule("rate")]
    for block in [*blocks, network.reference_path(), network.smoothed(), network.frozen()]:
        with block:
            assert not network.coupled
            for found, expected in zip(logits_and_gradient(network, images), own, strict=True):
                assert torch.equal(found, expected)
    with pytest.raises(Refused, match="no backward rule 'cubic'"), network.backward_rule("cubic"):
        pass


def test_the_gradient_of_a_twin_is_its_slope_and_has_slopes_of_its_own():
    network, images = twin().eval(), pictures(2, 2, 8, 8)
    network.requires_grad_(False)
    assert torch.autograd.gradcheck(network, images.requires_grad_())
    assert torch.autograd.gradgradcheck(lambda x: network(x).softmax(1), images)


@pytest.mark.parametrize("name", ["ann-conv-4-6", "ann-wrn16"])
def test_pgd_raises_the_loss_of_a_twin_whatever_rule_it_brings(name):
    network, images, labels = twin(name).eval(), pictures(6, 2, 8, 8), torch.arange(6) % 3
    attack = Attack("pgd", 0.1, {"alpha": 0.03, "steps": 5})
    found = attack.bind(seed=0)(network, images, labels, bounds=(0, 1))
    before, after = (F.cross_entropy(network(x), labels, reduction="none") for x in (images, found))
    assert (after > before).all() and (found - images).abs().max() <= 0.1 + 1e-12
    by_rule = Attack("pgd", 0.1, attack.options, {"name": "sigmoid", "slope": 4.0})
    assert torch.equal(by_rule.bind(seed=0)(network, images, labels, bounds=(0, 1)), found)


def test_a_twin_in_sixteen_bits_keeps_its_statistics_at_thirty_two():
    narrow, wide = (twin(precision=precision).float().train() for precision in ("bfloat16", "float32"))
    images = pictures(4, 2, 8, 8).float()
    found, expected = narrow(images), wide(images)
    assert found.dtype == torch.float and not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1)
    assert {value.dtype for value in narrow.state_dict().values()} == {torch.float, torch.long}


def test_names_of_twins():
    for name in ("vgg11", "wrn16", "conv-8-16"):
        assert networks.architecture(f"ann-{name}") == networks.architecture(name)
    for name in ("ann-", "ann", "ann-ann-conv-4", "ann-poisson-conv-4", "poisson-ann-conv-4", "ann-conv-", "ann-box"):
        with pytest.raises(Refused, match=f"no network '{name}'.*vgg11.*behind poisson-, ann- or events-"):
            networks.architecture(name)
