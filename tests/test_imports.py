"""The core needs torch, NumPy, pydantic and YAML only; Ray and MLflow stay where they belong."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bbh_dist

PACKAGE = Path(bbh_dist.__file__).parent
CORE = ("config", "noise", "networks", "hypernets", "divergences", "methods", "tasks", "evaluation", "training")
FORBIDDEN = (
    *("ray", "optuna", "mlflow", "safetensors", "sklearn", "torchvision", "torchmetrics", "matplotlib", "rich"),
    *("scipy", "jsonschema"),
)
DANGEROUS = (
    *("eval", "exec", "compile", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("pickle.load", "pickle.loads", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.hub.load"),
)
CODE = f"""
import sys

class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FORBIDDEN}:
            raise ImportError("forbidden: " + name)

sys.meta_path.insert(0, Forbid())
for name in {CORE}:
    __import__("bbh_dist." + name)
"""


def imported(path: Path) -> Iterator[str]:
    """Top-level packages that a module imports anywhere, also inside of functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.append(node.module)
        yield from (name.partition(".")[0] for name in names)


def importers(package: str) -> set[str]:
    """Parts of bbh_dist that import a package."""
    files = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if package in imported(path)]
    return {path.parts[0] for path in files}


def test_the_core_imports_without_the_rest() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("package", "home"), [("ray", "cluster"), ("optuna", "cluster"), ("mlflow", "tracking")])
def test_a_package_has_one_home(package: str, home: str) -> None:
    assert importers(package) == {home}


@pytest.mark.parametrize("package", ["pickle", "dill", "cloudpickle", "shelve", "marshal"])
def test_nothing_pickles(package: str) -> None:
    assert importers(package) == set()


def dangerous(source: str) -> list[str]:
    """Calls that run text as code or as a shell's command, or read what may hold code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            name = ast.unparse(node.func)
            if (
                name in DANGEROUS
                or options.get("shell", "False") != "False"
                or options.get("allow_pickle", "False") != "False"
                or (name == "torch.load" and options.get("weights_only") != "True")
            ):
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "call",
    [
        "eval(text)",
        "exec(text)",
        "os.system(text)",
        "os.popen(text)",
        "subprocess.run(text, shell=True)",
        "subprocess.check_output(text, shell=is_text)",
        "pickle.load(file)",
        "yaml.load(text, Loader=yaml.Loader)",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "np.load(file, allow_pickle=True)",
    ],
)
def test_a_dangerous_call_is_found(call: str) -> None:
    assert dangerous(f"def f():\n    return [{call}]") == [call]
    assert dangerous("torch.load(file, weights_only=True)\nmodel.eval()\nsubprocess.run(text, shell=False)") == []


def test_nothing_runs_text_or_files_as_code() -> None:
    found = {str(path): dangerous(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
    assert len(found) > 100
    assert {path: calls for path, calls in found.items() if calls} == {}
