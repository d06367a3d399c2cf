"""CANN reads definitions by position: inputs, outputs and attributes in order, as the kernel does.

Nobody here can compile the definitions with the toolkit, so their order is compared as text.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "ascend_ops"
DEFINITIONS = sorted(ROOT.glob("*/op_host/*_def.cpp"))
OPERATORS = [path.parents[1].name for path in DEFINITIONS]
# Constants of a definition that are no position.
NO_POSITION = {"kPagedRank"}


def source_of(operator):
    return (ROOT / operator / f"op_host/{operator}_def.cpp").read_text(encoding="utf-8")


def declared(source, kind):
    """Return the names that ``source`` declares with Input, Output or Attr, in order."""
    names = []
    loops = r"for \(const char\* (\w+) : \{([^}]*)\}\) \{\s*" + kind + r"\(\1\)"
    for match in re.finditer(rf'{loops}|\b{kind}\("(\w+)"\)', source):
        names += re.findall(r'"(\w+)"', match[2]) if match[1] else [match[3]]
    return names


def kernel_parameters(operator):
    source = (ROOT / operator / f"op_kernel/{operator}.cpp").read_text(encoding="utf-8")
    entry = re.search(rf"void glm2_{operator}\(([^)]*)\)", source)
    assert entry, "no entry of that name"
    return re.findall(r"GM_ADDR (?:/\*)?(\w+)", entry[1])


def misplaced(source):
    """Return the constants that name another position than their input, output or attribute has."""
    orders = [declared(source, kind) for kind in ("Input", "Output", "Attr")]
    bad = []
    for name, value in re.findall(r"constexpr size_t (k\w+) = (\d+);", source):
        snake = re.sub(r"(?<!^)([A-Z])", r"_\1", name[1:].removesuffix("Ref")).lower()
        places = [order.index(snake) for order in orders if snake in order]
        if name not in NO_POSITION and int(value) not in places:
            bad.append(name)
    return bad


def test_every_operator_has_a_definition():
    kernels = {path.parent.name for path in ROOT.glob("*/op_kernel")} - {"common"}
    assert set(OPERATORS) == kernels


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_kernel_takes_inputs_outputs_workspace_and_tiling_in_order(operator):
    source = source_of(operator)
    inputs, outputs = declared(source, "Input"), declared(source, "Output")
    outputs = [f"{name}_ref" if name in inputs else name for name in outputs]
    expected = [name.replace("_", "") for name in [*inputs, *outputs, "workspace", "tiling"]]
    assert [name.lower() for name in kernel_parameters(operator)] == expected


@pytest.mark.parametrize("operator", OPERATORS)
def test_positions_are_those_of_the_definition(operator):
    assert misplaced(source_of(operator)) == []


@pytest.mark.parametrize("operator", OPERATORS)
def test_optional_inputs_come_last_and_required_attributes_first(operator):
    source = source_of(operator)
    inputs = re.findall(r"\bInput\(\w+|\bInput\(\"\w+\"\)\.ParamType\((\w+)\)", source)
    assert sorted(inputs, key=lambda option: option == "OPTIONAL") == inputs
    attributes = re.findall(r'Attr\("\w+"\)\.AttrType\((\w+)\)', source)
    assert sorted(attributes, reverse=True) == attributes
    assert len(attributes) == len(declared(source, "Attr"))


@pytest.mark.parametrize("operator", OPERATORS)
def test_types_are_listed_in_as_many_combinations_and_names_are_ours(operator):
    source = source_of(operator)
    lists = re.findall(r"vector<ge::DataType> \w+ = \{([^}]*)\}", source)
    assert len({text.count("ge::DT_") for text in lists}) == 1
    name = "Glm2" + "".join(word.capitalize() for word in operator.split("_"))
    assert f"class {name} : public OpDef" in source
    assert f"OP_ADD({name});" in source
    assert '.AddConfig("ascend910b")' in source


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_kernel_whose_cores_meet_starts_them_at_once(operator):
    kernel = (ROOT / operator / "op_kernel").glob("*.h")
    meets = any("AscendC::SyncAll" in path.read_text(encoding="utf-8") for path in kernel)
    assert ("Start::kAllCoresAtOnce" in source_of(operator)) == meets


def test_what_is_out_of_order_is_seen():
    source = 'constexpr size_t kB = 0;\nInput("a").x();\nInput("b").x();'
    assert misplaced(source) == ["kB"]
    assert misplaced(source.replace("= 0", "= 1")) == []
    looped = 'for (const char* input : {"a", "b"}) {\n    Input(input).x();\n}\nInput("c");'
    assert declared(looped, "Input") == ["a", "b", "c"]
