"""Flags: what they mean, what they depend on, and what is refused."""

import pytest
import torch
from torch import nn

from paperlib import attacks, networks, training
from paperlib.attacks import evaluation
from paperlib.data.sets import Split
from paperlib.errors import Refused
from paperlib.training import defenses

IN_PIXELS = [name for name in attacks.ATTACKS if name not in attacks.FLIPS]
ATTACKS = [None, *(attacks.standard(name, 0.06, steps=5) for name in IN_PIXELS)]
EACH = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.title if attack else "clean")


def flags(network, samples, attack, batch_size=50, **options):
    return evaluation.flags(
        network, samples, attack, **{"bounds": (0.0, 1.0), "num_classes": 3} | options, batch_size=batch_size
    )


def subset(samples, rows):
    return Split(samples.images[rows], samples.labels[rows], samples.index[rows])


def predictions(network, samples):
    """One by one."""
    with torch.no_grad():
        return torch.tensor([network(x[None]).argmax().item() for x in samples.pixels()])


@pytest.fixture
def attack_with(monkeypatch):
    """A function that makes an attack of any function (network, images, labels) → images."""

    def make(function):
        def attack(network, images, labels, *, eps, bounds):
            return function(network, images, labels)

        monkeypatch.setitem(attacks.ATTACKS, "made up", attack)
        return attacks.Attack("made up", 0.1)

    return make


def test_clean_flags_are_correct_predictions(network, tiny):
    found = flags(network, tiny.test, None)
    assert found.dtype == torch.bool
    assert torch.equal(found, predictions(network, tiny.test) == tiny.test.labels)
    assert 0 < found.sum() < len(found)


@EACH
def test_a_flag_depends_on_its_sample_alone(network, tiny, attack):
    whole = flags(network, tiny.test, attack)
    order = torch.randperm(len(tiny.test), generator=torch.Generator().manual_seed(0))
    for rows in order.split(37):
        assert torch.equal(flags(network, subset(tiny.test, rows), attack), whole[rows])
    assert 0 < whole.sum() < len(whole)


@EACH
def test_flags_are_those_of_the_attack_run_on_everything(network, tiny, attack):
    if attack is None:
        return
    x, y = tiny.test.pixels(), tiny.test.labels
    perturbed = attack.bind(seed=4, index=tiny.test.index, batch_size=50)(network, x, y, bounds=(0.0, 1.0))
    with torch.no_grad():
        survived = (network(x).argmax(1) == y) & (network(perturbed).argmax(1) == y)
    assert torch.equal(flags(network, tiny.test, attack, seed=4), survived)


def test_a_misclassified_sample_stays_broken_and_is_not_attacked(network, tiny, attack_with):
    clean, attacked = flags(network, tiny.test, None), []
    right = {y: tiny.test.pixels()[clean & (tiny.test.labels == y)][:1] for y in range(3)}

    def heal(_, images, labels):
        attacked.append(images)
        return torch.cat([right[y] for y in labels.tolist()])  # each image becomes one that is classified correctly

    assert torch.equal(flags(network, tiny.test, attack_with(heal)), clean)
    assert torch.equal(torch.cat(attacked), tiny.test.pixels()[clean])


@EACH
def test_known_clean_flags_are_not_found_again(network, tiny, attack):
    clean, calls = flags(network, tiny.test, None), []
    expected = flags(network, tiny.test, attack)
    assert torch.equal(flags(network, tiny.test, attack, correct=clean), expected)
    none = torch.zeros_like(clean)
    network.register_forward_hook(lambda *_: calls.append(1))
    assert not flags(network, tiny.test, attack, correct=none).any()
    assert not calls


def test_where_everything_is_wrong_nothing_is_attacked(network, tiny, attack_with):
    wrong = Split(tiny.test.images, (predictions(network, tiny.test) + 1) % 3, tiny.test.index)
    assert not flags(network, wrong, attack_with(lambda *_: pytest.fail("it was attacked"))).any()


def test_a_stronger_attack_breaks_more(network, tiny):
    counts = [flags(network, tiny.test, attacks.standard("pgd", eps)).sum() for eps in (0, 0.03, 0.06, 0.2)]
    assert counts[0] == flags(network, tiny.test, None).sum()
    assert counts[0] > counts[1] > counts[2] > counts[3]


@EACH
def test_the_network_sees_full_batches_in_eval_mode(network, tiny, attack):
    calls = []
    network.register_forward_hook(lambda module, inputs, _: calls.append((len(inputs[0]), module.training)))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    flags(network.train(), tiny.test.take(61), attack, batch_size=25)
    assert set(calls) == {(25, False)}
    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_labels_outside_the_classes_are_refused(network, tiny):
    for label in (-1, 3):
        labels = tiny.test.labels.clone()
        labels[7] = label
        with pytest.raises(Refused, match=f"A label is {label}; every label must lie from 0 to 2"):
            flags(network, Split(tiny.test.images, labels, tiny.test.index), None)


def test_images_outside_their_bounds_are_refused(network, tiny):
    brightest = tiny.test.pixels().max().item()
    flags(network, tiny.test, None, bounds=(0.0, brightest))
    with pytest.raises(Refused, match="A pixel is 0.* must lie from 0.0 to 0.3"):
        flags(network, tiny.test, None, bounds=(0.0, 0.3))


# Samples that a network couples ------------------------------------------------------------------------------------

COUPLED = [
    attacks.standard("pgd", 0.04, steps=4, rule={"name": "assg"}),
    attacks.standard("pgd", 0.04, steps=4, rule={"name": "pdsg"}),
    attacks.standard("sa_pgd", 0.04, steps=4, rule={"name": "assg"}),
    attacks.standard("apgd", 0.04, steps=4, rule={"name": "pdsg"}),
]
EACH_COUPLED = pytest.mark.parametrize("attack", COUPLED, ids=lambda attack: attack.title)
HOW = {"bounds": (0.0, 1.0), "num_classes": 3}


def outcomes(network, samples, attack, wanted, **how):
    """Sample → what became of it, of all that `attacked` tells."""
    found = {}
    for outcome in evaluation.attacked(network, samples, attack, wanted, **HOW | how):
        for place, row in enumerate(outcome.rows.tolist()):
            assert row not in found  # once each
            found[row] = tuple(values[place].item() for values in outcome[1:])
    return found


@EACH_COUPLED
def test_by_a_coupled_rule_a_flag_does_not_depend_on_who_else_is_wanted(network, tiny, attack):
    everyone = torch.ones(len(tiny.test), dtype=torch.bool)
    whole = outcomes(network, tiny.test, attack, everyone, batch_size=25)
    assert sorted(whole) == list(range(120)) and 0 < sum(flag for flag, *_ in whole.values()) < 120
    for wanted in ([60], [0, 26, 119], list(range(0, 120, 7))):
        some = torch.zeros_like(everyone)
        some[wanted] = True
        found = outcomes(network, tiny.test, attack, some, batch_size=25)
        batches = {row // 25 for row in wanted}
        assert sorted(found) == [row for row in range(120) if row // 25 in batches]  # all its neighbours come along
        assert found == {row: whole[row] for row in found}


@EACH_COUPLED
def test_by_a_coupled_rule_neighbours_stay_together_and_each_batch_starts_afresh(network, tiny, attack):
    calls = []
    hook = network.register_forward_hook(lambda module, inputs, _: calls.append((len(inputs[0]), module.training)))
    found = flags(network.train(), tiny.test, attack, batch_size=50)
    hook.remove()
    assert set(calls[2:]) == {(50, False), (20, False)}  # two of the clean images, padded, then as they come
    expected = predictions(network, tiny.test) == tiny.test.labels
    for start in (0, 50, 100):
        samples = subset(tiny.test, slice(start, start + 50))
        x = attack.bind(seed=0, index=samples.index)(network, samples.pixels(), samples.labels, bounds=(0.0, 1.0))
        with torch.no_grad():
            expected[start : start + 50] &= network(x).argmax(1) == samples.labels
    assert torch.equal(found, expected)


def test_without_a_coupled_rule_only_who_is_wanted_is_attacked(network, tiny):
    wanted = torch.zeros(120, dtype=torch.bool)
    wanted[[3, 77, 100]] = True
    whole = outcomes(network, tiny.test, ATTACKS[4], ~torch.zeros_like(wanted))
    assert outcomes(network, tiny.test, ATTACKS[4], wanted) == {row: whole[row] for row in (3, 77, 100)}
    assert outcomes(network, tiny.test, ATTACKS[4], torch.zeros_like(wanted)) == {}


def test_what_it_cost_is_told_with_the_last_look(network, tiny):
    everyone = torch.ones(120, dtype=torch.bool)
    found = outcomes(network, tiny.test, attacks.Attack("pgd", 0.05, {"alpha": 0.01, "steps": 6}), everyone)
    assert {(forward, backward) for _, forward, backward, *_ in found.values()} == {(7, 6)}
    found = outcomes(network, tiny.test, attacks.standard("pgd", 0.05, steps=6), everyone)
    clean = flags(network, tiny.test, None)
    for row, (flag, forward, backward, *_) in found.items():
        assert forward == backward + 1 <= 7
        assert not flag or backward == 6
        assert clean[row] or backward <= 6
    assert len({forward for _, forward, *_ in found.values()}) > 3


def test_how_many_are_attacked_together_changes_nothing(network, tiny, monkeypatch):
    everyone = torch.ones(120, dtype=torch.bool)
    whole = [outcomes(network, tiny.test, attack, everyone, batch_size=25) for attack in ATTACKS[1:]]
    monkeypatch.setattr(evaluation, "CHUNK", 17)
    assert [outcomes(network, tiny.test, attack, everyone, batch_size=25) for attack in ATTACKS[1:]] == whole


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
    attack = attack_with(lambda _, images, labels: cheat(images, labels))
    found = outcomes(network, tiny.test, attack, torch.ones(120, dtype=torch.bool))
    expected = strays(tiny.test.pixels(), tiny.test.labels)
    assert [found[row][-1] for row in range(120)] == expected.tolist()


@pytest.mark.parametrize("share", [0.99, 1.01])
def test_in_l2_the_ball_is_round(network, tiny, monkeypatch, share):
    def attack(network, images, labels, *, eps, bounds, norm):
        step = torch.zeros_like(images)
        step[..., 0, 0] = share * eps * 0.6  # a length of share·ε along two pixels
        step[..., 0, 1] = share * eps * 0.8
        return images + step * (1 - 2 * (images > 0.5))

    monkeypatch.setitem(attacks.ATTACKS, "made up", attack)
    made_up = attacks.Attack("made up", 0.1, {"norm": "l2"})
    found = outcomes(network, tiny.test, made_up, torch.ones(120, dtype=torch.bool))
    assert {strayed for *_, strayed in found.values()} == {share > 1}


@EACH
def test_our_attacks_do_not_stray(network, tiny, attack):
    if attack is not None:
        found = outcomes(network, tiny.test, attack, torch.ones(120, dtype=torch.bool))
        assert not any(strayed for *_, strayed in found.values())


# Made on another network -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [{}, {"name": "sigmoid", "slope": 4.0}, {"name": "assg"}], ids=str)
def test_examples_are_made_on_one_network_and_judged_on_the_other(network, fresh, tiny, rule):
    source = fresh(5)
    attack = attacks.Attack("pgd", 0.1, {"alpha": 0.03, "steps": 4}, rule)
    found = outcomes(
        network, tiny.test, attack, torch.ones(120, dtype=torch.bool), source=source.train(), batch_size=40
    )
    expected = []
    for start in (0, 40, 80):
        part = subset(tiny.test, slice(start, start + 40))
        x = attack.bind(seed=0, index=part.index)(source.eval(), part.pixels(), part.labels, bounds=(0.0, 1.0))
        expected += (predictions_of(network, x) == part.labels).tolist()
    assert [found[row][0] for row in range(120)] == expected
    assert {found[row][1:3] for row in found} == {(5, 4)}
    own = outcomes(network, tiny.test, attack, torch.ones(120, dtype=torch.bool), batch_size=40)
    assert sum(own[row][0] for row in own) < sum(expected) < 120


def predictions_of(network, images):
    with torch.no_grad():
        return network(images).argmax(1)


def test_flags_of_transferred_examples_need_the_clean_image_right(network, fresh, tiny):
    attack = attacks.Attack("pgd", 0.1, {"alpha": 0.03, "steps": 4})
    clean, found = flags(network, tiny.test, None), flags(network, tiny.test, attack, source=fresh(5))
    assert not (found & ~clean).any()


# Networks that draw at random --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def poisson(tiny):
    """Trained until it is mostly right, and yet differently from draw to draw."""
    torch.manual_seed(0)
    network = networks.build("poisson-conv-2-4", in_channels=1, image_size=8, num_classes=3, T=16)
    schedule = training.Schedule(epochs=8, batch_size=10, lr=0.1, momentum=0.9, weight_decay=5e-4)
    list(training.epochs(network, defenses.Vanilla(), tiny, schedule, seed=0, progress=False))
    return network.eval()


DRAWING = [None, *(attacks.standard(name, 0.05, steps=3) for name in ("uniform", "fgsm", "pgd", "apgd", "square"))]
DRAWING += [attacks.Attack("pgd", 0.05, {"alpha": 0.02, "steps": 3, "eot": 3})]
DRAWING += [attacks.standard("overwritten_eot", 0.05, steps=3), attacks.standard("pgd", 0.05, rule={"name": "assg"})]


@pytest.mark.parametrize("attack", DRAWING, ids=lambda attack: attack.title if attack else "clean")
def test_the_same_seed_draws_the_same_flags_and_torchs_own_chance_is_left_alone(poisson, tiny, attack):
    torch.manual_seed(11)
    state, found = torch.get_rng_state(), flags(poisson, tiny.test, attack, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)
    assert torch.equal(flags(poisson, tiny.test, attack, seed=2), found)
    assert not torch.equal(flags(poisson, tiny.test, attack, seed=3), found)
    assert 0 < found.sum() < len(found)


def test_at_radius_zero_a_network_that_draws_is_judged_by_one_draw(poisson, tiny):
    # the share of those that are right in both of two draws lies below that of one: which is it?
    singles = torch.stack([flags(poisson, tiny.test, None, seed=1000 * seed) for seed in range(1, 9)])
    single = singles.float().mean().item()
    both = (singles[::2] & singles[1::2]).float().mean().item()
    still = attacks.Attack("uniform", 0.0)
    judged = torch.stack([flags(poisson, tiny.test, still, seed=1000 * seed + 7) for seed in range(1, 9)])
    error = 2 * (single * (1 - single) / judged.numel()) ** 0.5
    assert single - both > 3 * error
    assert judged.float().mean().item() == pytest.approx(single, abs=2 * error)


def test_a_network_that_draws_is_attacked_wherever_it_was_wrong_by_chance(poisson, tiny):
    none = torch.zeros(120, dtype=torch.bool)
    assert flags(poisson, tiny.test, attacks.standard("uniform", 0.01), correct=none).any()


@pytest.mark.parametrize("attack", DRAWING[1:], ids=lambda attack: attack.title)
def test_a_drawn_flag_does_not_depend_on_who_else_is_wanted(poisson, tiny, attack):
    everyone, some = torch.ones(120, dtype=torch.bool), torch.zeros(120, dtype=torch.bool)
    some[[30, 101]] = True
    whole = outcomes(poisson, tiny.test, attack, everyone, batch_size=25)
    found = outcomes(poisson, tiny.test, attack, some, batch_size=25)
    assert sorted(found) == [*range(25, 50), *range(100, 120)]
    assert found == {row: whole[row] for row in found}


def test_ones_own_network_with_dropout_is_judged_in_eval_mode(tiny):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Dropout(0.8), nn.Linear(30, 3))
    for attack in (None, attacks.standard("fgsm", 0.05), attacks.standard("pgd", 0.05, steps=3)):
        found = flags(network.train(), tiny.test, attack)
        assert not network.training
        assert torch.equal(flags(network.eval(), tiny.test, attack), found)
    assert torch.equal(flags(network.train(), tiny.test, None), predictions(network, tiny.test) == tiny.test.labels)
    with pytest.raises(Refused, match="FGSM rate brings a backward rule"):
        flags(network, tiny.test, attacks.standard("fgsm", 0.05, rule={"name": "rate"}))
