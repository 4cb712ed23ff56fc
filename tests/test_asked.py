"""`Asked`: what it counts, what it averages, and that a network which couples its samples always sees all of them."""

import inspect
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from paperlib import attacks
from paperlib.attacks.core import Asked, uniform_noise
from paperlib.errors import Refused
from paperlib.theory.gradients import in_batches, loss_gradient

COUNT, EPS, ANY = 20, 0.15, (-math.inf, math.inf)
AVERAGING = [name for name, attack in attacks.ATTACKS.items() if "eot" in inspect.signature(attack).parameters]


class Toy:
    """A smooth network of three classes, whose images carry their number in the last column.

    It writes down who it was asked about: passes forward and backward of each number, gradients that were all 0, and
    the numbers of each call.  Of every fifth number the gradient is exactly 0.
    """

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.first = torch.randn(6, 12, generator=generator, dtype=torch.float64)
        self.second = torch.randn(12, 3, generator=generator, dtype=torch.float64)
        self.forward, self.backward, self.vanished = (torch.zeros(COUNT) for _ in range(3))
        self.calls = []

    def logits(self, x):
        return torch.tanh(x[..., :-1].flatten(1) @ self.first) @ self.second

    def __call__(self, x):
        numbers = (x.detach()[:, 0, 0, -1] / 10).round().long()
        self.calls.append(numbers.tolist())
        asked = numbers.unique()  # a short batch is filled up with copies
        self.forward[asked] += 1
        dead = (numbers % 5 == 0).view(-1, 1, 1, 1)
        y = torch.where(dead, x.detach(), x)
        if x.requires_grad:
            y.register_hook(lambda g: self._looked_back(numbers, dead, g))
        return self.logits(y)

    def _looked_back(self, numbers, dead, gradient):
        asked = numbers.unique()
        self.backward[asked] += 1
        zero = dead.flatten() | (gradient == 0).flatten(1).all(1)
        self.vanished[numbers[zero].unique()] += 1


class Coupled(Toy):
    """A sample's logits depend on the one before it in the batch, and on its place."""

    coupled = True

    def logits(self, x):
        own = super().logits(x)
        return own + 0.5 * own.roll(1, 0) + 0.1 * torch.arange(len(x), dtype=x.dtype)[:, None] * own.square()


class Noisy:
    """A network that adds noise to its images."""

    stochastic = True

    def __init__(self, network):
        self.network = network

    def __call__(self, x):
        return self.network(x + 0.2 * torch.randn(x.shape, dtype=x.dtype))


@pytest.fixture
def toy_batch():
    """Images (20, 1, 2, 4), numbered, and labels: what `Toy` says, and of every fourth something else."""
    images = torch.rand(COUNT, 1, 2, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    images[..., -1] = 10 * torch.arange(COUNT).view(-1, 1, 1)
    labels = Toy().logits(images).argmax(1)
    labels[::4] = (labels[::4] + 1) % 3
    return images, labels


def bound(name, **options):
    """The function called `name` with small defaults of what it takes."""
    function = attacks.ATTACKS[name]
    takes = inspect.signature(function).parameters
    given = {"eps": EPS, "alpha": EPS / 4, "steps": 6, "queries": 9, "draws": 4, "bounds": ANY} | options

    def attack(network, images, labels, **context):
        known = {option: value for option, value in (given | context).items() if option in takes}
        return function(network, images, labels, **known)

    return attack


COUNTED = {
    "fgsm": ("fgsm", {}),
    "fgsm eot": ("fgsm", {"eot": 3}),
    "rfgsm": ("rfgsm", {"steps": 3}),
    "pgd": ("pgd", {}),
    "pgd until broken": ("pgd", {"until_broken": True}),
    "pgd until broken eot": ("pgd", {"until_broken": True, "eot": 4}),
    "mim eot": ("mim", {"eot": 2}),
    "apgd": ("apgd", {}),
    "apgd twice dlr eot": ("apgd", {"restarts": 2, "loss": "dlr", "eot": 2}),
    "sa_pgd": ("sa_pgd", {}),
    "sa_pgd eot": ("sa_pgd", {"eot": 3}),
    "square": ("square", {}),
    "random_search": ("random_search", {}),
    "overwritten_eot": ("overwritten_eot", {}),
    "uniform": ("uniform", {}),
}
LEAVING = ["pgd until broken", "pgd until broken eot", "apgd", "sa_pgd", "square", "random_search"]


# Counting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 3, 64])
@pytest.mark.parametrize("case", COUNTED)
def test_counts_are_what_the_network_saw(toy_batch, case, batch_size):
    (name, options), toy = COUNTED[case], Toy()
    asked = Asked(toy, *toy_batch, batch_size)
    bound(name, **options)(asked, *toy_batch, batch_size=batch_size)
    assert torch.equal(asked.forward, toy.forward)
    assert torch.equal(asked.backward, toy.backward)
    assert torch.equal(asked.vanished, toy.vanished)
    if name in attacks.GRADIENT:
        assert toy.vanished.any() and (toy.vanished < toy.backward).any()
    if case in LEAVING:
        assert len(toy.forward.unique()) > 2  # some left early, some late


@pytest.mark.parametrize("name", AVERAGING)
def test_eot_multiplies_the_passes_with_a_gradient_and_no_others(toy_batch, name):
    counts = []
    for eot in (1, 5):
        asked = Asked(Toy(), *toy_batch, None)
        bound(name, eot=eot)(asked, *toy_batch)
        counts.append((asked.forward - asked.backward, asked.backward, asked.vanished))
    (looks, once, zeros), (same, more, many) = counts
    assert once.any() and torch.equal(same, looks)
    assert torch.equal(more, 5 * once) and torch.equal(many, 5 * zeros)


def test_an_attack_that_calls_the_network_in_its_own_way_is_counted_too(toy_batch):
    images, labels = toy_batch
    asked = Asked(Toy(), images, labels, None)
    for _ in range(2):
        leaf = images.clone().requires_grad_()
        torch.autograd.grad(cross_entropy(asked(leaf), labels), leaf)
    with torch.no_grad():
        asked(images)
    assert (asked.forward == 3).all() and (asked.backward == 2).all()


def test_only_the_rows_that_were_asked_for_are_counted(toy_batch):
    images, labels = toy_batch
    toy, rows = Toy(), torch.tensor([17, 3, 4])
    asked = Asked(toy, images, labels, None)
    found = asked.logits(images[rows], rows)
    torch.testing.assert_close(found, Toy()(images)[rows])
    assert asked.correct(images[rows], rows).tolist() == (found.argmax(1) == labels[rows]).tolist()
    assert asked.forward.nonzero().squeeze(1).tolist() == [3, 4, 17] and asked.forward.sum() == 6
    assert toy.calls == [[17, 3, 4]] * 2
    assert not asked.backward.any()


# Averaging ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AVERAGING)
def test_where_nothing_is_drawn_eot_changes_no_bit(network, tiny, name):
    images, labels, _ = next(tiny.test.batches(60))
    variants = [{}] + ([{"until_broken": True}] if name == "pgd" else [{"norm": "l2"}] if name == "mim" else [])
    for options in variants:
        one, many = (
            bound(name, eot=eot, bounds=(0, 1), eps=0.05, alpha=0.02, **options)(network, images, labels, batch_size=25)
            for eot in (1, 7)
        )
        assert torch.equal(one, many) and not torch.equal(one, images)


@pytest.mark.parametrize("eot", [1, 2, 6])
def test_the_gradient_is_the_mean_of_as_many_draws(toy_batch, eot):
    images, labels = toy_batch
    network = Noisy(Toy())
    torch.manual_seed(5)
    logits, gradient = Asked(network, images, labels, 8).gradient(images, eot=eot)
    torch.manual_seed(5)
    draws = [loss_gradient(network, images, labels, 8) for _ in range(eot)]
    torch.testing.assert_close(logits, torch.stack([z for z, _ in draws]).mean(0), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(gradient, torch.stack([g for _, g in draws]).mean(0), rtol=1e-12, atol=1e-14)
    assert len({g.sum().item() for _, g in draws}) == eot


def test_fgsm_steps_along_the_mean_of_its_draws(toy_batch):
    images, labels = toy_batch
    network, total = Noisy(Toy()), torch.zeros_like(images)
    torch.manual_seed(2)
    found = bound("fgsm", eot=5)(network, images, labels)
    torch.manual_seed(2)
    for _ in range(5):
        leaf = images.clone().requires_grad_()
        total += torch.autograd.grad(cross_entropy(network(leaf), labels, reduction="sum"), leaf)[0]
    assert torch.equal(found, images + EPS * total.sign())
    torch.manual_seed(2)
    assert not torch.equal(bound("fgsm")(network, images, labels), found)


def test_overwritten_eot_keeps_the_last_draw(toy_batch):
    images, labels = toy_batch
    network = Noisy(Toy())
    torch.manual_seed(3)
    found = bound("overwritten_eot", draws=4, steps=3, seed=7)(network, images, labels)
    torch.manual_seed(3)
    x = images + EPS * uniform_noise(images, 7, None)
    for _ in range(3):
        for _ in range(3):
            network(x)  # drawn, and thrown away
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(network(leaf), labels, reduction="sum"), leaf)
        x = images + (x + EPS / 4 * gradient.sign() - images).clamp(-EPS, EPS)
    torch.testing.assert_close(found, x, rtol=0, atol=1e-12)
    torch.manual_seed(3)
    averaged = bound("pgd", eot=4, steps=3, seed=7)(network, images, labels)
    assert not torch.allclose(averaged, found)


@pytest.mark.parametrize("eot", [0, -1, 1.0, True])
def test_a_number_of_draws_that_cannot_be_is_refused(toy_batch, eot):
    with pytest.raises(Refused, match="eot is .*; it must be a whole number of at least 1"):
        bound("pgd", eot=eot)(Toy(), *toy_batch)


# Asked or not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", COUNTED)
def test_a_plain_network_and_one_that_is_asked_give_the_same_images(toy_batch, case):
    name, options = COUNTED[case]
    plain = bound(name, **options)(Toy(), *toy_batch, batch_size=6)
    assert torch.equal(bound(name, **options)(Asked(Toy(), *toy_batch, 6), *toy_batch), plain)
    assert not torch.equal(plain, toy_batch[0])


# Samples that are coupled ------------------------------------------------------------------------------------------


def project(x, images, bounds, eps):
    return (images + (x - images).clamp(-eps, eps)).clamp(*bounds)


def look(network, x, labels):
    """Logits, the losses and their gradient, all samples at once."""
    leaf = x.clone().requires_grad_()
    logits = network(leaf)
    losses = cross_entropy(logits, labels, reduction="none")
    return logits.detach(), losses.detach(), torch.autograd.grad(losses.sum(), leaf)[0]


def slow_pgd(network, images, labels, *, steps, bounds, until_broken, eps=EPS):
    """Nobody is ever left out; who is broken stands still."""
    x = project(images + eps * uniform_noise(images, 0, None), images, bounds, eps)
    broken = torch.zeros(len(images), dtype=torch.bool)
    for _ in range(steps):
        logits, _, gradient = look(network, x, labels)
        broken |= (logits.argmax(1) != labels) & until_broken
        moved = project(x + eps / 4 * gradient.sign(), images, bounds, eps)
        x = torch.where(broken.view(-1, 1, 1, 1), x, moved)
    return x


def slow_sa_pgd(network, images, labels, *, steps, bounds, eps=EPS):
    """The formulas of section 6 of the paper notes, one sample after the other behind each look at all of them."""
    with torch.no_grad():
        still = network(images).argmax(1) == labels
    noise = uniform_noise(images, 0, None)
    x = images.clone()
    for i in still.nonzero().flatten():
        x[i] = project(images[i] + eps * noise[i] / noise[i].abs().max(), images[i], bounds, eps)
    m, v, eta = torch.zeros_like(x), torch.zeros_like(x), eps
    marks = {math.ceil(round(p * steps, 6)) for p in (0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99)}
    for k in range(1, steps + 1):
        logits, _, gradient = look(network, x, labels)
        still &= logits.argmax(1) == labels
        for i in still.nonzero().flatten():
            g = gradient[i]
            size = g.abs().mean()
            g = g / size if size else g
            square = g**2 / (g**2).mean() if size else g
            m[i], v[i] = m[i] / 2 + g, 0.8 * v[i] + square
            step = (eta * m[i] / (v[i].sqrt() + 1e-12)).clamp(-eta, eta)
            x[i] = project(x[i] + step, images[i], bounds, eps)
        if k in marks:
            eta /= 2
    return x


def climber(image, start, steps, bounds, eps):
    """Algorithm 1 of arXiv 2003.01690 for one image: yields where to look, is sent (loss, gradient, wrong)."""
    p = [0, 0.22]
    while p[-1] < 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    marks = [math.ceil(round(q * steps, 6)) for q in p if q <= 1]
    x = before = best = start
    value, gradient, wrong = yield x
    if wrong:
        return x
    highest, uphill, eta = value, gradient, 2 * eps
    rises, mark, since, halved = [], value, 0, False
    for k in range(steps):
        if k in marks and k > 0:
            few = sum(rises[since:k]) < 0.75 * (k - since)
            stuck = not halved and highest == mark
            halved = few or stuck
            if halved:
                eta, x, value, gradient = eta / 2, best, highest, uphill
            mark, since = highest, k
        target = project(x + eta * gradient.sign(), image, bounds, eps)
        share = 1 if k == 0 else 0.75
        new = project(x + share * (target - x) + (1 - share) * (x - before), image, bounds, eps)
        before, x = x, new
        last, (value, gradient, wrong) = value, (yield x)
        rises.append(bool(value > last))
        if wrong:
            return x
        if value > highest:
            best, highest, uphill = x, value, gradient
    return best


def slow_apgd(network, images, labels, *, steps, bounds, eps=EPS):
    """Climbers in step, each of which has its own; whoever is done stays in the batch where he was last shown."""
    with torch.no_grad():
        still = (network(images).argmax(1) == labels).tolist()
    starts = project(images + eps * uniform_noise(images, 0, None), images, bounds, eps)
    climbers = {i: climber(images[i], starts[i], steps, bounds, eps) for i, stands in enumerate(still) if stands}
    shown, result = images.clone(), images.clone()
    for i, one in climbers.items():
        shown[i] = next(one)
    for k in range(steps + 1):
        if not climbers:
            break
        if k < steps:
            logits, losses, gradient = look(network, shown, labels)
        else:
            with torch.no_grad():
                logits = network(shown)
            losses, gradient = cross_entropy(logits, labels, reduction="none"), torch.zeros_like(shown)
        wrong = logits.argmax(1) != labels
        for i in list(climbers):
            try:
                shown[i] = climbers[i].send((losses[i], gradient[i], bool(wrong[i])))
            except StopIteration as done:
                result[i] = done.value
                del climbers[i]
    return result


SLOW = {
    "pgd": ("pgd", slow_pgd, {"until_broken": False}),
    "pgd until broken": ("pgd", slow_pgd, {"until_broken": True}),
    "sa_pgd": ("sa_pgd", slow_sa_pgd, {}),
    "apgd": ("apgd", slow_apgd, {}),
}


@pytest.mark.parametrize("case", SLOW)
def test_a_coupled_toy_is_attacked_as_by_a_loop_that_drops_nobody(toy_batch, case):
    name, slow, options = SLOW[case]
    found = bound(name, steps=11, **options)(Coupled(), *toy_batch, batch_size=3)  # no batch size splits it
    expected = slow(Coupled(), *toy_batch, steps=11, bounds=ANY, **options)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    alone = bound(name, steps=11, **options)(Toy(), *toy_batch)
    assert not torch.allclose(alone, found)


@pytest.mark.parametrize("rule", ["assg", "pdsg"])
@pytest.mark.parametrize("case", SLOW)
def test_a_spiking_network_by_a_coupled_rule_is_attacked_so_too(network, tiny, case, rule):
    (name, slow, options), network = SLOW[case], network.double()
    images, labels, _ = next(tiny.test.batches(40))
    images = images.double()
    with network.backward_rule(rule):
        expected = slow(network, images, labels, steps=9, bounds=(0, 1), eps=0.04, **options)
    with network.backward_rule(rule):
        found = bound(name, steps=9, bounds=(0, 1), eps=0.04, alpha=0.01, **options)(
            network, images, labels, batch_size=7
        )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    stands = in_batches(network, found, None).argmax(1) == labels
    assert 0 < stands.sum() < len(stands)


@pytest.mark.parametrize("case", COUNTED)
def test_a_coupled_network_always_sees_everybody_in_place(toy_batch, case):
    (name, options), network = COUNTED[case], Coupled()
    asked = Asked(network, *toy_batch, 3)
    bound(name, **options)(asked, *toy_batch, batch_size=3)
    assert all(call == list(range(COUNT)) for call in network.calls)
    if name in attacks.RANDOM:
        assert not network.calls
        return
    assert asked.forward.max() == len(network.calls) == network.forward.max()
    assert case not in LEAVING or asked.forward.min() < len(network.calls)


def test_a_broken_sample_stays_where_it_was_last_shown(toy_batch):
    images, labels = toy_batch
    seen = []

    class Watched(Coupled):
        def __call__(self, x):
            seen.append(x.detach().clone())
            return super().__call__(x)

    found = bound("pgd", until_broken=True, steps=8)(Watched(), images, labels)
    wrong = torch.stack([Coupled().logits(x).argmax(1) != labels for x in seen])
    kinds = set()
    for i in range(COUNT):
        first = int(wrong[:, i].int().argmax()) if wrong[:, i].any() else None
        kinds.add("stands" if first is None else "start" if first == 0 else "later")
        if first is not None:
            assert all(torch.equal(x[i], found[i]) for x in seen[first:])
    assert kinds == {"stands", "start", "later"}


def test_assg_refuses_a_batch_that_shrinks_and_an_attack_keeps_it_whole(network, tiny):
    images, labels, _ = next(tiny.test.batches(10))
    with network.backward_rule("assg"):
        loss_gradient(network, images, labels, None)
        with pytest.raises(Refused, match="Keep the batch whole"):
            loss_gradient(network, images[:9], labels[:9], None)
    with network.backward_rule("assg"):
        x = bound("pgd", until_broken=True, bounds=(0, 1))(network, images, labels, batch_size=4)
    assert (in_batches(network, x, None).argmax(1) != labels).any()
