"""What a record says in words: headlines, captions, and the box that ends a notebook on theory.

An artifact may have several figures and tables, its parts: "thm-ratio" is the first, "thm-ratio/scale" another.
"""

from collections.abc import Callable, Iterable

from paperlib.claims import LEDGER, judged
from paperlib.findings import (
    ablation,
    accuracy,
    chance,
    checklist,
    cost,
    evaluation,
    events,
    landscape,
    quotient,
    ratio,
    settings,
    variants,
    width,
)
from paperlib.findings.core import Line


def key(artifact: str, part: str = "") -> str:
    """The name of a part: "thm-ratio/scale"; the first part has that of its artifact."""
    return f"{artifact}/{part}" if part else artifact


def parts(artifact: str) -> list[str]:
    """The parts of an artifact, in reading order, "" first."""
    return [name.partition("/")[2] for name in HEADLINES if name.partition("/")[0] == artifact]


def headline(record: dict, part: str = "") -> str:
    """What a figure's title says: the finding with its numbers."""
    return HEADLINES[key(record["artifact"], part)](record)


def caption(record: dict, part: str = "") -> str:
    """Data, sample sizes, seeds, what the interval is, profile."""
    provenance = record["provenance"]
    seeds = len({seed for row in record["rows"] for seed in row["seeds"]})
    images = IMAGES.get(key(record["artifact"], part), "{data}, {samples} test images, {seeds}")
    told = {"seeds": seeds} | provenance["parameters"] | {"data": provenance["data"]["title"]}
    seeds = min(seeds, told["seeds"]) if isinstance(told["seeds"], int) else seeds  # a profile may have fewer
    told["seeds"] = f"{seeds} seed{'s' * (seeds != 1)}"
    return f"{images.format(**told)}, 95 % intervals, profile {provenance['profile']}"


def finding(record: dict) -> str:
    """Markdown: the finding in a sentence, what was run, the verdicts it decides, what holds and what does not."""
    lines = []
    for claim in LEDGER:
        if claim.artifact == record["artifact"]:
            _, verdict, reason = judged(claim, record)
            lines.append(f"* {claim.id}: {claim.statement} **{verdict.capitalize()}.** {reason}")
    blocks = [f"**{headline(record)}** ({caption(record)})", "\n".join(lines), box(record)]
    return "\n\n".join(block for block in blocks if block)


def box(record: dict) -> str:
    """Markdown: what holds, what does not, at which scale; empty for an artifact that has none."""
    if record["artifact"] not in BOXES:
        return ""
    words = {True: "holds", False: "does not hold", None: "undecided"}
    table = ["| | statement | measured |", "|---|---|---|"]
    table += [
        f"| **{words[holds]}** | {what} | {numbers} |" for holds, what, numbers in BOXES[record["artifact"]](record)
    ]
    return "\n".join(table)


HEADLINES: dict[str, Callable[[dict], str]] = {
    "fig-random-vs-adversarial": accuracy.random,
    "tab-ablation": ablation.ablation,
    "tab-ablation/equal-cost": ablation.equal_cost,
    "tab-cost": cost.cost,
    "fig-attack-ladder": evaluation.ladder,
    "tab-masking-checklist": checklist.checks,
    "tab-whitebox": evaluation.whitebox,
    "tab-blackbox": evaluation.blackbox,
    "fig-surrogate-width": width.widths,
    "tab-poisson-eot": chance.expectations,
    "fig-gradient-maps": accuracy.maps,
    "fig-lambda": accuracy.lambdas,
    "fig-sr-variants": variants.variants,
    "fig-timesteps-and-leak": settings.settings,
    "thm-ratio": ratio.regimes,
    "thm-ratio/exact": ratio.exact,
    "thm-ratio/vulnerabilities": ratio.vulnerabilities,
    "thm-ratio/first-order": ratio.first_order,
    "thm-ratio/worst": ratio.worst,
    "thm-ratio/sparsity": ratio.sparsity,
    "thm-ratio/scale": ratio.scale,
    "prop-finite-difference": quotient.followed,
    "prop-finite-difference/window": quotient.window,
    "prop-finite-difference/schemes": quotient.schemes,
    "prop-finite-difference/curvature": quotient.curvature,
    "prop-finite-difference/weights": quotient.weights,
    "fig-landscape": landscape.lines,
    "fig-landscape/plane": landscape.plane,
    "tab-events": events.trained,
    "fig-random-vs-adversarial-events": events.random,
}

BOXES: dict[str, Callable[[dict], Iterable[Line]]] = {
    "tab-ablation": ablation.box,
    "tab-cost": cost.box,
    "tab-masking-checklist": checklist.box,
    "fig-sr-variants": variants.box,
    "fig-timesteps-and-leak": settings.box,
    "thm-ratio": ratio.box,
    "prop-finite-difference": quotient.box,
}

_STRONG = "PGD-{pgd_steps}, APGD-{long_steps}, Square-{queries} on {strong_samples} test images"
_STRONG += ", networks each: {cost_seeds}"
_THREE = "{data}, {true_samples} test images ({smooth_samples} in the smooth regime), {seeds}"
_CHOSEN = "{data}, {epochs} epochs, {samples} test images ({samples} validation images chose λ), {seeds}"
IMAGES = {  # what a caption says of images and seeds, where it is not all samples and all seeds
    "tab-ablation": "{data}, {samples} test images, {seeds}, of rivals {rival_seeds}",
    "tab-ablation/equal-cost": "{data}, " + _STRONG,
    "tab-cost": "{data}; seconds: median, fastest and slowest of {repeats} steps of {batch} images; " + _STRONG,
    "tab-events": "{data}, {samples} test recordings, {strong_samples} in the worst case, {seeds}",
    "fig-random-vs-adversarial-events": "{data}, {samples} test recordings, {seeds}",
    "fig-lambda": "{data}, {samples} validation images, {seeds}",
    "fig-sr-variants": _CHOSEN,
    "fig-timesteps-and-leak": _CHOSEN,
    "thm-ratio": _THREE + ", linear ratio: {samples} images",
    "thm-ratio/exact": "Functions worked out by hand, {exact_draws} draws each",
    "thm-ratio/vulnerabilities": _THREE,
    "thm-ratio/first-order": _THREE,
    "thm-ratio/worst": "{data}, the worst of {true_samples} test images, {seeds}",
    "thm-ratio/sparsity": "{data}, {samples} test images, {true_samples} for the ratio, {seeds}",
    "thm-ratio/scale": "{data}, {true_samples} test images, the first seed of vanilla training",
    "prop-finite-difference/curvature": "{data}, {smooth_samples} test images, {seeds}",
    "prop-finite-difference/schemes": "{data}, {samples} test images ({smooth_samples} smooth), {seeds}",
    "prop-finite-difference/weights": "{data}, {weight_samples} test images, {seeds}",
    "fig-landscape": "{data}, those of {samples} test images that all networks classify correctly, {seeds}",
    "fig-landscape/plane": "{data}, the first test image that all networks classify correctly, {seeds}",
}
