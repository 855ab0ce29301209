"""The rooms of the house (ARCHITECTURE.md) and which way imports may point, read from the sources.

An import counts wherever it stands: in a function, under TYPE_CHECKING, or through import_module.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "nearfield": set(),
    "benchmark": {"nearfield"},
    "index_build": {"nearfield", "benchmark"},
    "dumps": {"nearfield"},
    "vm_scripts": {"nearfield"},
}
COMPOSITION = ("nearfield.api", "nearfield.cli", "nearfield.job", "nearfield.demo")
"""They join the rooms: may import everything, and nothing outside may import them."""
ENTRANCES = ("nearfield", "nearfield.__main__")
"""Pass on to the composition roots, and to nothing else."""
MEASUREMENTS = (
    "benchmark/*_speed.py",
    "benchmark/publish_latency.py",
    "benchmark/method_choice.py",
    "benchmark/selfjoin_ladder.py",
    "benchmark/selfjoin_workers.py",
    "benchmark/competitors.py",
    "benchmark/plan_accuracy.py",
    "benchmark/update_load.py",
    "benchmark/product_memory.py",
)
"""Scripts that measure the product, run by hand: may import everything."""
NUMERICS = (
    *("nearfield.space", "nearfield.distances", "nearfield.exact"),
    *("index_build.partition", "index_build.merge", "index_build.duplicates"),
    *("index_build.selfjoin", "dumps.recall"),
)
INPUT_OUTPUT = (
    *("h5py", "psycopg2", "dask", "distributed", "pathlib", "subprocess", "socket"),
    *("nearfield.files", "nearfield.hdf5", "nearfield.manifest", "nearfield.cluster"),
)
VERIFIER = (
    *("dumps.verify", "dumps.checks", "dumps.guard", "dumps.recall", "dumps.labels"),
    *("dumps.dump.check", "dumps.dump.contents", "dumps.dump.readers"),
    *("dumps.dump.known", "dumps.dump.repeated"),
)
CHECKED_BY_IT = (
    *("nearfield.exact", "nearfield.distances", "nearfield.neighbours", "nearfield.hdf5"),
    *("nearfield.space.pair_distances", "nearfield.space.prepared"),
    *("dumps.matrix", "index_build", "benchmark"),
    *("dumps.dump.write", "dumps.dump.tables", "dumps.dump.names", "dumps.dump.describe"),
    *("dumps.dump.source", "dumps.dump.ids", "dumps.postgres"),
)
MOST_LINES = 400


def sources(root: Path) -> Iterator[Path]:
    for room in ALLOWED:
        yield from sorted((root / room).rglob("*.py"))


def module_of(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(root: Path, path: Path) -> Iterator[str]:
    """Dotted names that a source imports; `from a import b` gives a and a.b."""
    package = path.parent.relative_to(root).parts
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _name(node.func) == "import_module":
            yield from (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant))


def _name(function: ast.expr) -> str:
    return getattr(function, "attr", getattr(function, "id", ""))


def untrusting(command: ast.List | ast.Tuple) -> bool:
    """Whether a command that is Python's doesn't import from the folder that it is called in."""
    words = [getattr(word, "value", None) for word in command.elts]
    attributes = [getattr(word, "attr", None) for word in command.elts]
    if "executable" not in attributes:
        return True
    after = words[attributes.index("executable") + 1 :]
    return bool(after) and after[0] in ("-P", "-I")


def within(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def violations(root: Path) -> list[str]:
    """Every import that points the wrong way, as `module imports name: rule`."""
    found = []
    for path in sources(root):
        module = module_of(root, path)
        measures = any(path.relative_to(root).match(pattern) for pattern in MEASUREMENTS)
        if measures or within(module, COMPOSITION):
            continue
        for name in imports(root, path):
            rule = broken_rule(module, name)
            if rule:
                found.append(f"{module} imports {name}: {rule}")
    return found


def broken_rule(module: str, name: str) -> str | None:
    room, other = module.partition(".")[0], name.partition(".")[0]
    if other in ALLOWED and other not in {room} | ALLOWED[room]:
        return f"{room} may not know {other}"
    if within(name, COMPOSITION) and module not in ENTRANCES:
        return "nobody may know a composition root"
    if within(module, NUMERICS) and within(name, INPUT_OUTPUT):
        return "numerics hold no input or output"
    if module in VERIFIER and within(name, CHECKED_BY_IT):
        return "the verifier shares no code with what it checks"
    return None


def test_imports_point_to_the_left_or_to_the_core():
    assert violations(ROOT) == []


def test_the_walk_sees_the_whole_house():
    seen = {module_of(ROOT, path) for path in sources(ROOT)}
    assert seen >= {"nearfield", "nearfield.exact", *VERIFIER, *COMPOSITION}
    assert all(any(within(module, (named,)) for module in seen) for named in NUMERICS)
    assert "nearfield.space.Float32s" in set(imports(ROOT, ROOT / "nearfield/exact.py"))


@pytest.mark.parametrize(
    ("path", "text", "rule"),
    [
        ("dumps/a.py", "import index_build.build", "dumps may not know index_build"),
        ("dumps/a.py", "from index_build import build", "dumps may not know index_build"),
        ("dumps/a.py", "def f():\n    from benchmark.methods import x", "may not know benchmark"),
        ("benchmark/a.py", "import index_build", "benchmark may not know index_build"),
        ("benchmark/b/a.py", "from ...dumps import matrix", "benchmark may not know dumps"),
        ("index_build/a.py", "import dumps", "index_build may not know dumps"),
        ("nearfield/a.py", "import_module('index_build.build')", "may not know index_build"),
        ("nearfield/ingest/a.py", "if TYPE_CHECKING:\n    import dumps", "may not know dumps"),
        ("nearfield/a.py", "from nearfield import api", "nobody may know a composition root"),
        ("index_build/a.py", "import nearfield.cli.output", "nobody may know a composition root"),
        ("index_build/merge.py", "import h5py", "numerics hold no input or output"),
        ("dumps/recall.py", "from nearfield.exact import exact_search", "shares no code"),
        ("dumps/verify.py", "from nearfield.space import prepared", "shares no code"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, path, text, rule):
    planted = tmp_path / path
    planted.parent.mkdir(parents=True)
    planted.write_text(text)
    assert rule in " ".join(violations(tmp_path))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("nearfield/api/matrix.py", "import dumps, index_build"),
        ("nearfield/cli/a.py", "from dumps.verify import verify_run"),
        ("nearfield/__init__.py", "from nearfield.api import build"),
        ("benchmark/copy_speed.py", "import dumps.postgres.load"),
        ("index_build/a.py", "import benchmark.methods, nearfield.exact"),
        ("dumps/verify.py", "from nearfield.space import Float32s"),
    ],
)
def test_what_is_allowed_passes(tmp_path, path, text):
    allowed = tmp_path / path
    allowed.parent.mkdir(parents=True)
    allowed.write_text(text)
    assert violations(tmp_path) == []


def test_every_module_says_what_it_is_for():
    silent = [
        str(path.relative_to(ROOT))
        for path in sources(ROOT)
        if path.stat().st_size and not ast.get_docstring(ast.parse(path.read_bytes()))
    ]
    assert silent == []


def test_no_module_is_longer_than_a_reader_can_hold():
    long = [
        f"{path.relative_to(ROOT)}: {lines} lines"
        for path in sources(ROOT)
        if (lines := path.read_text().count("\n")) > MOST_LINES
    ]
    assert long == []


def test_children_import_nothing_from_the_folder_that_a_command_runs_in():
    trusting = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources(ROOT)
        if not any(path.relative_to(ROOT).match(pattern) for pattern in MEASUREMENTS)
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.List | ast.Tuple) and not untrusting(node)
    ]
    assert trusting == []


def test_deployment_holds_no_python():
    assert list((ROOT / "deploy").rglob("*.py")) == []
