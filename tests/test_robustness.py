"""`paperlib.judge` against flags of single attacks, exact margins and formulas; `paperlib.load`; lazy imports."""

import subprocess
import sys
from math import sqrt

import numpy as np
import pytest
import snntorch as snn
import torch
import torch.nn.functional as F
from torch import nn

import paperlib
from paperlib import networks, paths
from paperlib.attacks import evaluation, protocols
from paperlib.certificates import Certificate
from paperlib.data.sets import Split
from paperlib.errors import Refused
from paperlib.measures import doubts, robustness
from paperlib.store import checkpoints

EPS = 0.1
N = 40


class Stepped(nn.Module):
    """A layer of `snn.Leaky` neurons, stepped four times; it knows nothing of this library."""

    def __init__(self):
        super().__init__()
        self.hidden, self.leaky, self.readout = nn.Linear(64, 30), snn.Leaky(beta=0.9), nn.Linear(30, 3)

    def forward(self, images):
        current, membrane, spikes = self.hidden(images.flatten(1)), self.leaky.init_leaky(), []
        for _ in range(4):
            spike, membrane = self.leaky(current, membrane)
            spikes.append(spike)
        return self.readout(torch.stack(spikes).mean(0))


class Coarse(nn.Module):
    """A network whose gradients are all 0, because it rounds its images."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network((10 * images).round() / 10)


@pytest.fixture(scope="module")
def samples(tiny):
    """Images (40, 1, 8, 8) in [0, 1] and labels (40,)."""
    return tiny.test.pixels()[:N], tiny.test.labels[:N]


@pytest.fixture(scope="module")
def trained(tiny):
    """A function of a network: the same network after a few steps on `tiny`, in eval mode."""

    def train(make):
        torch.manual_seed(0)
        network = make()
        optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
        for _ in range(60):
            optimiser.zero_grad()
            F.cross_entropy(network(tiny.train.pixels()), tiny.train.labels).backward()
            optimiser.step()
        return network.eval()

    return train


@pytest.fixture(scope="module")
def ann(trained):
    return trained(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3)))


def wilson(share, n, z=1.959964):
    """Wilson's score interval, by its formula."""
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return pytest.approx((centre - half, centre + half), abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "budget"), [("spiking", "quick"), ("spiking", "standard"), ("plain", "standard"), ("stepped", "quick")]
)
def test_the_worst_case_counts_the_images_that_survive_every_attack(kind, budget, samples, trained, ann, network):
    judged = {"spiking": lambda: network, "plain": lambda: ann, "stepped": lambda: trained(Stepped)}[kind]()
    images, labels = samples
    robustness = paperlib.judge(judged, images, labels, eps=EPS, bounds=(0, 1), budget=budget)
    split = Split(images, labels, torch.arange(N), one=1, bounds=(0, 1), num_classes=3)
    attacks = protocols.of_budget(budget, EPS, num_classes=3, has_rules=kind == "spiking")
    flags = [judged(images).argmax(1) == labels]
    flags += [evaluation.flags(judged, split, attack, batch_size=25) for attack in attacks]
    survived = torch.stack(flags).all(0)
    assert robustness.clean == flags[0].double().mean() and robustness.worst_case == survived.double().mean()
    assert robustness.clean > 0.7 and survived.sum() < min(f.sum() for f in flags[:3])  # there is something to count
    assert [row["attack"] for row in robustness.rows] == ["clean", *(a.title for a in attacks), "worst of all"]
    for row, standing in zip(robustness.rows, [*flags, survived], strict=True):
        assert row["accuracy"] == standing.double().mean()
        assert (row["low"], row["high"]) == wilson(row["accuracy"], N)
    assert (robustness.eps, robustness.n) == (EPS, N)
    if kind == "spiking":
        certified = paperlib.certify(judged, images, labels, eps=EPS, bounds=(0, 1)).certified
        assert robustness.certified.value == certified.double().mean() <= robustness.worst_case
        assert f"whatever the attack: {100 * robustness.certified.value:.1f} % [" in str(robustness)
    else:
        assert robustness.certified is None and "Certified: not available. network is a " in str(robustness)


@pytest.mark.parametrize(
    ("flags", "tried", "survived", "said"),
    [
        ([True, False], [True, True], [True, True], "50.0 % [9.5, 90.5]."),
        ([True, False], [True, False], [True, True], "50.0 % [9.5, 90.5]; 1 images were not tried in time."),
        ([True, False], [True, True], [False, True], f"50.0 % [9.5, 90.5] †; {doubts.CONTRADICTED}."),
    ],
)
def test_the_floor_tells_of_a_limit_of_time_and_of_a_contradiction(monkeypatch, flags, tried, survived, said):
    found = Certificate(torch.tensor(flags), torch.tensor(tried))
    monkeypatch.setattr(robustness, "certify", lambda *args, **kwargs: found)
    split = Split(torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=int), torch.arange(2), one=1, bounds=(0, 1))
    proved = robustness._proved(None, split, EPS, np.array(survived))
    assert robustness.Robustness(1.0, 1.0, EPS, 2, [], *proved).floor == f"Certified, whatever the attack: {said}"


def test_of_a_linear_network_with_two_classes_the_worst_case_is_exact():
    torch.manual_seed(0)
    linear = nn.Linear(12, 2)
    images, labels = torch.randn(40, 3, 2, 2), torch.randint(2, (40,))
    eps, sign = 0.05, 1 - 2 * labels
    difference = linear.weight[0] - linear.weight[1]
    margin = sign * (images.flatten(1) @ difference + linear.bias[0] - linear.bias[1])
    exact = (margin > eps * difference.abs().sum()).double().mean().item()  # no pixel comes near the bounds
    network = nn.Sequential(nn.Flatten(), linear).eval()
    robustness = paperlib.judge(network, images, labels, eps=eps, bounds=(-9, 9), num_classes=2)
    assert robustness.worst_case == exact < robustness.clean == (margin > 0).double().mean()
    titles = [row["attack"] for row in robustness.rows]
    assert {"APGD-CE-100", "Square-1000"} <= set(titles) and not any("DLR" in title for title in titles)
    passes = {row["attack"]: row["passes"] for row in robustness.rows}
    correct = robustness.clean  # other images are not attacked; each attack ends with a pass that judges
    assert passes["clean"] == 1 and passes["uniform noise"] == pytest.approx(correct)
    assert passes["FGSM"] == pytest.approx(3 * correct)
    assert passes["worst of all"] == pytest.approx(sum(passes.values()) - passes["worst of all"])


def test_a_network_that_draws_is_attacked_on_all_images_and_its_single_draws_are_doubted(samples):
    torch.manual_seed(0)
    size = {"in_channels": 1, "image_size": 8, "num_classes": 3}
    network = networks.build("poisson-conv-2-4", **size, T=3, mean=(0.25,), std=(0.15,)).eval()
    before = torch.get_rng_state()
    first, again = (paperlib.judge(network, *samples, eps=EPS, bounds=(0, 1), budget="quick") for _ in range(2))
    assert first == again and torch.equal(torch.get_rng_state(), before)
    rows = {row["attack"]: row for row in first.rows}
    assert doubts.DRAWN in rows["FGSM"]["doubts"] and doubts.DRAWN in rows["PGD-20"]["doubts"]
    assert not rows["clean"]["doubts"] and not rows["worst of all"]["doubts"]
    assert rows["uniform noise"]["passes"] == 1 and rows["FGSM"]["passes"] == 3  # wrong images included
    assert first.worst_case <= min(row["accuracy"] for row in first.rows)


def test_what_is_printed_marks_the_numbers_to_doubt_and_says_why(samples, ann):
    robustness = paperlib.judge(Coarse(ann).eval(), *samples, eps=EPS, bounds=(0, 1), budget="quick")
    reasons = {row["attack"]: row["doubts"] for row in robustness.rows}
    assert doubts.VANISHED in reasons["FGSM"] and doubts.VANISHED in reasons["PGD-20"]
    assert robustness.worst_case < next(row["accuracy"] for row in robustness.rows if row["attack"] == "PGD-20")
    assert f"† PGD-20: {doubts.VANISHED}." in robustness.doubts
    for text in (str(robustness), robustness._repr_markdown_()):
        lines = text.splitlines()
        assert lines[0].startswith("40 images, ") and lines[0].endswith(" = 0.1")
        (pgd,) = (line for line in lines if "PGD-20" in line and not line.startswith("†"))
        assert f"{100 * robustness.clean:.1f} †" in pgd  # no gradient moves anything
        (worst,) = (line for line in lines if "worst of all" in line)
        assert f"{100 * robustness.worst_case:.1f}" in worst and "†" not in worst
        assert lines[-1] == robustness.doubts[-1]
    assert list(robustness.table) == ["attack", "accuracy, %", "95 % interval", "passes per image"]
    row = robustness.rows[0]
    assert robustness.table["95 % interval"][0] == f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


# ---- the attacks of a budget -------------------------------------------------------------------------------------

QUICK = ["uniform noise", "FGSM", "PGD-20"]
STANDARD = ["uniform noise", "sign noise", "FGSM", "PGD-20"]
RULES = ["PGD-20 sigmoid 4", "PGD-20 atan 2", "PGD-20 rate"]
APGD = ["APGD-CE-100", "APGD-DLR-100"]
WIDTHS = [f"PGD-20 {family} {gamma:g}" for family in ("triangle", "rectangle", "exponential") for gamma in (0.5, 2)]
FULL = ["PGD-100", *WIDTHS, "SA-PGD-100 assg", "PGD-20 pdsg", "APGD-Square-100-5000", "Square-5000"]


@pytest.mark.parametrize(
    ("budget", "num_classes", "has_rules", "titles"),
    [
        ("quick", 10, True, [*QUICK, "Square-200"]),
        ("quick", 2, False, [*QUICK, "Square-200"]),
        ("standard", 3, True, [*STANDARD, *RULES, *APGD, "Square-1000"]),
        ("standard", 2, True, [*STANDARD, *RULES, "APGD-CE-100", "Square-1000"]),
        ("standard", 10, False, [*STANDARD, *APGD, "Square-1000"]),
        ("full", 10, True, [*STANDARD, *RULES, *APGD, *FULL]),
        ("full", 10, False, [*STANDARD, *APGD, "PGD-100", *FULL[-2:]]),
    ],
)
def test_the_attacks_of_a_budget(budget, num_classes, has_rules, titles):
    attacks = protocols.of_budget(budget, 0.07, num_classes=num_classes, has_rules=has_rules)
    assert [attack.title for attack in attacks] == titles
    assert {(attack.eps, attack.norm) for attack in attacks} == {(0.07, "linf")}


# ---- what is refused ---------------------------------------------------------------------------------------------


class Returning(nn.Module):
    """A network that returns what `change` makes of its logits; in eval mode."""

    def __init__(self, change):
        super().__init__()
        self.change = change
        self.eval()

    def forward(self, images):
        return self.change(images.flatten(1)[:, :3])


TRAINING = "The network is in training mode; put it in eval mode first: network.eval()."
RETURNED = "The network returned a {} for 8 images; it must return logits, a tensor (8, K) with K classes."
IMAGES = "images is a {}; it must be a tensor of floating-point images (N, ...)."
LABELS = "labels is a {}; it must be a tensor of 40 whole numbers."
FLOATS = "tensor ({}) of torch.float32"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"network": Returning(abs).train()}, TRAINING),
        ({"network": abs}, "network is a builtin_function_or_method; it must be a torch.nn.Module."),
        ({"network": Returning(lambda z: (z, z))}, RETURNED.format("tuple")),
        ({"network": Returning(lambda z: z[:, 0])}, RETURNED.format(FLOATS.format("8,"))),
        ({"network": Returning(lambda z: z[:, :1])}, RETURNED.format(FLOATS.format("8, 1"))),
        ({"network": Returning(lambda z: z[:3])}, RETURNED.format(FLOATS.format("3, 3"))),
        ({"images": torch.zeros(4, 5, dtype=torch.uint8)}, IMAGES.format("tensor (4, 5) of torch.uint8")),
        ({"images": np.zeros((4, 5))}, IMAGES.format("ndarray")),
        ({"images": torch.zeros(40)}, IMAGES.format(FLOATS.format("40,"))),
        ({"images": torch.zeros(0, 5)}, IMAGES.format(FLOATS.format("0, 5"))),
        ({"images": torch.full((40, 5), 1.5)}, "A pixel is 1.5; every pixel must lie from 0 to 1."),
        ({"images": torch.full((40, 5), torch.nan)}, "A pixel is nan; every pixel must lie from 0 to 1."),
        ({"labels": torch.zeros(39, dtype=torch.long)}, LABELS.format("tensor (39,) of torch.int64")),
        ({"labels": torch.zeros(40)}, LABELS.format(FLOATS.format("40,"))),
        ({"labels": [0] * 40}, LABELS.format("list")),
        *(({"labels": torch.full((40,), y)}, f"A label is {y}; the network's 3 logits fit 0 to 2.") for y in (3, -1)),
        ({"bounds": (1, 0)}, "bounds is (1, 0); the lower one must lie below the upper one."),
        ({"num_classes": 4}, "num_classes is 4; the network has logits of 3 classes."),
        ({"budget": "huge"}, "There is no budget 'huge'. Allowed: quick, standard, full."),
        *(({"eps": eps}, f"eps is {eps!r}; it must be a finite number above 0.") for eps in (0, -0.1, "8/255")),
    ],
)
def test_what_cannot_be_judged_is_refused_in_a_sentence(changes, sentence):
    kwargs = {"network": Returning(abs), "images": torch.rand(40, 5), "labels": torch.zeros(40, dtype=torch.long)}
    with pytest.raises(Refused) as refusal:
        paperlib.judge(**kwargs | {"eps": EPS, "bounds": (0, 1)} | changes)
    assert str(refusal.value) == sentence


# ---- load, and the package itself --------------------------------------------------------------------------------


def test_load_gives_the_network_that_is_kept_with_the_results_and_trains_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(checkpoints, "_train", lambda *_, **__: pytest.fail("it is trained"))
    network = paperlib.load("laptop", "sr", seed=0, device="cpu")
    (folder,) = tmp_path.iterdir()
    weights = torch.load(paths.RESULTS / "laptop" / "networks" / folder.name / "weights.pt", weights_only=True)
    torch.testing.assert_close(network.state_dict(), weights, rtol=0, atol=0)
    assert not network.training
    first = paperlib.load("laptop", "sr", device="cpu")  # by default that of the first seed
    torch.testing.assert_close(first.state_dict(), weights, rtol=0, atol=0)
    other = paperlib.load("laptop", "sr", seed=1, device="cpu")
    assert any((other.state_dict()[name] != value).any() for name, value in weights.items())


@pytest.mark.parametrize(
    ("profile", "training", "seed", "sentence"),
    [
        ("laptop", "sr", 50, "There is no seed in params/laptop.yml 50. Allowed: 0, 1, 2, "),
        ("laptop", "madry", 0, "There is no training in params/laptop.yml 'madry'. Allowed: vanilla, sr, "),
        ("desktop", "sr", 0, "There is no profile 'desktop'. Allowed: cifar, fashion, laptop, paper, "),
    ],
)
def test_load_refuses_what_is_not_in_a_profile(profile, training, seed, sentence):
    with pytest.raises(Refused) as refusal:
        paperlib.load(profile, training, seed=seed)
    assert str(refusal.value).startswith(sentence)


def test_the_package_imports_neither_torch_nor_numpy_until_something_is_used():
    code = "import sys, paperlib; print(sorted({'torch', 'numpy'} & set(sys.modules)), 'judge' in dir(paperlib))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, check=True, capture_output=True, text=True)
    assert ran.stdout == "[] True\n"
    for name in ("attacks", "certificates", "data", "networks", "theory", "training"):
        assert paperlib.__getattr__(name).__name__ == f"paperlib.{name}" and name in dir(paperlib)
    with pytest.raises(AttributeError, match="module 'paperlib' has no attribute 'jugde'"):
        paperlib.jugde  # noqa: B018


def test_the_units_of_the_images_do_not_matter(samples, ann):
    class InOtherUnits(nn.Module):
        def forward(self, x):
            return ann((x + 4) / 8)

    images, labels = samples
    here = paperlib.judge(ann, images, labels, eps=EPS, bounds=(0, 1), budget="quick")
    there = paperlib.judge(InOtherUnits().eval(), 8 * images - 4, labels, eps=8 * EPS, bounds=(-4, 4), budget="quick")
    assert [row["accuracy"] for row in here.rows] == pytest.approx([row["accuracy"] for row in there.rows], abs=0.03)
