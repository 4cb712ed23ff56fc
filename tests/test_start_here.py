"""The notebook start-here and the glossary: the code in its cells is the library's, its links lead somewhere."""

import re
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import nbformat
import pytest
import snntorch as snn
import torch
import torch.nn.functional as F
from torch import nn

from paperlib import attacks, paths
from paperlib.attacks.core import Ball
from paperlib.networks import rules
from paperlib.networks.neurons import LIF
from paperlib.profiles import parameters
from paperlib.training import regularizers

SOURCE = paths.NOTEBOOKS / "start-here.py"
GLOSSARY = paths.ROOT / "docs" / "glossary.md"
PARAMETERS = {"tau": 0.8, "gamma": 0.7, "steps": 3, "epochs": 1, "lam": 0.4, "h": 0.02}  # none is its default
BOUNDS = (0.0, 1.0)
TERMS = """LIF, IF at τ = 1, Hard reset, Surrogate gradient, Direct encoding, Poisson input, ε, l∞ ball, FGSM, PGD,
    APGD, Square, EOT, Gradient masking, Transfer attack, Adversarial training, SR, Finite difference, Participation
    number, l0, Certificate, Firing rate, Synaptic operations, Supported, Contradicted, Inconclusive, †"""
LINK = re.compile(r"(?<!!)\[[^\[\]]*\]\(([^()\s]+)\)")


def functions(**changes) -> SimpleNamespace:
    """The names that the cells tagged `function` define, with these values of the parameters."""
    names = {"torch": torch, "nn": nn, "F": F, "snn": snn} | PARAMETERS | changes
    names["digits"] = SimpleNamespace(mean=(0.13,), std=(0.31,))
    for tags, cell in parameters.cells(SOURCE.read_text(encoding="utf-8")):
        if "function" in tags:
            exec(compile(cell, str(SOURCE), "exec"), names)
    return SimpleNamespace(**names)


@pytest.fixture
def cells():
    return functions()


@pytest.fixture
def network(cells):
    """An untrained network of the notebook, whose neurons spike."""
    torch.manual_seed(0)
    return cells.Net().eval()


@pytest.fixture
def batch():
    """Twelve images with bright and black pixels, and labels."""
    torch.manual_seed(1)
    return (2 * torch.rand(12, 1, 28, 28) - 0.8).clamp(0, 1), torch.arange(12) % 10


def weight_gradients(network, loss):
    network.zero_grad()
    loss.backward()
    return [weight.grad.clone() for weight in network.parameters()]


# ---- the neuron --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_the_neuron_is_the_librarys_also_exactly_at_its_threshold(cells, tau):
    torch.manual_seed(2)
    currents = torch.randn(9, 40) + 0.3
    currents[:, 0] = 1.0  # reaches the threshold exactly, at every step
    membranes, spikes = cells.neuron(currents, tau)
    assert torch.equal(spikes, LIF(rules.triangle(), tau=tau)(currents))
    assert spikes[:, 0].all() and 0 < spikes[:, 1:].mean() < 1
    assert torch.equal(spikes, (membranes >= 1).float())


def test_the_layers_of_the_network_have_the_librarys_spikes_and_gradients(cells, network):
    torch.manual_seed(3)
    currents = (torch.randn(6, 5, 40) + 0.3).requires_grad_()
    membrane, spikes = network.leaky1.init_leaky(), []
    for current in currents:
        spike, membrane = network.leaky1(current, membrane)
        spikes.append(spike)
    stepped, ours = torch.stack(spikes), LIF(rules.triangle(cells.gamma), tau=cells.tau)(currents)
    assert torch.equal(stepped, ours) and 0 < stepped.mean() < 1
    weights = torch.randn_like(stepped)
    (expected,) = torch.autograd.grad((ours * weights).sum(), currents)
    (gradient,) = torch.autograd.grad((stepped * weights).sum(), currents)
    torch.testing.assert_close(gradient, expected)
    assert gradient.abs().max() > 0


def test_the_logits_are_the_mean_over_time_of_normalised_images(cells, network, batch):
    images, _ = batch
    spikes = network.spikes(images)
    assert spikes.shape == (cells.steps, 12, 784) and 0 < spikes.mean() < 1
    current = network.conv1((images - 0.13) / 0.31)
    first = LIF(rules.triangle(), tau=cells.tau)(current.expand(cells.steps, *current.shape))
    second = torch.stack([network.conv2(step) for step in first])
    second = LIF(rules.triangle(), tau=cells.tau)(second)
    torch.testing.assert_close(network(images), network.readout(second.flatten(2).mean(0)))


# ---- attacks and loss --------------------------------------------------------------------------------------------


def test_fgsm_is_the_librarys(cells, network, batch):
    expected = attacks.fgsm(network, *batch, eps=0.1, bounds=BOUNDS)
    torch.testing.assert_close(cells.fgsm(network, *batch, 0.1), expected)
    assert not torch.equal(expected, batch[0])


@pytest.mark.parametrize("eps, steps", [(0.1, 1), (0.1, 7), (0.5, 4), (0.0, 2)])
def test_pgd_is_the_librarys_from_the_same_start(cells, network, batch, eps, steps):
    start = Ball(batch[0], eps, BOUNDS).start(0, None)
    expected = attacks.pgd(network, *batch, eps=eps, steps=steps, bounds=BOUNDS, seed=0)
    torch.testing.assert_close(cells.pgd(network, *batch, eps, steps, start), expected)


def test_noise_fills_the_ball_and_stays_within_the_bounds(cells, batch):
    images = batch[0]
    torch.manual_seed(4)
    noisy = cells.noise(images, 0.2)
    assert noisy.min() >= 0 and noisy.max() <= 1
    inside = (images > 0.2) & (images < 0.8)
    moved = (noisy - images)[inside]
    assert moved.abs().max() <= 0.2 + 1e-6
    assert moved.std() == pytest.approx(0.2 / 3**0.5, rel=0.05)  # of a uniform distribution
    assert moved.mean() == pytest.approx(0, abs=0.01)


def test_the_loss_of_sr_is_the_librarys_with_its_gradients(cells, network, batch):
    images, labels = batch
    logits, penalty = regularizers.sr(network, images, labels, preset="paper", h=cells.h)
    expected = F.cross_entropy(logits, labels) + cells.lam * penalty
    loss = cells.sr_loss(network, images, labels)
    torch.testing.assert_close(loss, expected)
    assert penalty > 0
    for ours, theirs in zip(weight_gradients(network, loss), weight_gradients(network, expected), strict=True):
        torch.testing.assert_close(ours, theirs)


# ---- the text ----------------------------------------------------------------------------------------------------


def markdown_of_twin() -> str:
    """All Markdown that a reader of the twin sees, outputs included; not the badges, which `test_twins` checks."""
    texts = []
    for cell in nbformat.read(SOURCE.with_suffix(".ipynb"), as_version=4).cells:
        if cell.cell_type == "markdown" and "badges" not in cell.metadata.get("tags", []):
            texts.append(cell.source)
        texts += [
            output.data["text/markdown"]
            for output in cell.get("outputs", [])
            if "text/markdown" in output.get("data", {})
        ]
    return "\n\n".join(texts)


def anchor(heading: str) -> str:
    """The anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def problems(text: str, folder: Path) -> list[str]:
    """The links of a Markdown text in `folder` that lead nowhere."""
    found = []
    for link in LINK.findall(text):
        if link.startswith("https://"):
            continue
        path, _, place = unquote(link).partition("#")
        target = (folder / path).resolve() if path else None
        page = text if target is None else target.read_text(encoding="utf-8") if place and target.is_file() else ""
        if (target and not target.exists()) or (
            place and place not in map(anchor, re.findall(r"^#+ (.+)$", page, re.M))
        ):
            found.append(link)
    return found


def test_links_of_the_notebook_and_of_the_glossary_lead_somewhere():
    twin, glossary = markdown_of_twin(), GLOSSARY.read_text(encoding="utf-8")
    assert len(LINK.findall(twin)) > 20 and len(LINK.findall(glossary)) > 50
    assert problems(twin, paths.NOTEBOOKS) == []
    assert problems(glossary, GLOSSARY.parent) == []
    assert problems("[a](nope.md) [b](#lif) [c](glossary.md#nope)\n# LIF", GLOSSARY.parent) == [
        "nope.md",
        "glossary.md#nope",
    ]


def test_every_arxiv_link_names_its_own_number():
    for text in (markdown_of_twin(), GLOSSARY.read_text(encoding="utf-8")):
        numbers = re.findall(r"\[arXiv ([\d.]+)\]\(https://arxiv.org/abs/([\d.]+)\)", text)
        assert numbers and all(name == address for name, address in numbers)
        assert len(numbers) == text.count("arxiv.org/abs/")


def test_the_glossary_has_every_term_with_a_reference_and_a_place():
    entries = re.split(r"^### ", GLOSSARY.read_text(encoding="utf-8"), flags=re.M)[1:]
    entries = {entry.partition("\n")[0]: entry.partition("\n")[2] for entry in entries}
    terms = [" ".join(term.split()) for term in TERMS.split(",")]
    assert [term for term in terms if not any(name.startswith(term) for name in entries)] == []
    for name, text in entries.items():
        definition, reference, place = re.fullmatch(
            r"(.+?)\n\n\* Reference: (.+?)\n\* Used in: (.+?)\n(?:\n## .*)?\n*", text, flags=re.S
        ).groups()
        sentences = re.findall(r"[.)](?=\s|$)", definition)
        assert definition and reference and place and len(sentences) <= 4, name


def test_each_step_of_the_twin_ends_with_what_was_seen_and_where_to_read_on():
    steps = re.split(r"^## (?=\d+\. )", markdown_of_twin(), flags=re.M)[1:]
    assert [step[0] for step in steps[:9]] == list("123456789")
    for step in steps[:9]:
        seen = re.search(r"\*\*Seen:\*\* .*\d.* \*\*Deeper:\*\* \[", step)
        assert seen, step
