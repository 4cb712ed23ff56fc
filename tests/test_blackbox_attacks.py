"""Black-box attacks: the Square attack step by step from what the network is asked, and chance as the floor below it.

The oracles are torchattacks, all corners of small balls, and a replay of each attack from its recorded queries.
"""

import itertools
import math

import pytest
import torch
import torchattacks
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlib import attacks
from paperlib.attacks import evaluation
from paperlib.attacks.attack import noise
from paperlib.attacks.blackbox import HALVINGS, random_search, square, window_side
from paperlib.errors import Refused
from paperlib.theory.gradients import in_batches

UNIT = {"bounds": (0, 1)}
BUDGET = {square: "queries", random_search: "draws"}
BOTH = pytest.mark.parametrize("attack", BUDGET)


def run(attack, network, images, labels, tries, **options):
    return attack(network, images, labels, **UNIT | {"eps": 0.1, BUDGET[attack]: tries} | options)


class Linear:
    """Two classes, margin of class 0 = w·x + lead, with every batch it was asked."""

    def __init__(self, shape, lead=0.0, seed=0):
        self.w = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.lead, self.asked = lead, []

    def margin(self, x):
        return (self.w * x).flatten(1).sum(1) + self.lead

    def __call__(self, x):
        self.asked.append(x)
        margin = self.margin(x)
        return torch.stack([margin, torch.zeros_like(margin)], dim=1)


def constant(x):
    """Three equal logits: the argmax is class 0."""
    return x.new_zeros(len(x), 3)


def pictures(count, *shape, seed=1, margin=0.0):
    """Images in [margin, 1 - margin], 64 bits."""
    unit = torch.rand((count, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return margin + (1 - 2 * margin) * unit


def zeros(images):
    return torch.zeros(len(images), dtype=torch.long)


@pytest.fixture
def batch(tiny):
    images, labels, _ = next(tiny.test.batches(60))
    return images, labels


def stands(network, images, labels):
    return in_batches(network, images, None).argmax(1) == labels


# The window's side -------------------------------------------------------------------------------------------------


def test_the_windows_side_by_hand():
    # 28 × 28, p = 0.8: √(784 p) = 25.04, then by √2 less: 17.7, 12.5, 8.85, 6.26, 4.43, 3.13, 2.21, 1.57, 1.11
    sides = [25, 18, 13, 9, 6, 4, 3, 2, 2, 1]
    ends = [*HALVINGS, 9999]
    assert [window_side(last, 10_000, 0.8, 28, 28) for last in ends] == sides
    assert [window_side(last + 1, 10_000, 0.8, 28, 28) for last in ends[:-1]] == sides[1:]
    # of 200 queries every window stands for 50: the first for 0 to 49, the fifth from 200 on, the eleventh from 500 on
    rescaled = {1: 25, 2: 13, 4: 13, 5: 9, 10: 9, 11: 6, 20: 6, 21: 4, 40: 4, 41: 3, 80: 3, 81: 2, 160: 2, 161: 1}
    assert {query: window_side(query, 200, 0.8, 28, 28) for query in rescaled} == rescaled


def test_the_windows_side_lies_between_one_pixel_and_the_shorter_side():
    assert window_side(1, 100, 1, 2, 9) == 2  # √18 = 4.2
    assert window_side(1, 100, 0.4, 9, 2) == 2  # √7.2 = 2.7
    assert window_side(1, 100, 1, 1, 1) == window_side(99, 100, 1e-9, 28, 28) == 1


@given(queries=st.integers(2, 3000), p=st.floats(1e-6, 1), height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_the_window_starts_at_its_share_and_never_grows(queries, p, height, width):
    sides = [window_side(query, queries, p, height, width) for query in range(1, queries)]
    assert sides == sorted(sides, reverse=True)
    assert abs(sides[0] - min(max(math.sqrt(p * height * width), 1), height, width)) <= 0.5
    assert sides[-1] >= 1


# The Square attack, query by query -----------------------------------------------------------------------------------


def inside(change, side):
    """Whether some square of that side holds all of `change` (C, H, W)."""
    height, width = change.shape[1:]
    for top, left in itertools.product(range(height - side + 1), range(width - side + 1)):
        rest = change.clone()
        rest[:, top : top + side, left : left + side] = 0
        if not rest.any():
            return True
    return False


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 9), (2, 9, 4)])
def test_every_query_is_one_square_away_from_the_best_so_far(shape):
    network, images, queries = Linear(shape, lead=99), pictures(1, *shape, margin=0.2), 60
    x = run(square, network, images, zeros(images), queries)
    clean, best, *proposals = (asked[0] for asked in network.asked)
    assert torch.equal(clean, images[0])
    assert len(proposals) == queries - 1
    assert (best - clean).abs().flatten().tolist() == pytest.approx([0.1] * clean.numel())
    up = best > clean
    assert torch.equal(up.all(1), up.any(1))  # stripes: a column of a channel has one sign
    assert len(up.flatten(1).unique(dim=0)) == shape[0]  # and each channel its own
    moved, mixed = 0, 0
    for query, proposal in enumerate(proposals, start=1):
        delta = proposal - clean
        assert delta.abs().flatten().tolist() == pytest.approx([0.1] * clean.numel())
        change = proposal != best
        assert inside(change, window_side(query, queries, 0.8, *shape[1:]))
        signs = [one[where].sign().unique().tolist() for one, where in zip(delta, change, strict=True)]
        assert all(len(sign) <= 1 for sign in signs)  # of the change, one per channel
        mixed += [-1] in signs and [1] in signs
        if network.margin(proposal[None]) < network.margin(best[None]):
            best, moved = proposal, moved + 1
    assert torch.equal(x[0], best)
    assert 3 < moved < queries - 3
    assert (mixed > 3) == (shape[0] > 1)  # each channel has its own


def test_windows_fall_everywhere_alike_and_either_sign_is_as_likely():
    images, queries = torch.full((400, 1, 4, 5), 0.5), 21
    seen = []
    run(square, lambda x: seen.append(x) or constant(x), images, zeros(images), queries, p_init=0.01)
    _, stripes, *proposals = seen  # nothing is ever better than the stripes
    up = (stripes > 0.5).float()
    assert up.mean() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(400 * 5))
    changed = torch.stack([proposal != stripes for proposal in proposals]).flatten(0, 1)  # 8,000 windows of one pixel
    assert changed.flatten(1).sum(1).max() == 1
    counts = changed.sum((0, 1)).float()  # the other sign falls on each of the 20 pixels: Binomial(8000, 1/40)
    assert (counts - 200).abs().max() < 4.5 * math.sqrt(200)
    # across samples and across queries the windows differ
    pixel = changed.flatten(1).view(20, 400, 20).float()
    assert pixel.mean(0).max() < 0.5
    assert pixel.mean(1).max() < 0.1


@pytest.mark.parametrize("shape", [(1, 3, 3), (3, 2, 2)])
@pytest.mark.parametrize("lead", [60, -60])
def test_on_a_linear_network_square_finds_the_best_corner(shape, lead):
    network, images = Linear(shape, lead), pictures(6, *shape)
    labels = torch.full((6,), int(lead < 0))
    x = run(square, network, images, labels, 500, eps=0.3)
    low, high = (images - 0.3).clamp(min=0), (images + 0.3).clamp(max=1)
    choices = torch.tensor(list(itertools.product([False, True], repeat=math.prod(shape)))).view(-1, 1, *shape)
    own = network.margin if lead > 0 else lambda x: -network.margin(x)
    corners = own(torch.where(choices, high, low).flatten(0, 1)).view(len(choices), 6)  # 2^9 or 2^12 of each ball
    torch.testing.assert_close(own(x), corners.amin(0), rtol=0, atol=1e-12)
    assert (own(images) > corners.amin(0) + 0.1).all()


def test_margins_never_rise_with_more_queries():
    # windows of one pixel in every run: a longer run begins as the shorter one
    network, images = Linear((1, 5, 5), lead=60), pictures(8, 1, 5, 5)
    runs = [run(square, network, images, zeros(images), n, p_init=0.05) for n in (1, 2, 5, 20, 80, 200)]
    margins = torch.stack([network.margin(x) for x in runs])
    assert (margins.diff(dim=0) <= 0).all()
    assert (margins[-1] < margins[0]).all()


def test_the_flags_of_a_longer_run_are_a_subset(network, batch):
    runs = [run(square, network, *batch, n, eps=0.05, p_init=0.03) for n in (1, 5, 25, 60)]
    flags = [stands(network, x, batch[1]) for x in runs]
    for earlier, later, x, y in zip(flags, flags[1:], runs, runs[1:], strict=False):
        assert (later <= earlier).all()
        assert later.sum() < earlier.sum()
        assert torch.equal(x[~earlier], y[~earlier])  # who broke has left with what broke it


# Strength ------------------------------------------------------------------------------------------------------------


def test_more_queries_break_more_and_square_more_than_chance(network, batch):
    def left(attack, tries, **options):
        return stands(network, run(attack, network, *batch, tries, eps=0.05, **options), batch[1]).sum().item()

    accuracy = [left(square, queries) for queries in (1, 10, 100)]
    assert accuracy[0] > accuracy[1] > accuracy[2] > 0
    for law in ("uniform", "sign"):
        assert accuracy[2] + 5 < left(random_search, 100, law=law)


def test_square_is_about_as_strong_as_that_of_torchattacks(network, batch):
    for queries, eps in ((20, 0.1), (100, 0.05)):
        ours, theirs = [], []
        for seed in range(4):
            x = run(square, network, *batch, queries, eps=eps, seed=seed)
            ours.append(stands(network, x, batch[1]).sum().item())
            # their queries do not count the stripes
            x = torchattacks.Square(network, eps=eps, n_queries=queries - 1, seed=seed)(*batch)
            theirs.append(stands(network, x, batch[1]).sum().item())
        # of 60 samples; four seeds of one side spread by about 2, so the difference of their means by about 1.4
        assert sum(ours) / 4 == pytest.approx(sum(theirs) / 4, abs=4)
        assert sum(ours) / 4 < 50


# Random search -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["uniform", "sign"])
def test_random_search_keeps_the_first_that_breaks_and_else_the_lowest(law):
    shape, draws, images = (2, 3, 3), 12, pictures(1, 2, 3, 3).repeat(30, 1, 1, 1)
    unbreakable = Linear(shape, lead=99)  # is asked every draw of every sample
    run(random_search, unbreakable, images, zeros(images), draws, law=law)
    every = torch.stack(unbreakable.asked)  # (draws, 30, 2, 3, 3)
    network = Linear(shape)
    network.lead = -network.margin(every.flatten(0, 1)).view(draws, 30).amin(0).median().item()
    margins = network.margin(every.flatten(0, 1)).view(draws, 30)
    broken = margins < 0
    assert broken.any(0).any() and not broken.any(0).all() and (broken.int().argmax(0) > 0).any()
    chosen = torch.where(broken.any(0), broken.int().argmax(0), margins.argmin(0))
    x = run(random_search, network, images, zeros(images), draws, law=law)
    assert torch.equal(x, every[chosen, torch.arange(30)])


@pytest.mark.parametrize("law", ["uniform", "sign"])
def test_the_draws_are_those_of_the_noise_and_no_two_alike(law):
    images, network = torch.full((20, 1, 5, 5), 0.5), Linear((1, 5, 5), lead=99)
    run(random_search, network, images, zeros(images), 20, law=law, seed=4)
    every = torch.stack(network.asked)
    assert torch.equal(every[0], getattr(noise, law)(None, images, None, eps=0.1, **UNIT, seed=4))
    assert len(every.flatten(0, 1).unique(dim=0)) == 400  # nor is the third draw of sample 5 the fifth of sample 3
    delta = (every - 0.5) / 0.1
    scale = 1 / math.sqrt(3) if law == "uniform" else 1
    assert delta.mean().item() == pytest.approx(0, abs=4 * scale / 100)  # 10,000 numbers
    assert delta.square().mean().item() == pytest.approx(scale**2, abs=0.02)
    across = torch.corrcoef(delta.flatten(1))[~torch.eye(20, dtype=torch.bool)]
    assert across.abs().max() < 5 / math.sqrt(500)


@pytest.mark.parametrize("law", ["uniform", "sign"])
def test_more_draws_break_what_fewer_broke(network, batch, law):
    runs = [run(random_search, network, *batch, n, law=law) for n in (1, 4, 30)]
    flags = [stands(network, x, batch[1]) for x in runs]
    assert torch.equal(flags[0], stands(network, getattr(noise, law)(None, *batch, eps=0.1, **UNIT), batch[1]))
    assert (flags[2] <= flags[1]).all() and (flags[1] <= flags[0]).all()
    assert flags[0].sum() > flags[2].sum()


# What a sample costs, and who leaves ---------------------------------------------------------------------------------


def graded(x):
    """Wrong from the start where the mean is below 0.2, wrong once anything moved where it is below 0.6, else right."""
    moved = (x - x.round(decimals=1)).abs().flatten(1).amax(1) > 1e-3
    mean = x.flatten(1).mean(1)
    wrong = (mean < 0.2) | (moved & (mean < 0.6))
    return torch.stack([1 - 2.0 * wrong, torch.zeros(len(x))], dim=1)


@pytest.mark.parametrize(("attack", "expected"), [(square, [3, 2, 1, 1, 1, 1, 1]), (random_search, [3, 1, 1, 1, 1, 1])])
def test_nobody_is_asked_about_a_broken_sample(attack, expected):
    images = torch.tensor([0.1, 0.4, 0.9]).view(3, 1, 1, 1).repeat(1, 1, 4, 4)
    calls = []

    def network(x):
        calls.append(len(x))
        return graded(x)

    x = run(attack, network, images, zeros(images), 6, eps=0.035)
    assert calls == expected
    assert graded(x).argmax(1).tolist() == [1, 1, 0]
    if attack is square:
        assert torch.equal(x[0], images[0])  # wrong from the start
    calls.clear()
    run(attack, network, images[:2], zeros(images[:2]), 6, eps=0.035)
    assert calls == ([2, 1] if attack is square else [2])  # nobody is left


@BOTH
def test_the_network_sees_batches_of_one_size_only(attack):
    images, sizes = pictures(7, 1, 3, 3), set()

    def network(x):
        sizes.add(len(x))
        return Linear((1, 3, 3))(x)

    run(attack, network, images, torch.arange(7) % 2, 15, batch_size=3)
    assert sizes == {3}


def test_a_tie_that_moves_the_argmax_at_the_same_margin_breaks():
    # the margin of class 1 is 0 throughout: its tie with class 2 is won, that with class 0 is lost
    calls = itertools.count()

    def network(x):
        late = float(next(calls) >= 4)
        return torch.tensor([[late - 1, 0.0, 0.0]]).repeat(len(x), 1)

    asked = []
    x = run(square, lambda x: asked.append(x) or network(x), torch.full((1, 1, 8, 8), 0.5), torch.tensor([1]), 50)
    assert len(asked) == 5
    assert torch.equal(x, asked[4])
    assert not torch.equal(x, asked[1])


# A sample's result is its own --------------------------------------------------------------------------------------


@BOTH
def test_dropping_and_permuting_samples_changes_nothing(attack, network, batch):
    (images, labels), index = batch, torch.arange(60) * 3 + 1000
    options = {"seed": 2, "batch_size": 16, "eps": 0.05}
    whole = run(attack, network, images, labels, 30, index=index, **options)
    some = torch.randperm(60, generator=torch.Generator().manual_seed(0))[:23]
    part = run(attack, network, images[some], labels[some], 30, index=index[some], **options)
    assert torch.equal(part, whole[some])
    kept = stands(network, whole, labels)
    assert kept.any() and not kept.all()  # of both kinds


@BOTH
def test_a_result_depends_on_seed_and_index_alone(attack):
    network, images = Linear((2, 4, 4), lead=99), pictures(1, 2, 4, 4).repeat(4, 1, 1, 1)
    index = torch.tensor([9, 4, 9, 0])
    torch.manual_seed(1)
    x = run(attack, network, images, zeros(images), 20, seed=3, index=index)
    torch.manual_seed(2)
    assert torch.equal(run(attack, network, images, zeros(images), 20, seed=3, index=index), x)
    assert torch.equal(x[0], x[2])
    assert not torch.equal(x[0], x[1])
    assert not torch.equal(run(attack, network, images, zeros(images), 20, seed=4, index=index)[0], x[0])
    places = run(attack, network, images, zeros(images), 20, index=torch.arange(4))
    assert torch.equal(run(attack, network, images, zeros(images), 20), places)


# The ball, and odd input ---------------------------------------------------------------------------------------------


@st.composite
def cases(draw):
    """Images anywhere within bounds, many at the bounds themselves, and any radius up to twice their distance."""
    low, high = draw(st.sampled_from([(0, 1), (0, 7), (-1.5, 0.25)]))  # pixels, event counts, anything
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    unit = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1, width=32))
    values = draw(st.lists(unit, min_size=math.prod(shape), max_size=math.prod(shape)))
    images = (low + (high - low) * torch.tensor(values).view(shape)).clamp(low, high)
    labels = torch.tensor(draw(st.lists(st.integers(0, 1), min_size=shape[0], max_size=shape[0])))
    return images, labels, draw(st.floats(0, 2)) * (high - low), (low, high), draw(st.integers(0, 2**31))


@BOTH
@given(case=cases(), tries=st.integers(1, 12), p=st.floats(0.001, 1), law=st.sampled_from(["uniform", "sign"]))
@settings(max_examples=60, deadline=None)
def test_every_result_stays_within_eps_and_bounds(attack, case, tries, p, law):
    images, labels, eps, (low, high), seed = case
    options = {"p_init": p} if attack is square else {"law": law}
    before, network = images.clone(), Linear(images.shape[1:], seed=seed)
    x = run(attack, network, images, labels, tries, eps=eps, bounds=(low, high), seed=seed, batch_size=2, **options)
    assert torch.equal(images, before)
    assert x.shape == images.shape
    assert x.dtype == images.dtype
    for seen in (x, *network.asked):  # what the network is asked lies within bounds as well
        assert ((seen >= low) & (seen <= high)).all()
    assert ((x - images).abs() <= eps + 1e-6 * (high - low)).all()
    right = (network(images).argmax(1) == labels) | (attack is random_search)
    corner = (x == (images - eps).clamp(min=low)) | (x == (images + eps).clamp(max=high))
    if attack is square:
        assert corner[right].all()
        assert torch.equal(x[~right], images[~right])


class Forward(torch.autograd.Function):
    """The identity, whose backward is an error."""

    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        raise AssertionError("a black-box attack went backward")


@BOTH
def test_the_network_is_only_called_forward(attack):
    weight = torch.randn(18, 3, requires_grad=True)

    def network(x):
        assert not torch.is_grad_enabled()
        assert not x.requires_grad
        return Forward.apply(x.flatten(1)) @ weight

    images = torch.rand(6, 2, 3, 3)
    x = run(attack, network, images, torch.arange(6) % 3, 10)
    assert not x.requires_grad
    assert weight.grad is None
    assert not torch.equal(x, images)


@BOTH
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 6), (2, 5, 1), (3, 2, 7)])
def test_images_smaller_than_the_first_window(attack, shape):
    network, images = Linear(shape, lead=99), pictures(3, *shape)
    options = {"p_init": 1} if attack is square else {}
    x = run(attack, network, images, zeros(images), 800, **options)
    best = network.margin((images - 0.1 * network.w.sign()).clamp(0, 1))
    assert (network.margin(x) < network.margin(images)).all()
    if attack is square:
        torch.testing.assert_close(network.margin(x), best, rtol=0, atol=1e-12)


def test_a_constant_network_is_asked_to_the_end_and_keeps_the_first_proposal():
    images, right = pictures(3, 2, 4, 4), torch.zeros(3, dtype=torch.long)
    for attack in BUDGET:
        x = run(attack, constant, images, right, 12)
        assert torch.equal(x, run(attack, constant, images, right, 1))
        assert not torch.equal(x, images)
    wrong = torch.tensor([1, 2, 1])  # the argmax of equal logits is class 0
    assert torch.equal(run(square, constant, images, wrong, 12), images)
    drawn = noise.uniform(constant, images, wrong, eps=0.1, **UNIT)
    assert torch.equal(run(random_search, constant, images, wrong, 12), drawn)


@BOTH
def test_with_radius_zero_nothing_moves(attack, network, batch):
    assert torch.equal(run(attack, network, *batch, 5, eps=0), batch[0])


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attack", "options", "message"),
    [
        (square, {"queries": 0}, "queries is 0; it must be a whole number of at least 1"),
        (square, {"queries": 2.5}, "queries is 2.5"),
        (square, {"queries": True}, "queries is True"),
        (square, {"eps": -0.1}, "eps is -0.1"),
        (square, {"eps": math.nan}, "eps is nan"),
        (square, {"p_init": 0}, "p_init is 0; it must be a finite number above 0"),
        (square, {"p_init": 1.01}, r"p_init is 1.01; it must lie in \[0, 1\]"),
        (square, {"p_init": "all"}, "p_init is 'all'"),
        (random_search, {"draws": 0}, "draws is 0; it must be a whole number of at least 1"),
        (random_search, {"draws": None}, "draws is None"),
        (random_search, {"eps": "0.1"}, "eps is '0.1'"),
        (random_search, {"law": "normal"}, "There is no law 'normal'. Allowed: uniform, sign."),
    ],
)
def test_what_is_refused_is_refused_before_the_network_is_asked(attack, options, message):
    with pytest.raises(Refused, match=f"^{message}"):
        run(attack, None, torch.rand(2, 1, 3, 3), torch.tensor([0, 1]), 3, **options)


@BOTH
def test_the_bounds_have_no_default(attack):
    with pytest.raises(TypeError, match="bounds"):
        attack(constant, torch.rand(2, 1, 3, 3), torch.tensor([0, 1]), eps=0.1, **{BUDGET[attack]: 3})


# By name ------------------------------------------------------------------------------------------------------------


def test_by_name_it_is_the_same_attack(network, tiny):
    samples = tiny.test.take(30)
    x, y = samples.pixels(), samples.labels
    context = {"seed": 3, "index": samples.index, "batch_size": 10}
    for name, attack in attacks.BLACK_BOX.items():
        by_name = attacks.standard(name, 0.1, queries=7).bind(**context)(network, x, y, bounds=(0, 1))
        assert torch.equal(by_name, run(attack, network, x, y, 7, **context))


def test_an_attack_by_name_says_what_it_may_spend():
    names = "square", "random_search", "pgd", "fgsm", "mim", "sa_pgd"
    found = [attacks.standard(name, 0.1, steps=5, queries=30) for name in names]
    assert [a.title for a in found] == ["Square-30", "Random search-30", "PGD-5", "FGSM", "MIM-5", "SA-PGD-5"]
    assert [(a.gradients, a.queries) for a in found] == [(0, 30), (0, 30), (5, 0), (1, 0), (5, 0), (5, 0)]
    assert attacks.Attack("apgd", 0.1, {"steps": 5, "loss": "dlr", "restarts": 2}).title == "APGD-DLR-5 ×2"
    assert attacks.standard("uniform", 0.1).queries == 0
    with pytest.raises(Refused, match="queries is 0"):
        attacks.standard("square", 0.1, queries=0)


def test_an_evaluation_takes_it(network, tiny):
    how = {"bounds": tiny.bounds, "num_classes": 3, "batch_size": 20}
    samples = tiny.test.take(60)
    clean = evaluation.flags(network, samples, None, **how)
    few, many = (evaluation.flags(network, samples, attacks.standard("square", 0.1, queries=n), **how) for n in (2, 60))
    assert clean.sum() >= few.sum() > many.sum() and not (many & ~clean).any()


# Square from where APGD ended ----------------------------------------------------------------------------------------


def test_square_goes_on_from_a_given_start():
    network, images = Linear((1, 6, 6), lead=100.0), pictures(4, 1, 6, 6, margin=0.2)
    start = images - 0.1 * torch.sign(network.w)  # the corner where the margin is lowest: nothing can be gained
    found = square(network, images, zeros(images), eps=0.1, queries=40, start=start, **UNIT)
    torch.testing.assert_close(found, start)
    torch.testing.assert_close(network.asked[1], start)  # the first query, behind the look at the clean images
    outside = images + 0.5
    (near, *_) = square(network, images, zeros(images), eps=0.1, queries=1, start=outside, **UNIT)
    torch.testing.assert_close(near, images[0] + 0.1)  # a start outside the ball is brought into it


def test_apgd_square_breaks_what_apgd_breaks_and_more(network, batch):
    images, labels = batch
    budget = {"eps": 0.05, "seed": 3, **UNIT}
    climbed = attacks.apgd(network, images, labels, steps=4, **budget)
    both = attacks.apgd_square(network, images, labels, steps=4, queries=60, **budget)
    after, before = stands(network, both, labels), stands(network, climbed, labels)
    assert not (after & ~before).any() and (before & ~after).any()
    assert torch.equal(both[~before], climbed[~before])  # what APGD broke is returned as it was
    by_hand = square(network, images, labels, queries=60, start=climbed, **budget)
    assert torch.equal(both, by_hand)
    assert (both - images).abs().max() <= 0.05 + 1e-6
