"""The course is true: its code prints what it shows, its answers hold, and both languages agree."""

import contextlib
import io
import re
import textwrap
import types
import typing
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COURSE = ROOT / "docs" / "course"
PAGES = sorted(COURSE.glob("[0-9]_*.md"))
TRANSLATIONS = sorted((COURSE / "zh").glob("[0-9]_*.md"))
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
QUESTION = re.compile(r"# .+\n\n\*(?P<question>[^*]+[?\N{FULLWIDTH QUESTION MARK}])\*\n")
EXERCISES = re.compile(r"^## (?:Exercises|练习)\n(.*)", re.MULTILINE | re.DOTALL)
ANSWER = re.compile(r"<details>\s*<summary>(?:Answer|答案)</summary>\n(.*?)</details>", re.DOTALL)


class Block(typing.NamedTuple):
    number: int  # from 1, over the python and text blocks of a page
    language: str
    text: str
    follows: bool  # nothing but blank lines stands between it and the block before


def read_blocks(text):
    """Return the python and text blocks of a page, in order, without their indentation."""
    found, end = [], 0
    for match in FENCE.finditer(text):
        if match[2] in {"python", "text"}:
            follows = bool(found) and not text[end : match.start()].strip()
            found.append(Block(len(found) + 1, match[2], textwrap.dedent(match[3]), follows))
        end = match.end()
    return found


def run_page(blocks, page):
    """Run the python blocks in one namespace and compare what they print with what is shown."""
    module = types.ModuleType("course_page")
    printed = before = None
    for block in blocks:
        where = f"{page}, block {block.number}"
        if block.language == "text":
            if block.follows and before == "python":
                assert printed == block.text, f"{where} is not what the block before it prints"
        else:
            out = io.StringIO()
            try:
                with contextlib.redirect_stdout(out):
                    code = compile(block.text, where, "exec", dont_inherit=True)
                    exec(code, vars(module))  # noqa: S102 - this is what the test is for
            except Exception as error:  # noqa: BLE001 - whatever it is, say where
                pytest.fail(f"{where} raised {type(error).__name__}: {error}")
            printed = out.getvalue()
        before = block.language


def identify(path):
    return path.relative_to(COURSE).as_posix()


def test_course_has_pages_in_both_languages():
    assert PAGES
    assert [path.name for path in TRANSLATIONS] == [path.name for path in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_page_prints_what_it_shows(page):
    run_page(read_blocks(page.read_text(encoding="utf-8")), identify(page))


@pytest.mark.parametrize("page", PAGES + TRANSLATIONS, ids=identify)
def test_page_asks_shows_and_answers(page):
    text = page.read_text(encoding="utf-8")
    assert QUESTION.match(text), f"{identify(page)} has no question in italics after its title"
    code = [block.text for block in read_blocks(text) if block.language == "python"]
    assert len(code) >= 3, f"{identify(page)} has {len(code)} python blocks; expected 3"
    assert any(re.search(r"^ *assert ", block, re.MULTILINE) for block in code), identify(page)
    exercises = EXERCISES.search(text)
    assert exercises, f"{identify(page)} has no exercises"
    answers = ANSWER.findall(exercises[1])
    assert len(answers) >= 3, f"{identify(page)} has {len(answers)} answers; expected 3"
    assert text.count("<details>") == text.count("</details>") == len(answers), identify(page)


@pytest.mark.parametrize("translation", TRANSLATIONS, ids=identify)
def test_translation_has_the_same_blocks(translation):
    original = COURSE / translation.name
    wanted = read_blocks(original.read_text(encoding="utf-8"))
    got = read_blocks(translation.read_text(encoding="utf-8"))
    for ours, theirs in zip(got, wanted, strict=False):
        assert ours == theirs, f"{identify(translation)}, block {ours.number} is another"
    assert len(got) == len(wanted), f"{identify(translation)} has another number of blocks"


@pytest.mark.parametrize("page", [*COURSE.glob("*.md"), *COURSE.glob("zh/*.md")], ids=identify)
def test_links_of_the_course_resolve(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            path, _, _ = target.partition("#")
            assert not path or (page.parent / path).exists(), f"{target} in {identify(page)}"


def test_wrong_output_is_named_by_page_and_block():
    page = "```python\nprint(1)\n```\n\n```text\n2\n```\n"
    with pytest.raises(AssertionError, match=r"x\.md, block 2 is not what"):
        run_page(read_blocks(page), "x.md")


def test_failing_answer_is_named_by_page_and_block():
    page = "```python\none = 1\n```\n\n   ```python\n   assert one == 2\n   ```\n"
    with pytest.raises(pytest.fail.Exception, match=r"x\.md, block 2 raised AssertionError"):
        run_page(read_blocks(page), "x.md")


def test_text_that_does_not_follow_code_is_not_compared():
    page = "```python\nprint(1)\n```\n\nA formula:\n\n```text\n2\n```\n"
    run_page(read_blocks(page), "x.md")
