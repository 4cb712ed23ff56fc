"""Mutation testing: a small change is made in a copy of the library, and the tests of that file must notice it.

    python tests/mutants.py named                                       the bugs that tests once let pass
    python tests/mutants.py sample records.py 40 0                      40 changes of a file, drawn from the seed 0

A mutant is killed if its tests fail or take longer than `LIMIT`.  Each runs in a fork of one process that has loaded
the slow libraries, so a mutant costs its tests alone.  Comparisons, arithmetic, and/or, `not`, signs, numbers and truth
values are changed; one change a mutant.
"""

import argparse
import ast
import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import paperlib  # noqa: F401  before numpy and torch, for it settles the arithmetic

HOME = Path(__file__).resolve().parents[1]
LIMIT = 600  # seconds
PRELOADED = ("hypothesis", "matplotlib.pyplot", "numpy", "pandas", "pytest", "scipy.stats", "snntorch", "torch")
TESTS = {  # of each file, by the ends of their names
    "artifacts/claims.py": ("claims",),
    "attacks/blackbox.py": ("attacks_blackbox",),
    "attacks/core.py": ("attacks_core", "attacks"),
    "attacks/evaluation.py": ("attacks_evaluation",),
    "attacks/gradient.py": ("attacks_gradient", "attacks"),
    "measures/statistics.py": ("measures_statistics",),
    "records.py": ("records",),
    "theory/gradients.py": ("gradients", "attacks_core"),
    "theory/quotient.py": ("quotient", "measures_quotient"),
    "theory/ratio.py": ("ratio", "measures_ratio"),
    "training/regularizers.py": ("regularizers",),
}
SWAPPED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Div, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


class Named(NamedTuple):
    """A change by hand: in `file`, `old` becomes `new`, and the tests in `tests` are to notice it."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]


NAMED = [
    Named(
        "attacks/evaluation.py",
        "(vanished.sum() / backward.sum().clamp_min(1))",
        "(vanished.sum() / forward.sum().clamp_min(1))",
        ("attacks_evaluation",),
    ),
    Named(
        "store/evaluations.py",
        'costs["vanished"].sum() / max(costs["backward"].sum(), 1)',
        'costs["vanished"].sum() / max(costs["forward"].sum(), 1)',
        ("store_evaluations",),
    ),
    Named("data/recordings.py", "allow_pickle=False", "allow_pickle=True", ("recordings", "fuzzing")),
    Named("store/checkpoints.py", "weights_only=True", "weights_only=False", ("checkpoints", "fuzzing")),
    Named("training/loop.py", "weights_only=True", "weights_only=False", ("training", "fuzzing")),
    Named("store/released.py", "weights_only=True", "weights_only=False", ("released", "fuzzing")),
    Named("attacks/evaluation.py", "chance(seed + int(rows[0]))", "chance(seed)", ("attacks_evaluation",)),
    Named("theory/ratio.py", "2 / (k + 2)", "2 / (k + 1)", ("ratio",)),
    Named(
        "store/checkpoints.py",
        "        if not is_trained(experiment):\n            _train(experiment, device, progress=False, tag=tag)",
        "        _train(experiment, device, progress=False, tag=tag)",
        ("checkpoints",),
    ),
    Named(
        "store/checkpoints.py",
        "        if not is_trained(experiment):\n            _train(experiment, device, progress)",
        "        if True:\n            _train(experiment, device, progress)",
        ("checkpoints",),
    ),
    Named(
        "records.py",
        '    write_atomically(Path(path).with_suffix(".csv"), _csv(record["rows"]).encode())\n'
        "    write_atomically(path, text.encode())",
        "    write_atomically(path, text.encode())\n"
        '    write_atomically(Path(path).with_suffix(".csv"), _csv(record["rows"]).encode())',
        ("records",),
    ),
]


def places(tree: ast.AST) -> list[tuple[ast.AST, ast.AST]]:
    """Every node that can be changed, with what it becomes; annotations and the texts of messages stay."""
    found = [(tree, new)] if (new := _changed(tree)) else []
    for name, value in ast.iter_fields(tree):
        if name not in ("annotation", "returns") and not isinstance(tree, ast.JoinedStr):
            for node in value if isinstance(value, list) else [value]:
                found += places(node) if isinstance(node, ast.AST) else []
    return found


def _changed(node: ast.AST) -> ast.AST | None:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED:
        return ast.Compare(node.left, [SWAPPED[type(node.ops[0])](), *node.ops[1:]], node.comparators)
    if isinstance(node, ast.BoolOp):
        return ast.BoolOp(SWAPPED[type(node.op)](), node.values)
    if isinstance(node, ast.BinOp) and type(node.op) in SWAPPED:
        return ast.BinOp(node.left, SWAPPED[type(node.op)](), node.right)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub, ast.Invert)):
        return node.operand
    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        return ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
    return None


class _Replaced(ast.NodeTransformer):
    """The tree with one node replaced."""

    def __init__(self, old: ast.AST, new: ast.AST):
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)


def sampled(file: str, count: int, seed: int) -> list[tuple[str, str]]:
    """Up to `count` mutants of a file of paperlib: what was changed, and the whole text."""
    tree, mutants = ast.parse((HOME / "paperlib" / file).read_text(encoding="utf-8")), []
    found = places(tree)
    print(f"{file}: {len(found)} places", flush=True)
    for old, new in random.Random(seed).sample(found, min(count, len(found))):
        text = ast.unparse(ast.fix_missing_locations(_Replaced(old, new).visit(tree)))
        mutants.append((f"line {old.lineno}: {ast.unparse(old)} → {ast.unparse(new)}", text))
        _Replaced(new, old).visit(tree)
    return mutants


def is_killed(tree: Path, file: str, text: str, tests: tuple[str, ...]) -> bool:
    """Whether the tests notice `text` in place of the file; `tree` is a copy of this checkout, and stays as it was."""
    path = tree / "paperlib" / file
    before = path.read_bytes()
    path.write_text(text, encoding="utf-8")
    try:
        child = os.fork()
        if not child:
            _test(tree, tests)
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status) != 0
            time.sleep(0.05)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return True
    finally:
        path.write_bytes(before)


def _test(tree: Path, tests: tuple[str, ...]) -> None:
    """Run the tests in `tree` and end this process with their status."""
    import pytest

    os.chdir(tree)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    for name in [name for name in sys.modules if name == "paperlib" or name.startswith("paperlib.")]:
        del sys.modules[name]
    sys.path.insert(0, str(tree))
    files = [f"tests/test_{name}.py" for name in tests]
    os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:warnings", *files])))


def main() -> int:
    """Run the command line; returns 0 if every mutant was killed, else 1."""
    parser = argparse.ArgumentParser("python tests/mutants.py", description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=("named", "sample"))
    parser.add_argument("file", nargs="?", help="one of: " + ", ".join(TESTS))
    parser.add_argument("count", nargs="?", type=int, default=40)
    parser.add_argument("seed", nargs="?", type=int, default=0)
    arguments = parser.parse_args()
    sys.dont_write_bytecode = True  # of two versions of a file within one second Python would take the first
    for name in PRELOADED:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=HOME, capture_output=True, text=True, check=True)
        for name in filter(None, listed.stdout.split("\0")):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(HOME / name, tree / name)
        if arguments.which == "named":
            mutants = [(one.file, f"{one.old!r} → {one.new!r}", _by_hand(one), one.tests) for one in NAMED]
        else:
            drawn = sampled(arguments.file, arguments.count, arguments.seed)
            mutants = [(arguments.file, change, text, TESTS[arguments.file]) for change, text in drawn]
        killed = 0
        for number, (file, change, text, tests) in enumerate(mutants, 1):
            noticed = is_killed(tree, file, text, tests)
            killed += noticed
            print(f"{killed}/{number} {'killed' if noticed else 'SURVIVED'} {file}, {change}", flush=True)
    return 0 if killed == len(mutants) else 1


def _by_hand(one: Named) -> str:
    text = (HOME / "paperlib" / one.file).read_text(encoding="utf-8")
    if text.count(one.old) != 1:
        raise SystemExit(f"{one.file} holds {one.old!r} {text.count(one.old)} times; it must be there once.")
    return text.replace(one.old, one.new)


if __name__ == "__main__":
    sys.exit(main())
