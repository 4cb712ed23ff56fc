"""What holds for every attack: its ball, its seed, its company, what it costs, and networks that couple samples."""

import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from toys import COUNT, Coupled, Toy, toy_batch

from paperlib import attacks
from paperlib.attacks.attack import Attack
from paperlib.attacks.core import Queried
from paperlib.errors import Refused
from paperlib.theory.gradients import in_batches, loss_gradient, padded

ANY = (-math.inf, math.inf)
VARIANTS = {  # the registered name is the first word
    "uniform": {},
    "sign": {},
    "fgsm": {},
    "fgsm l2": {"norm": "l2"},
    "fgsm eot": {"eot": 3},
    "rfgsm": {"steps": 3},
    "rfgsm eot": {"steps": 3, "eot": 2},
    "pgd": {"steps": 6},
    "pgd l2": {"steps": 6, "norm": "l2"},
    "pgd eot": {"steps": 5, "eot": 3},
    "pgd until broken": {"steps": 6, "until_broken": True},
    "pgd until broken eot": {"steps": 6, "until_broken": True, "eot": 4},
    "mim": {"steps": 4},
    "mim l2": {"steps": 4, "norm": "l2"},
    "mim eot": {"steps": 4, "eot": 2},
    "apgd": {"steps": 6},
    "apgd l2": {"steps": 6, "norm": "l2"},
    "apgd twice dlr eot": {"steps": 6, "restarts": 2, "loss": "dlr", "eot": 2},
    "sa_pgd": {"steps": 6},
    "sa_pgd eot": {"steps": 6, "eot": 3},
    "apgd_square": {"steps": 5, "queries": 6},
    "overwritten_eot": {"steps": 4, "draws": 3},
    "square": {"queries": 9},
    "random_search": {"draws": 9},
    "random_search sign": {"draws": 9, "law": "sign"},
    "sparse_flips": {"steps": 3},
    "random_flips": {},
    "retiming": {"steps": 3},
    "random_retiming": {},
}
IN_TIME = ("retiming", "random_retiming")  # they move nothing in the toy's one step
FLIPS = ("sparse_flips", "random_flips", *IN_TIME)  # of whole events
IN_PIXELS = [variant for variant in VARIANTS if variant not in FLIPS]
BY_GRADIENT = [v for v in IN_PIXELS if v.split()[0] not in ("uniform", "sign", "square", "random_search")]
LEAVING = [  # in these a broken sample costs nothing more
    *(v for v in VARIANTS if "until broken" in v or v.split()[0] in ("apgd", "sa_pgd", "square", "random_search")),
    *("apgd_square", "sparse_flips"),
]
AVERAGING = [name for name, declared in attacks.ATTACKS.items() if "eot" in declared.takes]
SEEDED = [v for v in VARIANTS if "seed" in inspect.signature(attacks.ATTACKS[v.split()[0]].function).parameters]
SEEDED.remove("random_retiming")
EACH = pytest.mark.parametrize("variant", VARIANTS)


def test_every_registered_attack_is_among_them():
    assert {variant.split()[0] for variant in VARIANTS} == set(attacks.ATTACKS)


def run(variant, network, images, labels, *, eps=None, bounds=ANY, seed=0, index=None, batch_size=None, **options):
    eps = (3 if variant in FLIPS else 0.15) if eps is None else eps
    attack = Attack(variant.split()[0], eps, VARIANTS[variant] | options)
    perturb = attack.bind(seed=seed, index=index, batch_size=batch_size)
    return perturb(network, images, labels, bounds=bounds)


@pytest.fixture
def batch():
    return toy_batch()


# The ball ----------------------------------------------------------------------------------------------------------


class Linear:
    """Three classes; class 0 wins everywhere by about `lead`.  Gradients everywhere; remembers the images."""

    def __init__(self, shape, lead, seed):
        generator = torch.Generator().manual_seed(seed)
        self.weights = torch.randn(math.prod(shape), 3, generator=generator)
        self.lead, self.images = torch.tensor([lead, 0.0, 0.0]), []

    def __call__(self, x):
        self.images.append(x.detach())
        return x.flatten(1) @ self.weights / len(self.weights) + self.lead


@st.composite
def cases(draw):
    """Images anywhere within bounds, many at the bounds themselves, and any radius up to twice their distance."""
    low, high = draw(st.sampled_from([(0, 1), (0, 7), (-1.5, 0.25)]))  # pixels, event counts, anything
    shape = tuple(draw(st.integers(1, largest)) for largest in (4, 3, 4, 4))
    unit = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1, width=32))
    values = draw(st.lists(unit, min_size=math.prod(shape), max_size=math.prod(shape)))
    images = (low + (high - low) * torch.tensor(values).view(shape)).clamp(low, high)
    labels = torch.tensor(draw(st.lists(st.integers(0, 1), min_size=shape[0], max_size=shape[0])))
    return images, labels, draw(st.floats(0, 2)) * (high - low), (low, high), draw(st.integers(0, 2**31))


@pytest.mark.parametrize("variant", IN_PIXELS)
@given(case=cases(), lead=st.sampled_from([0.0, 20.0]), tries=st.integers(1, 6), share=st.floats(0.001, 1))
@settings(max_examples=40, deadline=None)
def test_every_attack_and_all_its_queries_stay_within_eps_and_bounds(variant, case, lead, tries, share):
    images, labels, eps, (low, high), seed = case
    before, network = images.clone(), Linear(images.shape[1:], lead, seed)
    takes = inspect.signature(attacks.ATTACKS[variant.split()[0]].function).parameters
    options = {"steps": tries, "queries": 2 * tries, "draws": tries, "p_init": share}
    options["alpha"] = share * eps if variant.startswith("rfgsm") else 3 * share * eps
    options = {name: value for name, value in options.items() if name in takes}
    x = run(variant, network, images, labels, eps=eps, bounds=(low, high), seed=seed, batch_size=2, **options)
    assert torch.equal(images, before) and not x.requires_grad
    assert (x.shape, x.dtype) == (images.shape, images.dtype)
    assert all(((low <= shown) & (shown <= high)).all() for shown in (x, *network.images))
    delta = (x - images).flatten(1)
    size = delta.norm(dim=1) if "l2" in variant else delta.abs().amax(1)
    assert (size <= eps * (1 + 1e-5) + 1e-6 * (high - low)).all()
    if variant == "square":  # it goes from corner to corner, unless the image is wrong itself
        right = network(images).argmax(1) == labels
        corner = (x == (images - eps).clamp(min=low)) | (x == (images + eps).clamp(max=high))
        assert corner[right].all() and torch.equal(x[~right], images[~right])


@pytest.mark.parametrize("name", ["fgsm", "rfgsm", "pgd", "mim"])
@pytest.mark.parametrize(("low", "high"), [(0, 7), (-1.5, 0.25)])
def test_the_whole_range_between_the_bounds_is_used(name, low, high):
    images, labels = torch.full((2, 1, 4, 4), 0.2), torch.tensor([0, 1])  # the attack goes up, then down

    def network(x):
        z = x.flatten(1).sum(1) / 99
        return torch.stack([-z, z], dim=1)

    options = {} if name == "fgsm" else {"steps": 1, "alpha": 1 if name == "rfgsm" else 9}
    x = run(name, network, images, labels, eps=9, bounds=(low, high), **options)
    assert (x[0] == high).all() and (x[1] == low).all()


@EACH
def test_with_radius_zero_nothing_moves(variant, batch):
    assert torch.equal(run(variant, Toy(), *batch, eps=0), batch[0])


@EACH
def test_the_input_is_left_alone_and_something_moves(variant, batch):
    images, labels = batch[0].clone(), batch[1].clone()
    x = run(variant, Toy(), images, labels)
    assert torch.equal(images, batch[0]) and torch.equal(labels, batch[1])
    assert x.shape == images.shape and not x.requires_grad and torch.equal(x, images) == (variant in IN_TIME)


@pytest.mark.parametrize("variant", BY_GRADIENT)
def test_gradient_attacks_raise_the_loss_and_leave_no_weight_gradients(network, tiny, variant):
    images, labels, _ = next(tiny.test.batches(40))
    clean, attacked = (
        cross_entropy(network(x), labels)
        for x in (images, run(variant, network, images, labels, bounds=(0, 1), eps=1.0 if "l2" in variant else 0.1))
    )
    assert attacked > clean + 0.1
    assert all(weight.grad is None for weight in network.parameters())


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v not in (*BY_GRADIENT, "sparse_flips", "retiming")])
def test_the_others_only_call_forward(variant):
    torch.manual_seed(0)
    weight = torch.randn(18, 3, requires_grad=True)

    def network(x):
        assert not torch.is_grad_enabled() and not x.requires_grad
        return x.flatten(1) @ weight

    images = torch.rand(6, 2, 3, 3).round()
    with torch.no_grad():
        labels = network(images).argmax(1)
    x = run(variant, network, images, labels, bounds=(0, 1))
    assert not x.requires_grad and weight.grad is None and not torch.equal(x, images)


# Whose result it is ------------------------------------------------------------------------------------------------


@EACH
def test_a_sample_has_its_result_in_any_company(variant, batch):
    (images, labels), index = batch, torch.arange(COUNT) * 3 + 1000
    whole = run(variant, Toy(), images, labels, seed=2, index=index, batch_size=6)
    for count in (COUNT, 13, 1):  # another order, some of them, one alone
        some = torch.randperm(COUNT, generator=torch.Generator().manual_seed(count))[:count]
        part = run(variant, Toy(), images[some], labels[some], seed=2, index=index[some], batch_size=6)
        assert torch.equal(part, whole[some])


@pytest.mark.parametrize("variant", SEEDED)
def test_a_result_depends_on_seed_and_index_and_on_nothing_else(variant, batch):
    images, labels = (part[1:2].repeat_interleave(4, 0) for part in batch)
    index = torch.tensor([9, 4, 9, 0])
    torch.manual_seed(1)
    x = run(variant, Toy(), images, labels, seed=3, index=index)
    torch.manual_seed(2)
    assert torch.equal(run(variant, Toy(), images, labels, seed=3, index=index), x)
    assert torch.equal(x[0], x[2]) and not torch.equal(x[0], x[1])
    assert not torch.equal(run(variant, Toy(), images, labels, seed=4, index=index)[0], x[0])
    places = run(variant, Toy(), images, labels, index=torch.arange(4))
    assert torch.equal(run(variant, Toy(), images, labels), places)


# What it costs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 3, 64])  # 3: batches of 16
@EACH
def test_counts_are_what_the_network_saw_in_batches_of_few_sizes(variant, batch, batch_size):
    toy, plain = Toy(), Toy()
    queried = Queried(toy, *batch, batch_size)
    x = run(variant, queried, *batch)
    assert all(torch.equal(getattr(queried, kind), getattr(toy, kind)) for kind in ("forward", "backward", "vanished"))
    assert batch_size is None or all(len(call) == padded(len(call)) <= padded(batch_size) for call in toy.calls)
    if variant in BY_GRADIENT:
        assert toy.vanished.any() and (toy.vanished < toy.backward).any()
    if variant in LEAVING:
        assert len(toy.forward.unique()) > 2  # some left early, some late
    assert torch.equal(run(variant, plain, *batch, batch_size=batch_size), x)  # counting changes nothing
    assert torch.equal(plain.forward, toy.forward) and torch.equal(plain.backward, toy.backward)


class Steadfast:
    """Three classes of which the first always wins, with a gradient everywhere; counts what a sample costs."""

    def __init__(self):
        self.forward = self.backward = 0

    def __call__(self, x):
        self.forward += 1
        x = 1 * x  # a tensor of this call alone
        if x.requires_grad:
            x.register_hook(self._looked_back)
        z = (x * x.detach()).flatten(1).mean(1)
        return torch.stack([50 + z, z.square(), -z], dim=1)

    def _looked_back(self, gradient):
        self.backward += 1


LOOKS = {"apgd": 1, "sa_pgd": 1, "square": 1, "apgd_square": 1}  # at the clean image, beside what it may spend


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v != "sparse_flips"])
def test_a_sample_that_never_breaks_costs_what_the_attack_says(variant):
    (name, *_), options, network = variant.split(), VARIANTS[variant], Steadfast()
    images, labels = torch.rand(3, 1, 4, 4), torch.zeros(3, dtype=torch.long)
    run(variant, network, images, labels, bounds=(0, 1))
    attack = Attack(name, 1, options)
    if name == "overwritten_eot":  # of its draws the last alone is followed back
        assert (network.forward, network.backward) == (attack.gradients, options["steps"])
    else:
        assert network.backward == attack.gradients
        last_iterates = {"apgd": options.get("restarts", 1), "apgd_square": 2}.get(name, 0)
        assert network.forward - network.backward == attack.queries + LOOKS.get(name, 0) + last_iterates


@pytest.mark.parametrize("name", AVERAGING)
def test_eot_multiplies_the_passes_with_a_gradient_and_no_others(name, batch):
    counts = []
    for eot in (1, 5):
        queried = Queried(Toy(), *batch, None)
        run(name, queried, *batch, eot=eot)
        counts.append((queried.forward - queried.backward, queried.backward, queried.vanished))
    (looks, once, zeros), (same, more, many) = counts
    assert once.any() and torch.equal(same, looks)
    assert torch.equal(more, 5 * once) and torch.equal(many, 5 * zeros)


@pytest.mark.parametrize("variant", [*AVERAGING, "pgd until broken", "mim l2"])
def test_where_nothing_is_drawn_eot_changes_no_bit(variant, network, tiny):
    images, labels, _ = next(tiny.test.batches(60))
    for rule in ("triangle", "assg"):  # ASSG remembers gradients, and learns from the first draw of a step alone
        results = []
        for eot in (1, 4):
            with network.backward_rule(rule):
                results.append(run(variant, network, images, labels, eot=eot, bounds=(0, 1), eps=0.05, batch_size=25))
        assert torch.equal(*results) and not torch.equal(results[0], images)


# Samples that are coupled --------------------------------------------------------------------------------------------


@EACH
def test_a_coupled_network_always_sees_everybody_in_place(variant, batch):
    network = Coupled()
    queried = Queried(network, *batch, 3)
    run(variant, queried, *batch, batch_size=3)
    assert all(call == list(range(COUNT)) for call in network.calls)
    assert bool(network.calls) == (variant not in ("uniform", "sign", "random_flips", "random_retiming"))
    assert queried.forward.max() == len(network.calls) or variant == "sparse_flips"  # in it nobody is in every look
    assert variant not in LEAVING or queried.forward.min() < len(network.calls)


def test_a_broken_sample_stays_where_it_was_last_shown(batch):
    (images, labels), network = batch, Coupled()
    x = run("pgd until broken", network, images, labels, steps=8)
    wrong = torch.stack([Coupled().logits(shown).argmax(1) != labels for shown in network.images])
    kinds = set()
    for i in range(COUNT):
        first = int(wrong[:, i].int().argmax()) if wrong[:, i].any() else None
        kinds.add("stands" if first is None else "start" if first == 0 else "later")
        if first is not None:
            assert all(torch.equal(shown[i], x[i]) for shown in network.images[first:])
    assert kinds == {"stands", "start", "later"}


def test_assg_refuses_a_batch_that_shrinks_and_an_attack_keeps_it_whole(network, tiny):
    images, labels, _ = next(tiny.test.batches(10))
    with network.backward_rule("assg"):
        loss_gradient(network, images, labels, None)
        with pytest.raises(Refused, match="Keep the batch whole"):
            loss_gradient(network, images[:9], labels[:9], None)
    with network.backward_rule("assg"):
        x = run("pgd until broken", network, images, labels, bounds=(0, 1), batch_size=4)
    assert (in_batches(network, x, None).argmax(1) != labels).any()
