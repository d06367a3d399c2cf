"""The reference is read by people: no long module, no long function."""

import ast
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[2] / "reference/glm2_reference"
MODULES = sorted(REFERENCE.rglob("*.py"))
MOST_LINES, MOST_FUNCTION_LINES = 300, 40


def code_lines(function):
    """Count the lines of a function, its docstring left out."""
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= first.end_lineno - first.lineno + 1
    return lines


def long_functions(source):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        f"{node.name}: {code_lines(node)}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, functions) and code_lines(node) > MOST_FUNCTION_LINES
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(REFERENCE)))
def test_no_module_and_no_function_is_long(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MOST_LINES
    assert long_functions(source) == []


def test_a_long_function_is_found_and_its_docstring_is_not_counted():
    body = "    x = 1\n" * MOST_FUNCTION_LINES
    assert long_functions(f'def f():\n    """One.\n\n    Two.\n    """\n{body[:-10]}') == []
    assert long_functions(f"class C:\n    def f(self):\n{body}".replace("    x", "        x"))
