"""FGSM, RFGSM, PGD and MIM: torchattacks as the oracle, steps by hand, and PGD's own stopping and ascending."""

import math

import pytest
import torch
import torchattacks
from torch.nn.functional import cross_entropy
from toys import slope

from paperlib import attacks
from paperlib.attacks.core import round_noise, sign_noise
from paperlib.errors import Refused
from paperlib.theory.gradients import in_batches

EPS, UNIT = 0.1, {"eps": 0.1, "bounds": (0, 1)}


@pytest.fixture
def batch(tiny):
    images, labels, _ = next(tiny.test.batches(40))
    return images.double(), labels


@pytest.fixture
def network(network):
    return network.double()


# Against another library -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "theirs"),
    [
        ("fgsm", {}, torchattacks.FGSM),
        *(  # α < ε, and α > ε, where projection is all
            ("pgd", {"alpha": alpha, "steps": steps, "random_start": False}, torchattacks.PGD)
            for alpha, steps in ((0.02, 10), (0.25, 3))
        ),
        *(
            ("pgd", {"alpha": alpha, "steps": steps, "random_start": False, "norm": "l2"}, torchattacks.PGDL2)
            for alpha, steps in ((0.03, 10), (0.3, 3))
        ),
        *(
            ("mim", {"alpha": alpha, "steps": steps, "mu": mu}, torchattacks.MIFGSM)
            for alpha, steps in ((0.02, 10), (0.25, 3))
            for mu in (1.0, 0.5, 0.0)
        ),
    ],
)
def test_an_attack_equals_that_of_torchattacks(network, batch, name, options, theirs):
    ours = getattr(attacks, name)(network, *batch, **UNIT, **options)
    renamed = {"decay" if option == "mu" else option: value for option, value in options.items() if option != "norm"}
    renamed |= {"eps_for_division": 1e-40} if "norm" in options else {}
    torch.testing.assert_close(ours, theirs(network, eps=EPS, **renamed)(*batch), rtol=0, atol=1e-12)
    assert not torch.equal(ours, batch[0])


@pytest.mark.parametrize("steps", [1, 3])
def test_rfgsm_equals_torchattacks_where_their_step_is_ours_and_from_the_same_start(network, batch, steps, monkeypatch):
    # theirs starts α away and steps by α, ours by ε - α: the same at α = ε/2, which is the default
    monkeypatch.setattr(torch, "randn_like", lambda x: 0.7 * sign_noise(x, 5, None))
    theirs = torchattacks.RFGSM(network, eps=EPS, alpha=EPS / 2, steps=steps)(*batch)
    torch.testing.assert_close(attacks.rfgsm(network, *batch, steps=steps, seed=5, **UNIT), theirs, rtol=0, atol=1e-12)


# The attacks among themselves and by hand ------------------------------------------------------------------------


def test_the_default_steps_are_those_of_the_tables(network, batch):
    for attack, steps, alpha in ((attacks.pgd, 5, 2.5 * EPS / 5), (attacks.mim, 5, EPS / 5)):
        expected = attack(network, *batch, steps=steps, alpha=alpha, **UNIT)
        assert torch.equal(attack(network, *batch, steps=steps, **UNIT), expected)
        assert not torch.equal(attack(network, *batch, steps=steps, alpha=alpha / 2, **UNIT), expected)


def test_the_default_numbers_of_steps_and_draws():
    for name, wanted in (
        ("pgd", {"steps": 20, "eot": 1}),
        ("mim", {"steps": 10, "eot": 1, "mu": 1.0}),  # its paper's
        ("rfgsm", {"steps": 1, "eot": 1}),
    ):
        assert wanted.items() <= attacks.ATTACKS[name].defaults.items()


@pytest.mark.parametrize("name", ["rfgsm", "pgd", "mim"])
def test_an_attack_costs_a_gradient_for_each_draw_of_each_step(name):
    assert attacks.Attack(name, EPS, {"steps": 3, "eot": 4}).gradients == 12


def test_pgd_with_one_full_step_is_fgsm(network, batch):
    for norm in ("linf", "l2"):
        one = attacks.pgd(network, *batch, alpha=EPS, steps=1, random_start=False, norm=norm, **UNIT)
        assert torch.equal(one, attacks.fgsm(network, *batch, norm=norm, **UNIT))


def test_mim_without_momentum_is_pgd_and_with_it_is_not(network, batch):
    for norm in ("linf", "l2"):
        common = {"alpha": 0.02, "steps": 6, "norm": norm} | UNIT
        plain = attacks.pgd(network, *batch, random_start=False, **common)
        torch.testing.assert_close(attacks.mim(network, *batch, mu=0, **common), plain, rtol=0, atol=1e-12)
        assert not torch.allclose(attacks.mim(network, *batch, **common), plain)


def test_one_fgsm_step_by_hand():
    images, labels = torch.tensor([[[[0.0, 0.5, 0.95]]], [[[0.0, 0.5, 0.95]]]]), torch.tensor([0, 1])
    expected = torch.tensor([[[[0.1, 0.6, 1.0]]], [[[0.0, 0.4, 0.85]]]])
    torch.testing.assert_close(attacks.fgsm(slope, images, labels, **UNIT), expected)
    # in l2 the gradient is along (1, 2, 3)/√14; in the second image the third pixel stops at its bound
    images, labels = torch.tensor([[[[0.0, 0.5, 0.6]]], [[[0.0, 0.5, 0.95]]]]), torch.tensor([0, 0])
    a = 0.1 / math.sqrt(14)
    expected = torch.tensor([[[[a, 0.5 + 2 * a, 0.6 + 3 * a]]], [[[a, 0.5 + 2 * a, 1.0]]]])
    torch.testing.assert_close(attacks.fgsm(slope, images, labels, norm="l2", **UNIT), expected)


def test_a_step_of_alpha_in_l2_is_that_long():
    images, labels = torch.rand(3, 1, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 0])
    x = attacks.pgd(slope, images, labels, eps=5, alpha=0.3, steps=2, bounds=(-9, 9), random_start=False, norm="l2")
    torch.testing.assert_close((x - images).flatten(1).norm(dim=1), torch.full((3,), 0.6, dtype=torch.float64))


def test_rfgsm_starts_at_a_corner_of_length_alpha_and_goes_the_rest():
    images, labels = torch.full((1, 1, 4, 8), 5.0, dtype=torch.float64), torch.tensor([0])
    x = attacks.rfgsm(slope, images, labels, eps=1, alpha=0.25, bounds=(0, 9))
    assert sorted((x - images).unique().tolist()) == [0.5, 1.0]  # -0.25 + 0.75 and 0.25 + 0.75


def test_pgd_starts_with_the_noise_of_its_seed_and_norm(network, batch):
    context = {"seed": 3, "index": torch.arange(40) + 7}
    still = attacks.pgd(network, *batch, alpha=0, steps=1, **UNIT, **context)
    assert torch.equal(still, attacks.uniform(network, *batch, **UNIT, **context))
    still = attacks.pgd(network, *batch, alpha=0, steps=1, norm="l2", **UNIT, **context)
    assert torch.equal(still, (batch[0] + EPS * round_noise(batch[0], **context)).clamp(0, 1))


# Stopping at the first success -------------------------------------------------------------------------------------


def test_until_broken_keeps_what_broke_a_sample_and_changes_nothing_for_the_others(network, batch):
    images, labels = batch
    common = {"alpha": 0.05, "seed": 1, "batch_size": 16} | UNIT
    stopped = attacks.pgd(network, images, labels, until_broken=True, steps=6, **common)
    # each iterate of the exhaustive run: alone it tells when a sample broke first, and what it looked like then
    iterates = [attacks.uniform(network, images, labels, seed=1, **UNIT)]
    iterates += [attacks.pgd(network, images, labels, steps=n, **common) for n in range(1, 7)]
    broken = torch.stack([in_batches(network, x, 16).argmax(1) != labels for x in iterates])  # (7, B)
    first = torch.where(broken.any(0), broken.int().argmax(0), 6)
    assert torch.equal(stopped, torch.stack(iterates)[first, torch.arange(len(labels))])
    assert torch.equal(in_batches(network, stopped, 16).argmax(1) == labels, ~broken.any(0))  # at least as strong
    assert not broken.any(0).all() and (first == 0).any() and ((first > 0) & (first < 6)).any()  # every kind is there


def test_until_broken_asks_no_more_when_all_are_broken():
    calls = []

    def network(x):
        calls.append(len(x))
        return slope(x)

    images, labels = torch.full((3, 1, 1, 1), 0.5), torch.zeros(3, dtype=torch.long)  # class 1 wins everywhere: broken
    x = attacks.pgd(network, images, labels, alpha=0.1, steps=9, until_broken=True, **UNIT)
    assert calls == [3]
    assert torch.equal(x, attacks.uniform(network, images, labels, **UNIT))


# Ascending something else ------------------------------------------------------------------------------------------


def test_pgd_on_another_number_by_hand():
    # logits (-z, z), z = x₀ + 2x₁: of class 0 the cross-entropy grows with every pixel, and its logit falls
    images, labels = torch.tensor([[[[0.5, 0.5]]]]), torch.tensor([0])
    common = {"alpha": 0.04, "steps": 5, "random_start": False} | UNIT
    up = attacks.pgd(slope, images, labels, **common)
    down = attacks.pgd(slope, images, labels, ascend=lambda z, y: z.gather(1, y[:, None]).squeeze(1), **common)
    torch.testing.assert_close(up.flatten(), torch.tensor([0.6, 0.6]))
    torch.testing.assert_close(down.flatten(), torch.tensor([0.4, 0.4]))


def test_pgd_ascends_each_samples_own_number_as_a_slow_loop_does(network, batch):
    images, labels = batch[0][:9], batch[1][:9]
    start, weights = attacks.uniform(network, images, labels, seed=3, **UNIT), torch.arange(1.0, 4.0).double()

    def ascend(logits, labels):
        return ((logits * weights).sum(1) - labels).square()

    ascended = attacks.pgd(network, images, labels, alpha=0.03, steps=3, seed=3, ascend=ascend, **UNIT)
    for i in range(9):
        x = start[i : i + 1]
        for _ in range(3):
            x = x.detach().requires_grad_()
            z = network(x)[0]
            ((z[0] + 2 * z[1] + 3 * z[2] - labels[i].item()) ** 2).backward(inputs=[x])
            x = (x.detach() + 0.03 * x.grad.sign()).clamp(images[i] - EPS, images[i] + EPS).clamp(0, 1)
        torch.testing.assert_close(ascended[i : i + 1], x, rtol=0, atol=1e-12)


def test_what_pgd_ascends_is_given_the_samples_still_moving(network, batch):
    images, labels = batch
    given, common = [], {"alpha": 0.05, "steps": 6, "seed": 1, "until_broken": True} | UNIT

    def loss(logits, labels):
        given.append((len(logits), labels.clone()))
        return cross_entropy(logits, labels, reduction="none")

    stopped = attacks.pgd(network, images, labels, ascend=loss, **common)
    assert torch.equal(stopped, attacks.pgd(network, images, labels, **common))  # by default it is the cross-entropy
    sizes = [count for count, _ in given]
    assert sizes[0] == 40 and sizes == sorted(sizes, reverse=True) and 0 < sizes[-1] < 40
    assert all(len(classes) == count for count, classes in given)
    assert torch.equal(given[0][1], labels)
    assert (network(stopped).argmax(1) == labels).sum() <= sizes[-1]


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rfgsm", {"alpha": 0.2}, "RFGSM's alpha is 0.2; .*eps = 0.1"),
        ("rfgsm", {"steps": 0}, "steps is 0"),
        ("pgd", {"alpha": -1}, "alpha is -1"),
        ("pgd", {"steps": 0}, "steps is 0"),
        ("pgd", {"alpha": math.nan}, "alpha is nan"),
        ("mim", {"alpha": -1}, "alpha is -1"),
        ("mim", {"steps": 0}, "steps is 0"),
        ("mim", {"mu": -0.5}, "mu is -0.5"),
        ("overwritten_eot", {"draws": 0}, "draws is 0"),
        *((name, {"norm": "l1"}, "There is no norm 'l1'. Allowed: linf, l2.$") for name in ("fgsm", "pgd", "mim")),
    ],
)
def test_options_that_cannot_be_used_are_refused(name, options, message):
    with pytest.raises(Refused, match=f"^{message}"):
        getattr(attacks, name)(slope, torch.rand(2, 1, 3, 3), torch.tensor([0, 1]), **UNIT | options)
