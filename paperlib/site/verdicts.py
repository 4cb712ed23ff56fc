"""The landing page's parts: a board of all verdicts, and a card with the evidence for each."""

import re
from html import escape

from paperlib import paths
from paperlib.artifacts import claims
from paperlib.site.shown import Shown

KINDS = {  # verdict → its class in site.css
    claims.SUPPORTED: "holds",
    claims.NOT_SUPPORTED: "fails",
    claims.INCONCLUSIVE: "open",
    claims.ONE_NETWORK: "gap",
    claims.NOT_MEASURED: "gap",
}


def board(shown: list[Shown]) -> str:
    """A table with a line for each claim of the paper and a column for each profile: a chip for each verdict.

    A profile without any record has one chip a line, which says so.
    """
    head = "".join(f'<th scope="col">{escape(one.short)}<small>{_tally(one)}</small></th>' for one in shown)
    lines = []
    for claim, text in claims.PAPER.items():
        cells = "".join(f"<td>{_chips(claim, one)}</td>" for one in shown)
        lines.append(f'<tr><th scope="row"><b>{claim}</b> {escape(text)}</th>{cells}</tr>')
    legend = " ".join(
        f'<span class="{kind}">{claims.SIGNS[word]} {escape(word)}</span>' for word, kind in KINDS.items()
    )
    holm = "Beside a sign in brackets: what Holm's adjustment for so many verdicts leaves, where it differs."
    return _raw(
        f'<table class="board"><thead><tr><th scope="col">The paper says</th>{head}</tr></thead>'
        f'<tbody>{"".join(lines)}</tbody></table><p class="legend">{legend} <small>{escape(holm)}</small></p>'
    )


def cards(shown: list[Shown]) -> str:
    """For each claim of the paper a heading, and for each of its statements a card with the profiles side by side."""
    blocks = []
    for claim, text in claims.PAPER.items():
        blocks.append(f"### {claim}: {text}")
        for verdicts in zip(*(_of(claim, one) for one in shown), strict=True):
            panels = "".join(_panel(v, one) for v, one in zip(verdicts, shown, strict=True))
            statement = verdicts[0].claim
            blocks.append(
                _raw(
                    f'<section class="verdicts" id="{anchor(statement)}"><h4>{escape(statement.statement)}'
                    f'<small>{escape(statement.id)}</small></h4><div class="panels">{panels}</div></section>'
                )
            )
    return "\n\n".join(blocks)


def anchor(claim: claims.Claim) -> str:
    """The anchor of a claim's card: "C4, SR, counts" → "c4-sr-counts"."""
    return re.sub(r"\W+", "-", claim.id.lower())


def chip(verdict: str, text: str = "") -> str:
    """A verdict as HTML in its colour, with its sign; `text` stands in place of its words, which are then for ears."""
    kind, sign = KINDS[verdict], claims.SIGNS[verdict]
    said = f'{escape(text)}<span class="for-ears">: {escape(verdict)}</span>' if text else escape(verdict)
    return f'<span class="chip {kind}"><span aria-hidden="true">{sign}</span> {said}</span>'


def _of(claim: str, one: Shown) -> list[claims.Verdict]:
    return [verdict for verdict in one.verdicts if verdict.claim.id.split(",")[0] == claim]


def _chips(claim: str, one: Shown) -> str:
    if not one.records:
        return chip(claims.NOT_MEASURED)
    return "".join(_chip(verdict) for verdict in _of(claim, one))


def _chip(verdict: claims.Verdict) -> str:
    _, _, part = verdict.claim.id.partition(", ")
    changed = verdict.adjusted not in (None, verdict.verdict)
    after = f" ({claims.SIGNS[verdict.adjusted]})" if changed else ""
    shown = chip(verdict.verdict, (part or "over networks") + after)
    return f'<a href="#{anchor(verdict.claim)}" title="{escape(verdict.claim.statement)}">{shown}</a>'


def _tally(one: Shown) -> str:
    words = [verdict.verdict for verdict in one.verdicts]
    counted = [f"{words.count(word)} {word.removesuffix(' at this scale')}" for word in KINDS if word in words]
    return escape(f"{one.name}: {', '.join(counted)}")


def _panel(verdict: claims.Verdict, one: Shown) -> str:
    """A profile's verdict, the numbers that it rests on, and the way to them."""
    artifact = verdict.claim.artifact
    record = f"results/{one.name}/{artifact}"
    ways = [("notebook", f"notebooks/{artifact}.html"), ("figures and tables", f"{record}.html")]
    ways += [("record: JSON", f"{record}.json"), ("CSV", f"{record}.csv")]
    ways += [("how it was computed", f"{record}.html#how-it-was-computed")]
    if artifact not in one.records:
        ways = ways[:1]
    if not (paths.NOTEBOOKS / f"{artifact}.ipynb").exists():
        ways = ways[1:]
    listed = "".join(f'<li><a href="{href}">{text}</a></li>' for text, href in ways)
    kind = KINDS[verdict.verdict]
    after = f" After Holm: {verdict.adjusted}, p = {verdict.holm:.2g}." if verdict.adjusted else ""
    return (
        f'<div class="panel {kind}"><p class="data">{escape(one.short)}</p><p>{chip(verdict.verdict)}</p>'
        f'<p class="reason">{escape(verdict.reason)}{after}</p><ul class="ways">{listed}</ul></div>'
    )


def _raw(html: str) -> str:
    return f"```{{raw}} html\n{html}\n```"
