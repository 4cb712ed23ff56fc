"""Certificates: bounds that no input of the ball leaves, at any layer, and decisions that no attack changes."""

import itertools
from dataclasses import replace

import pytest
import torch
from scipy.optimize import linprog
from torch import nn

import paperlib
from paperlib import attacks, certificates, networks
from paperlib.attacks import evaluation
from paperlib.attacks.flips import random_flips, sparse_flips
from paperlib.certificates import certificate, spiking
from paperlib.certificates.certificate import Ball
from paperlib.certificates.intervals import Interval, Time
from paperlib.errors import Refused
from paperlib.networks import architectures
from paperlib.networks.neurons import LIF, NormedLIF

BOUNDS = (0.0, 1.0)


@pytest.fixture(scope="module", autouse=True)
def small_layouts():
    """A WideResNet whose first shortcut is the raw current, and a network with hidden linear layers."""
    layouts = {
        "small-wide": lambda **options: architectures._wide("small-wide", (16, 4), **options),
        "small-plain": lambda **options: architectures._plain(
            "small-plain", ((3,), (4, 3)), hidden=(6, 5), pool_last=False, **options
        ),
    }
    architectures.LAYOUTS.update(layouts)
    yield
    for name in layouts:
        del architectures.LAYOUTS[name]


def random_network(name: str, seed: int, *, image_size: int = 6, **options) -> networks.Network:
    """In eval mode, with random weights and statistics, under which a good part of the neurons spikes."""
    torch.manual_seed(seed)
    channels = 2 if name.startswith(networks.EVENTS) else 1
    options = {"T": 1 if name.startswith(networks.ANN) else 3} | options
    network = networks.build(name, in_channels=channels, image_size=image_size, num_classes=3, **options).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.3, 1.5)
                module.weight.uniform_(-0.5, 1.5)
                module.bias.normal_(0.5, 0.4)
            elif isinstance(module, nn.Linear):
                module.bias.uniform_(0.2, 1.2)
        network.head.bias.normal_(0, 0.1)
        if hasattr(network.body[0], "mix"):
            network.body[0].mix.copy_(torch.tensor([0.7, -0.4]))
    return network


def some(network: networks.Network, count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, network.T, 2, 6, 6) if network.events else (count, 1, 6, 6)
    return torch.rand(shape, generator=generator)


def inside(images: torch.Tensor, eps: float, draws: int) -> torch.Tensor:
    """Points of the ball around each image, (draws, B, ...): corners, edges and inner points."""
    generator = torch.Generator().manual_seed(1)
    delta = (torch.rand(draws, *images.shape, generator=generator) * 2 - 1) * torch.linspace(1, 4, draws).view(
        -1, *[1] * images.dim()
    )
    return (images + eps * delta.clamp(-1, 1)).clamp(*BOUNDS)


def outputs(network: networks.Network, images: torch.Tensor) -> list[torch.Tensor]:
    """What stem and layers of the body return, (T or 1, B, ...)."""
    kept, handles = [], []
    for layer in (network.stem, *network.body):
        handles.append(layer.register_forward_hook(lambda module, inputs, output: kept.append(output)))
    network(images)
    for handle in handles:
        handle.remove()
    steps = network.T if network.events else 1
    kept[0] = kept[0].unflatten(0, (steps, len(images)))
    return kept


SPIKING = [
    *itertools.product(("conv-3-4", "small-wide"), (1.0, 0.5), (">=", ">")),
    *itertools.product(("small-plain", "events-conv-3-4"), (1.0, 0.9, 0.0), (">=",)),
]


@pytest.mark.parametrize(("name", "tau", "fire_at"), [*SPIKING, ("ann-conv-3-4", 1.0, ">=")])
@pytest.mark.parametrize("eps", [0.0, 0.02, 0.2])
def test_no_point_of_the_ball_leaves_the_bounds_of_any_layer(name, tau, fire_at, eps):
    options = {} if name.startswith(networks.ANN) else {"tau": tau, "fire_at": fire_at, "detach_reset": tau == 0.5}
    network = random_network(name, seed=int(10 * tau), **options)
    images, time = some(network, 3), certificate.time_of(network)
    ball = Ball(eps, BOUNDS)
    bounds, loose = (
        [interval for _, interval in certificate.layers(network, images, ball, trains=trains)]
        for trains in (True, False)
    )
    for a, b in zip(bounds, loose, strict=True):  # never looser, up to the rounding of the two computations
        assert (a.low >= b.low - 1e-4).all() and (a.high <= b.high + 1e-4).all()
    with torch.no_grad():
        for points in inside(images, eps, draws=12):
            for values, interval in zip(outputs(network, points), bounds, strict=True):
                factors = torch.ones(1, 1) if interval.constant else time.weights
                sums = torch.tensordot(factors.double(), values.double().expand(factors.shape[1], *values.shape[1:]), 1)
                assert (sums >= interval.low).all() and (sums <= interval.high).all()
    spikes = [
        values for values in outputs(network, images) if set(values.unique().tolist()) <= {k / 4 for k in range(5)}
    ]
    assert name.startswith(networks.ANN) or all(0 < values.mean() < 1 for values in spikes)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_the_first_layer_is_exact(tau):
    """Of neurons under constant currents, the bounds of each sum are the extremes over the currents, and no wider."""
    time, neuron = Time(4, tau), LIF(networks.rules.triangle(), tau=tau)
    generator = torch.Generator().manual_seed(0)
    ends = (torch.rand(200, 2, generator=generator) * 1.6 - 0.2).sort(1).values
    grid = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * torch.linspace(0, 1, 301)  # (200, points)
    sums = torch.tensordot(time.weights, neuron(grid.expand(4, *grid.shape)), 1)
    bounds = spiking.spikes(Interval(ends[None, :, 0], ends[None, :, 1]), time, 1.0, sums=time.weights)
    assert (bounds.low <= sums.amin(-1)).all() and (bounds.high >= sums.amax(-1)).all()
    exact = torch.isclose(bounds.low, sums.amin(-1), atol=3e-5) & torch.isclose(bounds.high, sums.amax(-1), atol=3e-5)
    assert (
        exact.all(0).float().mean() > 0.9
    )  # an interval may end so near a threshold that no point of the grid is between


def test_a_late_spike_is_not_counted_twice():
    """Currents 0.6 to 1.1, then 0.6: the neuron spikes once, at step 1 or at step 2; by single steps it might twice."""
    time = Time(2, 1.0)
    low, high = torch.tensor([0.6, 0.6]), torch.tensor([1.1, 0.6])
    current = Interval(*(torch.tensordot(time.weights, end[:, None], 1) for end in (low, high)))
    bounds = spiking.spikes(current, time, 1.0, sums=time.weights)
    assert bounds.high[:, 0].tolist() == [1, 1, 1] and bounds.low[:, 0].tolist() == [0, 0, 1]


def test_spikes_share_what_bounds_a_long_stretch():
    """Currents up to 1.2 at each of two steps, and up to 1.5 together: each step may spike, but not both."""
    time = Time(2, 1.0, trains=True)
    sums = {(0, 1): 1.2, (1, 2): 1.2, (0, 2): 1.5}
    high = torch.tensor([[sums[stretch]] for stretch in time.stretches])
    current = Interval(torch.zeros_like(high), high)
    asked = time.weights[-1:]
    assert spiking.spikes(current, replace(time, trains=False), 1.0, sums=asked).high.item() == 2
    assert spiking.spikes(current, time, 1.0, sums=asked).high.item() == 1


@pytest.mark.parametrize("tau", [1.0, 0.6])
def test_a_train_is_possible_where_a_linear_program_finds_its_currents(tau):
    """Random bounds of the sums of three currents, each train by linear programming."""
    time, count = Time(3, tau), 60
    generator = torch.Generator().manual_seed(0)
    factors = time.weights[: len(time.stretches)]
    middle = factors @ torch.rand(3, count, generator=generator)
    radius = 0.4 * torch.rand(middle.shape, generator=generator)
    current = Interval((middle - radius).double(), (middle + radius).double())
    place, answers = {stretch: number for number, stretch in enumerate(time.stretches)}, []
    possible = dict(spiking._possible(current, middle.abs().double(), time, 1.0))
    for train in itertools.product((0, 1), repeat=3):
        found = possible.get(train, torch.zeros(count, dtype=torch.bool))
        last, reach, signs = 0, [], []
        for t, spike in enumerate(train, 1):
            reach.append(factors[place[last, t]])
            signs.append(-1 if spike else 1)
            last = t if spike else last
        left = torch.cat([factors, -factors, torch.stack(reach) * torch.tensor(signs)[:, None]])
        for neuron in range(count):
            right = torch.cat([current.high[:, neuron], -current.low[:, neuron], torch.tensor(signs).double()])
            program = linprog([0, 0, 0], A_ub=left.numpy(), b_ub=right.numpy(), bounds=(None, None))
            assert bool(found[neuron]) == (program.status == 0)
            answers.append(program.status == 0)
    assert 0.1 < sum(answers) / len(answers) < 0.9


@pytest.mark.parametrize("name", ["conv-3", "small-plain"])
def test_no_point_of_a_fine_grid_has_a_smaller_margin(name):
    """All images of four pixels on a grid of the ball."""
    network, eps, steps = random_network(name, seed=2, image_size=2), 0.03, 7
    images = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    grid = eps * torch.linspace(-1, 1, steps)
    offsets = torch.cartesian_prod(*[grid] * 4).view(-1, 1, 2, 2)
    with torch.no_grad():
        labels = network(images).argmax(1)
        lowest = []
        for x, label in zip(images, labels, strict=True):
            logits = network(x + offsets)
            others = logits.index_fill(1, label, -torch.inf).amax(1)
            lowest.append((logits[:, label] - others).min())
    lowest = torch.stack(lowest).double()
    found = certificates.margins(network, images, labels, eps=eps, bounds=BOUNDS)
    assert (found <= lowest + 1e-6).all()
    assert (found > lowest - 1e-3).sum() >= 3  # where little is open the bound is met


def test_without_a_perturbation_the_certificate_is_the_decision():
    for name in ("conv-3-4", "small-wide", "events-conv-3-4", "ann-conv-3-4"):
        network = random_network(name, seed=3)
        images = some(network, 20)
        with torch.no_grad():
            logits = network(images)
        labels = torch.arange(20) % 3
        margin = logits.gather(1, labels[:, None])[:, 0] - logits.scatter(1, labels[:, None], -9).amax(1)
        result = certificates.certify(network, images, labels, eps=0, bounds=BOUNDS)
        clear = margin.abs() > 1e-3
        assert result.tried.all() and clear.sum() > 10
        assert (result.certified == (margin > 0))[clear].all()
        lower = certificates.margins(network, images, labels, eps=0, bounds=BOUNDS)
        assert (lower <= margin + 1e-6).all() and (lower > margin - 1e-3).float().mean() > 0.6


def test_fewer_are_certified_as_the_radius_grows_and_no_attack_breaks_one(network, tiny):
    samples = tiny.test.take(40)
    images, labels = samples.pixels(), samples.labels
    before, lower = evaluation.flags(network, samples), torch.full((40,), torch.inf)
    counts = []
    for eps in (0.0, 0.005, 0.02, 0.1):
        found = certificates.margins(network, images, labels, eps=eps, bounds=BOUNDS)
        assert (found <= lower).all()
        certified = paperlib.certify(network, images, labels, eps=eps, bounds=BOUNDS).certified
        assert torch.equal(certified, found > 0) and not (certified & ~before).any()
        for attack in (attacks.standard("pgd", eps, steps=5), attacks.standard("square", eps, queries=20)):
            assert eps == 0 or evaluation.flags(network, samples, attack)[certified].all()
        before, lower = certified, found
        counts.append(certified.sum().item())
    assert counts[0] > counts[2] > 0 == counts[-1], counts


def test_the_time_limit_leaves_the_rest_untried(network, tiny, monkeypatch):
    images, labels = tiny.test.pixels(slice(0, 40)), tiny.test.labels[:40]
    seconds = itertools.count()
    monkeypatch.setattr(certificate.clock, "monotonic", lambda: next(seconds))
    result = certificates.certify(network, images, labels, eps=0.01, bounds=BOUNDS, seconds=2)
    whole = certificates.certify(network, images, labels, eps=0.01, bounds=BOUNDS)
    right = network(images).argmax(1) == labels
    assert whole.tried.all() and (result.tried & right).sum() == 2 * certificate.CHUNK < right.sum()
    assert torch.equal(result.certified, whole.certified & result.tried)


def altered(**changes) -> networks.Network:
    network = random_network("conv-3-4", seed=0)
    for name, value in changes.items():
        setattr(network, name, value)
    return network


def leaky() -> NormedLIF:
    return NormedLIF(4, LIF(networks.rules.triangle(), tau=0.5), steps=3, pool=True)


class Doubled(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("network", "match"),
    [
        (lambda: nn.Linear(36, 3), "Linear"),
        (lambda: random_network("conv-3", seed=0).train(), "training mode"),
        (lambda: random_network("poisson-conv-3", seed=0), "random"),
        (lambda: altered(precision="bfloat16"), "bfloat16"),
        (lambda: altered().double(), "float32"),
        (lambda: altered(head=nn.Sequential(nn.Linear(4, 3))), "linear"),
        (lambda: altered(body=nn.Sequential(*altered().body, nn.Softplus())), "Softplus"),
        (lambda: altered(stem=Doubled(1, 3, 3, padding=1)), "Doubled"),
        (lambda: altered(stem=nn.Conv2d(1, 3, 3, padding=1, padding_mode="reflect")), "reflect"),
        (lambda: altered(body=nn.Sequential(*altered().body[:-1], leaky())), "leaks"),
    ],
)
def test_networks_without_bounds_are_refused(network, match):
    network = network()
    with pytest.raises(Refused, match=match):
        certificates.certify(network, torch.rand(2, 1, 6, 6), torch.tensor([0, 1]), eps=0.1, bounds=BOUNDS)


def test_smoothed_networks_are_refused():
    network = altered()
    with network.smoothed(), pytest.raises(Refused, match="smoothed"):
        certificates.certify(network, torch.rand(2, 1, 6, 6), torch.tensor([0, 1]), eps=0.1, bounds=BOUNDS)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"eps": -0.1}, "eps"),
        ({"norm": "l2"}, "norm"),
        ({"norm": "l0", "eps": 2}, "takes images"),
        ({"seconds": 0}, "seconds"),
        ({"images": torch.full((2, 1, 6, 6), 1.5)}, "1.5"),
        ({"labels": torch.tensor([0, 3])}, "3"),
        ({"labels": torch.tensor([0])}, "2 whole numbers"),
        ({"bounds": (0.5, 0.4)}, "must lie"),
    ],
)
def test_samples_without_bounds_are_refused(changes, match):
    given = {"images": torch.rand(2, 1, 6, 6), "labels": torch.tensor([0, 1]), "eps": 0.1, "bounds": BOUNDS} | changes
    with pytest.raises(Refused, match=match):
        certificates.certify(altered(), **given)


# ---- changed cells of recordings --------------------------------------------------------------------------------


COUNTS = (0.0, 3.0)


def recordings(count: int, size: int = 6) -> torch.Tensor:
    """Frames of whole counts, most of them 0, some at the largest count."""
    chances = torch.tensor([0.7, 0.15, 0.05, 0.1]).expand(count * 3 * 2 * size * size, 4)
    drawn = torch.multinomial(chances, 1, generator=torch.Generator().manual_seed(4))
    return drawn.float().view(count, 3, 2, size, size)


@pytest.mark.parametrize("tau", [1.0, 0.5])
@pytest.mark.parametrize("budget", [0, 1, 6])
def test_no_flips_leave_the_bounds_of_any_layer(tau, budget):
    network = random_network("events-conv-3-4", seed=5, tau=tau, std=(0.5, 2.0), mean=(0.1, 0.2))
    frames, time = recordings(3), certificate.time_of(network)
    bounds = [interval for _, interval in certificate.layers(network, frames, Ball(budget, COUNTS, "l0"))]
    with torch.no_grad():
        for seed in range(30):
            flipped = random_flips(network, frames, None, eps=budget, bounds=COUNTS, seed=seed)
            for values, interval in zip(outputs(network, flipped), bounds, strict=True):
                sums = torch.tensordot(time.weights.double(), values.double(), 1)
                assert (sums >= interval.low).all() and (sums <= interval.high).all()


@pytest.mark.parametrize("budget", [1, 2])
def test_the_first_currents_are_exact_under_flips(budget):
    """All flips of a recording of 24 cells, one by one, against the bounds of each sum."""
    network = random_network("events-conv-3", seed=6, image_size=2, std=(0.5, 2.0))
    frames, time = recordings(1, size=2), certificate.time_of(network)
    moves = torch.cat([torch.eye(24), -torch.eye(24), torch.zeros(1, 24)])
    if budget == 2:
        moves = (moves[:, None] + moves).flatten(0, 1)
    moves = moves[(moves.abs() <= 1).all(1)].view(-1, *frames.shape[1:])
    flipped = frames + moves
    flipped = flipped[((flipped >= COUNTS[0]) & (flipped <= COUNTS[1])).flatten(1).all(1)]
    with torch.no_grad():
        sums = torch.tensordot(time.weights, outputs(network, flipped)[0], 1)
        (_, bounds), *_ = certificate.layers(network, frames, Ball(budget, COUNTS, "l0"))
    assert torch.allclose(bounds.low[:, 0], sums.amin(1), atol=1e-3)
    assert torch.allclose(bounds.high[:, 0], sums.amax(1), atol=1e-3)


def test_fewer_recordings_are_certified_as_flips_grow_and_none_is_flipped():
    network, frames = random_network("events-conv-3", seed=0), recordings(30)
    with torch.no_grad():
        network.head.bias[0] += 0.3  # for margins that single flips leave
        logits = network(frames)
    labels = logits.argmax(1)
    before = logits.topk(2).values @ torch.tensor([1.0, -1.0]) > 1e-3
    certify = {"bounds": COUNTS, "norm": "l0"}
    assert torch.equal(
        certificates.certify(network, frames, labels, eps=0, **certify).certified[before], before[before]
    )
    counts = []
    for budget in (1, 2, 4, 30):
        certified = certificates.certify(network, frames, labels, eps=budget, **certify).certified
        assert not (certified & ~before).any()
        with torch.no_grad():
            attacked = sparse_flips(network, frames, labels, eps=budget, bounds=COUNTS)
            assert (network(attacked).argmax(1) == labels)[certified].all()
        before = certified
        counts.append(certified.sum().item())
    assert 30 >= counts[0] > counts[1] > counts[-1], counts
    with pytest.raises(Refused, match="whole"):
        certificates.certify(network, frames, labels, eps=0.5, **certify)


# ---- the nearest threshold --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["conv-3-4", "small-plain"])
@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_the_nearest_threshold_is_where_the_first_spike_changes(name, tau):
    """Along the gradient's sign of the nearest neuron a spike changes just beyond the radius; none does within."""
    network = random_network(name, seed=1, tau=tau)
    images = some(network, 6) * 0.9
    radii = certificates.still_radius(network, images)

    def spikes(x):
        with torch.no_grad():
            first = network.body[0]
            current = network.stem(x)
            scale = first.weight * (first.running_var + first.eps).rsqrt()
            current = current * scale.view(-1, 1, 1) + (first.bias - first.running_mean * scale).view(-1, 1, 1)
            return first.neuron(current.expand(3, *current.shape))

    def current(x):
        first = network.body[0]
        return nn.functional.batch_norm(
            network.stem(x), first.running_mean, first.running_var, first.weight, first.bias, eps=first.eps
        )

    thresholds = torch.tensor([1 / sum(tau**i for i in range(k)) for k in (1, 2, 3)])
    for x, radius in zip(images.split(1), radii.tolist(), strict=True):
        assert radius > 0
        leaf = x.requires_grad_()
        near = (current(leaf)[..., None] - thresholds).abs().flatten()
        slopes = torch.stack(
            [torch.autograd.grad(i, leaf, retain_graph=True)[0].abs().sum() for i in current(leaf).flatten()]
        )
        place = (near.view(-1, 3) / slopes[:, None]).flatten().argmin()
        direction = torch.autograd.grad(current(leaf).flatten()[place // 3], leaf)[0].sign()
        leaf = leaf.detach()
        inside_ = leaf + radius * (2 * torch.rand(40, *x.shape[1:], generator=torch.Generator().manual_seed(0)) - 1)
        assert (
            spikes(torch.cat([inside_, leaf + radius * direction, leaf - radius * direction])) == spikes(leaf)
        ).all()
        beyond = torch.cat([leaf + side * (radius * 1.01 + 1e-4) * direction for side in (1, -1)])
        assert (spikes(beyond) != spikes(leaf)).any()


@pytest.mark.parametrize("name", ["events-conv-3", "ann-conv-3", "small-wide"])
def test_other_networks_have_no_such_radius(name):
    network = random_network(name, seed=0)
    assert certificates.still_radius(network, some(network, 2)).tolist() == [0, 0]
    assert certificates.still_radius(nn.Flatten(), torch.rand(2, 1, 6, 6)).tolist() == [0, 0]
