"""The released code's two networks, built here from section 2 of the paper notes and stepped slowly, against ours.

And its checkpoints, which are imported into the store.
"""

import hashlib
import json
import math
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from test_experiments import IMPORTED, VANILLA
from torch import nn

from paperlib import arithmetic, attacks, executors, paths
from paperlib.attacks import evaluation
from paperlib.errors import Refused
from paperlib.networks import Network
from paperlib.store import checkpoints, evaluations, released
from paperlib.store.experiment import Imported
from paperlib.training import loop, regularizers

T = 8
PRECISION = 1e-6  # relative, in float64
DATASETS = {  # classes, mean and std as section 4 has them
    "cifar10": (10, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": (100, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
SLOPES = {  # rule: our name and options, ∂s/∂u by hand
    "triangle": ({"gamma": 1.0}, lambda u: (1 - u.abs()).clamp(min=0)),
    "sigmoid": ({"slope": 4.0}, lambda u: 4 * torch.sigmoid(4 * u) * torch.sigmoid(-4 * u)),
    "atan": ({"gamma": 2.0}, lambda u: 1 / (1 + (math.pi * u) ** 2)),
}


# ---- the released networks, slowly -------------------------------------------------------------------------------


class Spike(torch.autograd.Function):
    """1 where u ≥ 0.  Backward takes the slope that is set when it runs, so that one graph serves several rules."""

    slope = staticmethod(SLOPES["triangle"][1])

    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad * Spike.slope(ctx.saved_tensors[0])


def fire(current, spike):
    """Currents (T, B, ...) → spikes: integrate, fire at θ = 1, reset to 0; the reset is not detached."""
    v, spikes = torch.zeros_like(current[0]), []
    for step in current:
        m = v + step
        s = spike(m - 1)
        v = (1 - s) * m
        spikes.append(s)
    return torch.stack(spikes)


class RateSpike(torch.autograd.Function):
    """Fires as all do; backward is each step's gradient times the slope at the time-mean input (section 5, τ = 1)."""

    @staticmethod
    def forward(ctx, current):
        ctx.save_for_backward(current)
        return fire(current, lambda u: (u >= 0).to(u.dtype))

    @staticmethod
    def backward(ctx, grad):
        mean = ctx.saved_tensors[0].mean(0)
        return grad * (0.5 * ((mean >= 0) & (mean <= 2)) + 0.2 * (mean == 0))


class Neuron(nn.Module):
    by_rate = False

    def forward(self, x):  # time is folded into the batch, the first step's images first
        current = x.unflatten(0, (T, -1))
        return (RateSpike.apply(current) if Neuron.by_rate else fire(current, Spike.apply)).flatten(0, 1)


def group(channels, *widths, pool=True):
    layers = []
    for width in widths:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), Neuron()]
        channels = width
    return nn.Sequential(*layers, *[nn.AvgPool2d(2)] * pool)


class Theirs(nn.Module):
    """What both networks share: the normalised images at every step, the logits' mean over time."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x):
        x = (x - x.new_tensor(self.mean).view(3, 1, 1)) / x.new_tensor(self.std).view(3, 1, 1)
        return self.features(x.repeat(T, 1, 1, 1)).unflatten(0, (T, -1)).mean(0)


class VGG(Theirs):
    def __init__(self, classes, mean, std):
        super().__init__(mean, std)
        self.layer1, self.layer2 = group(3, 64), group(64, 128, 256)
        self.layer3, self.layer4 = group(256, 512, 512, 512), group(512, 512, 512, pool=False)
        hidden = [nn.Linear(512 * 16, 4096), Neuron(), nn.Linear(4096, 4096), Neuron()]
        self.classifier = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(4096, classes))

    def features(self, x):
        return self.classifier(self.layer4(self.layer3(self.layer2(self.layer1(x)))))


class Mix(nn.Module):
    def __init__(self):
        super().__init__()
        self.comb = nn.Parameter(torch.full((2,), 0.5))

    def forward(self, shortcut, residual):
        return self.comb[0] * shortcut + self.comb[1] * residual


class Block(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        self.bn1, self.bn2, self.neuron, self.convex = nn.BatchNorm2d(channels), nn.BatchNorm2d(width), Neuron(), Mix()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        if channels != width:
            self.convShortcut = nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, x):
        active = self.neuron(self.bn1(x))
        residual = self.conv2(self.neuron(self.bn2(self.conv1(active))))
        return self.convex(self.convShortcut(active) if hasattr(self, "convShortcut") else x, residual)


class WRN(Theirs):
    def __init__(self, classes, mean, std):
        super().__init__(mean, std)
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.block1 = nn.Sequential(Block(16, 64, 1), Block(64, 64, 1))
        self.block2 = nn.Sequential(Block(64, 128, 2), Block(128, 128, 1))
        self.block3 = nn.Sequential(Block(128, 256, 2), Block(256, 256, 1))
        self.bn1, self.neuron, self.fc = nn.BatchNorm2d(256), Neuron(), nn.Linear(256, classes)

    def features(self, x):
        x = self.neuron(self.bn1(self.block3(self.block2(self.block1(self.conv1(x))))))
        return self.fc(F.avg_pool2d(x, 8).flatten(1))


THEIRS = {"vgg11": VGG, "wrn16": WRN}


def layout(network, dataset="cifar10"):
    """A released network of shapes alone."""
    with torch.device("meta"):
        return THEIRS[network](*DATASETS[dataset])


def theirs(network, dataset, dtype=torch.float64):
    """A released network with everything in it random: weights, running statistics, counters."""
    draw = torch.Generator().manual_seed(3)
    net = layout(network, dataset).to(dtype).to_empty(device="cpu")
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5, generator=draw)
                if module.bias is not None:
                    module.bias.normal_(0, 0.3, generator=draw)
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=draw)
                module.bias.normal_(0.3, 0.3, generator=draw)
                module.running_mean.normal_(0, 0.3, generator=draw)
                module.running_var.uniform_(0.5, 1.5, generator=draw)
                module.num_batches_tracked.fill_(7)
            elif isinstance(module, Mix):
                module.comb.uniform_(0.2, 0.9, generator=draw)
    return net.eval()


def released_sr(net, images, labels):
    """Section 4, the released form: logits and the penalty before λ."""
    x = images.clone().requires_grad_()
    z = net(x)
    rows = range(len(labels))
    rivals = [max((k for k in range(z.shape[1]) if k != labels[i]), key=lambda k: z[i, k].item()) for i in rows]
    p1 = torch.sigmoid(z[rows, labels] - z[rows, rivals])
    d = torch.autograd.grad(p1.sum(), x, retain_graph=True)[0].sign()
    z2 = net(images + 0.01 * d)
    p2 = torch.sigmoid(z2[rows, labels] - z2[rows, rivals])
    return z, (((p2 - p1) / 0.01) ** 2).mean()


# ---- both, side by side ------------------------------------------------------------------------------------------


def partners(ours, reference):
    """Our entry of the state dict for each of theirs, told by its value alone: all of them are random."""
    mine = {k: v for k, v in ours.state_dict().items() if v.is_floating_point()}
    found = {}
    for name, value in reference.state_dict().items():
        if value.is_floating_point():
            found[name] = [k for k, v in mine.items() if v.shape == value.shape and torch.equal(v, value)]
    assert all(len(names) == 1 for names in found.values())
    found = {name: names[0] for name, names in found.items()}
    assert set(found.values()) == set(mine)
    return found


def sr_step(net, loss, images, labels):
    """Logits, penalty and weight gradients of the SR loss (λ = 1/100), and the statistics after its two passes."""
    net.requires_grad_(True)
    logits, penalty = loss(net, images, labels)
    (F.cross_entropy(logits, labels) + 0.01 * penalty).backward()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    net.zero_grad(set_to_none=True)
    net.requires_grad_(False)
    statistics = {name: value.clone() for name, value in net.named_buffers()}
    return SimpleNamespace(
        logits=logits.detach(), penalty=penalty.detach(), weights=gradients, statistics=statistics, inputs={}
    )


@pytest.fixture(scope="module", params=[("vgg11", "cifar10"), ("wrn16", "cifar100")], ids=lambda of: of[0])
def pair(request):
    """Our network and theirs with the same weights, in double precision, and how their entries are called here."""
    reference = theirs(*request.param)
    ours = released.load(reference.state_dict(), *request.param)
    return ours, reference, partners(ours, reference)


@pytest.fixture(scope="module", params=["eval", "train"])
def both(pair, request):
    """What ours and theirs give in one mode: passes are dear, so all tests look at the same ones.

    Two images in train mode, where statistics couple them; one in eval mode, where each stands for itself.
    """
    ours, reference, names = pair
    labels = torch.tensor([1, 7] if request.param == "train" else [7])
    images = torch.rand(len(labels), 3, 32, 32, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found, before = [], [[value.clone() for value in net.buffers()] for net in (ours, reference)]
    for net, loss in ((ours, regularizers.sr), (reference, released_sr)):
        net.train(request.param == "train")
        found.append(sr_step(net, loss, images, labels))
    x = images.clone().requires_grad_()
    for rule, (options, _) in (SLOPES | {"rate": ({}, None)}).items():
        with ours.backward_rule(rule, **options):
            loss = F.cross_entropy(ours(x), labels, reduction="sum")
        found[0].inputs[rule] = torch.autograd.grad(loss, x)[0]
    loss = F.cross_entropy(reference(x), labels, reduction="sum")
    with pytest.MonkeyPatch.context() as patch:
        for rule, (_, slope) in SLOPES.items():
            patch.setattr(Spike, "slope", staticmethod(slope))
            found[1].inputs[rule] = torch.autograd.grad(loss, x, retain_graph=True)[0]
        patch.setattr(Neuron, "by_rate", True)
        loss = F.cross_entropy(reference(x), labels, reduction="sum")
        found[1].inputs["rate"] = torch.autograd.grad(loss, x)[0]
    yield SimpleNamespace(ours=found[0], theirs=found[1], mode=request.param, names=names)
    for net, values in zip((ours, reference), before, strict=True):  # the other mode starts from the same statistics
        for now, value in zip(net.buffers(), values, strict=True):
            now.copy_(value)


CONVOLUTIONS = {f"layer{g}.{3 * i}.weight" for g, n in ((1, 1), (2, 2), (3, 3), (4, 2)) for i in range(n)}


def agree(ours, expected, least=0.0):
    """To `PRECISION` of the largest entry, or of `least` where that is more: what cancels exactly leaves noise."""
    scale = max(expected.abs().max().item(), least)
    assert scale > 0 and expected.isfinite().all()  # else the comparison says nothing
    assert ours.shape == expected.shape and ours.dtype == expected.dtype
    assert (ours - expected).abs().max() <= PRECISION * scale


def test_the_logits_and_the_sr_penalty_are_theirs(both):
    agree(both.ours.logits, both.theirs.logits)
    agree(both.ours.penalty, both.theirs.penalty)
    assert both.ours.penalty.shape == ()


@pytest.mark.parametrize("rule", [*SLOPES, "rate"])
def test_the_input_gradient_under_each_rule_is_theirs_and_no_other_rules(both, rule):
    agree(both.ours.inputs[rule], both.theirs.inputs[rule])
    for other, gradient in both.theirs.inputs.items():
        assert other == rule or (both.ours.inputs[rule] - gradient).abs().max() > 1e-2 * gradient.abs().max()


def test_the_weight_gradients_of_the_sr_loss_are_theirs(both):
    assert len(both.ours.weights) == len(both.theirs.weights)
    largest = max(gradient.abs().max().item() for gradient in both.theirs.weights.values())
    for name, gradient in both.theirs.weights.items():
        agree(both.ours.weights[both.names[name]], gradient, least=1e-6 * largest)
        # BatchNorm takes a convolution's bias away in train mode; every other gradient is there
        cancels = both.mode == "train" and name.endswith(".bias") and name.replace("bias", "weight") in CONVOLUTIONS
        assert (gradient.abs().max() > 1e-6 * largest) != cancels


def test_the_running_statistics_after_the_sr_step_are_theirs(both, pair):
    counters = [v.item() for v in both.ours.statistics.values() if not v.is_floating_point()]
    assert set(counters) == {9 if both.mode == "train" else 7}  # both passes count; they begin at 7
    for name, value in both.theirs.statistics.items():
        if value.is_floating_point():
            agree(both.ours.statistics[both.names[name]], value)
            assert torch.equal(value, pair[1].get_buffer(name)) == (both.mode == "eval")


# ---- what is loaded ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def state():
    """A released wrn16 for CIFAR-10 in single precision; copy it before you break it."""
    return theirs("wrn16", "cifar10", torch.float32).state_dict()


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


def test_a_path_and_a_state_dict_give_the_same_network(state, tmp_path):
    torch.save(state, tmp_path / "sr.pth")
    network = released.load(state, "wrn16", "cifar10")
    for source in (tmp_path / "sr.pth", str(tmp_path / "sr.pth")):
        assert same(released.load(source, network="wrn16", dataset="cifar10"), network)
    assert network(torch.rand(1, 3, 32, 32)).shape == (1, 10)


def test_it_is_in_eval_mode_and_of_its_own(state):
    before = {name: value.clone() for name, value in state.items()}
    network = released.load(state, "wrn16", "cifar10")
    assert not any(module.training for module in network.modules())
    with torch.no_grad():
        for value in network.state_dict().values():
            value.add_(1)
    assert all(torch.equal(state[name], value) for name, value in before.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_keep_their_precision(state, dtype):
    third = {k: v.to(dtype) / 3 if v.is_floating_point() else v for k, v in state.items()}
    network = released.load(third, "wrn16", "cifar10")
    assert {v.dtype for v in network.state_dict().values()} == {dtype, torch.int64}
    assert any(torch.equal(v, third["fc.weight"]) for v in network.parameters() if v.shape == (10, 256))


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_normalisation_is_the_data_sets(dataset):
    network = released.empty("wrn16", dataset)
    assert (network.head.out_features, network.mean, network.std) == DATASETS[dataset]


# ---- what is refused ---------------------------------------------------------------------------------------------


def refused(source, network="wrn16", dataset="cifar10"):
    with pytest.raises(Refused) as refusal:
        released.load(source, network, dataset)
    message = str(refusal.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ({"fc.bias": None}, ["missing fc.bias"]),
        ({"block2.0.bn1.num_batches_tracked": None}, ["missing block2.0.bn1.num_batches_tracked"]),
        ({"block1.1.convShortcut.weight": torch.zeros(64, 64, 1, 1)}, ["unknown block1.1.convShortcut.weight"]),
        ({"epoch": 200}, ["unknown epoch"]),
        ({3: torch.zeros(2)}, ["unknown 3"]),
        ({"fc.weight": torch.zeros(100, 256)}, ["fc.weight of shape (100, 256) instead of (10, 256)"]),
        ({"bn1.num_batches_tracked": torch.zeros(1)}, ["bn1.num_batches_tracked of shape (1,) instead of ()"]),
        ({"block1.0.convex.comb": torch.zeros(2, 1)}, ["block1.0.convex.comb of shape (2, 1) instead of (2,)"]),
        ({"fc.bias": [0.0] * 10}, ["fc.bias"]),
        ({"fc.bias": "ten zeros"}, ["fc.bias"]),
        ({"fc.bias": np.zeros(10, dtype=np.float32)}, ["fc.bias"]),
        ({"bn1.num_batches_tracked": 7}, ["bn1.num_batches_tracked"]),
        (
            {"fc.bias": None, "bn1.weight": None, "fc.gain": torch.ones(1), "lr": 0.1, "conv1.weight": torch.ones(16)},
            [
                "missing fc.bias",
                "missing bn1.weight",
                "unknown fc.gain",
                "unknown lr",
                "conv1.weight of shape (16,) instead of (16, 3, 3, 3)",
            ],
        ),
    ],
    ids=lambda given: "+".join(map(str, given)) if isinstance(given, dict) else "",
)
def test_every_fault_is_listed_and_nothing_else(state, faults, said):
    broken = {k: v for k, v in (dict(state) | faults).items() if v is not None}
    message = refused(broken)
    assert all(one in message for one in said)
    assert message.startswith("This is no released wrn16 for cifar10: ") and message.count(";") == len(said) - 1


BAD = {
    "NaN": lambda v: v * math.nan,
    "infinite": lambda v: v / 0,
    "complex": lambda v: v.to(torch.complex64),
    "whole": lambda v: v.to(torch.int32),
    "bool": lambda v: v > 0,
    "sparse": lambda v: v.to_sparse(),
    "meta": lambda v: v.to("meta"),
    "quantised": lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8),
}


def test_values_that_are_no_weights_are_refused(state):
    for change in BAD.values():
        message = refused(state | {"fc.weight": change(state["fc.weight"] + 1)})
        assert message.startswith("This is no released wrn16 for cifar10: fc.weight ") and message.count(";") <= 1
    assert "bn1.running_var holds a variance below 0" in refused(state | {"bn1.running_var": -state["bn1.running_var"]})
    counted = {"bn1.num_batches_tracked": torch.tensor(1.0)}
    assert "bn1.num_batches_tracked is of torch.float32 instead of torch.int64" in refused(state | counted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_16_bits_become_float32(state, dtype):
    half = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    widened = {k: v.float() if v.is_floating_point() else v for k, v in half.items()}
    assert same(released.load(half, "wrn16", "cifar10"), released.load(widened, "wrn16", "cifar10"))


def test_no_byte_of_a_file_gives_more_than_a_sentence(tmp_path):
    """A file gives a state dict, or one sentence."""
    file, rng = tmp_path / "changed.pth", np.random.RandomState(0)
    torch.save({"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}, file)
    whole, sentences = file.read_bytes(), 0
    for _ in range(200):
        changed = bytearray(whole)
        for place in rng.randint(len(whole), size=3):
            changed[place] = rng.randint(256)
        file.write_bytes(changed)
        try:
            assert isinstance(released._read(file), dict)
        except Refused as problem:
            sentences += "\n" not in str(problem)
    assert sentences > 20


def test_no_fault_is_missed_in_a_whole_other_network(state):
    other = layout("vgg11").state_dict()
    message = refused(other)
    assert all(f"missing {name}" in message for name in state) and all(f"unknown {name}" in message for name in other)
    nothing = refused({})
    assert all(f"missing {name}" in nothing for name in state)


def test_the_other_data_set_is_told_by_the_last_layer(state):
    message = refused(state, dataset="cifar100")
    assert "fc.weight of shape (10, 256) instead of (100, 256)" in message
    assert "fc.bias of shape (10,) instead of (100,)" in message and message.count(";") == 1


def test_a_file_that_is_no_state_dict_is_refused(tmp_path, state):
    torch.save(state, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    torch.save(nn.Linear(1, 1), tmp_path / "module.pth")
    contents = {"text.pth": b"not a checkpoint", "empty.pth": b"", "cut.pth": whole[: len(whole) // 2]}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.pth").mkdir()
    for name in (*contents, "module.pth", "folder.pth"):
        message = refused(tmp_path / name)
        assert message.startswith(f"{tmp_path / name} is no PyTorch state dict")
        assert "weights_only" not in message  # nobody is told to run whatever a file contains
    for held in (torch.zeros(3), [torch.zeros(3)], 3.0):
        torch.save(held, file := tmp_path / "held.pth")
        assert refused(file) == f"{file} holds a {type(held).__name__}; it must be a state dict."
    assert refused(tmp_path / "none.pth") == f"There is no file {tmp_path / 'none.pth'}."


def test_unknown_networks_and_data_sets_are_refused_before_the_file_is_read(tmp_path):
    nowhere = tmp_path / "none.pth"
    for name in ("resnet", "conv-16", "VGG11"):  # conv-16 is a network of ours, and none of theirs
        assert refused(nowhere, network=name) == f"There is no released network {name!r}. Allowed: vgg11, wrn16."
    said = "There is no data set of the released code 'mnist5k'. Allowed: cifar10, cifar100."
    assert refused(nowhere, dataset="mnist5k") == said


# ---- imported into the store -------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty folder for checkpoints, in which nothing may be trained."""
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(loop, "epochs", lambda *_, **__: pytest.fail("a network was trained"))
    return tmp_path / "checkpoints"


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """A folder of 2 classes of 10 images, 32×32 in colour."""
    root, rng = tmp_path_factory.mktemp("colours"), np.random.RandomState(0)
    for name in ("cats", "dogs"):
        (root / name).mkdir()
        for i in range(10):
            Image.fromarray(rng.randint(0, 255, (32, 32, 3)).astype(np.uint8)).save(root / name / f"{i}.png")
    return {"name": f"folder:{root}"}


@pytest.fixture(scope="module")
def file(tmp_path_factory, state):
    """A checkpoint as the released code would write it."""
    path = tmp_path_factory.mktemp("downloads") / "sr.pth"
    torch.save(state, path)
    return path


@pytest.fixture
def imported(store, file, colours):
    return checkpoints.import_released(file, "wrn16", "cifar10", defense="sr", data=colours)


def opened(experiment):
    return checkpoints.trained(experiment, device="cpu", progress=False)


def test_an_imported_network_is_kept_and_loaded_to_the_same_logits(
    imported, file, colours, store, monkeypatch, tmp_path
):
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert imported == Imported(digest, "wrn16", "cifar10", "sr", colours)
    assert checkpoints.is_trained(imported) and checkpoints.in_folder(imported.key) == imported
    assert sorted(f.name for f in imported.folder.iterdir()) == ["checkpoint.json", "weights.pt"]
    content = json.loads((imported.folder / "checkpoint.json").read_text())
    assert content["experiment"] | {"arithmetic": "native"} == asdict(imported)
    assert content["data_sha256"] is None  # what it was trained on is not in the file
    x = torch.rand(2, 3, 32, 32)
    expected = released.load(file, "wrn16", "cifar10")(x)
    assert not opened(imported).training and torch.equal(opened(imported)(x), expected)
    assert checkpoints.copy_networks([imported], store, tmp_path / "published") == 1
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path / "published")
    assert torch.equal(opened(imported)(x), expected)


def test_a_file_in_double_precision_takes_images_as_all_do(store, colours, tmp_path):
    torch.save(theirs("wrn16", "cifar10").state_dict(), tmp_path / "double.pth")
    imported = checkpoints.import_released(tmp_path / "double.pth", "wrn16", "cifar10", defense="sr", data=colours)
    assert {p.dtype for p in opened(imported).parameters()} == {torch.float32}


def test_an_imported_network_is_evaluated_as_any_other(imported, file, monkeypatch):
    monkeypatch.setattr(arithmetic, "current", lambda: imported.arithmetic)
    both, calls, forward = [None, attacks.standard("fgsm", 4 / 255)], [], Network.forward
    how = {"samples": 4, "device": "cpu", "progress": False}
    found = evaluations.evaluated([imported], both, **how)
    network, samples = released.load(file, "wrn16", "cifar10"), imported.load_data().test.take(4)
    for one, attack in zip(found, both, strict=True):
        assert one.flags.tolist() == evaluation.flags(network, samples, attack).tolist()
        assert one.labels["training"] == "sr"
    monkeypatch.setattr(Network, "forward", lambda self, x: calls.append(x) or forward(self, x))
    again = evaluations.evaluated([imported], both, **how)
    assert [one.flags.tolist() for one in again] == [one.flags.tolist() for one in found] and not calls
    assert evaluations.is_evaluated(imported, both[1], samples=4, split="test")


def test_an_imported_network_that_is_absent_is_refused_and_not_trained(store, imported, capsys):
    absent = r"at\+sr, imported from abababab.*no such network.* import-released at\+sr=FILE"
    with pytest.raises(Refused, match=absent):
        opened(IMPORTED)
    assert not checkpoints.is_trained(IMPORTED)
    with pytest.raises(Refused, match=absent):
        checkpoints.train_all([VANILLA, imported, IMPORTED], executor=executors.local(2), device="cpu")
    capsys.readouterr()
    checkpoints.train_all([imported], executor=executors.local(1), device="cpu")
    assert "1 networks: 1 trained already, 0 to train." in capsys.readouterr().out


@pytest.mark.parametrize("damage", [lambda data: data[:-1], None], ids=["cut", "gone"])
def test_an_imported_network_that_is_damaged_is_refused_until_it_is_imported_again(
    imported, file, colours, capsys, damage
):
    kept = imported.folder / "weights.pt"
    good = kept.read_bytes()
    if damage is None:
        kept.unlink()
    else:
        kept.write_bytes(damage(good))
    with pytest.raises(Refused, match="import-released sr=FILE") as refusal:
        opened(imported)
    text = capsys.readouterr().err + str(refusal.value)
    assert "weights do not match their checksum" in text and "trained again" not in text
    assert checkpoints.import_released(file, "wrn16", "cifar10", defense="sr", data=colours).key == imported.key
    assert kept.read_bytes() == good
    opened(imported)


def test_what_cannot_be_imported_is_refused_and_nothing_is_kept(store, tmp_path, file, colours):
    (tmp_path / "text.pth").write_text("no checkpoint")
    (tmp_path / "folder").mkdir()
    for bad in ("missing.pth", "text.pth", "folder"):
        with pytest.raises(Refused, match=bad):
            checkpoints.import_released(tmp_path / bad, "wrn16", "cifar10", defense="sr", data=colours)
    with pytest.raises(Refused, match="no released wrn16 for cifar100"):
        checkpoints.import_released(file, "wrn16", "cifar100", defense="sr", data=colours)
    with pytest.raises(Refused, match="no image set 'minst'"):
        checkpoints.import_released(file, "wrn16", "cifar10", defense="sr", data={"name": "minst"})
    assert not store.exists()
