import copy
import json
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from glm2.response import ToolCallError, clean_response, process_response

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "tokenizer.json").read_text())
HISTORY = [{"role": "system", "content": "s", "tools": []}, {"role": "user", "content": "q"}]
LITERALS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)  # fmt: skip


def call(body):
    return process_response(f"weather\n ```python\n{body}\n```", HISTORY)[0]


def test_chatglm2_answers_are_the_published_ones():
    for output, wanted in GOLDEN["cleaned"]:
        assert clean_response(output) == wanted


@pytest.mark.parametrize("case", GOLDEN["responses"])
def test_chatglm3_answers_are_the_published_ones(case):
    output, history, *wanted = case
    before = copy.deepcopy(history)
    ours = process_response(output, history)
    assert json.loads(json.dumps(ours)) == wanted  # the file turned a tuple into a list
    assert history == before


def test_turns_become_history():
    output = "\n 先查。 <|assistant|>weather\n ```python\ntool_call(city='北京')\n```"
    response, history = process_response(output, HISTORY)
    assert response == {"name": "weather", "parameters": {"city": "北京"}}
    assert history[:2] == HISTORY
    assert history[2:] == [
        {"role": "assistant", "metadata": "", "content": "先查。"},
        {
            "role": "assistant",
            "metadata": "weather",
            "content": " ```python\ntool_call(city='北京')\n```",
        },
    ]
    assert process_response("", []) == ("", [{"role": "assistant", "metadata": "", "content": ""}])


def test_a_call_is_parsed_where_there_are_tools_alone():
    output = "interpreter\n```python\nprint(1)\n```"
    for history in ([], HISTORY[1:], [{"role": "system", "content": "s"}]):
        response, _ = process_response(output, history)
        assert response == {"name": "interpreter", "content": "```python\nprint(1)\n```"}


def test_an_earlier_call_that_is_damaged_does_not_matter():
    response, history = process_response("weather\n```\nboom(\n```<|assistant|>\nok", HISTORY)
    assert response == "ok"
    assert len(history) == 4


@given(st.dictionaries(st.from_regex(r"[a-z]_[a-z0-9]{0,5}", fullmatch=True), LITERALS))
def test_literals_come_back(parameters):
    body = f"tool_call({', '.join(f'{name}={value!r}' for name, value in parameters.items())})"
    assume("<|assistant|>" not in body)  # it opens another turn, wherever it stands
    assert call(body)["parameters"] == parameters


def test_a_call_may_span_lines_and_end_in_white_space():
    assert call('tool_call(\n    a=1,\n    b="x",\n)\n')["parameters"] == {"a": 1, "b": "x"}
    output = "weather\n ```python\ntool_call(a=(1, -2))\n``` \n\n"
    assert process_response(output, HISTORY)[0]["parameters"] == {"a": (1, -2)}
    assert call(r'tool_call(a="\d")')["parameters"] == {"a": r"\d"}  # warns in eval


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "SyntaxError"),
        ("tool_call(a=", "SyntaxError"),
        ("tool_call(a=1", "SyntaxError"),
        ("tool_call(a=1); tool_call(b=2)", "SyntaxError"),
        ("x = tool_call(a=1)", "SyntaxError"),
        ("tool_call(a=\0)", "null byte|SyntaxError"),
        ("tool_call", "ValueError: no call of tool_call"),
        ("{'a': 1}", "ValueError: no call of tool_call"),
        ("os.system('true')", "ValueError: no call of tool_call"),
        ("weather(a=1)", "ValueError: a call of weather"),
        ("tool_call(1)", "ValueError: an argument without a name"),
        ("tool_call(**{'a': 1})", "ValueError: an argument that is given twice or spread"),
        ("tool_call(a=1, a=2)", "ValueError: an argument that is given twice or spread|SyntaxErr"),
        ("tool_call(a=__import__('os'))", "ValueError: malformed node"),
        ("tool_call(a=true)", "ValueError: malformed node"),
        ("tool_call(a=f'{x}')", "ValueError: malformed node"),
        ("tool_call(a=2**99999999)", "ValueError: malformed node"),
        ("tool_call(a={[1]: 2})", "TypeError: "),
        (f"tool_call(a={'-' * 30000}1)", "MemoryError|RecursionError|SyntaxError"),
        (f"tool_call(a={'[' * 30000})", "MemoryError|RecursionError|SyntaxError"),
    ],
)
def test_what_is_no_call_with_literals_is_an_error(body, reason):
    with pytest.raises(ToolCallError, match=f"the tool 'weather' in a way.*(?:{reason})") as caught:
        call(body)
    assert str(caught.value).endswith("Ask again")
    assert caught.value.output == f"weather\n ```python\n{body}\n```"
    assert len(str(caught.value)) < 700


def test_a_call_without_fences_is_an_error():
    with pytest.raises(
        ToolCallError, match=r"expected tool_call\(name=value, ...\) with Python lit"
    ):
        process_response("weather\ntool_call(a=1)", HISTORY)


@given(st.text())
def test_any_answer_is_a_response_or_a_tool_call_error(output):
    for history in (HISTORY, HISTORY[1:], []):
        try:
            response, new_history = process_response(output, history)
        except ToolCallError as error:
            assert error.output == output  # noqa: PT017
        else:
            assert isinstance(response, str | dict)
            assert len(new_history) == len(history) + output.count("<|assistant|>") + 1
