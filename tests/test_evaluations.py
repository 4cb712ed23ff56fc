"""Ensembles and what is kept of them: the exhaustive run as oracle, nothing attacked twice, AutoAttack beside it."""

import itertools
import json
import shutil
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchattacks
from conftest import stripes

from paperlib import attacks, networks, paths
from paperlib.attacks import evaluation, protocols
from paperlib.attacks.attack import Attack, standard
from paperlib.attacks.ensembles import Ensemble, Transfer
from paperlib.data import images
from paperlib.errors import Refused
from paperlib.measures import statistics
from paperlib.store import checkpoints, evaluations
from paperlib.store.evaluations import size
from paperlib.store.experiment import Experiment
from paperlib.theory.gradients import in_batches
from paperlib.training.loop import Schedule

SCHEDULE = Schedule(epochs=12, batch_size=10, lr=0.1, momentum=0.9, weight_decay=5e-4)  # as conftest trains `network`
MAIN = Experiment({"name": "tiny"}, "conv-2-4", 4, 1.0, "triangle", "float32", "vanilla", {}, SCHEDULE, 0)
SOURCE = replace(MAIN, seed=1, schedule=replace(SCHEDULE, epochs=6))
DRAWING = replace(MAIN, network="poisson-conv-2-4", T=8, schedule=replace(SCHEDULE, epochs=6))
SAMPLES = 240
EPS = 0.06


@pytest.fixture(scope="module")
def larger(tiny):
    """`tiny` with more to be tested on."""
    return replace(tiny, test=stripes(SAMPLES, 120))


@pytest.fixture(scope="module")
def checkpoints(larger, tmp_path_factory):
    """A folder in which the three networks are trained."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "load", lambda **_: larger)
        patch.setattr(paths, "CHECKPOINTS", folder)
        for experiment in (MAIN, SOURCE, DRAWING):
            checkpoints.trained(experiment, device="cpu", progress=False)
    return folder


@pytest.fixture
def store(checkpoints, larger, tmp_path, monkeypatch):
    """A copy of it for one test, so far without evaluations."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(checkpoints, folder)
    monkeypatch.setattr(images, "load", lambda **_: larger)
    monkeypatch.setattr(paths, "CHECKPOINTS", folder)
    return folder


@pytest.fixture
def passes(monkeypatch):
    """One entry for each forward pass of any network."""
    calls, real = [], networks.Network.forward
    monkeypatch.setattr(networks.Network, "forward", lambda self, x: calls.append(len(x)) or real(self, x))
    return calls


@pytest.fixture
def asked(monkeypatch):
    """(attack, whether it was transferred, which samples were wanted) for each time that something was attacked."""
    calls, real = [], evaluation.attacked

    def attacked(network, samples, attack, wanted, *, source=None, **how):
        calls.append((attack, source is not None, wanted.numpy().copy()))
        return real(network, samples, attack, wanted, source=source, **how)

    monkeypatch.setattr(evaluation, "attacked", attacked)
    return calls


def evaluated(attack, experiment=MAIN, samples=120):
    (found,) = evaluations.evaluated([experiment], [attack], samples=samples, device="cpu", progress=False)
    return found


def is_evaluated(attack, experiment=MAIN, samples=120):
    return evaluations.is_evaluated(experiment, attack, samples=samples, split="test")


def forget(store):
    for folder in store.glob("*/evaluations"):
        shutil.rmtree(folder)


def files(store, experiment=MAIN):
    return sorted((store / experiment.key / "evaluations").glob("*.json"))


def pgd(eps=EPS, steps=4, rule=None, **options):
    one = attacks.standard("pgd", eps, steps=steps, rule=rule)
    return replace(one, options=one.options | options)


def of_all_kinds(eps=EPS):
    return [
        attacks.standard("uniform", eps),
        attacks.standard("fgsm", eps),
        pgd(eps),
        pgd(eps, rule={"name": "atan", "gamma": 2.0}),
        attacks.standard("sa_pgd", eps, steps=4, rule={"name": "assg"}),
        pgd(eps, rule={"name": "pdsg"}),
        Attack("apgd", eps, {"steps": 5, "loss": "dlr"}),
        attacks.standard("square", eps, queries=8),
        Transfer(Attack("pgd", eps, {"alpha": eps / 2, "steps": 4}), SOURCE),
        Transfer(Attack("pgd", eps, {"alpha": eps / 2, "steps": 4}, {"name": "assg"}), SOURCE),
    ]


def alone(network, data, member, source=None, samples=120):
    """The flags that one member leaves of everything, with nothing kept and nobody left out."""
    how = {"bounds": data.bounds, "num_classes": data.num_classes, "batch_size": evaluation.batch_size(samples)}
    split, everyone = data.test.take(samples), torch.ones(samples, dtype=torch.bool)
    attack = member.attack if isinstance(member, Transfer) else member
    flags = everyone.clone()
    made_on = source if isinstance(member, Transfer) else None
    for outcome in evaluation.attacked(network, split, attack, everyone, source=made_on, **how):
        flags[outcome.rows] = outcome.flags
    return flags


def trained(experiment):
    return checkpoints.trained(experiment, device="cpu", progress=False)


@pytest.fixture
def exhaustive(store, larger):
    """What every member of `of_all_kinds` leaves alone, [(120,) bool], and the clean flags."""
    network, source = trained(MAIN), trained(SOURCE)
    clean = evaluation.flags(network, larger.test.take(120), bounds=larger.bounds, num_classes=3)
    return clean.numpy(), [alone(network, larger, member, source).numpy() for member in of_all_kinds()]


# The worst of several ----------------------------------------------------------------------------------------------


def orders():
    members = list(range(len(of_all_kinds())))
    shuffled = [np.random.default_rng(seed).permutation(members).tolist() for seed in range(3)]
    return [members, members[::-1], *shuffled]


def test_an_ensemble_leaves_what_every_member_leaves_in_any_order(store, exhaustive, asked):
    clean, flags = exhaustive
    worst = clean & np.logical_and.reduce(flags)
    assert 0 < worst.sum() < min((clean & one).sum() for one in flags)  # no member alone is the worst case
    for order in orders():
        forget(store)
        members = of_all_kinds()
        found = evaluated(Ensemble("worst", [members[i] for i in order]))
        assert found.flags.tolist() == worst.tolist()
    for order in orders():  # and with everything known that those before it left behind
        members = of_all_kinds()
        assert evaluated(Ensemble("worst", [members[i] for i in order])).flags.tolist() == worst.tolist()


def test_each_part_of_an_ensemble_is_the_worst_case_so_far(store, exhaustive):
    clean, flags = exhaustive
    members = of_all_kinds()
    for count in range(1, len(members) + 1):
        found = evaluated(Ensemble("so far", members[:count]))
        assert found.flags.tolist() == (clean & np.logical_and.reduce(flags[:count])).tolist()


def test_a_network_that_draws_is_judged_by_the_draws_under_attack_alone(store, larger):
    members = [attacks.standard("uniform", 0.02), pgd(0.02), pgd(0.02, eot=2)]
    network = trained(DRAWING)
    flags = [alone(network, larger, member).numpy() for member in members]
    found = evaluated(Ensemble("worst", members), DRAWING)
    assert found.flags.tolist() == np.logical_and.reduce(flags).tolist()
    clean = evaluated(None, DRAWING).flags
    assert (found.flags & ~clean).any()  # wrong on clean images by chance, and yet right each time under attack
    assert 0 < found.flags.sum() < 120


def test_members_of_several_radii_and_no_members_are_refused():
    with pytest.raises(Refused, match="'mixed' has members of eps 0.1, 0.2; they must share one"):
        Ensemble("mixed", [pgd(0.1), pgd(0.2)])
    with pytest.raises(Refused, match="'mixed' has members of eps 0.1, 0.2; they must share one"):
        Ensemble("mixed", [pgd(0.1), Transfer(pgd(0.2), SOURCE)])
    with pytest.raises(Refused, match="'empty' has members of eps none; they must share one"):
        Ensemble("empty", [])
    with pytest.raises(Refused, match="'both' has members in linf, l0; they must share one norm"):
        Ensemble("both", [pgd(2.0), standard("sparse_flips", 2)])


def test_a_radius_is_kept_under_the_name_of_its_unit():
    of_images, of_events = (SimpleNamespace(is_of_events=events) for events in (False, True))
    flips, within = standard("sparse_flips", 20), pgd(0.2)
    assert [size(of, None) for of in (of_images, of_events)] == [{"eps_255": 0.0}, {"eps_counts": 0.0}]
    assert [size(of, within) for of in (of_images, of_events)] == [{"eps_255": 51.0}, {"eps_counts": 0.2}]
    for attack in (flips, Transfer(flips, SOURCE), Ensemble("one", [flips])):
        assert size(of_events, attack) == {"flips": 20}


def test_an_ensemble_says_its_radius_and_what_it_may_cost():
    members = [pgd(0.1, steps=7), Transfer(pgd(0.1, steps=3), SOURCE), attacks.standard("square", 0.1, queries=50)]
    ensemble = Ensemble("all", members)
    assert (ensemble.eps, ensemble.gradients, ensemble.queries) == (0.1, 10, 50)
    assert members[1].title == "PGD-3 made on vanilla, conv-2-4"


# Nothing twice -----------------------------------------------------------------------------------------------------


def test_a_member_is_shown_what_the_earlier_ones_left(store, exhaustive, asked):
    clean, flags = exhaustive
    asked.clear()
    members = of_all_kinds()
    evaluated(Ensemble("worst", members))
    left = clean
    for (attack, transferred, wanted), member, own in zip(asked, members, flags, strict=True):
        assert attack == (member.attack if isinstance(member, Transfer) else member)
        assert transferred == isinstance(member, Transfer)
        assert wanted.tolist() == left.tolist()
        left = left & own


def test_what_is_known_from_elsewhere_is_not_attacked_again(store, asked):
    members = [pgd(), attacks.standard("fgsm", EPS), pgd(rule={"name": "rate"})]
    for member in members[::-1]:
        evaluated(member)
    asked.clear()
    whole = evaluated(Ensemble("worst", members))
    evaluated(Ensemble("other", members[1:]))
    assert not asked
    assert whole.flags.sum() < evaluated(members[0]).flags.sum() + 1


def test_a_member_known_of_survivors_is_completed_where_it_is_missing_and_no_more(store, exhaustive, asked):
    clean, flags = exhaustive
    weak, strong = of_all_kinds()[1], of_all_kinds()[2]
    asked.clear()
    evaluated(Ensemble("first", [weak, strong]))
    assert [wanted.tolist() for *_, wanted in asked] == [clean.tolist(), (clean & flags[1]).tolist()]
    asked.clear()
    found = evaluated(strong)
    ((attack, _, wanted),) = asked
    assert attack == strong and wanted.tolist() == (clean & ~flags[1]).tolist()
    assert found.flags.tolist() == (clean & flags[2]).tolist()
    asked.clear()
    evaluated(Ensemble("second", [strong, weak]))  # FGSM is known of all
    assert not asked


@pytest.mark.parametrize("experiment", [MAIN, DRAWING], ids=["direct", "poisson"])
def test_flags_and_passes_do_not_depend_on_what_was_known_before(store, experiment):
    a, b, c = pgd(), attacks.standard("fgsm", EPS), pgd(rule={"name": "assg"})
    d = attacks.standard("overwritten_eot", EPS, steps=2)
    asked_for = [Ensemble("one", [a, b, c, d]), Ensemble("two", [d, c, b]), Ensemble("three", [b, a]), a, b, c, d]
    told = []
    for order in itertools.islice(itertools.permutations(range(len(asked_for))), 0, 5040, 720):
        forget(store)
        found = {i: evaluated(asked_for[i], experiment) for i in order}
        again = {i: evaluated(asked_for[i], experiment) for i in order}  # from the files
        for one in (found, again):
            told.append([(e.flags.tolist(), e.passes.tolist(), e.vanished, e.strayed) for _, e in sorted(one.items())])
    assert all(one == told[0] for one in told)


def test_passes_are_those_that_the_samples_still_standing_cost(store, larger):
    network, split = trained(MAIN), larger.test.take(120)
    how = {"bounds": larger.bounds, "num_classes": 3}
    standing = evaluation.flags(network, split, **how)
    expected, members = (
        np.zeros(120),
        [attacks.standard("fgsm", EPS), pgd(), attacks.standard("square", EPS, queries=9)],
    )
    for member in members:
        for outcome in evaluation.attacked(network, split, member, torch.ones(120, dtype=torch.bool), **how):
            cost, flags = (outcome.forward + outcome.backward).numpy(), outcome.flags
        expected += cost * standing.numpy()
        standing = standing & flags
    found = evaluated(Ensemble("worst", members))
    assert found.passes.tolist() == expected.tolist()
    assert len(set(expected)) > 5


@pytest.mark.parametrize("eps", [0.03, 0.06, 0.1, 0.2])
@pytest.mark.parametrize("kind", ["four rules", "rungs"])
def test_the_work_shrinks_with_what_is_left(store, kind, eps):
    steps = 20
    if kind == "four rules":
        fgsm = attacks.standard("fgsm", eps)  # first, as in every protocol: what breaks at once costs next to nothing
        members = [fgsm, *(pgd(eps, steps=steps, rule=rule) for rule in protocols.FOUR_RULES)]
    else:
        rungs = protocols.rungs(255 * eps, steps=steps, gammas=[0.5, 1, 2], long_steps=steps, queries=20, source=SOURCE)
        members = [one for one in rungs[-1].members if isinstance(one, Attack) and one.name == "pgd"]
        members = [one for one in members if one.rule.get("name") != "pdsg"]  # all of one length, none coupled
    found = evaluated(Ensemble("worst", members), samples=SAMPLES)
    exhaustive = SAMPLES * sum(2 * one.gradients + 1 for one in members)  # no sample ever stops; and one last look
    one = replace(members[-1], options={k: v for k, v in members[-1].options.items() if k != "until_broken"})
    network, data = trained(MAIN), MAIN.load_data()
    wanted = torch.ones(SAMPLES, dtype=torch.bool)
    outcome = evaluation.attacked(network, data.test, one, wanted, bounds=data.bounds, num_classes=3)
    assert sum(float((o.forward + o.backward).sum()) for o in outcome) == SAMPLES * (2 * steps + 1)
    share, accuracy = found.passes.sum() / exhaustive, found.flags.mean()
    assert share <= (0.2 if accuracy <= 0.05 else accuracy + 0.1), (share, accuracy)


# What is kept ------------------------------------------------------------------------------------------------------


def content(file):
    return json.loads(file.read_text())


DAMAGE = {
    "cut": lambda text: text[:60],
    "empty": lambda text: "",
    "a list": lambda text: "[]",
    "a number": lambda text: "3",
    "null": lambda text: "null",
    "another dict": lambda text: '{"accuracy": 0.5}',
    "too few flags": lambda text: json.dumps(json.loads(text) | {"flags": "01"}),
    "foreign flags": lambda text: json.dumps(json.loads(text) | {"flags": "x" * 120}),
    "too few counts": lambda text: json.dumps(json.loads(text) | {"forward": [1.0]}),
    "no counts": lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "backward"}),
    "counts that are none": lambda text: json.dumps(json.loads(text) | {"vanished": ["a"] * 120}),
    "no weights": lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "weights_sha256"}),
    "of another attack": lambda text: text.replace('"steps": 4', '"steps": 5'),
    "other weights": lambda text: json.dumps(json.loads(text) | {"weights_sha256": ["0" * 64]}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_foreign_file_is_written_anew(store, asked, damage):
    expected = evaluated(pgd())
    (file,) = [file for file in files(store) if content(file)["attack"]]
    good = file.read_text()
    file.write_text(DAMAGE[damage](good))
    asked.clear()
    assert not is_evaluated(pgd())
    found = evaluated(pgd())
    assert len(asked) == 1
    assert found.flags.tolist() == expected.flags.tolist() and found.passes.tolist() == expected.passes.tolist()
    anew, before = content(file), json.loads(good)
    assert {name: anew[name] for name in anew if name != "seconds"} == {n: before[n] for n in before if n != "seconds"}
    assert is_evaluated(pgd())


def negate(experiment):
    """Other weights, with a checksum that is right."""
    network = trained(experiment)
    with torch.no_grad():
        network.head.weight.neg_()
    described = checkpoints.description(experiment)
    checkpoints._keep(experiment, network, data_sha256=described["data_sha256"])


def test_other_weights_of_the_source_make_a_transfer_anew(store, asked):
    member = Transfer(Attack("pgd", 0.1, {"alpha": 0.05, "steps": 4}), SOURCE)
    before, own = evaluated(member), evaluated(pgd())
    assert is_evaluated(member)
    negate(SOURCE)
    assert not is_evaluated(member) and is_evaluated(pgd())
    asked.clear()
    after = evaluated(member)
    evaluated(pgd())
    assert [(attack, transferred) for attack, transferred, _ in asked] == [(member.attack, True)]
    assert after.flags.tolist() != before.flags.tolist() and is_evaluated(member)
    assert own.flags.tolist() == evaluated(pgd()).flags.tolist()


def test_other_weights_of_the_network_make_all_anew(store, asked):
    member = Transfer(Attack("pgd", 0.1, {"alpha": 0.05, "steps": 4}), SOURCE)
    for attack in (member, pgd(0.1)):
        evaluated(attack)
    negate(MAIN)
    assert not any(is_evaluated(attack) for attack in (None, member, pgd(0.1)))


def test_a_transfer_is_kept_apart_from_its_attack_and_from_those_of_other_sources(store):
    attack = Attack("pgd", 0.1, {"alpha": 0.05, "steps": 4})
    given = [attack, Transfer(attack, SOURCE), Transfer(attack, DRAWING), Transfer(attack, MAIN)]
    found = [evaluated(one) for one in given]
    assert len(files(store)) == 5
    assert found[3].flags.tolist() == found[0].flags.tolist()  # made on itself it is the white-box attack
    assert found[1].flags.sum() > found[0].flags.sum()


def test_a_file_says_which_attack_it_is_of(store):
    one = pgd(rule={"name": "triangle", "gamma": 0.5})
    evaluated(one)
    (kept,) = [content(file) for file in files(store) if content(file)["attack"]]
    assert Attack(**kept["attack"]) == one and kept["attack"] == asdict(one)
    assert (kept["samples"], kept["split"], len(kept["flags"])) == (120, "test", 120)
    assert set(kept["flags"]) == {"0", "1", "?"}  # the last of those that were wrong from the start


# Whether all is there ----------------------------------------------------------------------------------------------


def test_is_evaluated_says_whether_anything_would_be_computed(store, passes):
    members = of_all_kinds()
    steps = [
        None,
        members[2],
        Ensemble("some", members[1:4]),
        members[3],
        Ensemble("others", [members[3], members[2]]),
        members[8],
        Ensemble("all", members),
        Ensemble("back", members[::-1]),
        *members,
    ]
    said = set()
    for one in steps:
        passes.clear()
        expected = is_evaluated(one)
        assert not passes  # asking computes nothing
        evaluated(one)
        assert expected == (not passes)
        said.add(expected)
        assert is_evaluated(one)
    assert said == {True, False}


def test_nothing_is_evaluated_before_it_is_trained(store, passes):
    member = Transfer(Attack("pgd", 0.1, {"alpha": 0.05, "steps": 2}), SOURCE)
    ensemble = Ensemble("both", [pgd(0.1), member])
    evaluated(ensemble)
    for experiment in (MAIN, SOURCE):
        shutil.move(store / experiment.key / "checkpoint.json", store / "aside.json")
        assert is_evaluated(ensemble) is is_evaluated(member) is False
        assert is_evaluated(pgd(0.1)) is (experiment is SOURCE)
        shutil.move(store / "aside.json", store / experiment.key / "checkpoint.json")
    assert is_evaluated(ensemble)
    shutil.rmtree(store)
    assert not any(is_evaluated(attack) for attack in (None, pgd(0.1), member, ensemble))


def test_an_interrupted_ensemble_goes_on_where_it_was(store, exhaustive, asked, monkeypatch):
    ensemble = Ensemble("worst", of_all_kinds())
    expected = evaluated(ensemble)
    clean, _ = exhaustive
    for stop in (2, 5, 9):
        forget(store)
        monkeypatch.setattr(evaluation, "CHUNK", 30)
        left = itertools.count()
        real = evaluation.attacked

        def interrupted(network, samples, attack, *args, left=left, stop=stop, real=real, **how):
            for outcome in real(network, samples, attack, *args, **how):
                yield outcome
                if next(left) == 2 * stop:
                    raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(evaluation, "attacked", interrupted)
            with pytest.raises(KeyboardInterrupt):
                evaluated(ensemble)
        assert not is_evaluated(ensemble)
        before = len(asked)
        found = evaluated(ensemble)
        assert 0 < len(asked) - before < len(ensemble.members)
        assert found.flags.tolist() == expected.flags.tolist() and found.passes.tolist() == expected.passes.tolist()


# AutoAttack as the oracle ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps_255", [6, 12])
def test_the_worst_case_leaves_no_more_than_autoattack_does(store, eps_255):
    rungs = protocols.rungs(eps_255, steps=10, gammas=[0.5, 1.0, 2.0], long_steps=20, queries=100, source=SOURCE)
    ours = evaluated(rungs[-1])
    network, data = trained(MAIN), MAIN.load_data()
    x, y = data.test.take(120).pixels(), data.test.take(120).labels
    # AutoAttack's four, but for APGD's targeted loss, which needs a fourth class
    eps = eps_255 / 255
    four = [
        torchattacks.APGD(network, eps=eps, steps=50, loss="ce"),
        torchattacks.APGD(network, eps=eps, steps=50, loss="dlr"),
        torchattacks.FAB(network, eps=eps, steps=50, n_classes=3),
        torchattacks.Square(network, eps=eps, n_queries=1000),
    ]
    theirs = torchattacks.MultiAttack(four)(x, y)
    assert (theirs - x).abs().max() <= eps + 1e-6
    stand = (in_batches(network, theirs, None).argmax(1) == y).numpy()
    assert 0 < ours.flags.sum() < 120
    difference = statistics.paired_difference(ours.flags, stand)
    assert difference.low <= 0, (ours.flags.mean(), stand.mean())
