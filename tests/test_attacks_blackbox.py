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
from paperlib.attacks.blackbox import HALVINGS, random_search, square, window_side
from paperlib.errors import Refused
from paperlib.theory.gradients import in_batches, margin

BUDGET = {square: "queries", random_search: "draws"}
LAWS = pytest.mark.parametrize("law", ["uniform", "sign"])


def run(attack, network, images, labels, tries, **options):
    return attack(network, images, labels, **{"bounds": (0, 1), "eps": 0.1, BUDGET[attack]: tries} | options)


class Linear:
    """Two classes, margin of class 0 = w·x + lead, with every batch it was asked."""

    def __init__(self, shape, lead=0.0):
        self.w = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
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


def pictures(count, *shape, margin=0.0):
    """Images in [margin, 1 - margin], 64 bits."""
    unit = torch.rand((count, *shape), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
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
    assert window_side(1, 100, 1, 2, 9) == 2  # √18 = 4.2, more than the shorter side
    assert window_side(1, 100, 0.4, 9, 2) == 2  # √7.2 = 2.7
    assert window_side(1, 100, 1, 1, 1) == window_side(99, 100, 1e-9, 28, 28) == 1


@given(queries=st.integers(2, 3000), p=st.floats(1e-6, 1), height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_the_window_starts_at_its_share_and_never_grows(queries, p, height, width):
    sides = [window_side(query, queries, p, height, width) for query in range(1, queries)]
    assert sides == sorted(sides, reverse=True) and sides[-1] >= 1
    assert abs(sides[0] - min(max(math.sqrt(p * height * width), 1), height, width)) <= 0.5


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


def test_of_frames_each_channel_of_each_frame_has_a_sign_of_its_own():
    x, shown = torch.full((1, 3, 2, 8, 8), 1.5), []
    run(square, lambda frames: shown.append(frames) or constant(frames), x, zeros(x), 6, eps=0.5, bounds=(0, 3))
    stripes = shown[1] - x
    assert (stripes.abs() == 0.5).all() and (stripes == stripes[..., :1, :]).all()  # one sign a column
    assert len({tuple(each.tolist()) for each in stripes[0, :, :, 0].flatten(0, 1)}) == 6  # frames and channels differ


def test_windows_fall_everywhere_alike_and_either_sign_is_as_likely():
    images, queries = torch.full((400, 1, 4, 5), 0.5), 21
    seen = []
    run(square, lambda x: seen.append(x) or constant(x), images, zeros(images), queries, p_init=0.01)
    _, stripes, *proposals = seen  # nothing is ever better than the stripes
    up = (stripes > 0.5).float()
    assert up.mean() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(400 * 5))
    changed = torch.stack([proposal != stripes for proposal in proposals]).flatten(0, 1)  # 8,000 windows of one pixel
    assert changed.flatten(1).sum(1).max() == 1
    counts = changed.sum((0, 1)).float()  # the other sign falls on each of the 20 pixels: Binomial(8000, 1/20)
    assert (counts - 400).abs().max() < 4.5 * math.sqrt(400)
    # across samples and across queries the windows differ
    pixel = changed.flatten(1).view(20, 400, 20).float()
    assert pixel.mean(0).max() < 0.6 and pixel.mean(1).max() < 0.12


@pytest.mark.parametrize("kept", [False, True])
def test_a_window_that_changes_nothing_is_drawn_again_until_it_does(kept):
    images, lead, seen = torch.full((200, 1, 4, 5), 0.5), itertools.count(), []

    def falling(x):
        """Of a constant network the stripes stay the best; if `kept`, every query is better than the last."""
        seen.append(x)
        return constant(x) + torch.tensor([1000.0 - kept * next(lead), 0, 0])

    run(square, falling, images, zeros(images), 41, p_init=0.01)
    _, stripes, *proposals = seen
    bests = [stripes, *proposals[:-1]] if kept else [stripes] * len(proposals)
    idle = torch.stack([(new == best).flatten(1).all(1) for new, best in zip(proposals, bests, strict=True)])
    assert idle.float().mean() < 0.003  # a window of one pixel that has its sign already: 1/2; eleven of them: 1/2048
    some = run(square, falling, images[3:5], zeros(images[:2]), 41, p_init=0.01, index=torch.tensor([3, 4]))
    assert len(seen) == 2 * 42 and all(torch.equal(a[3:5], b) for a, b in zip(seen, seen[42:], strict=False))
    assert torch.equal(some, seen[-1] if kept else stripes[3:5])


def test_where_no_window_can_change_anything_the_queries_are_spent():
    images, network = pictures(3, 1, 4, 4), Linear((1, 4, 4), lead=99)
    assert torch.equal(run(square, network, images, zeros(images), 9, eps=0.0), images)
    assert len(network.asked) == 1 + 9


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


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 6), (2, 5, 1), (3, 2, 7), (2, 7)])
def test_images_smaller_than_the_first_window(shape):
    network, images = Linear(shape, lead=99), pictures(3, *shape)
    x = run(square, network, images, zeros(images), 800, p_init=1)
    best = network.margin((images - 0.1 * network.w.sign()).clamp(0, 1))
    torch.testing.assert_close(network.margin(x), best, rtol=0, atol=1e-12)


# More tries ----------------------------------------------------------------------------------------------------------


def test_margins_never_rise_with_more_queries():
    # windows of one pixel in every run: a longer run begins as the shorter one
    network, images = Linear((1, 5, 5), lead=60), pictures(8, 1, 5, 5)
    runs = [run(square, network, images, zeros(images), n, p_init=0.05) for n in (1, 2, 5, 20, 80, 200)]
    margins = torch.stack([network.margin(x) for x in runs])
    assert (margins.diff(dim=0) <= 0).all() and (margins[-1] < margins[0]).all()


@pytest.mark.parametrize(
    ("attack", "options"),
    [
        (square, {"eps": 0.05, "p_init": 0.03}),
        (random_search, {"law": "uniform"}),
        (random_search, {"law": "sign"}),
    ],
)
def test_who_broke_has_left_with_what_broke_it_and_more_tries_break_more(network, batch, attack, options):
    runs = [run(attack, network, *batch, n, **options) for n in (1, 5, 25, 60)]
    flags = [stands(network, x, batch[1]) for x in runs]
    for earlier, later, x, y in zip(flags, flags[1:], runs, runs[1:], strict=False):
        assert (later <= earlier).all()
        assert torch.equal(x[~earlier], y[~earlier])
    assert flags[0].sum() > flags[-1].sum()


def test_square_breaks_more_than_chance_and_as_much_as_that_of_torchattacks_or_more(network, batch):
    for queries, eps in ((20, 0.1), (100, 0.05)):
        ours, theirs = [], []
        for seed in range(4):
            x = run(square, network, *batch, queries, eps=eps, seed=seed)
            ours.append(stands(network, x, batch[1]).sum().item())
            # their queries do not count the stripes
            x = torchattacks.Square(network, eps=eps, n_queries=queries - 1, seed=seed)(*batch)
            theirs.append(stands(network, x, batch[1]).sum().item())
        # of 60 samples; four seeds of one side spread by about 2, so the difference of their means by about 1.4; theirs
        # spends queries on windows that change nothing
        assert sum(theirs) / 4 - 12 < sum(ours) / 4 < sum(theirs) / 4 + 4
        for law in ("uniform", "sign"):
            by_chance = run(random_search, network, *batch, queries, eps=eps, law=law)
            assert 0 < max(ours) < stands(network, by_chance, batch[1]).sum()


# Random search -------------------------------------------------------------------------------------------------------


@LAWS
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


@LAWS
def test_the_draws_are_those_of_the_noise_and_no_two_alike(law):
    images, network = torch.full((20, 1, 5, 5), 0.5), Linear((1, 5, 5), lead=99)
    run(random_search, network, images, zeros(images), 20, law=law, seed=4)
    every = torch.stack(network.asked)
    assert torch.equal(every[0], getattr(attacks, law)(None, images, None, eps=0.1, bounds=(0, 1), seed=4))
    assert len(every.flatten(0, 1).unique(dim=0)) == 400  # nor is the third draw of sample 5 the fifth of sample 3
    delta = (every - 0.5) / 0.1
    scale = 1 / math.sqrt(3) if law == "uniform" else 1
    assert delta.mean().item() == pytest.approx(0, abs=4 * scale / 100)  # 10,000 numbers
    assert delta.square().mean().item() == pytest.approx(scale**2, abs=0.02)
    across = torch.corrcoef(delta.flatten(1))[~torch.eye(20, dtype=torch.bool)]
    assert across.abs().max() < 5 / math.sqrt(500)


# Who leaves, and who is never better ---------------------------------------------------------------------------------


def graded(x):
    """Wrong from the start where the mean is below 0.2, wrong once anything moved where it is below 0.6, else right."""
    moved = (x - x.round(decimals=1)).abs().flatten(1).amax(1) > 1e-3
    mean = x.flatten(1).mean(1)
    wrong = (mean < 0.2) | (moved & (mean < 0.6))
    return torch.stack([1 - 2.0 * wrong, torch.zeros(len(x))], dim=1)


@pytest.mark.parametrize(
    ("attack", "calls", "calls_of_two"),
    [(square, [3, 2, 1, 1, 1, 1, 1], [2, 1]), (random_search, [3, 1, 1, 1, 1, 1], [2])],
)
def test_nobody_is_asked_about_a_broken_sample(attack, calls, calls_of_two):
    images, sizes = torch.tensor([0.1, 0.4, 0.9]).view(3, 1, 1, 1).repeat(1, 1, 4, 4), []
    x = run(attack, lambda x: sizes.append(len(x)) or graded(x), images, zeros(images), 6, eps=0.035)
    assert sizes == calls and graded(x).argmax(1).tolist() == [1, 1, 0]
    assert attack is random_search or torch.equal(x[0], images[0])  # wrong from the start
    sizes.clear()
    run(attack, lambda x: sizes.append(len(x)) or graded(x), images[:2], zeros(images[:2]), 6, eps=0.035)
    assert sizes == calls_of_two  # nobody is left


def test_a_tie_that_moves_the_argmax_at_the_same_margin_breaks():
    # the margin of class 1 is 0 throughout: its tie with class 2 is won, that with class 0 is lost
    asked = []

    def network(x):
        asked.append(x)
        late = float(len(asked) > 4)
        return torch.tensor([[late - 1, 0.0, 0.0]]).repeat(len(x), 1)

    x = run(square, network, torch.full((1, 1, 8, 8), 0.5), torch.tensor([1]), 50)
    assert len(asked) == 5
    assert torch.equal(x, asked[4]) and not torch.equal(x, asked[1])


@pytest.mark.parametrize("attack", BUDGET)
def test_a_constant_network_is_asked_to_the_end_and_keeps_the_first_proposal(attack):
    images = pictures(3, 2, 4, 4)
    x = run(attack, constant, images, zeros(images), 12)
    assert torch.equal(x, run(attack, constant, images, zeros(images), 1)) and not torch.equal(x, images)
    wrong = torch.tensor([1, 2, 1])  # the argmax of equal logits is class 0
    drawn = attacks.uniform(None, images, None, eps=0.1, bounds=(0, 1))
    assert torch.equal(run(attack, constant, images, wrong, 12), images if attack is square else drawn)


@pytest.mark.parametrize(
    ("attack", "options", "message"),
    [
        (square, {"queries": 0}, "queries is 0; it must be a whole number of at least 1"),
        (square, {"queries": 2.5}, "queries is 2.5"),
        (square, {"p_init": 0}, "p_init is 0; it must be a finite number above 0"),
        (square, {"p_init": 1.01}, r"p_init is 1.01; it must lie in \[0, 1\]"),
        (square, {"p_init": "all"}, "p_init is 'all'"),
        (random_search, {"draws": 0}, "draws is 0; it must be a whole number of at least 1"),
        (random_search, {"draws": None}, "draws is None"),
        (random_search, {"law": "normal"}, "There is no law 'normal'. Allowed: uniform, sign."),
    ],
)
def test_what_is_refused_is_refused_before_the_network_is_asked(attack, options, message):
    with pytest.raises(Refused, match=f"^{message}"):
        run(attack, None, torch.rand(2, 1, 3, 3), torch.tensor([0, 1]), 3, **options)


# Square from where APGD ended ----------------------------------------------------------------------------------------


OPTIONS = {"eps": 0.03, "seed": 3, "bounds": (0, 1)}


@pytest.fixture
def climbed(network, batch):
    """The results of APGD on each of its losses."""
    return [attacks.apgd(network, *batch, steps=4, loss=loss, **OPTIONS) for loss in ("ce", "dlr")]


def lowest(network, xs, labels):
    """The margin at whichever of `xs` has the lower one, (B,)."""
    return torch.stack([margin(in_batches(network, x, None), labels) for x in xs]).amin(0)


def test_apgd_square_breaks_what_apgd_breaks_on_either_loss_and_more(network, batch, climbed):
    ce, dlr = climbed
    by_ce, by_dlr = (~stands(network, x, batch[1]) for x in climbed)
    both = attacks.apgd_square(network, *batch, steps=4, queries=60, **OPTIONS)
    broken = ~stands(network, both, batch[1])
    assert (by_ce | by_dlr <= broken).all() and (broken & ~by_ce & ~by_dlr).any() and (by_dlr & ~by_ce).any()
    assert torch.equal(both[by_ce], ce[by_ce])  # what APGD broke is returned as it was
    assert torch.equal(both[by_dlr & ~by_ce], dlr[by_dlr & ~by_ce])
    assert (margin(in_batches(network, both, None), batch[1]) <= lowest(network, climbed, batch[1]))[~by_ce].all()


def test_square_goes_on_from_the_better_of_the_two(network, batch, climbed):
    left = stands(network, climbed[0], batch[1]) & stands(network, climbed[1], batch[1])
    two = attacks.apgd_square(network, *batch, steps=4, queries=2, **OPTIONS)
    margins = [margin(in_batches(network, x, None), batch[1]) for x in climbed]
    better = (margins[1] < margins[0]) & left
    assert better.any() and (left & ~better).any()
    assert torch.equal(two[better], climbed[1][better]) and torch.equal(two[left & ~better], climbed[0][left & ~better])
    seen = []
    attacks.apgd_square(lambda x: seen.append(x) or network(x), *batch, steps=4, queries=3, p_init=0.25, **OPTIONS)
    for third, best in zip(seen[-1], two[left], strict=False):  # then come windows, of 4 by 4 pixels
        assert inside(third - best, 4) and not torch.equal(third, best)


def test_with_two_classes_there_is_no_dlr_loss():
    network, images = Linear((1, 6, 6), lead=9.0), pictures(4, 1, 6, 6, margin=0.2)
    options = {"eps": 0.1, "bounds": (0, 1), "steps": 5, "queries": 7}
    x = attacks.apgd_square(lambda x: network(x).double(), images, zeros(images), **options)
    torch.testing.assert_close(x, images - 0.1 * torch.sign(network.w))  # the corner where the margin is lowest
    assert len(network.asked) == 1 + 5 + 1 + 7  # the look, the gradients and the last iterate of one run, the queries
    with pytest.raises(Refused, match="p_init is 2"):
        attacks.apgd_square(None, images, zeros(images), **options, p_init=2)
