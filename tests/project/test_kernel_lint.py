"""Kernels use the part of C++ that device compilers take: a lint over op_kernel/."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "ascend_ops"
KERNEL_FILES = sorted(path for path in ROOT.glob("*/op_kernel/*") if path.suffix in {".h", ".cpp"})

BANNED = {
    "std::": r"\bstd\s*::",
    "new, delete, malloc or free": r"\b(new|delete|malloc|calloc|realloc|free)\b",
    "virtual": r"\b(virtual|override)\b",
    "RTTI": r"\b(dynamic_cast|typeid|type_info)\b",
    "thread_local": r"\bthread_local\b",
    "a static variable": r"\bstatic\b(?!\s+constexpr\b)(?!_)(?![^;{=]*\()",
    "double": r"\b(double|float64)\b|\blong\s+double\b",
    "an exception": r"\b(try|catch|throw|noexcept)\b",
    "iostream": r"#\s*include\s*<(iostream|cstdio|string|vector)>|\b(cout|cerr|printf|fprintf)\b",
    "a lambda": r"\[[&=]?[\w\s,&=]*\]\s*(\([^()]*\))?\s*(mutable\s*)?(->\s*[\w:]+\s*)?\{",
    "a double literal": r"(?<![\w.])(\d+\.\d*|\.\d+)([eE][+-]?\d+)?(?![\w.])",
    "a string literal": r'"',
}
# A function's head: return type, name, parameters, then its body.
FUNCTION = re.compile(
    r"(?P<head>(?:^|(?<=[;{}>:\n]))[ \t]*(?:[\w:<>,*&\s\"]+?[\s*&]))"
    r"(?P<name>~?\w+)\s*\((?P<params>[^(){};]*)\)\s*(?:const\s*)?\{",
    re.MULTILINE,
)
ADDRESS_SPACE = r"\b__(?:gm|ubuf|cbuf|ca|cb|cc|fbuf|biasbuf)__\b"
# A declared array: type, name, bound. What looks like one and is not begins with one of the words.
ARRAY = re.compile(r"(?P<type>\b[\w:<>]+)[\s*&]+\w+\[(?P<bound>[^\]]*)\](?:\[[^\]]*\])?\s*[={;]")
NOT_TYPES = {"return", "else", "case", "goto", "delete", "co_return"}
MOST_ELEMENTS = 16  # the stack of a scalar unit is small, and it also holds the kernel's object
NOT_FUNCTIONS = {"if", "for", "while", "switch", "return", "constexpr", "ASCEND_IS_AIC"}


def without_comments(source):
    source = re.sub(r"//[^\n]*", "", source)
    return re.sub(r"/\*.*?\*/", "", source, flags=re.DOTALL)


def code_of(source):
    """Return ``source`` without comments, its own includes and the C linkage of entries."""
    source = re.sub(r'#\s*include\s*"[^"\n]*"', "", without_comments(source))
    return source.replace('extern "C"', "")


def functions_without_aicore(source):
    """Return the names of the functions that are defined without ``__aicore__``."""
    bad = []
    for match in FUNCTION.finditer(code_of(source)):
        head, name = match["head"], match["name"]
        if name in NOT_FUNCTIONS or re.search(r"\b(else|return|case)\b", head):
            continue
        if "__aicore__" not in head:
            bad.append(name)
    return bad


def bodies(code):
    """Return (name, parameters, body) of every function that ``code`` defines."""
    found = []
    for match in FUNCTION.finditer(code):
        if match["name"] in NOT_FUNCTIONS or re.search(r"\b(else|return|case)\b", match["head"]):
            continue
        depth, end = 1, match.end()
        while depth and end < len(code):
            depth += {"{": 1, "}": -1}.get(code[end], 0)
            end += 1
        found.append((match["name"], match["params"], code[match.end() : end]))
    return found


def recursive_functions(source):
    """Return the functions that reach themselves through calls of functions of the same file."""
    functions = bodies(code_of(source))
    names = {name for name, _, _ in functions}
    calls = {name: set() for name in names}
    for name, _, body in functions:
        called = set(re.findall(r"(?<![\w.>:])(?:this->)?(\w+)\s*(?:<[^<>;()]*>)?\(", body))
        calls[name] |= called & names
    bad = set()
    for start in names:
        reached, ahead = set(), list(calls[start])
        while ahead:
            name = ahead.pop()
            if name not in reached:
                reached.add(name)
                ahead += calls[name]
        if start in reached:
            bad.add(start)
    return bad


def constants(*sources):
    """Return the integer constants that kernels declare by a plain number."""
    pattern = r"constexpr \w+ (k\w+) = (\d+)u?;"
    return {name: int(value) for text in sources for name, value in re.findall(pattern, text)}


def large_arrays(source, known):
    """Return the bounds of arrays with too many elements, or with a number that is not known."""
    bad = []
    for match in ARRAY.finditer(code_of(source)):
        bound = match["bound"].strip()
        size = int(bound) if bound.isdigit() else known.get(bound)
        if match["type"] not in NOT_TYPES and (size is None or size > MOST_ELEMENTS):
            bad.append(bound)
    return bad


def wrong_entries(source):
    """Return what is wrong with kernel entries: a result, or an argument that is no GM_ADDR."""
    bad = []
    for match in re.finditer(r"__global__([^(){};]*?)(\w+)\s*\(([^()]*)\)", code_of(source)):
        if match[1].split() != ["__aicore__", "void"]:
            bad.append(f"{match[2]} returns no void")
        parameters = [text.strip() for text in match[3].split(",") if text.strip()]
        bad += [text for text in parameters if not re.fullmatch(r"GM_ADDR(\s+\w+)?", text)]
    return bad


def overloads_by_address_space(source):
    """Return the functions with overloads that are one but for address spaces."""
    seen, bad = {}, set()
    for name, parameters, _ in bodies(code_of(source)):
        exact = " ".join(parameters.split())
        plain = " ".join(re.sub(ADDRESS_SPACE, "", exact).split())
        if seen.setdefault((name, plain), exact) != exact:
            bad.add(name)
    return bad


def banned_constructs(source):
    code = code_of(source)
    return {name for name, pattern in BANNED.items() if re.search(pattern, code)}


@pytest.mark.parametrize("path", KERNEL_FILES, ids=lambda path: path.name)
def test_kernels_use_no_banned_construct(path):
    assert not banned_constructs(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", KERNEL_FILES, ids=lambda path: path.name)
def test_every_kernel_function_is_marked_aicore(path):
    assert not functions_without_aicore(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", KERNEL_FILES, ids=lambda path: path.name)
def test_kernels_keep_to_the_calls_and_arrays_that_devices_take(path):
    source = path.read_text(encoding="utf-8")
    known = constants(*(file.read_text(encoding="utf-8") for file in KERNEL_FILES))
    assert recursive_functions(source) == set()
    assert large_arrays(source, known) == []
    assert wrong_entries(source) == []
    assert overloads_by_address_space(source) == set()


def test_every_operator_has_one_entry():
    entries = [path for path in KERNEL_FILES if path.suffix == ".cpp"]
    assert entries
    assert all(path.read_text(encoding="utf-8").count("__global__") == 1 for path in entries)


@pytest.mark.parametrize(
    ("source", "bad"),
    [
        ("int F(int x) {\n    return x > 0 ? F(x - 1) : 0;\n}", {"F"}),
        ("void F() {\n    G();\n}\nvoid G() {\n    if (x) {\n        F();\n    }\n}", {"F", "G"}),
        ("template <typename T>\nT F(T x) {\n    return F<T>(x);\n}", {"F"}),
        ("void F() {\n    this->F();\n}", {"F"}),
        ("void Init() {\n    cube_.Init();\n    AscendC::Init();\n}", set()),
        ("void F() {\n    G();\n}\nvoid G() {\n}", set()),
    ],
)
def test_recursion_is_caught(source, bad):
    assert recursive_functions(source) == bad


@pytest.mark.parametrize(
    ("source", "bad"),
    [
        ("float row[256];", ["256"]),
        ("const uint32_t rows[kMany] = {};", ["kMany"]),
        ("float row[count];", ["count"]),
        ("AscendC::LocalTensor<float> tile_[17];", ["17"]),
        ("uint64_t mask[2] = {1, 0};\nTask ring[kSlots];", []),
        ("return row[256];", []),
        ("row[256] = 1; tile = rows[index];", []),
    ],
)
def test_large_arrays_are_caught(source, bad):
    assert large_arrays(source, {"kSlots": 3, "kMany": 4096}) == bad


@pytest.mark.parametrize(
    ("source", "bad"),
    [
        ('extern "C" __global__ __aicore__ void F(GM_ADDR x, GM_ADDR /*y*/) {}', []),
        ('extern "C" __global__ __aicore__ int F(GM_ADDR x) {}', ["F returns no void"]),
        ('extern "C" __global__ void F(GM_ADDR x) {}', ["F returns no void"]),
        ('extern "C" __global__ __aicore__ void F(GM_ADDR x, Tiling t) {}', ["Tiling t"]),
        ('extern "C" __global__ __aicore__ void F(GM_ADDR x, int* y) {}', ["int* y"]),
    ],
)
def test_wrong_entries_are_caught(source, bad):
    assert wrong_entries(source) == bad


@pytest.mark.parametrize(
    ("source", "bad"),
    [
        ("void F(__gm__ float* x) {\n}\nvoid F(__ubuf__ float* x) {\n}", {"F"}),
        ("void F(float* x) {\n}\nvoid F(__gm__ float* x) {\n}", {"F"}),
        ("void F(__gm__ float* x) {\n}\nvoid F(__gm__ half* x) {\n}", set()),
    ],
)
def test_overloads_by_address_space_are_caught(source, bad):
    assert overloads_by_address_space(source) == bad


def test_kernels_were_found():
    names = {path.name for path in KERNEL_FILES}
    assert {"flash_attention.cpp", "rope_append_kernel.h", "tile_math.h"} <= names


def test_the_lint_sees_the_functions_it_judges():
    source = (ROOT / "common/op_kernel/tile_math.h").read_text(encoding="utf-8")
    found = {match["name"] for match in FUNCTION.finditer(code_of(source))}
    assert {"CeilDiv", "AlignUp", "MinOf", "MaxOf", "ReduceRepeatMax"} <= found
    source = (ROOT / "rope_append/op_kernel/rope_append_kernel.h").read_text(encoding="utf-8")
    found = {match["name"] for match in FUNCTION.finditer(code_of(source))}
    assert {"Init", "Process", "Rotate", "CopyIn", "CopyOutQ", "CopyOutCache"} <= found
    source = (ROOT / "common/op_kernel/ub_space.h").read_text(encoding="utf-8")
    assert "Take" in {match["name"] for match in FUNCTION.finditer(code_of(source))}


@pytest.mark.parametrize(
    ("source", "construct"),
    [
        ("int x = std::min(1, 2);", "std::"),
        ("int* x = new int[4];", "new, delete, malloc or free"),
        ("void* x = malloc(4);", "new, delete, malloc or free"),
        ("struct A { virtual void F() = 0; };", "virtual"),
        ("B* b = dynamic_cast<B*>(a);", "RTTI"),
        ("if (typeid(x) == typeid(y)) F();", "RTTI"),
        ("thread_local int x;", "thread_local"),
        ("static int count = 0;", "a static variable"),
        ("static int counts[4];", "a static variable"),
        ("double x = y;", "double"),
        ("try { F(); } catch (...) {}", "an exception"),
        ("void F() noexcept;", "an exception"),
        ("#include <iostream>", "iostream"),
        ("printf(x);", "iostream"),
        ("auto f = [&](int x) { return x; };", "a lambda"),
        ("auto f = [] { return 1; };", "a lambda"),
        ("float x = 1.5;", "a double literal"),
        ("float x = 1e-3 + 2.0;", "a double literal"),
        ('const char* x = "text";', "a string literal"),
    ],
)
def test_a_banned_construct_is_caught(source, construct):
    assert construct in banned_constructs(source)


@pytest.mark.parametrize(
    "source",
    [
        "// std::min would be a double, new or virtual: a comment may say so",
        "static constexpr uint32_t kC0 = 16;",
        "params.isNew = renewed; float x = 1.0f + 3.0e38f;",
        "static_cast<float>(x[i]);",
        "kL1_[buffer][row * kC0] = x[0];",
        '#include "kernel_operator.h"\nextern "C" __global__ __aicore__ void F(GM_ADDR x) {}',
    ],
)
def test_what_kernels_need_is_allowed(source):
    assert not banned_constructs(source)


@pytest.mark.parametrize(
    ("source", "bad"),
    [
        ("inline int F(int x) { return x; }", ["F"]),
        ("__aicore__ inline int F(int x) { return x; }", []),
        ("class A {\n  public:\n    void Init(int x) {\n    }\n};", ["Init"]),
        ("class A {\n  public:\n    __aicore__ inline void Init(int x) const {\n    }\n};", []),
        ("template <typename T>\nT MinOf(T a, T b) {\n    return a;\n}", ["MinOf"]),
        ("template <typename T>\n__aicore__ inline T MinOf(T a, T b) {\n    return a;\n}", []),
        ("__aicore__ inline void F() {\n    if (x) {\n    } else if (y) {\n    }\n}", []),
        ("__aicore__ inline void F() {\n    while (Next()) {\n    }\n}", []),
    ],
)
def test_a_function_without_aicore_is_caught(source, bad):
    assert functions_without_aicore(source) == bad
