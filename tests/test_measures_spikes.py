"""Spikes of a small network counted one by one; rows of hand-made counts; the neurons that an illustration shows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from measures_by_hand import bounds, experiment, only, select

from paperlib import networks
from paperlib.attacks.attack import Attack
from paperlib.attacks.core import sign_noise
from paperlib.errors import Refused
from paperlib.measures import spikes
from paperlib.measures.spikes import Doing, Watched
from paperlib.networks.activity import observe
from paperlib.store.experiment import Opened

NOISE, PGD = Attack("sign", 0.1), Attack("pgd", 0.1, {"steps": 3})
PAIRS = [("sr", "vanilla")]


def rows_of(found, pairs=PAIRS, mac_pj=4.0, ac_pj=1.0):
    return spikes.spiking_rows(found, pairs, mac_pj=mac_pj, ac_pj=ac_pj)


# ---- watching ----------------------------------------------------------------------------------------------------


def test_spikes_operations_and_distances_are_those_of_a_slow_count(network, tiny):
    samples = tiny.test.take(30)  # more than one part
    seen = spikes.watch(Opened(experiment(), network), samples, NOISE, PGD)
    x = samples.pixels()
    noisy = (x + 0.1 * sign_noise(x, 0, samples.index)).clamp(0, 1)
    assert seen.neurons.tolist() == [2 * 8 * 8, 4 * 4 * 4] and seen.values == 64
    # 3×3 places of 2 channels for each of 64 pixels, fewer at the border: (3·8 - 2)² places of one channel
    assert seen.macs == 22**2 * 2
    clean, found = observe(network, x)[1], observe(network, noisy)
    for layer, (one, other) in enumerate(zip(clean, found[1], strict=True)):
        for i in (0, 7, 29):
            fired = sum(other.spikes[:, i].flatten().tolist())
            moved = sum(a != b for a, b in zip(one.spikes[:, i].flatten(), other.spikes[:, i].flatten(), strict=True))
            assert seen.doing["noise"].fired[layer, i] == pytest.approx(fired / other.spikes[:, i].numel())
            assert seen.doing["noise"].moved[layer, i] == pytest.approx(moved / other.spikes[:, i].numel())
    assert seen.doing["noise"].moved.any() and not seen.doing["clean"].moved.any()
    assert seen.doing["noise"].distance == pytest.approx((noisy - x).abs().flatten(1).sum(1).numpy(), rel=1e-5)
    assert seen.doing["attack"].distance.max() <= 64 * 0.1 + 1e-4 and not seen.doing["clean"].distance.any()
    logits, own = found[0], torch.arange(30)
    others = logits.clone()
    others[own, samples.labels] = -torch.inf
    margin = logits[own, samples.labels] - others.amax(1)
    assert seen.doing["noise"].margin == pytest.approx(margin.numpy(), abs=1e-5)


def test_synaptic_operations_count_each_spike_with_the_places_that_its_cell_enters(network, tiny):
    samples = tiny.test.take(4)
    seen = spikes.watch(Opened(experiment(), network), samples, NOISE, PGD)
    first, last = (layer.spikes for layer in observe(network, samples.pixels())[1])
    for i in range(4):
        operations = 0
        for _, _, row, column in first[:, i].nonzero().tolist():
            reach = [sum(0 <= cell + d < 4 for d in (-1, 0, 1)) for cell in (row // 2, column // 2)]
            operations += 4 * reach[0] * reach[1]
        assert seen.doing["clean"].synops[:, i].tolist() == [0, operations, 3 * last[:, i].sum().item()]


def test_events_of_the_input_are_spikes(tiny):
    torch.manual_seed(0)
    network = networks.build("events-conv-2-4", in_channels=2, image_size=8, num_classes=3, T=4).eval()
    frames = torch.from_numpy(np.random.RandomState(0).poisson(0.2, (6, 4, 2, 8, 8)).astype(np.uint8))
    samples = replace(tiny.test.take(6), images=frames, one=1, bounds=(0.0, 5.0))
    noise, attack = Attack("random_flips", 3), Attack("sparse_flips", 3, {"steps": 2})
    of = replace(experiment(), data={"name": "saccades:mnist5k", "T": 4}, network="events-conv-2-4")
    seen = spikes.watch(Opened(of, network), samples, noise, attack)
    reach = torch.tensor([2, *[3] * 6, 2])
    by_cell = 2 * reach[:, None] * reach  # of two channels
    assert seen.doing["clean"].synops[0].tolist() == (frames * by_cell).flatten(1).sum(1).tolist()
    assert seen.macs == 0 and (seen.doing["noise"].distance == 3).all() and (seen.doing["attack"].distance <= 3).all()
    rows = rows_of([seen], [])
    assert not select(rows, quantity="MACs")
    assert {r["part"] for r in select(rows, quantity="energy of a part")} == {"events of the input", "spikes of layer"}
    assert only(rows, quantity="perturbation", attack="random_flips")["unit"] == "events"
    shown = spikes.illustrated(Opened(of, network), samples, noise, attack, neurons=5)
    assert np.array(shown["pictures"]["clean"]).tolist() == frames[0, 0].tolist()
    assert shown["changed"]["clean"] == [] and 1 <= len(shown["changed"]["noise"]) <= 3


def test_a_network_that_draws_its_input_is_refused(tiny):
    network = networks.build("poisson-conv-2-4", in_channels=1, image_size=8, num_classes=3, T=2).eval()
    with pytest.raises(Refused, match="at random"):
        spikes.watch(Opened(experiment(), network), tiny.test.take(4), NOISE, PGD)


# ---- rows --------------------------------------------------------------------------------------------------------


def doing(fired, moved, margin=1.0):
    """Two layers and two samples, which differ by half of each value in either direction."""
    spread = np.array([0.5, 1.5])
    fired, moved = (np.outer(values, spread) for values in (fired, moved))
    return Doing(fired, moved, np.outer([0, 1000, 100], spread), margin * np.array([1.0, -1.0]), np.full(2, 6.4))


def by_hand(training="vanilla", seed=0, fired=(0.2, 0.4), noise=(0.1, 0.1), attack=(0.1, 0.2)):
    """A network of 30 and 10 neurons."""
    seen = dict(zip(spikes.INPUTS, (doing(fired, moved) for moved in ((0, 0), noise, attack)), strict=True))
    attacks = dict(zip(spikes.INPUTS, (None, NOISE, PGD), strict=True))
    return Watched(experiment(training, seed), attacks, seen, np.array([30, 10]), 500, 64)


def test_all_layers_together_weigh_each_by_its_neurons():
    rows = rows_of([by_hand()])
    assert only(rows, quantity="firing rate", attack="clean", layer=2)["value"] == pytest.approx(0.4)
    (every,) = [r for r in select(rows, quantity="firing rate", attack="clean") if "layer" not in r]
    assert every["value"] == pytest.approx((30 * 0.2 + 10 * 0.4) / 40)
    (moved,) = [r for r in select(rows, quantity="spikes moved", attack="pgd") if "layer" not in r]
    assert moved["value"] == pytest.approx((30 * 0.1 + 10 * 0.2) / 40) and moved["steps"] == 3
    assert not select(rows, quantity="spikes moved", attack="clean")
    assert only(rows, quantity="still correct", attack="clean")["value"] == 0.5
    # 6.4 over 64 pixels is a tenth, in 1/255
    assert only(rows, quantity="perturbation", attack="sign")["value"] == pytest.approx(25.5)


def test_the_energy_adds_up_from_its_parts():
    rows = rows_of([by_hand()], mac_pj=4.0, ac_pj=2.0)
    parts = {(r["part"], r.get("layer")): r["value"] for r in select(rows, quantity="energy of a part", attack="sign")}
    # 500 multiply-adds of 4 pJ; 1000 and 100 accumulations of 2 pJ; in nJ
    wanted = {("multiply-adds on the image", None): 2.0, ("spikes of layer", 1): 2.0, ("spikes of layer", 2): 0.2}
    assert parts == pytest.approx(wanted)
    assert only(rows, quantity="energy", attack="sign")["value"] == pytest.approx(4.2)
    assert only(rows, quantity="SynOps", attack="sign")["value"] == pytest.approx(1.1)
    assert only(rows, quantity="MACs", attack="sign")["value"] == 0.5


def test_the_attack_over_the_noise_is_a_geometric_mean_over_seeds():
    found = [by_hand(seed=0, attack=(0.1, 0.2)), by_hand(seed=1, attack=(0.4, 0.2))]
    rows = rows_of(found, [])
    first = only(rows, quantity="moved by the attack over the noise", layer=1)
    assert first["value"] == pytest.approx((1 * 4) ** 0.5) and first["reference_attack"] == "sign"
    # of two logarithms 0 and log 4: t at one degree of freedom is 12.706, the standard error is log 4 / 2
    assert bounds(first) == pytest.approx((2 * 4 ** (-12.7062 / 2), 2 * 4 ** (12.7062 / 2)), rel=1e-4)
    assert only(rows, quantity="moved by the attack over the noise", layer=2)["value"] == pytest.approx(2)


def test_where_the_noise_moves_nothing_there_is_no_ratio():
    rows = rows_of([by_hand(noise=(0, 0.1)), by_hand(seed=1, noise=(0, 0.1))], [])
    ratio = only(rows, quantity="moved by the attack over the noise", layer=1)
    assert (ratio["value"], ratio["method"], ratio["seeds"]) == (None, "nothing to divide by", [0, 1])


def test_trainings_are_compared_seed_by_seed():
    found = [by_hand(seed=s, fired=(0.1 * (s + 1),) * 2) for s in range(2)]
    found += [by_hand("sr", s, fired=(0.1 * (s + 1) * 3,) * 2) for s in (1, 0, 7)]
    rate = only(rows_of(found), quantity="relative firing rate")
    assert rate["value"] == pytest.approx(3) and bounds(rate) == pytest.approx((3, 3))
    assert (rate["training"], rate["against"], rate["n"], set(rate["seeds"])) == ("sr", "vanilla", 2, {0, 1})


def test_one_seed_has_an_interval_over_samples_and_none_of_a_ratio():
    rows = rows_of([by_hand(), by_hand("sr")])
    assert only(rows, quantity="firing rate", training="sr", attack="clean", layer=1)["over"] == "samples"
    assert bounds(only(rows, quantity="relative energy")) == (None, None)
    assert not select(rows_of([by_hand()]), quantity="relative energy")  # without SR


# ---- one sample --------------------------------------------------------------------------------------------------


def test_an_illustration_shows_active_neurons_in_order_and_one_whose_spikes_the_attack_moves(network, tiny):
    opened, samples = Opened(experiment(), network), tiny.test.take(3)
    shown = spikes.illustrated(opened, samples, NOISE, PGD, neurons=12)
    assert shown["label"] == int(samples.labels[0]) and shown["threshold"] == 1
    x = samples.pixels(slice(1))
    inputs = {"clean": x, "noise": (x + 0.1 * sign_noise(x, 0, samples.index[:1])).clamp(0, 1)}
    inputs["attack"] = torch.tensor(shown["pictures"]["attack"])[None]  # four digits are kept
    seen = {name: observe(network, pixels) for name, pixels in inputs.items()}
    assert shown["classes"]["noise"] == int(seen["noise"][0].argmax())
    for i, layer in enumerate(shown["layers"]):
        own = {name: layers[i].spikes[:, 0].flatten(1) for name, (_, layers) in seen.items()}
        active = (own["clean"] + own["noise"] + own["attack"]).any(0)
        assert (layer["layer"], layer["neurons"]) == (i + 1, own["clean"].shape[1])
        assert layer["active"] == int(active.sum()) and len(layer["trains"]["clean"]) == min(12, layer["active"])
        assert layer["trains"]["clean"] == sorted(layer["trains"]["clean"], reverse=True)
        every = [tuple(train) for train in own["noise"].T.int().tolist()]
        assert all(tuple(train) in every for train in layer["trains"]["noise"])
        changed = (own["attack"] != own["clean"]).sum(0)[own["clean"].any(0)]
        differs = [
            (a >= 1) != (b >= 1) for a, b in zip(layer["membranes"]["clean"], layer["membranes"]["attack"], strict=True)
        ]
        assert sum(differs) == int(changed.max()) and any(m >= 1 for m in layer["membranes"]["clean"])


def test_all_active_neurons_are_shown_where_there_are_few_and_no_network_is_shown_twice(network, tiny):
    opened = [Opened(experiment(seed=s), network) for s in (0, 1)]
    found, shown = spikes.watched(opened, tiny.test.take(3), NOISE, PGD, neurons=10_000)
    assert [w.experiment.seed for w in found] == [0, 1] and list(shown) == ["vanilla"]
    assert all(len(layer["trains"]["clean"]) == layer["active"] for layer in shown["vanilla"]["layers"])
    with pytest.raises(Refused, match="neurons"):
        spikes.illustrated(opened[0], tiny.test.take(3), NOISE, PGD, neurons=0)
