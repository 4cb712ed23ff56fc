"""Flags: what they mean, what they depend on, what they cost, and which attacks are found out or refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from paperlib import attacks, networks, training
from paperlib.attacks import evaluation
from paperlib.attacks.attack import Attack, standard
from paperlib.attacks.evaluation import flags
from paperlib.data.sets import Split
from paperlib.errors import Refused, planning
from paperlib.theory.gradients import padded
from paperlib.training import defenses

IN_PIXELS = [name for name, declared in attacks.ATTACKS.items() if declared.norm == "linf"]
ATTACKS = [standard(name, 0.06, steps=5, queries=40) for name in IN_PIXELS]
PGD = standard("pgd", 0.05, steps=6)


def title(attack):
    return attack.title if attack else "clean"


def subset(samples, rows):
    return replace(samples, images=samples.images[rows], labels=samples.labels[rows], index=samples.index[rows])


def predictions(network, images):
    """One by one, (N,)."""
    with torch.no_grad():
        return torch.tensor([network(x[None]).argmax().item() for x in images])


def outcomes(network, samples, attack, wanted=None, **options):
    """Sample → what became of it, of all that `attacked` tells; of the samples `wanted`, by default all."""
    mask = torch.ones(len(samples), dtype=torch.bool)
    if wanted is not None:
        mask = torch.zeros_like(mask)
        mask[wanted] = True
    known = {}
    for outcome in evaluation.attacked(network, samples, attack, mask, **options):
        for place, row in enumerate(outcome.rows.tolist()):
            assert row not in known  # once each
            known[row] = tuple(values[place].item() for values in outcome[1:])
    return known


@pytest.fixture
def attack_with(monkeypatch):
    """A function that makes an attack of any function (network, images, labels) → images."""

    def make(function, eps=0.1, norm="linf"):
        def attack(network, images, labels, *, eps, bounds):
            return function(network, images, labels)

        monkeypatch.setitem(attacks.ATTACKS, "made up", None)  # forgotten after the test
        attacks.register("made up", norm=norm)(attack)
        return Attack("made up", eps)

    return make


# What flags mean ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", [None, *ATTACKS], ids=title)
def test_flags_are_those_of_the_attack_run_on_everything_and_belong_to_their_samples(network, tiny, attack):
    x, y, calls = tiny.test.pixels(), tiny.test.labels, []
    clean = predictions(network, x) == y
    expected = clean
    if attack:
        perturb = attack.bind(seed=4, index=tiny.test.index, batch_size=50)
        perturbed = perturb(network, x, y, bounds=(0.0, 1.0))
        expected = clean & (predictions(network, perturbed) == y)
    network.register_forward_hook(lambda module, inputs, _: calls.append((len(inputs[0]), module.training)))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    options = {"seed": 4, "batch_size": 50}
    judged = flags(network.train(), tiny.test, attack, **options)
    assert judged.dtype == torch.bool and torch.equal(judged, expected) and 0 < judged.sum() < len(judged)
    assert all(size == padded(size) <= 52 and not training for size, training in calls) and not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    order = torch.randperm(len(tiny.test), generator=torch.Generator().manual_seed(0))
    for rows in order.split(37):
        assert torch.equal(flags(network, subset(tiny.test, rows), attack, **options), judged[rows])
    # clean flags that are known are not computed again
    assert torch.equal(flags(network, tiny.test, attack, correct=clean, **options), judged)
    calls.clear()
    assert not flags(network, tiny.test, attack, correct=torch.zeros_like(clean), **options).any() and not calls


def test_a_misclassified_sample_stays_broken_and_is_not_attacked(network, tiny, attack_with):
    clean, shown = flags(network, tiny.test), []
    right = {y: tiny.test.pixels()[clean & (tiny.test.labels == y)][:1] for y in range(3)}

    def heal(_, images, labels):
        shown.append(images)
        return torch.cat([right[y] for y in labels.tolist()])  # each image becomes one that is classified correctly

    assert torch.equal(flags(network, tiny.test, attack_with(heal)), clean)
    assert torch.equal(torch.cat(shown), tiny.test.pixels()[clean])
    wrong = replace(tiny.test, labels=(predictions(network, tiny.test.pixels()) + 1) % 3)
    assert not flags(network, wrong, attack_with(lambda *_: pytest.fail("it was attacked"))).any()


def test_a_stronger_attack_breaks_more(network, tiny):
    counts = [flags(network, tiny.test, standard("pgd", eps)).sum() for eps in (0, 0.03, 0.06, 0.2)]
    assert counts[0] == flags(network, tiny.test).sum()
    assert counts[0] > counts[1] > counts[2] > counts[3]


def test_labels_outside_the_classes_and_images_outside_their_bounds_are_refused(network, tiny):
    for label in (-1, 3):
        labels = tiny.test.labels.clone()
        labels[7] = label
        with pytest.raises(Refused, match=f"A label is {label}; every label must lie from 0 to 2"):
            flags(network, replace(tiny.test, labels=labels))
    brightest = tiny.test.pixels().max().item()
    flags(network, replace(tiny.test, bounds=(0.0, brightest)))
    with pytest.raises(Refused, match="A pixel is 0.* must lie from 0.0 to 0.3"):
        flags(network, replace(tiny.test, bounds=(0.0, 0.3)))


def test_nothing_is_evaluated_while_a_notebook_is_planned(network, tiny):
    with planning("fig-x"):
        for attack in (None, PGD):
            with pytest.raises(Refused, match="fig-x"):
                flags(network, tiny.test, attack)
        with pytest.raises(Refused, match="fig-x"):
            outcomes(network, tiny.test, PGD)


def test_an_attack_stays_within_the_bounds_of_the_samples(network, tiny):
    bounds = (0.0, tiny.test.pixels().max().item())
    narrow = outcomes(network, replace(tiny.test, bounds=bounds), standard("fgsm", 0.3))
    assert {strayed for *_, strayed in narrow.values()} == {False}
    images = standard("fgsm", 0.3).bind()(network, tiny.test.pixels(), tiny.test.labels, bounds=bounds)
    flags_ = predictions(network, images) == tiny.test.labels
    assert [narrow[row][0] for row in range(120)] == flags_.tolist()


# What it costs -------------------------------------------------------------------------------------------------------


def test_the_cost_of_each_sample_is_told_with_the_last_look(network, tiny):
    costs = outcomes(network, tiny.test, Attack("pgd", 0.05, {"alpha": 0.01, "steps": 6}))
    assert {(forward, backward) for _, forward, backward, *_ in costs.values()} == {(7, 6)}
    for flag, forward, backward, *_ in (stopped := outcomes(network, tiny.test, PGD)).values():
        assert forward == backward + 1 <= 7 and (not flag or backward == 6)
    assert len({forward for _, forward, *_ in stopped.values()}) > 3


def test_only_who_is_wanted_is_attacked_and_how_many_together_changes_nothing(network, tiny, monkeypatch):
    whole = {attack.title: outcomes(network, tiny.test, attack, batch_size=25) for attack in ATTACKS}
    assert not any(strayed for known in whole.values() for *_, strayed in known.values())
    monkeypatch.setattr(evaluation, "CHUNK", 17)
    for attack in ATTACKS:
        known, wanted = whole[attack.title], [3, 77, 100]
        assert outcomes(network, tiny.test, attack, batch_size=25) == known
        some = outcomes(network, tiny.test, attack, wanted, batch_size=25)
        assert some == {row: known[row] for row in wanted}
    assert outcomes(network, tiny.test, PGD, []) == {}


# Samples that a network couples --------------------------------------------------------------------------------------

COUPLED = [
    standard("pgd", 0.04, steps=4, rule={"name": "assg"}),
    standard("pgd", 0.04, steps=4, rule={"name": "pdsg"}),
    standard("sa_pgd", 0.04, steps=4, rule={"name": "assg"}),
    standard("apgd", 0.04, steps=4, rule={"name": "pdsg"}),
]
EACH_COUPLED = pytest.mark.parametrize("attack", COUPLED, ids=title)


@EACH_COUPLED
def test_by_a_coupled_rule_neighbours_come_along_and_a_flag_does_not_depend_on_who_is_wanted(network, tiny, attack):
    whole = outcomes(network, tiny.test, attack, batch_size=25)
    assert sorted(whole) == list(range(120)) and 0 < sum(flag for flag, *_ in whole.values()) < 120
    for wanted in ([60], [0, 26, 119], list(range(0, 120, 7))):
        some = outcomes(network, tiny.test, attack, wanted, batch_size=25)
        batches = {row // 25 for row in wanted}
        assert some == {row: whole[row] for row in range(120) if row // 25 in batches}


@EACH_COUPLED
def test_by_a_coupled_rule_neighbours_stay_together_and_each_batch_starts_afresh(network, tiny, attack):
    calls = []
    hook = network.register_forward_hook(lambda module, inputs, _: calls.append((len(inputs[0]), module.training)))
    judged = flags(network.train(), tiny.test, attack, batch_size=50)
    hook.remove()
    assert set(calls[3:]) == {(50, False), (20, False)}  # behind three of the clean images, padded
    assert calls[-1] == (20, False)  # judged as it was attacked
    expected = predictions(network, tiny.test.pixels()) == tiny.test.labels
    for start in (0, 50, 100):
        part = subset(tiny.test, slice(start, start + 50))
        x = attack.bind(seed=0, index=part.index)(network, part.pixels(), part.labels, bounds=(0.0, 1.0))
        with torch.no_grad():
            expected[start : start + 50] &= network(x).argmax(1) == part.labels
    assert torch.equal(judged, expected)


# Attacks that cheat ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cheat", "strays"),
    [
        (lambda x, y: x + 0.2 * (y == 0).view(-1, 1, 1, 1), lambda x, y: y == 0),  # out of the ball
        (lambda x, y: x - 0.09 * (y == 1).view(-1, 1, 1, 1), lambda x, y: (y == 1) & (x < 0.09).flatten(1).any(1)),
        (lambda x, y: torch.where((y == 2).view(-1, 1, 1, 1), torch.nan, x), lambda x, y: y == 2),
        (lambda x, y: torch.where((y == 2).view(-1, 1, 1, 1), torch.inf, x), lambda x, y: y == 2),
        (lambda x, y: (x + 0.1).clamp(0, 1), lambda x, y: y < 0),  # to the ball's very edge: nobody
        (lambda x, y: (x - 0.1).clamp(0, 1), lambda x, y: y < 0),
    ],
    ids=["leaves the ball", "leaves the bounds", "NaN", "infinity", "the upper edge", "the lower edge"],
)
def test_an_attack_that_leaves_its_ball_or_the_bounds_is_found_out(network, tiny, attack_with, cheat, strays):
    known = outcomes(network, tiny.test, attack_with(lambda _, images, labels: cheat(images, labels)))
    expected = strays(tiny.test.pixels(), tiny.test.labels)
    assert [known[row][-1] for row in range(120)] == expected.tolist()


@pytest.mark.parametrize("share", [0.99, 1.01])
def test_in_l2_the_ball_is_round(network, tiny, attack_with, share):
    def leap(_, images, labels):
        step = torch.zeros_like(images)
        step[..., 0, 0] = share * 0.1 * 0.6  # a length of share·ε along two pixels
        step[..., 0, 1] = share * 0.1 * 0.8
        return images + step * (1 - 2 * (images > 0.5))

    known = outcomes(network, tiny.test, attack_with(leap, norm="l2"))
    assert {strayed for *_, strayed in known.values()} == {share > 1}


@pytest.mark.parametrize(
    ("change", "strayed"),
    [
        (lambda x: x + 2 * (torch.arange(x[0].numel()).view(x[0].shape) == 0), True),  # two events in a cell
        (lambda x: x + 1, True),  # more cells than the budget
        (lambda x: x - 0.5, True),  # half an event out of empty cells
        (lambda x: x + (torch.arange(x[0].numel()).view(x[0].shape) < 2), False),
    ],
)
def test_a_budget_of_events_is_one_event_in_each_of_so_many_cells(attack_with, change, strayed):
    torch.manual_seed(0)
    frames = torch.from_numpy(np.random.RandomState(0).randint(0, 2, (4, 2, 2, 3, 3)).astype(np.uint8))
    samples = Split(frames, torch.zeros(4, dtype=torch.long), torch.arange(4), 1, (0.0, 5.0), 2)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    for attack, expected in (
        (attack_with(lambda _, images, labels: change(images), eps=2, norm="l0"), strayed),
        (standard("random_flips", 2), False),
    ):
        assert {one[-1] for one in outcomes(network, samples, attack).values()} == {expected}


@pytest.mark.parametrize(
    ("places", "to", "strayed"),
    [(2, 1, False), (3, 1, True), (1, 0, True)],  # two events later, three events later, one event that is doubled
)
def test_a_budget_of_moves_is_one_event_to_another_step_each(attack_with, places, to, strayed):
    frames = torch.ones(4, 2, 2, 3, 3, dtype=torch.uint8)  # (N, T, polarity, y, x)
    samples = Split(frames, torch.zeros(4, dtype=torch.long), torch.arange(4), 1, (0.0, 5.0), 2)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    network[1].weight.data.zero_(), network[1].bias.data.copy_(torch.tensor([1.0, 0.0]))  # all are right

    def change(_, images, labels):
        moved = images.clone()
        moved[:, 0, 0].flatten(1)[:, :places] -= to
        moved[:, 1, 0].flatten(1)[:, :places] += 1
        return moved

    found = outcomes(network, samples, attack_with(change, eps=2, norm="moves"))
    assert {one[-1] for one in found.values()} == {strayed}


# Made on another network -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [{}, {"name": "sigmoid", "slope": 4.0}, {"name": "assg"}], ids=str)
def test_examples_are_made_on_one_network_and_judged_on_the_other(network, fresh, tiny, rule):
    source = fresh(5)
    attack = Attack("pgd", 0.1, {"alpha": 0.03, "steps": 4}, rule)
    known = outcomes(network, tiny.test, attack, source=source.train(), batch_size=40)
    expected = []
    for start in (0, 40, 80):
        part = subset(tiny.test, slice(start, start + 40))
        x = attack.bind(seed=0, index=part.index)(source.eval(), part.pixels(), part.labels, bounds=(0.0, 1.0))
        expected += (predictions(network, x) == part.labels).tolist()
    assert [known[row][0] for row in range(120)] == expected
    assert {one[1:3] for one in known.values()} == {(5, 4)}
    own = outcomes(network, tiny.test, attack, batch_size=40)
    assert sum(flag for flag, *_ in own.values()) < sum(expected) < 120
    clean, transferred = flags(network, tiny.test), flags(network, tiny.test, attack, source=source, batch_size=40)
    assert torch.equal(transferred, clean & torch.tensor(expected))  # the clean image must be right as well


# Networks that draw at random --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def poisson(tiny):
    """Trained until it is mostly right, and yet differently from draw to draw."""
    torch.manual_seed(0)
    network = networks.build("poisson-conv-2-4", in_channels=1, image_size=8, num_classes=3, T=16)
    schedule = training.Schedule(epochs=8, batch_size=10, lr=0.1, momentum=0.9, weight_decay=5e-4)
    list(training.epochs(network, defenses.Vanilla(), tiny, schedule, seed=0, progress=False))
    return network.eval()


DRAWING = [standard(name, 0.05, steps=3, queries=20) for name in ("uniform", "fgsm", "pgd", "apgd", "square")]
DRAWING += [Attack("pgd", 0.05, {"alpha": 0.02, "steps": 3, "eot": 3})]
DRAWING += [standard("overwritten_eot", 0.05, steps=3), standard("pgd", 0.05, steps=8, rule={"name": "assg"})]


@pytest.mark.parametrize("attack", [None, *DRAWING], ids=title)
def test_the_same_seed_draws_the_same_flags_and_torchs_own_chance_is_left_alone(poisson, tiny, attack):
    torch.manual_seed(11)
    state, drawn = torch.get_rng_state(), flags(poisson, tiny.test, attack, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)
    assert torch.equal(flags(poisson, tiny.test, attack, seed=2), drawn)
    assert not torch.equal(flags(poisson, tiny.test, attack, seed=3), drawn)
    assert 0 < drawn.sum() < len(drawn)


@pytest.mark.parametrize("attack", DRAWING, ids=title)
def test_a_drawn_flag_does_not_depend_on_who_else_is_wanted(poisson, tiny, attack):
    whole = outcomes(poisson, tiny.test, attack, batch_size=25)
    some = outcomes(poisson, tiny.test, attack, [30, 101], batch_size=25)
    assert some == {row: whole[row] for row in (*range(25, 50), *range(100, 120))}


def test_at_radius_zero_a_network_that_draws_is_judged_by_one_draw(poisson, tiny):
    # the share of those that are right in both of two draws lies below that of one: which is it?
    singles = torch.stack([flags(poisson, tiny.test, seed=1000 * seed) for seed in range(1, 9)])
    single = singles.float().mean().item()
    both = (singles[::2] & singles[1::2]).float().mean().item()
    still = Attack("uniform", 0.0)
    judged = torch.stack([flags(poisson, tiny.test, still, seed=1000 * seed + 7) for seed in range(1, 9)])
    error = 2 * (single * (1 - single) / judged.numel()) ** 0.5
    assert single - both > 3 * error
    assert judged.float().mean().item() == pytest.approx(single, abs=2 * error)
    twice = subset(tiny.test, torch.arange(50).repeat(2))
    first, second = flags(poisson, twice, still, batch_size=50).split(50)
    assert not torch.equal(first, second)  # each batch draws anew
    # a network that draws is attacked wherever it was wrong by chance
    assert flags(poisson, tiny.test, standard("uniform", 0.01), correct=torch.zeros(120, dtype=torch.bool)).any()


def test_ones_own_network_with_dropout_is_judged_in_eval_mode(tiny):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Dropout(0.8), nn.Linear(30, 3))
    for attack in (None, standard("fgsm", 0.05), standard("pgd", 0.05, steps=3)):
        judged = flags(network.train(), tiny.test, attack)
        assert not network.training
        assert torch.equal(flags(network.eval(), tiny.test, attack), judged)
    expected = predictions(network.eval(), tiny.test.pixels()) == tiny.test.labels
    assert torch.equal(flags(network.train(), tiny.test), expected)
    with pytest.raises(Refused, match="FGSM rate brings a backward rule"):
        flags(network, tiny.test, standard("fgsm", 0.05, rule={"name": "rate"}))


@pytest.mark.parametrize("attack", [None, attacks.standard("uniform", 0.1)], ids=["clean", "noise"])
def test_a_network_whose_logits_are_nan_has_no_flags(tiny, attack):
    """Class 0 would count as predicted: a third of the samples would be right."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    torch.nn.init.constant_(network[1].bias, torch.nan)
    with pytest.raises(Refused, match="logits are NaN"):
        evaluation.flags(network, tiny.test, attack, correct=None if attack is None else tiny.test.labels >= 0)


class HalfFlat(nn.Module):
    """Logits that depend on an image only if its first pixel is bright; the other gradients are exactly 0."""

    def forward(self, x):
        x = x.flatten(1)
        return torch.where(x[:, :1].detach() > 0.2, x[:, :3], 0 * x[:, :3])


@pytest.mark.parametrize("steps", [1, 3])
def test_the_vanished_share_is_one_of_gradients_and_not_of_passes(tiny, steps):
    """MIM costs a forward and a backward pass a step, and a forward pass for the verdict."""
    samples, everyone = tiny.test, torch.ones(len(tiny.test), dtype=torch.bool)
    flat = (samples.pixels().flatten(1)[:, 0] <= 0.2).double().mean().item()
    result = evaluation.judged(HalfFlat(), samples, Attack("mim", 1e-6, {"steps": steps}), everyone)
    assert 0.2 < flat < 0.8 and result.vanished == pytest.approx(flat)
    assert result.passes.tolist() == [2 * steps + 1] * len(samples)


class Drawing(nn.Module):
    """Keeps what it draws at each call."""

    stochastic = True

    def __init__(self):
        super().__init__()
        self.drawn = []

    def forward(self, x):
        self.drawn.append(torch.rand(()).item())
        return x.flatten(1)[:, :3]


def test_each_part_of_the_samples_has_draws_of_its_own(tiny, monkeypatch):
    """They are seeded by the place of the part's first sample, so that they do not depend on the other parts."""
    monkeypatch.setattr(evaluation, "CHUNK", 4)
    network, samples = Drawing(), tiny.test.take(12)
    list(evaluation.attacked(network, samples, standard("uniform", 0.1), torch.ones(12, dtype=torch.bool), seed=5))
    expected = [torch.rand((), generator=torch.Generator().manual_seed(5 + first)).item() for first in (0, 4, 8)]
    assert network.drawn == expected and len(set(expected)) == 3
