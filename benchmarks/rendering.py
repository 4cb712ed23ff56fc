"""From results.json: the Markdown page, its place in the README, and the figure."""

import io
import re
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes

from paperlib import artifacts, files

SR, PGD = "SR training step", "PGD step"
LAPTOP = ("SR training step", "PGD step, 25 images", "PGD step, 100 images")  # of the laptop profile's network
RIVALS = ("stepping", "folded", "SpikingJelly")
OURS = ("float32", "bfloat16")
TITLES = {
    "stepping": "stepping",
    "folded": "folded",
    "SpikingJelly": "SpikingJelly",
    "float32": "ours, float32",
    "bfloat16": "ours, bfloat16",
}
COLOURS = {
    "stepping": "#bdbdbd",
    "folded": "#9e9ac8",
    "SpikingJelly": "#41ab5d",
    "float32": "#6a51a3",
    "bfloat16": "#2d004b",
}

# Aims.
FASTER = {  # how many times faster an SR step is, at least
    ("stepping", "float32"): 1.7,
    ("stepping", "bfloat16"): 2.5,
    ("folded", "float32"): 1.1,
    ("folded", "bfloat16"): 1.9,
}
SMALLER = {("stepping", "bfloat16"): 40, ("folded", "float32"): 55}  # memory of an SR step in % of the rival's, at most
NEAR_LIMIT = {"small": 0.75, "VGG-11": 0.85}  # share of the bare products in an SR step, at least
EXPONENT = 1.05  # of the growth with T and with the batch, at most


def page(results: dict) -> str:
    """All tables; bold numbers have reached their aims."""
    parts = [_machine(results["machine"]), _speed(results), _seconds(results), _laptop(results["laptop"])]
    parts += [_memory(results), _growth(results)]
    return "\n\n".join(parts) + "\n\n![Time and memory against stepping](results.png)"


def into_page(page: str, path: Path, mark: str) -> None:
    """Replace the text between the marks named `mark` in a Markdown file; without such marks nothing changes."""
    old = path.read_text(encoding="utf-8")
    new = f"<!-- {mark} -->\n{page}\n<!-- /{mark} -->"
    text = re.sub(f"<!-- {mark} -->.*<!-- /{mark} -->", lambda _: new, old, flags=re.DOTALL)
    files.write_atomically(path, text.encode())


def _machine(machine: dict) -> str:
    malloc = ", ".join(f"{name}={value or 'not set'}" for name, value in machine["malloc"].items())
    built = f"torch {machine['torch']}, {machine['arithmetic']} arithmetic"
    lines = [f"{machine['processor']}, {machine['cores']} cores, {built}; {malloc}."]
    if not machine["bfloat16"]:
        lines.append("This processor has no bfloat16 arithmetic: the float32 rows apply, and the others are left out.")
    return " ".join(lines) + " A **bold** figure has reached its aim."


def _speed(results: dict) -> str:
    """Ratios of times, one column for each network and number of threads."""
    columns = {(t["network"], t["threads"]): {} for t in results["times"]}
    for t in results["times"]:
        columns[t["network"], t["threads"]][t["operation"]] = t["ratios"]
    rows = []
    for operation, name in ((SR, "SR step"), (PGD, "PGD step")):
        for rival in RIVALS:
            for ours in _ours(results):
                aim = FASTER.get((rival, ours)) if operation == SR else None
                cells = [_ratio(ratios[operation][f"{rival} / {ours}"], aim) for ratios in columns.values()]
                rows.append([f"{name}: {rival} / {TITLES[ours]}", f"≥ {aim}" if aim else "", *cells])
    cells = [_ratio(r[SR]["limit / float32"], NEAR_LIMIT[network]) for (network, _), r in columns.items()]
    aims = ", ".join(f"≥ {aim} {network}" for network, aim in NEAR_LIMIT.items())
    rows.append(["SR step: bare products / ours, float32", aims, *cells])
    titles = [f"{network}, {_threads(threads)}" for network, threads in columns]
    return "How many times faster (median of the ratios within each repetition, and their range):\n\n" + table(
        ["times", "aim", *titles], rows
    )


def _seconds(results: dict) -> str:
    variants = [*RIVALS, *_ours(results), "limit"]
    rows = [
        [t["network"], t["operation"], str(t["threads"])]
        + [f"{t['seconds'][v]['median']:.3g} s" if v in t["seconds"] else "" for v in variants]
        for t in results["times"]
    ]
    titles = ["network", "step", "threads", *(TITLES.get(v, "bare products") for v in variants)]
    return "Medians:\n\n" + table(titles, rows)


def _laptop(seconds: dict[str, float]) -> str:
    return "The laptop profile's network (conv-8-16, T = 4), one thread, portable arithmetic:\n\n" + table(
        ["step", "median"], [[name, f"{1000 * seconds[name]:.3g} ms"] for name in LAPTOP]
    )


def _memory(results: dict) -> str:
    variants = [*RIVALS, *_ours(results)]
    compared = [pair for pair in SMALLER if pair[1] in variants]
    rows = []
    for m in results["memory"]:
        common = m["parameters_mb"]
        for part, mb in (("whole", m["mb"]), ("its own", {v: mb - common for v, mb in m["mb"].items()})):
            cells = [f"{mb[v]:,.0f}" for v in variants]
            for rival, ours in compared:
                share, aim = 100 * mb[ours] / mb[rival], SMALLER[rival, ours]
                cells.append(_bold(f"{share:.0f} %", part == "whole" and share <= aim))
            rows.append([m["network"], m["allocator"], part, *cells])
    titles = [f"{ours} of {rival}, aim ≤ {SMALLER[rival, ours]} %" for rival, ours in compared]
    return (
        "Peak resident memory of an SR training step in MB, above that of the imports, all threads: weights, gradients,"
        " momentum, activations, libraries' own buffers; two steps in a fresh process. *Its own* leaves out weights,"
        " gradients and momentum, which are the same in every variant. With make's settings of the allocator freed "
        "memory is kept, which is faster and takes more.\n\n"
        + table(["network", "allocator", "memory", *(TITLES[v] for v in variants), *titles], rows)
    )


def _growth(results: dict) -> str:
    rows = []
    for g in results["growth"]:
        sizes = [point[g["axis"]] for point in g["points"]]
        exponents = [_bold(f"{g[key]:.2f}", g[key] <= EXPONENT) for key in ("seconds_exponent", "mb_exponent")]
        rows.append([g["network"], f"{g['axis']}, from {sizes[0]} to {sizes[-1]}", *exponents])
    return (
        "Growth of ours in float32, SR training step, all threads: exponents fitted by least squares, "
        f"aim ≤ {EXPONENT}. Of the memory, what stays between steps (weights, gradients, momentum, libraries) "
        "is subtracted.\n\n" + table(["network", "in", "time", "memory"], rows)
    )


def _ours(results: dict) -> tuple[str, ...]:
    return OURS if results["machine"]["bfloat16"] else OURS[:1]


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _ratio(ratio: dict, aim: float | None) -> str:
    median, low, high = (f"{ratio[key]:.2f}" for key in ("median", "min", "max"))
    return f"{_bold(median, aim is not None and ratio['median'] >= aim)} ({low} to {high})"


def _bold(text: str, reached) -> str:
    return f"**{text}**" if reached else text


def table(titles: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [titles, ["---"] * len(titles), *rows])


# ---- the figure --------------------------------------------------------------------------------------------------


def save_figure(results: dict, path: Path) -> None:
    """A panel for each network: times of both steps and memory, in % of those of stepping."""
    style = {**artifacts.STYLE, "axes.grid.axis": "y"}
    with sns.axes_style("whitegrid", {"grid.color": ".9"}), matplotlib.rc_context(style):
        networks = list(dict.fromkeys(m["network"] for m in results["memory"]))
        figure, panels = plt.subplots(1, len(networks), figsize=(11, 4.2), sharey=True, layout="constrained")
        for panel, network in zip(panels, networks, strict=True):
            _panel(panel, results, network)
        panels[0].set_ylabel("% of stepping snn.Leaky")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=artifacts.DPI, metadata={"Software": None})
        plt.close(figure)
    files.write_atomically(path, picture.getvalue())


def _panel(panel: Axes, results: dict, network: str) -> None:
    times = [t for t in results["times"] if t["network"] == network]
    mb = next(m["mb"] for m in results["memory"] if m["network"] == network)  # with make's allocator
    variants = [*RIVALS, *_ours(results)]
    width = 0.84 / len(variants)
    for place, variant in enumerate(variants):
        shares = [_share(t, variant) for t in times] + [100 * mb[variant] / mb["stepping"]]
        x = [group + (place - (len(variants) - 1) / 2) * width for group in range(len(shares))]
        bars = panel.bar(x, shares, width, color=COLOURS[variant], label=TITLES[variant])
        if variant != "stepping":
            panel.bar_label(bars, fmt="%.0f", fontsize=8, color=".25", padding=1)
    limits = [(group, _share(t, "limit")) for group, t in enumerate(times) if "limit" in t["seconds"]]
    for group, share in limits:
        label = "bare convolutions and products, float32" if group == limits[0][0] else None
        panel.plot([group - 0.45, group + 0.45], [share] * 2, color="#d55e00", linewidth=1.6, label=label)
    names = [f"{t['operation'].replace('training ', '')}\n{_threads(t['threads'])}" for t in times]
    panel.set_xticks(range(len(names) + 1), [*names, "memory of\nan SR step"])
    panel.set_title(_finding(times, mb, variants[-1]), fontweight="bold", loc="left")
    panel.grid(False, axis="x")
    sns.despine(ax=panel, left=True)


def _share(timed: dict, variant: str) -> float:
    return 100 * timed["seconds"][variant]["median"] / timed["seconds"]["stepping"]["median"]


def _finding(times: list[dict], mb: dict[str, float], fastest: str) -> str:
    share = max(_share(t, fastest) for t in times if t["operation"] == SR)
    memory = 100 * mb[fastest] / mb["stepping"]
    return f"{times[0]['network']}: SR in {share:.0f} % of the time, {memory:.0f} % of the memory ({fastest})"
