"""Flags: what they mean, what they depend on, and what is refused."""

import pytest
import torch

from paperlib import attacks, evaluation
from paperlib.errors import Refused
from paperlib.images import Split

ATTACKS = [None, *(attacks.standard(name, 0.06, steps=5) for name in attacks.ATTACKS)]
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
