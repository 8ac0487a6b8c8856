"""The house: who imports whom, as consumer/README.md says, and how large a room may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "consumer").rglob("*.py"))
MAX_MODULE_LINES, MAX_CLASS_LINES, MAX_FUNCTION_LINES = 350, 200, 50


def test_imports_go_one_way(capfd: pytest.CaptureFixture[str]) -> None:
    broken = lint_imports(str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert not broken, capfd.readouterr().out


@pytest.mark.parametrize("wing", sorted(path.parent for path in MODULES if path.name == "__init__.py"))
def test_each_wing_says_what_it_is_for(wing: Path) -> None:
    assert ast.get_docstring(ast.parse((wing / "__init__.py").read_text()))


def too_large(module: Path) -> Iterator[str]:
    text = module.read_text()
    if (lines := len(text.splitlines())) > MAX_MODULE_LINES:
        yield f"the module has {lines} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > (MAX_CLASS_LINES if isinstance(node, ast.ClassDef) else MAX_FUNCTION_LINES):
                yield f"{node.name} has {lines} lines"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(ROOT)))
def test_every_module_can_be_read_at_one_sitting(module: Path) -> None:
    assert list(too_large(module)) == []


def test_no_test_module_is_a_library_of_another() -> None:
    """Helpers that several tests use stand in modules of their own."""
    importing = [
        f"{path.relative_to(ROOT)} imports {node.module}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module is not None
        if node.module.startswith("tests.") and node.module.rpartition(".")[2].startswith("test_")
    ]
    assert importing == []
