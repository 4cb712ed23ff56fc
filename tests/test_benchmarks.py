"""The benchmark's rivals against our networks; steps, products, fits, sweeps and page against what is known by hand."""

import importlib
import json
import re
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from conftest import scatter
from torch import nn

from paperlib import files, networks, paths
from paperlib.artifacts import claims as ledger
from paperlib.paths import ROOT
from paperlib.runs import plan
from paperlib.store import checkpoints
from paperlib.training import regularizers

sys.path.insert(0, str(ROOT / "benchmarks"))
bench, claims, rendering, rivals, steps, sweep = map(
    importlib.import_module, ("bench", "claims", "rendering", "rivals", "steps", "sweep")
)

jelly = pytest.mark.skipif(not find_spec("spikingjelly"), reason="SpikingJelly is not installed")
IMAGES = torch.rand(2, 2, 8, 8, dtype=torch.double, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 2])


def random_network(name, T=3):
    """A network of two channels in float64; random weights meet no threshold exactly."""
    torch.manual_seed(0)
    size = {"in_channels": 2, "image_size": 8, "num_classes": 3}
    network = networks.build(name, **size, T=T, tau=0.75, mean=(0.4, 0.5), std=(0.25, 0.2)).double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            scatter(module)
    return network


def logits_and_input_gradient(network):
    leaf = IMAGES.clone().requires_grad_()
    logits = network(leaf)
    return logits.detach(), torch.autograd.grad(F.cross_entropy(logits, LABELS), leaf)[0]


@pytest.mark.parametrize("name", ["conv-4-6", "vgg11"])
@pytest.mark.parametrize("rival", [rivals.Stepping, rivals.Folded, pytest.param(rivals.SpikingJelly, marks=jelly)])
def test_rivals_are_the_same_function_in_eval_mode_with_weights_of_their_own(name, rival):
    network = random_network(name).eval()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    theirs = rival(network).eval()
    ours = logits_and_input_gradient(network)
    assert ours[1].count_nonzero() > 0
    torch.testing.assert_close(logits_and_input_gradient(theirs), ours, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(theirs(IMAGES[:1]), network(IMAGES[:1]))  # nothing of the last batch is remembered
    theirs.train()(IMAGES)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(1)
    torch.testing.assert_close(network.state_dict(), weights, rtol=0, atol=0)


@pytest.mark.parametrize("rival", [rivals.Folded, pytest.param(rivals.SpikingJelly, marks=jelly)])
def test_folded_is_the_same_function_in_training_mode(rival):
    network = random_network("conv-4-6").train()
    folded = rival(network).train()
    for each in (network, folded):
        F.cross_entropy(each(IMAGES), LABELS).backward()
    for (name, ours), theirs in zip(network.named_parameters(), folded.parameters(), strict=True):
        torch.testing.assert_close(theirs.grad, ours.grad, rtol=1e-9, atol=1e-12, msg=name)
    assert any(parameter.grad.abs().max() > 1e-3 for parameter in network.parameters())
    norms = ([m for m in each.modules() if isinstance(m, nn.BatchNorm2d)] for each in (network, folded))
    for ours, theirs in zip(*norms, strict=True):
        torch.testing.assert_close(dict(theirs.named_buffers()), dict(ours.named_buffers()))


@pytest.mark.parametrize("variant", ["float32", "folded", "stepping"])
def test_a_step_of_a_variant_is_sgd_with_sr_written_out(variant):
    case = steps.Case("conv-2-4", T=2, batch=4)
    subject, reference = (steps.Subject(case, variant) for _ in range(2))
    optimiser = torch.optim.SGD(reference.network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    images, labels = reference.batch.images, reference.batch.labels
    for _ in range(2):
        subject.sr_step()
        optimiser.zero_grad()
        logits, penalty = regularizers.sr(reference.network.train(), images, labels, preset="released")
        (F.cross_entropy(logits, labels) + 0.01 * penalty).backward()
        optimiser.step()
        subject.pgd_step()  # moves no weight, and the next step trains again
    torch.testing.assert_close(subject.network.state_dict(), reference.network.state_dict())


def test_limit_knows_every_product():
    network = random_network("vgg11").eval()
    products = steps.Limit(network, IMAGES).products
    layers = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(products) == len(layers) == 11
    stem, *middle, head = products
    assert stem.first and stem.x.shape == (2, 2, 8, 8) and stem.grad.shape == (2, 64, 8, 8)
    assert head.x.shape == (2, 4096) and head.grad.shape == (2, 3)
    assert not any(p.first for p in [*middle, head])
    assert [(len(p.x), p.x[0].numel()) for p in middle] == [
        *((6, n) for n in (64 * 16, 128 * 16, 256 * 4, 512 * 4, 512 * 4, 512, 512)),
        *((6, n) for n in (512, 4096)),
    ]
    for product, layer in zip(products, layers, strict=True):
        assert product.layer.weight.shape == layer.weight.shape
        assert product.layer.weight is not layer.weight


def test_limit_runs_two_passes_forward_and_three_back(monkeypatch):
    limit = steps.Limit(random_network("conv-4-6").eval().float(), IMAGES.float())
    calls = []
    monkeypatch.setattr(steps.Product, "forward", lambda product: calls.append(("forward", product.first)))
    backward = lambda product, to_input, to_weight: calls.append((to_input, to_weight, product.first))  # noqa: E731
    monkeypatch.setattr(steps.Product, "backward", backward)
    limit.sr_step()
    forward = [("forward", True), ("forward", False), ("forward", False)]
    to_input = [(True, False, False), (True, False, False), (True, False, True)]
    to_both = [(True, True, False), (True, True, False), (False, True, True)]
    assert calls == forward + to_input + forward + to_both * 2


def test_products_are_those_of_autograd():
    for product in steps.Limit(random_network("conv-4-6").eval().float(), IMAGES.float()).products:
        x = product.x.clone().requires_grad_()
        product.layer(x).backward(product.grad)
        gradients = product.backward(to_input=True, to_weight=True)
        torch.testing.assert_close(gradients, (x.grad, product.layer.weight.grad))


def test_exponent_of_a_power_law():
    x = [1, 2, 4, 8, 16]
    assert bench.exponent(x, [3 * v**1.2 for v in x]) == pytest.approx(1.2)


def test_ratios_are_taken_within_a_repetition():
    # the machine was twice as slow in the second repetition; ours took half of stepping's time in each
    seconds = {"stepping": [2.0, 4.0, 2.0], "float32": [1.0, 2.0, 0.5]}
    assert bench.ratio(seconds, "stepping", "float32") == {"median": 2.0, "min": 2.0, "max": 4.0}


def made_up(bfloat16=True):
    """Results of a benchmark that never ran, with round numbers."""
    variants = ["stepping", "folded", "SpikingJelly", "float32", *(["bfloat16"] if bfloat16 else [])]
    base = {"stepping": 8.0, "folded": 6.0, "SpikingJelly": 5.0, "float32": 4.0, "bfloat16": 2.0, "limit": 3.0}
    machine = {"processor": "Abacus 9", "cores": 2, "bfloat16": bfloat16, "torch": "9.9", "malloc": {}}
    machine["arithmetic"] = "native"
    memory = [
        {"network": n, "allocator": allocator, "mb": {v: 100 * base[v] for v in variants}, "parameters_mb": 20.0}
        for n in steps.CASES
        for allocator in bench.ALLOCATORS
    ]
    times = [
        bench.summary(network, operation, threads, {v: [base[v] / threads] * 3 for v in timed})
        for network in steps.CASES
        for threads in (1, 2)
        for operation, timed in ((rendering.SR, [*variants, "limit"]), (rendering.PGD, variants))
    ]
    points = [{"T": 1, "batch": 8, "seconds": 1.0, "mb": 10.0}, {"T": 2, "batch": 16, "seconds": 2, "mb": 40.0}]
    growth = [bench.growth_summary(network, axis, points) for network in steps.CASES for axis in ("T", "batch")]
    laptop = dict(zip(rendering.LAPTOP, (0.03, 0.005, 0.0125), strict=True))
    return {"machine": machine, "times": times, "laptop": laptop, "memory": memory, "growth": growth}


def row(page: str, start: str) -> list[str]:
    """The cells of the one line that starts with these cells, after them."""
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.removeprefix(f"| {start} |").rstrip("|").split("|")]


def test_page_of_made_up_results():
    page = rendering.page(made_up())
    assert row(page, "SR step: stepping / ours, float32") == ["≥ 1.7", *["**2.00** (2.00 to 2.00)"] * 4]
    assert row(page, "SR step: folded / ours, bfloat16")[1] == "**3.00** (3.00 to 3.00)"
    limit = row(page, "SR step: bare products / ours, float32")
    assert limit[1:] == ["**0.75** (0.75 to 0.75)"] * 2 + ["0.75 (0.75 to 0.75)"] * 2  # the aim of VGG-11 is 0.85
    assert row(page, "PGD step: stepping / ours, bfloat16")[0] == ""
    assert row(page, "VGG-11 | SR training step | 2") == ["4 s", "3 s", "2.5 s", "2 s", "1 s", "1.5 s"]
    assert [row(page, name) for name in rendering.LAPTOP] == [["30 ms"], ["5 ms"], ["12.5 ms"]]
    shares = ["**25 %**", "67 %"]  # bfloat16 of stepping, float32 of folded
    assert row(page, "small | make's | whole") == ["800", "600", "500", "400", "200", *shares]
    assert row(page, "small | make's | its own") == ["780", "580", "480", "380", "180", "23 %", "66 %"]
    assert row(page, "small | T, from 1 to 2") == ["**1.00**", "2.00"]


def test_the_laptops_steps_run_with_portable_arithmetic():
    seconds = bench.laptop(repetitions=1)
    assert list(seconds) == list(rendering.LAPTOP) and all(value > 0 for value in seconds.values())


def test_page_without_fast_bfloat16_says_so():
    page = rendering.page(made_up(bfloat16=False))
    assert "no bfloat16 arithmetic" in page and "ours, bfloat16" not in page


def test_readme_takes_the_page_between_its_marks(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n", encoding="utf-8")
    for _ in range(2):
        rendering.into_page("| new |", readme, "results")
        rendering.into_page("none", readme, "elsewhere")
        assert readme.read_text(encoding="utf-8") == "before\n<!-- results -->\n| new |\n<!-- /results -->\nafter\n"


def test_figure_of_made_up_results(tmp_path):
    rendering.save_figure(made_up(), tmp_path / "results.png")
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


# ---- sweeps ------------------------------------------------------------------------------------------------------


class Here:
    """An executor that runs its jobs in this process."""

    def run(self, function, jobs, *, titles, prepare):
        prepare()
        for arguments in jobs.values():
            function(*arguments)


def test_a_sweep_keeps_every_experiment_under_its_key_in_a_store_of_its_own(house):
    house.asking()
    (experiment,) = house.profile().experiments("vanilla", seeds=[0])
    before = paths.ROOT, paths.CHECKPOINTS
    with sweep.own_store() as root:
        seconds = sweep.sweep(Here(), experiment, 5, root)
        folders = {file.parent.name for file in root.glob("checkpoints/*/checkpoint.json")}
        assert folders == {replace(experiment, seed=seed).key for seed in range(5)} and seconds["done"] == 5
        with pytest.raises(RuntimeError, match="^1 of 6 experiments were done"):
            sweep.sweep(Here(), experiment, 6, root)
    assert before == (paths.ROOT, paths.CHECKPOINTS) and not root.exists()


def test_the_share_of_a_training_by_hand():
    sweeps = [
        {"executor": "local", "count": 10, "start": 9.0, "rest": 6.0, "done": 6},
        {"executor": "local", "count": 1000, "start": 9.0, "rest": 5.0, "done": 1000},
    ]
    record = {"workers": 2, "training": {"seconds": [20.0, 10.0]}, "sweeps": sweeps}
    # two workers spend 12 s on 6 experiments, which is 0.2 of the faster training each; and 10 s on 1,000
    assert sweep.shares(record) == {"local": {10: pytest.approx(0.2), 1000: pytest.approx(0.001)}}
    sweeps[1]["rest"] = 60.0
    title = "One of 1,000 experiments costs 1.2% (local) of a training"
    assert sweep.draw(record).axes[0].get_title() == title
    sweeps[1]["rest"] = 5.0
    lines = sweep.table(record | {"machine": {"processor": "Any", "cores": 2}}).splitlines()
    assert "the fastest took 10.00 s, the median 15.00 s, the slowest 20.00 s." in lines[0]
    assert lines[-1] == "| processes of this machine | 1,000 | 1,000 | 10.0 ms | 0.10 % | 0.07 % |"


# ---- what a claim costs ----------------------------------------------------------------------------------------------

ASKED = """
longer = attacks.standard("pgd", 0.1, steps=6)
first = run.ask(run.profile.experiments("sr", seeds=[0]), [pgd, Ensemble("worst", [pgd, longer])], samples=6)
again = run.ask(run.profile.experiments("sr", seeds=[0]), [pgd], samples=6)
more = run.ask(run.profile.experiments("vanilla", seeds=[0]))
"""


def test_the_cost_of_a_claim_is_the_sum_of_what_its_runs_have_recorded(house):
    house.asking(ASKED)
    requests = plan.requests(house.profile(), "tab-0")
    sr, vanilla = claims.rests_on(requests)
    assert (sr.defense, vanilla.defense) == ("sr", "vanilla")
    assert claims.training_seconds(sr) is None
    assert len(claims.attack_seconds(requests)) == 3 and set(claims.attack_seconds(requests).values()) == {None}
    assert claims.minutes(claims.attack_seconds(requests).values()) == "–"
    for request in requests:
        request.evaluated() if request.samples else list(checkpoints.opened(request.networks))
    total = 0
    for seconds, path in enumerate(sorted((sr.folder / "evaluations").glob("*.json")), 60):
        content = json.loads(path.read_text()) | {"seconds": seconds}
        del content["sha256"]
        path.write_text(json.dumps(content | {"sha256": files.sha256(json.dumps(content, sort_keys=True).encode())}))
        total += seconds
    for seconds, experiment in ((1, sr), (10, vanilla)):
        rows = [json.dumps({"epoch": epoch, "seconds": seconds}) for epoch in (1, 2, 3)]
        (experiment.folder / "history.jsonl").write_text("\n".join(rows) + "\n")
    assert sum(claims.attack_seconds(requests).values()) == total >= 60 + 61
    assert claims.minutes([60, 61, 62]) == "3.0"  # 183 s are 3.05 minutes
    assert [claims.training_seconds(experiment) for experiment in (sr, vanilla)] == [3, 30]
    size = sum(file.stat().st_size for file in sr.folder.rglob("*") if file.is_file())
    assert claims.megabytes([sr.folder, sr.folder, paths.ROOT / "nowhere"]) == f"{size / 1e6:.1f}"


def test_every_claim_of_the_ledger_stands_under_its_artifact():
    lines = [
        line for artifact in dict.fromkeys(one.artifact for one in ledger.LEDGER) for line in claims.named(artifact)
    ]
    assert lines[0] == "C1: uniform noise; random signs" and lines[1] == "C2: the statement; the networks"
    assert lines[-1].startswith("C5: It is the sparsity of the gradient") and len(lines) == 7


def test_the_table_of_costs_in_artifact_md_has_the_columns_that_are_written():
    part = re.search(claims.PART, claims.PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    assert part.startswith(f"| {' | '.join(claims.HEAD)} |\n")
    assert all(f"`make {one.artifact}`" in part for one in ledger.LEDGER)
