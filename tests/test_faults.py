"""Pages and files for people outside: they name what is there."""

import json
import re

import yaml

from paperlib import paths
from paperlib.artifacts import claims


def test_every_test_that_the_page_on_faults_names_is_there():
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", (paths.ROOT / "docs" / "faults.md").read_text(encoding="utf-8"))
    assert len(named) > 25
    for file, name in named:
        assert f"def {name}(" in (paths.ROOT / "tests" / file).read_text(encoding="utf-8"), name


def test_the_page_for_committees_leads_from_every_claim_to_its_record():
    text = (paths.ROOT / "ARTIFACT.md").read_text(encoding="utf-8")
    for claim in claims.LEDGER:
        line = next(line for line in text.splitlines() if f"`make {claim.artifact}`" in line)
        assert line.startswith(f"| {claim.id[:2]}: ") and f"`results/laptop/{claim.artifact}.json`" in line


def test_what_zenodo_is_told_is_what_citation_cff_says():
    told = json.loads((paths.ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    cited = yaml.safe_load((paths.ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    for name in ("title", "version", "license", "keywords"):
        assert told[name] == cited[name]
    assert told["description"] == " ".join(cited["abstract"].split())
    assert [creator["name"] for creator in told["creators"]] == [author["name"] for author in cited["authors"]]


def test_actions_of_ci_are_pinned_by_commit():
    lines = [
        line.split("uses:")[1].strip()
        for file in (paths.ROOT / ".github" / "workflows").glob("*.yml")
        for line in file.read_text(encoding="utf-8").splitlines()
        if "uses:" in line
    ]
    assert len(lines) > 5 and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v[\d.]+", line) for line in lines)
