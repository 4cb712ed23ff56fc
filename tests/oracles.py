"""Slow versions of the neuron, its layer and whole networks, and helpers that several tests of networks share."""

from contextlib import contextmanager, nullcontext
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from conftest import scatter
from torch import nn

from paperlib import networks
from paperlib.attacks.evaluation import chance
from paperlib.networks import architectures, kernel, rules
from paperlib.networks.architectures import WideBlock
from paperlib.networks.neurons import LIF, NormedLIF

FIRES = {">=": torch.ge, ">": torch.gt}
MEAN, STD = (0.375, 0.5), (0.25, 0.125)  # exact in float32, in which a network keeps them
# C convolution and BatchNorm, N neuron, P average pool, L linear; section 2 of the paper notes
PLANS = {"conv-4-6": "CNPCNPL", "vgg11": "CNPCNCNPCNCNCNPCNCNLNLNL"}


def currents(*shape, dtype=torch.double, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)) * 0.7 + 0.5


def pictures(*shape, seed=1):
    return torch.rand(shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


# The neuron and its layer -------------------------------------------------------------------------------------------


def triangle(u):
    return (1 - u.abs()).clamp(min=0)


def paper_neuron(
    current, slopes=triangle, *, tau=1.0, threshold=1.0, fire_at=">=", detach=False, curvature=None, centres=None
):
    """Spikes and membranes of currents (T, B, ...), step by step, by section 2 of the paper notes.

    Each spike is a polynomial in its membrane around `centres`: its value there is the comparison, its first derivative
    `slopes` and its second `curvature`, functions of u = m - θ at all steps.  Without `centres` it is expanded where it
    stands, so that autograd sees surrogate back-propagation.
    """
    if centres is None:
        membranes, v = [], 0
        for i in current.detach():
            membranes.append(tau * v + i)
            v = torch.where(FIRES[fire_at](membranes[-1], threshold), 0.0, membranes[-1])
        centres = torch.stack(membranes)
    u = centres - threshold
    fired, first = FIRES[fire_at](u, 0).to(u), slopes(u)
    second = torch.zeros_like(u) if curvature is None else curvature(u)
    v, spikes = 0, []
    for t, i in enumerate(current):
        m = tau * v + i
        d = m - centres[t]
        spikes.append(fired[t] + first[t] * d + second[t] / 2 * d**2)
        v = (1 - (fired[t] if detach else spikes[-1])) * m
    return torch.stack(spikes), centres


def paper_spikes(current, lif):
    """Spikes of the paper's neuron with the rule and the switches of `lif`."""
    options = dict(tau=lif.tau, threshold=lif.threshold, fire_at=lif.fire_at, detach=lif.detach_reset)
    if isinstance(lif.rule, rules.Rate):
        slope = lif.rule.slope(current.detach().mean(0), lif.tau)
        return paper_neuron(current.detach(), **options)[0] + slope * (current - current.detach())
    return paper_neuron(current, lif.rule.derivative, **options)[0]


def normed(channels=3, rule=None, *, steps=5, pool=False, seed=0, dtype=torch.double, **options):
    """A `NormedLIF` whose BatchNorm has other values than a new one."""
    torch.manual_seed(seed)
    layer = NormedLIF(channels, LIF(rule or rules.triangle(), **options), steps=steps, pool=pool)
    nn.init.uniform_(layer.weight, 0.5, 1.5)
    nn.init.uniform_(layer.bias, -0.2, 0.7)
    nn.init.uniform_(layer.running_mean, -0.2, 0.5)
    nn.init.uniform_(layer.running_var, 0.5, 2)
    return layer.to(dtype)


class Plain(nn.BatchNorm2d):
    """What a `NormedLIF` stands for, with its state: torch's BatchNorm on T·B inputs, the paper's neuron, nn.AvgPool2d.

    `neuron` maps currents to spikes in place of the paper's neuron.
    """

    def __init__(self, layer, neuron=None):
        super().__init__(layer.num_features, dtype=torch.double)
        self.load_state_dict(layer.state_dict())
        self.train(layer.training)
        self.steps, self.pool = layer.steps, layer.pool
        self.spikes = neuron or partial(paper_spikes, lif=layer.neuron)

    def forward(self, x):
        x = x.expand(self.steps, *x.shape[1:])
        spikes = self.spikes(super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
        return nn.AvgPool2d(2)(spikes.flatten(0, 1)).unflatten(0, x.shape[:2]) if self.pool else spikes


def gradients(layer, x):
    """Output, and gradients of a fixed random weighting of it with respect to input and parameters."""
    leaf = x.detach().requires_grad_()
    out = layer(leaf)
    weights = torch.randn(out.shape, dtype=torch.double, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    parameters = layer.parameters() if isinstance(layer, nn.Module) else ()
    return out.detach(), *torch.autograd.grad((out * weights).sum(), [leaf, *parameters])


@contextmanager
def in_torch():
    """Without the compiled neuron."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "library", lambda dtype: None)
        yield


@contextmanager
def on(path, lif):
    """`lif` on the path "reference", or on the fast path with the implementation "C" or "torch"."""
    lif.path = path if path == "reference" else "fast"
    with in_torch() if path == "torch" else nullcontext():
        yield


def assert_bits(one, other):
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert torch.equal(a, b), f"{(a != b).sum()} of {a.numel()} differ"


# Networks -----------------------------------------------------------------------------------------------------------


def small(name="conv-4-6", seed=0, **options):
    """A network of two channels in float64; BatchNorm, mixing weights and readout have other values than new ones.

    The hidden layers of VGG-11 have 64 neurons each.
    """
    torch.manual_seed(seed)
    defaults = dict(in_channels=2, image_size=8, num_classes=3, T=1 if name.startswith("ann-") else 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(architectures, "VGG11_HIDDEN", (64, 64))
        network = networks.build(name, **{**defaults, "mean": MEAN, "std": STD, **options}).double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            scatter(module)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.bias)
        elif isinstance(module, WideBlock):
            nn.init.uniform_(module.mix, 0.3, 0.9)
    return network


def smooth(current, *, tau=1.0):
    """The smooth neuron of the triangle: its area, two parabolas, in place of the spike, with its exact gradient."""
    v, spikes = 0, []
    for i in current:
        m = tau * v + i
        below, above = m.clamp(0, 1), (2 - m).clamp(0, 1)  # 1 + u, 1 - u
        spikes.append(torch.where(m < 1, below**2 / 2, 1 - above**2 / 2))
        v = (1 - spikes[-1]) * m
    return torch.stack(spikes)


def paper_network(network, name, frames, neuron):
    """Logits and new running statistics for frames (T, B, C, H, W), layer by layer on T·B images, from the weights.

    `neuron` maps currents (T, B, ...) to spikes.
    """
    T, statistics = len(frames), []
    weights = {key.removeprefix("body."): parameter for key, parameter in network.named_parameters()}
    running = {key.removeprefix("body."): buffer.clone() for key, buffer in network.named_buffers()}

    def batch_norm(x, norm):
        statistics.append((running[f"{norm}.running_mean"], running[f"{norm}.running_var"]))
        scale, shift = weights.pop(f"{norm}.weight"), weights.pop(f"{norm}.bias")
        return F.batch_norm(x, *statistics[-1], scale, shift, training=network.training)

    def spikes(x):
        return neuron(x.unflatten(0, (T, -1))).flatten(0, 1)

    def readout(x, layer):
        return x.flatten(1) @ weights.pop(f"{layer}.weight").T + weights.pop(f"{layer}.bias")

    def plain(x):
        layers = [key.removesuffix(".weight") for key in weights if key.endswith(".weight")]  # in order of use
        for letter in PLANS[name]:
            if letter == "C":
                layer, norm, *layers = layers
                x = F.conv2d(x, weights.pop(f"{layer}.weight"), weights.pop(f"{layer}.bias"), padding=1)
                x = batch_norm(x, norm)
            elif letter == "N":
                x = spikes(x)
            elif letter == "P":
                x = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
            else:
                layer, *layers = layers
                x = readout(x, layer)
        return x

    def wide(x):
        x = F.conv2d(x, weights.pop("stem.weight"), padding=1)  # without a neuron behind it
        for block, (width, stride) in enumerate([(64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1)]):
            active = spikes(batch_norm(x, f"{block}.norm1"))
            residual = F.conv2d(active, weights.pop(f"{block}.conv1.0.weight"), stride=stride, padding=1)
            residual = spikes(batch_norm(residual, f"{block}.norm2"))
            residual = F.conv2d(residual, weights.pop(f"{block}.conv2.0.weight"), padding=1)
            if x.shape[1] != width:
                x = F.conv2d(active, weights.pop(f"{block}.shortcut.0.weight"), stride=stride)
            mix = weights.pop(f"{block}.mix")
            x = mix[0] * x + mix[1] * residual
        return readout(spikes(batch_norm(x, "6")).mean((2, 3)), "head")

    logits = (wide if name == "wrn16" else plain)(frames.flatten(0, 1))
    assert not weights
    return logits.unflatten(0, (T, -1)).mean(0), statistics  # the mean over time comes last


def logits_and_gradient(network, images, seed=0):
    """Logits, and the gradient of the cross-entropy by the images; `seed` decides the draws of Poisson input."""
    leaf = images.clone().requires_grad_()
    with chance(seed):
        logits = network(leaf)
    labels = torch.arange(len(images)) % 3
    return logits.detach(), torch.autograd.grad(F.cross_entropy(logits, labels), leaf)[0]


@contextmanager
def stem_inputs(network):
    """A list of what the stem takes at each pass inside the block, (T·B, C, H, W)."""
    seen = []
    hook = network.stem.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    try:
        yield seen
    finally:
        hook.remove()
