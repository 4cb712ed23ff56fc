"""Attacks by name: registration, costs, labels and titles, refusals, backward rules, ensembles and protocols."""

import json
import math
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from paperlib import attacks, labels, words
from paperlib.attacks import protocols
from paperlib.attacks.attack import Attack, standard
from paperlib.attacks.core import Queried
from paperlib.attacks.ensembles import Ensemble, Transfer, labels_of
from paperlib.errors import Refused
from paperlib.theory.gradients import loss_gradient

EPS = 0.1
VANILLA, AT, WIDE = (
    SimpleNamespace(defense=defense, network=network, key=defense + network)
    for defense, network in (("vanilla", "conv-2-4"), ("at", "conv-2-4"), ("vanilla", "conv-8"))
)

# Registration ------------------------------------------------------------------------------------------------------


@pytest.fixture
def register(monkeypatch):
    """`attacks.register` under the name "mine", which is forgotten after the test."""
    monkeypatch.setitem(attacks.ATTACKS, "mine", None)
    monkeypatch.setitem(words._attacks, "mine", None)
    return lambda **declared: attacks.register("mine", **declared)


def mine(network, images, labels, *, eps, bounds, steps=10, seed=0):
    """PGD that stops as soon as everything is broken, with gradients in its own way: it calls the network itself."""
    x = images.clone()
    for _ in range(steps):
        leaf = x.clone().requires_grad_()
        logits = network(leaf)
        if (logits.argmax(1) != labels).all():
            break
        (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, labels), leaf)
        x = (x + eps * gradient.sign()).clamp(images - eps, images + eps).clamp(*bounds)
    return x


def through_queried(network, images, labels, *, eps, bounds, steps=10, index, batch_size):
    """Gradients through `loss_gradient`, and a look forward at the end."""
    assert batch_size is None or batch_size > 0
    x = images + 0 * index.view(-1, 1, 1, 1)
    for _ in range(steps):
        x = (x + eps * loss_gradient(network, x, labels, batch_size)[1].sign()).clamp(*bounds)
    network(x.detach())
    return x


def noise(network, images, labels, *, eps, bounds):
    return (images + eps * torch.randn(images.shape)).clamp(*bounds)


def guesses(network, images, labels, *, eps, bounds, draws=3):
    with torch.no_grad():
        for _ in range(draws):
            network(images)
    return images


@pytest.mark.parametrize(
    ("function", "options", "cost"),
    [
        (mine, {}, (10, 0)),
        (mine, {"steps": 4}, (4, 0)),
        (through_queried, {"steps": 3}, (3, 1)),
        (noise, {}, (0, 0)),
        (guesses, {}, (0, 3)),
        (guesses, {"draws": 7}, (0, 7)),
    ],
)
def test_the_passes_of_an_attack_without_declared_costs_are_counted(register, function, options, cost):
    register()(function)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    for rule in ({}, {"name": "rate"}):
        one = Attack("mine", EPS, options, rule)
        assert (one.gradients, one.queries) == cost
    assert torch.equal(torch.get_rng_state(), state)


def test_declared_costs_are_taken_at_their_word(register):
    register(gradients=lambda options: 2 * options["steps"])(mine)
    assert [Attack("mine", EPS, options).gradients for options in ({}, {"steps": 3})] == [20, 6]
    assert Attack("mine", EPS).queries == 0


def test_costs_that_cannot_be_counted_are_asked_for(register):
    register()(lambda network, images, labels, *, eps, bounds: images.unfold(2, 9, 1))
    with pytest.raises(Refused, match="^The passes of attack 'mine' cannot be counted .*RuntimeError.*Register"):
        _ = Attack("mine", EPS).gradients


def test_a_registered_attack_has_labels_a_title_and_standard_options(register):
    assert register()(mine).__wrapped__ is mine
    one = standard("mine", EPS, steps=7, queries=9)
    assert (one.options, one.labels, one.title) == ({"steps": 7}, {"attack": "mine", "steps": 7}, "mine-7")
    assert (one.norm, one.declared.noise) == ("linf", False)
    register(title="My attack", norm="l2", noise=True)(mine)
    one = Attack("mine", EPS, {}, {"name": "sigmoid", "slope": 4.0})
    assert one.labels == {"attack": "mine", "rule": "sigmoid", "slope": 4.0}
    assert (one.title, one.norm, one.declared.noise) == ("My attack sigmoid 4", "l2", True)
    assert words.known(set(), {"mine"}) == {"trainings": {}, "attacks": {"mine": "My attack"}}


def test_a_name_belongs_to_one_function(register):
    register()(mine)
    with pytest.raises(Refused, match="'mine' .*already.* mine of test_attacks; choose another"):
        register()(noise)
    with pytest.raises(Refused, match="'pgd' .*already"):
        attacks.register("pgd")(mine)
    scope = {"__name__": mine.__module__}
    exec("def mine(network, images, labels, *, eps, bounds): return images", scope)  # the cell was run again
    register(title="Anew")(scope["mine"])
    assert attacks.ATTACKS["mine"].function.__wrapped__ is scope["mine"] and Attack("mine", EPS).title == "Anew"
    with pytest.raises(Refused, match="There is no norm 'l1'. Allowed: linf, l2, l0, moves."):
        register(norm="l1")


# Options, labels and titles ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "cost"),
    [
        ("uniform", {}, (0, 0)),
        ("random_flips", {}, (0, 0)),
        ("fgsm", {}, (1, 0)),
        ("rfgsm", {"alpha": EPS / 2}, (1, 0)),
        ("pgd", {"alpha": 2.5 * EPS / 5, "steps": 5, "until_broken": True}, (5, 0)),
        ("mim", {"alpha": EPS / 5, "steps": 5}, (5, 0)),
        ("apgd", {"steps": 5}, (5, 0)),
        ("sa_pgd", {"steps": 5}, (5, 0)),
        ("apgd_square", {"steps": 5, "queries": 30}, (10, 30)),
        ("overwritten_eot", {"alpha": 2.5 * EPS / 5, "steps": 5, "draws": 10}, (50, 0)),
        ("square", {"queries": 30}, (0, 30)),
        ("random_search", {"draws": 30}, (0, 30)),
    ],
)
def test_the_standard_attacks_and_their_costs(name, options, cost):
    one = standard(name, 0.0 if name == "random_flips" else EPS, steps=5, queries=30)
    assert one.options == pytest.approx(options)
    assert (one.gradients, one.queries) == cost


def test_which_attacks_are_noise_and_what_their_radius_is_measured_in():
    assert {name for name, one in attacks.ATTACKS.items() if one.noise} == {
        *("uniform", "sign", "random_flips", "random_search", "random_retiming")
    }
    norms = {name: Attack(name, 1).norm for name in attacks.ATTACKS}
    assert {name for name, norm in norms.items() if norm == "moves"} == {"retiming", "random_retiming"}
    assert {name for name, norm in norms.items() if norm not in ("linf", "moves")} == {"sparse_flips", "random_flips"}
    assert norms["sparse_flips"] == norms["random_flips"] == "l0" and Attack("fgsm", EPS, {"norm": "l2"}).norm == "l2"


@pytest.mark.parametrize(
    ("one", "own", "title"),
    [
        (("uniform",), {}, "uniform noise"),
        (("sign",), {}, "sign noise"),
        (("fgsm",), {}, "FGSM"),
        (("fgsm", {"norm": "l2"}), {"norm": "l2"}, "FGSM in l2"),
        (("fgsm", {"eot": 10}, {"name": "rate"}), {"eot": 10, "rule": "rate"}, "FGSM EOT 10 rate"),
        (("rfgsm", {"alpha": 0.05}, {"name": "atan", "gamma": 2.0}), {"rule": "atan", "gamma": 2.0}, "RFGSM atan 2"),
        (("pgd", {"alpha": 0.01, "steps": 10, "eot": 1, "norm": "linf"}), {"steps": 10}, "PGD-10"),
        (
            ("pgd", {"steps": 10, "until_broken": True}, {"name": "sigmoid", "slope": 4.0}),
            {"steps": 10, "rule": "sigmoid", "slope": 4.0},
            "PGD-10 sigmoid 4",
        ),
        (
            ("pgd", {"steps": 10}, {"name": "triangle", "gamma": 0.25}),
            {"steps": 10, "rule": "triangle", "gamma": 0.25},
            "PGD-10 triangle 0.25",
        ),
        (
            ("pgd", {"steps": 10, "norm": "l2", "eot": 5}, {"name": "pdsg"}),
            {"steps": 10, "norm": "l2", "eot": 5, "rule": "pdsg"},
            "PGD-10 EOT 5 in l2 pdsg",
        ),
        (("mim", {"steps": 7}), {"steps": 7}, "MIM-7"),
        (("apgd", {"steps": 20, "loss": "ce"}), {"steps": 20, "loss": "ce"}, "APGD-CE-20"),
        (
            ("apgd", {"steps": 20, "loss": "dlr", "restarts": 3}),
            {"steps": 20, "loss": "dlr", "restarts": 3},
            "APGD-DLR-20 ×3",
        ),
        (("apgd", {"steps": 20, "restarts": 1}), {"steps": 20}, "APGD-20"),
        (("sa_pgd", {"steps": 9}, {"name": "assg"}), {"steps": 9, "rule": "assg"}, "SA-PGD-9 assg"),
        (("overwritten_eot", {"steps": 10, "draws": 4}), {"steps": 10, "draws": 4}, "PGD-10 EOT 4 overwritten"),
        (("overwritten_eot",), {}, "PGD overwritten"),
        (("apgd_square", {"steps": 5, "queries": 30}), {"steps": 5, "queries": 30}, "APGD-Square-5-30"),
        (("square", {"queries": 200}), {"queries": 200}, "Square-200"),
        (("random_search", {"draws": 50}), {"draws": 50}, "Random search-50"),
        (("sparse_flips", {"steps": 10}), {"steps": 10}, "sparse flips-10"),
        (("random_flips",), {}, "random flips"),
    ],
)
def test_an_attack_has_the_labels_from_which_its_title_is_made(one, own, title):
    name, *rest = one
    attack = Attack(name, 1, *rest)
    assert attack.labels == {"attack": name} | own and set(attack.labels) <= set(labels.ATTACK)
    row = attack.labels | {"training": "at", "eps_255": 8.0, "value": 0.5}
    assert attack.title == words.attack(row) == title
    reference = {f"reference_{label}": value for label, value in attack.labels.items()}
    assert words.attack(reference | {"attack": "square"}, "reference_") == title


@pytest.mark.parametrize(
    ("row", "title"),
    [
        ({"attack": "worst"}, "worst of all"),
        ({"attack": "so far", "up_to": "four rules"}, "up to four rules"),
        ({"attack": "pgd", "rules": "widths"}, "all widths together"),
        ({"attack": "fgsm", "rules": "four"}, "FGSM, four rules"),
        (
            {"attack": "pgd", "steps": 10, "rule": "rate", "made_on": "at", "made_on_network": "conv-8-16"},
            "PGD-10 rate made on at, conv-8-16",
        ),
        (
            {"attack": "pgd", "steps": 10, "made_on": "at", "made_on_network": "conv-8-16", "rules": "four"},
            "PGD-10 made on at, conv-8-16, four rules",
        ),
        ({"attack": "pgd", "rule": "assg", "a": 0.5}, "PGD assg 0.5"),
        ({"attack": "unheard of", "steps": 3}, "unheard of-3"),
        ({"attack": "clean"}, "clean"),
    ],
)
def test_the_titles_of_other_rows(row, title):
    assert words.attack(row) == title


def test_a_radius_is_said_with_its_unit():
    rows = {"eps_255": 32.0}, {"eps_counts": 0.5}, {"flips": 20}, {"moves": 7}
    said = ["32/255", "0.5 counts", "20 changed events", "7 moved events"]
    assert [words.radius(row | {"steps": 3}) for row in rows] == said
    assert [words.size(row | {"steps": 3}) for row in rows] == list(rows)


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [-0.1, math.nan, math.inf, "0.1", None, True])
@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_a_radius_that_is_no_length_is_refused(name, eps):
    images, classes = torch.full((2, 1, 3, 3), 0.5), torch.tensor([0, 1])
    with pytest.raises(Refused, match="^eps is .*; it must be a finite number of at least 0.$"):
        attacks.ATTACKS[name].function(None, images, classes, eps=eps, bounds=(0, 1))
    for make in (Attack, standard):
        with pytest.raises(Refused, match="^eps is .*; it must be a finite number of at least 0.$"):
            make(name, eps)


@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_bounds_belong_to_the_data_and_have_no_default(name):
    with pytest.raises(TypeError, match="bounds"):
        attacks.ATTACKS[name].function(None, torch.rand(2, 1, 3, 3), torch.tensor([0, 1]), eps=0)


IMAGES, CLASSES = torch.arange(18).view(2, 1, 3, 3) % 2 * 1.0, torch.tensor([0, 1])
DOOR = {
    "x·255": ({"images": 255 * IMAGES}, "^A pixel is 255.0; every pixel must lie from 0 to 1, the bounds.$"),
    "NaN": ({"images": IMAGES * math.nan}, "^A pixel is nan; "),
    "integers": ({"images": IMAGES.to(torch.uint8)}, "^images is a tensor .*uint8; .* floating-point images"),
    "no images": ({"images": IMAGES[:0], "labels": CLASSES[:0]}, "^images is a tensor .0, 1, 3, 3.* one or more"),
    "bounds": ({"bounds": (1, 0)}, r"^bounds is \(1, 0\); the lower one must lie below the upper one.$"),
    "no bounds": ({"bounds": (0, math.nan)}, "^bounds is .0, nan.; "),
}
LABELS = {
    "-100": ({"labels": CLASSES - 100}, "^A label is -100; labels count classes from 0.$"),
    "beyond": ({"labels": CLASSES + 2}, "^A label is 3; the network's 3 logits fit 0 to 2.$"),
    "too few": ({"labels": CLASSES[:1]}, "^labels is a tensor .1,. of torch.int64; it must be a tensor of 2 whole"),
    "shares": ({"labels": CLASSES / 2}, "^labels is a tensor .2,. of torch.float32; it must be a tensor of 2 whole"),
    "training": ({"layer": nn.BatchNorm1d(9)}, "^The network is in training mode, .* its BatchNorm1d '1' changes"),
    "dropout": ({"layer": nn.Dropout()}, "^The network is in training mode, in which its Dropout '1' changes"),
    "NaN logits": ({"layer": nn.Threshold(2, math.nan)}, "^The network's logits are NaN; its weights are damaged"),
}


def attacked(name, images=IMAGES, labels=CLASSES, bounds=(0, 1), layer=None):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), layer or nn.Identity(), nn.Linear(9, 3))
    return attacks.ATTACKS[name].function(network, images, labels, eps=1, bounds=bounds)


@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_the_door_of_every_attack(name):
    """What no attack could attack is refused in a sentence; a layout or a graph that needs none changes nothing."""
    declared = attacks.ATTACKS[name]
    for changes, sentence in (DOOR | ({} if declared.noise and not declared.queries else LABELS)).values():
        with pytest.raises(Refused, match=sentence):
            attacked(name, **changes)
    expected = attacked(name)
    turned = IMAGES.transpose(2, 3).contiguous().transpose(2, 3)  # the same values in another order of memory
    for images in (turned, IMAGES.clone().requires_grad_()):
        found = attacked(name, images=images, labels=CLASSES.int())
        assert torch.equal(found, expected) and not found.requires_grad
    assert turned.is_contiguous() is False


def test_a_budget_of_events_is_a_whole_number():
    frames, classes = torch.zeros(1, 1, 2, 2, 2), torch.tensor([0])
    for name in ("sparse_flips", "random_flips", "retiming", "random_retiming"):
        with pytest.raises(Refused, match="eps is 2.5; a budget of events must be a whole number."):
            Attack(name, 2.5)
        with pytest.raises(Refused, match="eps is 2.5; a budget of events must be a whole number."):
            attacks.ATTACKS[name].function(None, frames, classes, eps=2.5, bounds=(0, 3))


def test_unknown_names_and_options_are_refused():
    for make in (Attack, standard):
        with pytest.raises(Refused, match="no attack 'gpd'. Allowed: .*fgsm, rfgsm, pgd"):
            make("gpd", EPS)
    for name, option in (
        *(("fgsm", "steps"), ("square", "eot"), ("pgd", "draws"), ("sa_pgd", "norm")),
        *(("pgd", "seed"), ("pgd", "bounds"), ("pgd", "ascend"), ("square", "start")),
    ):
        with pytest.raises(Refused, match=f"no option of {name} '{option}'"):
            Attack(name, EPS, {option: 1})
    for number in ("steps", "queries"):
        with pytest.raises(Refused, match=f"{number} is 0"):
            standard("square", EPS, **{number: 0})


# The backward rule that an attack brings -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"name": "ratte"}, "no backward rule 'ratte'. Allowed: triangle"),
        ({"name": "sigmoid", "gamma": 4.0}, "'sigmoid' cannot take {'gamma': 4.0}"),
        ({"name": "triangle", "gamma": 0}, "gamma is 0; it must be a finite number above 0"),
        ({"name": "assg", "a": 0.5}, "a is 0.5"),
        ({"name": "pdsg", "a": 0.5}, "'pdsg' cannot take"),
        ({"gamma": 1.0}, "backward rule cannot take {'gamma': 1.0}"),
    ],
)
def test_an_unknown_rule_or_width_is_refused_at_once(rule, message):
    with pytest.raises(Refused, match=message):
        Attack("pgd", EPS, {}, rule)
    with pytest.raises(Refused, match=message):
        standard("fgsm", EPS, rule=rule)


def test_the_rule_is_part_of_the_attack_and_kept_with_it():
    own = standard("pgd", EPS, steps=5)
    assert own != standard("pgd", EPS, steps=5, rule={"name": "rate"}) == replace(own, rule={"name": "rate"})
    wide, narrow = (replace(own, rule={"name": "triangle", "gamma": gamma}) for gamma in (1.0, 0.5))
    assert wide != narrow
    assert Attack(**json.loads(json.dumps(asdict(narrow)))) == narrow  # what is kept of it on disk says all


RULES = [{"name": "sigmoid", "slope": 4.0}, {"name": "rate"}, {"name": "triangle", "gamma": 0.5}, {"name": "assg"}]
BY_GRADIENT = ["fgsm", "rfgsm", "pgd", "mim", "apgd", "sa_pgd", "apgd_square", "overwritten_eot"]


@pytest.fixture
def batch(tiny):
    images, classes, _ = next(tiny.test.batches(40))
    return images, classes


@pytest.mark.parametrize("name", [*BY_GRADIENT, "uniform", "square", "random_search"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["name"])
def test_an_attack_by_a_rule_is_the_attack_inside_the_rules_block(network, batch, name, rule):
    one, context = standard(name, 0.04, steps=4, queries=6), {"seed": 3, "index": torch.arange(40) + 5}
    before = [neuron.rule for neuron in network.neurons()]
    x = replace(one, rule=rule).bind(**context, batch_size=40)(network, *batch, bounds=(0, 1))
    assert all(neuron.rule is own for neuron, own in zip(network.neurons(), before, strict=True))
    plain = one.bind(**context, batch_size=40)(network, *batch, bounds=(0, 1))
    with network.backward_rule(**rule):
        inside = one.bind(**context, batch_size=40)(network, *batch, bounds=(0, 1))
    assert torch.equal(x, inside)
    assert torch.equal(x, plain) == (name not in BY_GRADIENT)  # a rule changes gradients alone


def test_after_an_exception_the_network_has_its_own_rule_again(network, batch):
    before = [neuron.rule for neuron in network.neurons()]

    def stop(*_):
        raise KeyboardInterrupt

    network.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        standard("pgd", EPS, rule={"name": "rate"}).bind()(network, *batch, bounds=(0, 1))
    assert all(neuron.rule is own for neuron, own in zip(network.neurons(), before, strict=True))


def test_a_network_without_backward_rules_is_refused_in_a_sentence():
    images, classes = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    by_rate = standard("fgsm", EPS, rule={"name": "rate"})
    for network in (torch.nn.Flatten(), Queried(torch.nn.Flatten(), images, classes, None)):
        with pytest.raises(Refused, match="^FGSM rate brings a backward rule; a network of your own needs"):
            by_rate.bind()(network, images, classes, bounds=(0, 1))


# Ensembles and protocols ---------------------------------------------------------------------------------------------


def test_a_transfer_and_an_ensemble_say_their_radius_their_costs_and_their_labels():
    pgd, square = (standard(name, EPS, steps=7, queries=50) for name in ("pgd", "square"))
    transfer = Transfer(standard("pgd", EPS, steps=3), AT)
    ensemble = Ensemble("pgd", [pgd, transfer, square], {"rules": "four"})
    assert (transfer.eps, transfer.norm, transfer.gradients, transfer.queries) == (EPS, "linf", 3, 0)
    assert (ensemble.eps, ensemble.norm, ensemble.gradients, ensemble.queries) == (EPS, "linf", 10, 50)
    made_on = {"made_on": "at", "made_on_network": "conv-2-4"}
    assert transfer.labels == labels_of(transfer) == {"attack": "pgd", "steps": 3} | made_on
    assert transfer.title == "PGD-3 made on at, conv-2-4"
    assert (ensemble.labels, ensemble.title) == ({"attack": "pgd", "rules": "four"}, "PGD, four rules")
    assert labels_of(None) == {"attack": labels.CLEAN}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([standard("pgd", 0.1), standard("pgd", 0.2)], "members of eps 0.1, 0.2; they must share one"),
        ([standard("pgd", 0.1), Transfer(standard("pgd", 0.2), AT)], "members of eps 0.1, 0.2; they must share one"),
        ([], "members of eps none; they must share one"),
        ([standard("pgd", 2.0), standard("sparse_flips", 2)], "members in linf, l0; they must share one norm"),
    ],
)
def test_members_that_do_not_share_a_radius_and_a_norm_are_refused(members, message):
    with pytest.raises(Refused, match=f"^The ensemble 'mixed' has {message}"):
        Ensemble("mixed", members)


LONG = {"steps": 5, "long_steps": 9, "queries": 20}
PROTOCOLS = {
    "ladder": protocols.ladder([4, 8], steps=5),
    "released": protocols.released([4, 8], [7, 10]),
    "widths": protocols.widths(8, [0.25, 0.5, 1, 2], steps=5),
    "rules at": protocols.rules_at(8, [0.25, 1, 2], steps=5),
    "rungs": protocols.rungs(8, **LONG),
    "on events": protocols.on_events([0.5, 1], [5, 20], steps=5, flip_steps=4),
    "random on events": sum(protocols.random_on_events([0.5, 1], [5, 20], [1, 2, 4], steps=5, flip_steps=4), []),
    "worst on events": protocols.worst_on_events(0.5, 20, flip_steps=4, **LONG),
    "black box": protocols.black_box(8, sources=[VANILLA, AT, WIDE], steps=5, queries=20),
    "checklist": protocols.checklist(8, [2, 16], source=VANILLA, **LONG).attacks,
    "expectations": protocols.expectations(8, [2, 5], steps=5),
    "what two notebooks attack with": [*protocols.ladder([8], steps=5), protocols.strongest(8, **LONG)],
    "full budget": protocols.of_budget("full", EPS, num_classes=3, has_rules=True),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_no_two_attacks_of_a_protocol_share_labels_or_a_title_at_one_radius(name):
    given = PROTOCOLS[name]
    radii = [(0, "") if one is None else (one.eps, one.norm) for one in given]
    for said in (
        [tuple(labels_of(one).items()) for one in given],
        [words.attack(labels_of(one)) for one in given],
    ):
        assert len(set(zip(said, radii, strict=True))) == len(given)
    attack_of = {}
    for one in given:  # members of ensembles, too, where they have the same labels, are the same attack
        for single in one.members if isinstance(one, Ensemble) else [one] if one else []:
            key = tuple(single.labels.items()), single.eps, single.norm
            assert attack_of.setdefault(key, single) == single


def test_the_rungs_climb_to_the_strongest_attack():
    noise, fgsm, pgd, apgd, last = PROTOCOLS["rungs"]
    assert last == protocols.strongest(8, **LONG) and {one.eps for one in PROTOCOLS["rungs"]} == {8 / 255}
    assert [one.title for one in PROTOCOLS["rungs"]] == [
        *("uniform noise", "FGSM", "PGD-5", "up to APGD", "worst of all")
    ]
    # each breaks what the one before it breaks: it has it as a member, or begins as it does
    assert [one.title for one in apgd.members] == ["PGD-5", "APGD-CE-9", "APGD-DLR-9"] and apgd.members[0] == pgd
    assert [one.title for one in last.members] == ["PGD-5", "APGD-Square-9-20"] and last.members[0] == pgd
    assert all(not one.rule for one in (*apgd.members, *last.members))
    images, labels = torch.rand(4, 1, 5, 5), torch.zeros(4, dtype=torch.long)
    start = replace(pgd, options=pgd.options | {"alpha": 0.0}).bind(seed=3)
    network = nn.Sequential(nn.Flatten(), nn.Linear(25, 3))
    noisy = noise.bind(seed=3)(network, images, labels, bounds=(0, 1))
    assert torch.equal(start(network, images, labels, bounds=(0, 1)), noisy)


def test_a_protocol_refuses_what_it_cannot_compare():
    for radii, steps, message in (([8], 9, "radii_255 is .*another radius"), ([2], 5, "long_steps is 5")):
        with pytest.raises(Refused, match=message):
            protocols.checklist(8, radii, source=VANILLA, **LONG | {"long_steps": steps})
    with pytest.raises(Refused, match="the smallest number of draws is 1"):
        protocols.expectations(8, [1, 5], steps=5)
    with pytest.raises(Refused, match="no budget 'huge'. Allowed: quick, standard, full."):
        protocols.of_budget("huge", EPS, num_classes=3, has_rules=True)


def test_a_larger_budget_adds_attacks_that_the_network_allows():
    def titles(budget, num_classes=3, has_rules=True):
        given = protocols.of_budget(budget, EPS, num_classes=num_classes, has_rules=has_rules)
        assert {one.eps for one in given} == {EPS}
        return [one.title for one in given]

    rules, wide = ["PGD-20 sigmoid 4", "PGD-20 atan 2", "PGD-20 rate"], ["triangle", "rectangle", "exponential"]
    assert titles("quick", 2, False) == titles("quick") == ["uniform noise", "FGSM", "PGD-20", "Square-200"]
    noise = ["uniform noise", "sign noise", "FGSM", "PGD-20"]
    assert titles("standard") == [*noise, *rules, "APGD-CE-100", "APGD-DLR-100", "Square-1000"]
    assert titles("standard", 2, False) == [*noise, "APGD-CE-100", "Square-1000"]
    assert titles("full") == [
        *(*noise, *rules, "APGD-CE-100", "APGD-DLR-100", "PGD-100"),
        *(f"PGD-20 {family} {gamma}" for family in wide for gamma in ("0.5", "2")),
        *("SA-PGD-100 assg", "PGD-20 pdsg", "APGD-Square-100-5000", "Square-5000"),
    ]


def test_expectation_pairs_compare_equal_costs():
    pairs = protocols.expectation_pairs(8, [2, 5], steps=5)
    assert [(one.title, other.title) for one, other in pairs] == [
        *(("PGD-5 EOT 2 overwritten", "PGD-5"), ("PGD-5 EOT 5 overwritten", "PGD-5")),
        *(("PGD-5 EOT 2", "PGD-5 EOT 2 overwritten"), ("PGD-5 EOT 5", "PGD-5 EOT 5 overwritten")),
    ]
    assert all(averaged.gradients == overwritten.gradients for averaged, overwritten in pairs[2:])
