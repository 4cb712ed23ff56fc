"""Networks against the paper's layers run on the T-fold batch, one after the other, with plain BatchNorm and loops."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from paperlib import networks, rules
from paperlib.errors import Refused
from paperlib.networks import RepeatedBatchNorm2d
from paperlib.neurons import LIF

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
            nn.init.uniform_(module.weight, 0.7, 1.5)
            nn.init.uniform_(module.bias, 0.1, 0.9)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.bias)
    return network


def pictures(*shape, seed=1):
    return torch.rand(shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def by_the_paper(network, images, plan, mean, std):
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
            v, spikes = 0, []
            for current in x.unflatten(0, (T, -1)):
                m = v + current
                slope = (1 - (m.detach() - 1).abs()).clamp(min=0)  # the triangle
                spikes.append((m.detach() >= 1).double() + slope * (m - m.detach()))
                v = (1 - spikes[-1]) * m
            x = torch.cat(spikes)
        elif layer == "P":
            x = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
        else:
            weight, bias, *weights = weights
            x = x.flatten(1) @ weight.T + bias
    assert not weights and not norms
    return x.unflatten(0, (T, -1)).mean(0), statistics  # the mean over time comes last


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", PLANS)
def test_network_is_the_papers_layers_on_the_repeated_batch(name, training):
    network = small(name, T=2 if name == "vgg11" else 4).train(training)
    images, labels = pictures(3, 2, 8, 8), torch.tensor([0, 2, 1])
    results = []
    for oracle in (True, False):  # the oracle first: the network then changes its running statistics
        leaf = images.clone().requires_grad_()
        if oracle:
            logits, statistics = by_the_paper(network, leaf, PLANS[name], mean=MEAN, std=STD)
        else:
            logits = network(leaf)
        results.append((logits, torch.autograd.grad(F.cross_entropy(logits, labels), [leaf, *network.parameters()])))
    (expected, expected_gradients), (logits, gradients) = results
    assert logits.shape == (3, 3) and logits.std() > 0.01
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-11)
    assert gradients[0].abs().max() > 1e-6
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-7, atol=1e-10)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close([(m.running_mean, m.running_var) for m in norms], statistics, rtol=1e-9, atol=1e-12)


def test_repeated_batch_norm_is_batch_norm_on_the_repeated_batch():
    once, plain = RepeatedBatchNorm2d(3, repeats=5).double(), nn.BatchNorm2d(3).double()
    x = pictures(2, 3, 2, 3).requires_grad_()  # 12 values a channel: N/(N - 1) differs visibly from 60/59
    weights = pictures(2, 3, 2, 3, seed=2)
    for _ in range(3):
        y, repeated = once(x), plain(x.repeat(5, 1, 1, 1))
        torch.testing.assert_close(y.repeat(5, 1, 1, 1), repeated)
        gradients = torch.autograd.grad((5 * y * weights).sum(), [x, *once.parameters()])
        expected = torch.autograd.grad((repeated * weights.repeat(5, 1, 1, 1)).sum(), [x, *plain.parameters()])
        torch.testing.assert_close(gradients, expected)
        torch.testing.assert_close(once.state_dict(), plain.state_dict())
    once.eval(), plain.eval()
    torch.testing.assert_close(once(x), plain(x))


def test_two_passes_may_share_one_backward():
    # as in training with SR: statistics are updated between a pass and its backward
    network, images = small().train(), pictures(3, 2, 8, 8)
    (network(images) + network(images + 0.01)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


# Shapes -------------------------------------------------------------------------------------------------------------


def layer_shapes(name, *, channels, size, classes, T):
    """(layer, input shape without batch and time) in order of use, and the network; nothing is computed."""
    with torch.device("meta"):
        network = networks.build(name, in_channels=channels, image_size=size, num_classes=classes, T=T)
        seen = []
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.AvgPool2d, nn.Linear, LIF)):
                module.register_forward_pre_hook(
                    lambda m, given: seen.append(
                        (type(m).__name__, tuple(given[0].shape[2 if type(m) is LIF else 1 :]))
                    )
                )
        assert network.eval()(torch.rand(2, channels, size, size)).shape == (2, classes)
    return seen, network


def test_vgg11_has_the_papers_layers():
    seen, network = layer_shapes("vgg11", channels=3, size=32, classes=10, T=8)
    expected, channels, size = [], 3, 32
    for width in (64, "pool", 128, 256, "pool", 512, 512, 512, "pool", 512, 512):
        if width == "pool":
            expected.append(("AvgPool2d", (channels, size, size)))
            size //= 2
        else:
            expected += [("Conv2d", (channels, size, size)), ("LIF", (width, size, size))]
            channels = width
    expected += [("Linear", (512 * 16,)), ("LIF", (4096,)), ("Linear", (4096,)), ("LIF", (4096,)), ("Linear", (4096,))]
    assert seen == expected

    ends = [3, 64, 128, 256, 512, 512, 512, 512, 512]
    convolutions = sum(9 * a * b + 3 * b for a, b in zip(ends, ends[1:], strict=False))  # bias, BatchNorm's two
    linear = (8192 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 10
    assert sum(p.numel() for p in network.parameters()) == convolutions + linear == 61_377_034
    assert all(m.bias is not None for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))


@pytest.mark.parametrize(
    "name, size, readout",
    [
        ("conv-16-32", 28, 32 * 7 * 7),
        ("conv-8", 5, 8 * 2 * 2),  # an odd row is dropped by the pool
        ("conv-4-4-6", 8, 6),
        ("vgg11", 48, 4096),
    ],
)
def test_shapes_of_small_networks(name, size, readout):
    seen, network = layer_shapes(name, channels=1, size=size, classes=10, T=2)
    assert seen[-1] == ("Linear", (readout,))
    if name == "vgg11":
        assert ("Linear", (512 * 36,)) in seen  # as for event frames


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


def test_in_eval_mode_samples_do_not_interact():
    network, images = small().eval(), pictures(5, 2, 8, 8)
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
def test_precision_follows_the_network(dtype):
    network = small().to(dtype).eval()
    leaf = pictures(2, 2, 8, 8).to(dtype).requires_grad_()
    logits = network(leaf)
    logits.sum().backward()
    assert logits.dtype == leaf.grad.dtype == dtype


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


def test_reference_path_gives_the_same_network():
    network, images = small(tau=0.5).eval(), pictures(3, 2, 8, 8)

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


def test_a_checkpoint_does_not_depend_on_the_path():
    network = small()
    names = set(network.state_dict())
    with network.reference_path():
        assert set(network.state_dict()) == names
    assert set(network.state_dict()) == names


# Refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed, sentence",
    [
        (dict(name="resnet"), "no network 'resnet'.*vgg11, conv-"),
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
        (dict(fire_at="<"), "fire_at '<'"),
    ],
)
def test_refused(changed, sentence):
    options = {"name": "conv-4-6", "in_channels": 1, "image_size": 8, "num_classes": 3, "T": 2, **changed}
    with pytest.raises(Refused, match=sentence):
        networks.build(options.pop("name"), **options)
