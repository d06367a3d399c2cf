"""Reports: their figures, their forms, and what they refuse."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from glm2_reference.config import CHATGLM2_6B
from glm2_reference.report.__main__ import REPORTS, main
from glm2_reference.report.chatglm2 import decode_flops, weight_bytes
from glm2_reference.report.document import Chart, Report, Table, show, to_text
from glm2_reference.report.mqa import attention_step
from glm2_reference.report.page import to_html, to_svg
from glm2_reference.report.svg import Axis, Line, bar_chart, grid, line_chart

QUICK = {"steps": [], "hbm": ["--block-n", "256"], "mqa": ["--batch", "1"], "kv": [], "masks": []}


@pytest.fixture
def report(capsys):
    """``report(*arguments)``: what a report printed, read as JSON if it was asked for."""

    def run(*arguments):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        return json.loads(out) if "--json" in arguments else out

    return run


# ---- every report -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_prints_a_table_or_json_and_writes_a_page_and_a_drawing(name, report, tmp_path):
    page, drawing = tmp_path / "page.html", tmp_path / "drawing.svg"
    text = report(name, *QUICK[name], "--html", str(page), "--plot", str(drawing))
    assert re.search(r"^ +-+(  -+)+$", text, re.MULTILINE)  # the rule under a table's headings
    assert report(name, *QUICK[name], "--json")["report"] == name

    html = page.read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>")
    assert not re.search(r'(src|href)="', html)  # nothing to fetch
    for title in re.findall(r"<h2>(.*?)</h2>", html):
        assert title
    charts = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    root = ET.fromstring(drawing.read_text(encoding="utf-8"))
    nested = [child for child in root if child.tag.endswith("svg")]
    assert len(nested) == len(charts) > 0
    for svg in charts:
        ET.fromstring(svg)
    assert list(tmp_path.glob(".*")) == []  # no temporary file is left


@pytest.mark.parametrize("name", REPORTS)
def test_nothing_is_drawn_outside_its_chart(name, tmp_path, report):
    drawing = tmp_path / "drawing.svg"
    report(name, *QUICK[name], "--plot", str(drawing))
    for chart in ET.fromstring(drawing.read_text(encoding="utf-8")):
        if not chart.tag.endswith("svg"):
            continue
        _, _, width, height = map(float, chart.get("viewBox").split())
        for element in chart.iter():
            for name_, limit in (("x", width), ("y", height), ("cx", width), ("cy", height)):
                if element is not chart and element.get(name_) is not None:
                    assert 0 <= float(element.get(name_)) <= limit
            if element.tag.endswith("text") and element.get("x"):  # about 9.6 units a letter
                size = 9.6 * len(element.text)
                start = (
                    float(element.get("x"))
                    - {"end": 1, "middle": 0.5, "start": 0}[element.get("text-anchor")] * size
                )
                assert start >= -12
                assert start + size <= width + 12


def test_links_stay_links_and_pipes_are_written_to(report, tmp_path):
    page, link, pipe = (tmp_path / name for name in ("page.html", "link.html", "pipe"))
    page.write_text("old")
    page.chmod(0o640)
    link.symlink_to(page)
    report("masks", "--html", str(link))
    assert link.is_symlink()
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert page.stat().st_mode & 0o777 == 0o640
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "glm2_reference.report", "masks", "--plot", str(pipe)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        assert pipe.read_text(encoding="utf-8").startswith("<svg")
    assert process.returncode == 0
    assert pipe.is_fifo()


def test_a_reader_that_leaves_is_no_error_and_a_full_disk_is():
    command = [sys.executable, "-m", "glm2_reference.report", "hbm", "--block-n", "256"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # the reader leaves at once
        error = process.stderr.read()
    assert (process.returncode, error) == (141, b"")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "report hbm: [Errno 28]" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_module_runs_as_a_command():
    command = [
        sys.executable,
        "-m",
        "glm2_reference.report",
        "masks",
        "--len-a",
        "2",
        "--len-b",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "GLM (GLM, ChatGLM)\n  a a b\na # # .\na # # .\nb # # #" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hbm", "--batch", "0"], "'0' is not a whole number of 1"),
        (["hbm", "--batch", "two"], "'two' is not a whole number"),
        (["hbm", "--heads", "6", "--kv-heads", "4"], "multiple of num_kv_heads"),
        (
            ["hbm", "--seq-len", "1000000"],
            "tiles to walk, and at most 300,000 are; raise --block-m",
        ),
        (["hbm", "--seq-len", "1000000", "--block-n", "1000000", "--block-m", "1000000"], "walk"),
        (["hbm", "--seq-len", "20000"], "tiles to walk"),
        (["hbm", "--element-bytes", "1000000"], "room for an element"),
        (["steps", "--seq-len", "512"], "at most 256 are"),
        (
            ["steps", "--seq-len", "30000", "--block-m", "30000", "--block-n", "30000"],
            "more than an",
        ),
        (["steps", "--seed", "-1"], "'-1' is not a whole number"),
        (["mqa", "--batch", "1", "2", "3", "4"], "more lines than can be told apart"),
        (
            ["steps", "--sram-bytes", "64"],
            r"sram needs .* block_m=4, block_n=4 .* lower block_m or",
        ),
        (["kv", "--memory-gb", "-1"], "'-1' is not a number of gigabytes"),
        (["kv", "--memory-gb", "nan"], "'nan' is not a number of gigabytes"),
        (["kv", "--memory-gb", "much"], "'much' is not a number of gigabytes"),
        (["kv", "--memory-gb", "1e308"], "0 to 1e9"),
        (["masks", "--html", ""], "it has no file name; name a file"),
        (["masks", "--html", "x", "--plot", "x"], "both name x; name two files"),
        (["masks", "--len-a", "60"], "65; more than 40 tokens cannot be drawn legibly"),
        (
            ["masks", "--html", "/no/such/folder/x.html"],
            "cannot write /no/such/folder/x.html: No su",
        ),
        (["nothing"], "invalid choice: 'nothing'"),
        ([], "arguments are required: REPORT"),
    ],
)
def test_bad_arguments_are_refused_in_a_line(arguments, message, capsys):
    try:
        status = main(arguments)
    except SystemExit as left:
        status = left.code
    assert status == 2
    captured = capsys.readouterr()
    assert re.search(message, captured.err)
    assert captured.out == ""


# ---- hbm ----------------------------------------------------------------------------------------

PAPER = ["hbm", "--json", "--batch", "64", "--heads", "16", "--seq-len", "1024", "--head-dim", "64",
         "--element-bytes", "2"]  # fmt: skip


def rows_by_key(data):
    return {(row["schedule"], row["pass"], row["block_n"]): row for row in data["rows"]}


def test_hbm_at_the_papers_shape(report):
    rows = rows_by_key(report(*PAPER, "--block-n", "64", "128", "256", "384", "512"))
    n, d, heads = 1024, 64, 64 * 16
    for block_n in (64, 128, 256, 384, 512):
        blocks = -(-n // block_n)
        elems = {
            ("standard", "forward"): 4 * n * n + 4 * n * d,
            ("standard", "backward"): 7 * n * n + 8 * n * d,
            ("flash1", "forward"): 2 * n * d + blocks * (3 * n * d + 4 * n),
            ("flash1", "backward"): 4 * n * d + blocks * (5 * n * d + 2 * n),
        }
        for (schedule, which), count in elems.items():
            row = rows[schedule, which, block_n]
            assert row["hbm_bytes"] == row["closed_form_bytes"] == 2 * heads * count
            products = {"forward": 2, "backward": 4 if schedule == "standard" else 5}[which]
            assert row["flops"] == products * 2 * n * n * d * heads
    assert rows["flash1", "forward", 384]["fits"]
    assert not rows["flash1", "forward", 512]["fits"]


def test_hbm_conventions_change_what_they_say(report):
    def moved(*options):
        row = rows_by_key(report(*PAPER, "--block-n", "384", *options))["flash1", "forward", 384]
        assert row["hbm_bytes"] == row["closed_form_bytes"]
        return row["hbm_bytes"] / (64 * 16)

    n, d = 1024, 64
    plain = moved()
    assert moved("--init-writes") - plain == 2 * (n * d + 2 * n)
    assert moved("--stat-bytes", "4") - plain == 2 * 3 * 4 * n
    assert moved("--element-bytes", "4") == 2 * plain  # the last of two options counts
    causal = rows_by_key(report(*PAPER, "--block-n", "256", "--causal"))
    assert causal["flash1", "forward", 256]["closed_form_bytes"] is None
    assert causal["flash1", "forward", 256]["flops"] < 0.7 * 4 * n * n * d * 64 * 16
    assert causal["standard", "forward", 256]["closed_form_bytes"] is not None


def test_hbm_says_what_fits_in_the_given_sram(report):
    options = ("hbm", "--json", "--seq-len", "768", "--block-n", "64", "--sram-bytes")
    for sram, fits in (("150000", True), ("100000", False)):
        rows = rows_by_key(report(*options, sram))
        assert rows["standard", "backward", 64]["fits"] is fits


def test_hbm_in_json_holds_its_tables_too(report):
    tables = report(*PAPER, "--block-n", "384")["tables"]
    titles = [table["title"] for table in tables]
    assert any("Figure 2" in title for title in titles)
    assert any("Table 21" in title for title in titles)
    assert all(table["note"] for table in tables)


def test_hbm_does_not_claim_a_comparison_that_was_not_made(report):
    plain, causal = (report("hbm", "--block-n", "256", *more) for more in ([], ["--causal"]))
    assert "Every count equals its closed form" in " ".join(plain.split())
    assert "Every count equals" not in " ".join(causal.split())


def test_hbm_shares_kv_heads(report):
    shared, own = (
        rows_by_key(report("hbm", "--json", "--batch", "1", "--block-n", "128", *options))
        for options in (["--kv-heads", "2"], [])
    )
    n, d = 1024, 64
    assert (
        own["flash1", "forward", 128]["hbm_bytes"] - shared["flash1", "forward", 128]["hbm_bytes"]
        == (16 - 2) * 2 * n * d * 2
    )


def test_hbm_says_of_every_printed_figure_whether_it_matches(report):
    text = report("hbm", "--block-n", "384")
    for line in (
        r"as algorithms 0 and 3 are written +40\.3 +25\.23 +does not match",
        r"seven more N\^2 passes +40\.3 +40\.27 +matches; .* inference",
        r"no initial writes +4\.4 +4\.064 +below",
        r"with initial writes +4\.4 +4\.605 +above: 4\.4 is bracketed, not hit",
        r"12 N\^2 d a head, matrix products +66\.6 +824\.6 +does not match",
        r"7 products against 6 +1\.129 +1\.167 +does not match",
    ):
        assert re.search(line, text), line
    assert "Convention: elements 2 B, row statistics 2 B, score tiles 2 B, without initial" in text


# ---- the others ---------------------------------------------------------------------------------


def test_steps_adds_up(report):
    data = report("steps", "--json", "--seq-len", "10", "--head-dim", "6", "--causal")
    assert data["largest_difference_from_dense"] < 1e-12
    for schedule in data["schedules"].values():
        moved = sum(step["bytes"] for step in schedule["steps"])
        assert moved == schedule["hbm_bytes"]
        assert max(step["sram_bytes"] for step in schedule["steps"]) == schedule["peak_sram_bytes"]
        assert moved == sum(
            counter["read_bytes"] + counter["write_bytes"]
            for counter in schedule["counters"].values()
        )


def test_steps_shows_nine_steps_that_add_up_to_the_formula(report):
    text = report("steps", "--seq-len", "8", "--head-dim", "4")
    table = text.split("nine steps\n")[1].split("\n\n")[0]
    lines = [line.split() for line in table.splitlines()[2:11]]
    assert [line[0] for line in lines] == list("123456789")
    moved = sum(
        int(line[-3 if kind == "read" else -2])
        for line in lines for kind in ("read", "write") if line[1] == kind
    )  # fmt: skip
    assert moved == 2 * (4 * 8 * 8 + 4 * 8 * 4)


def test_mqa_and_kv_have_chatglm2s_sizes(report):
    kv, mqa = report("kv", "--json"), report("mqa", "--json")
    for data in (kv, mqa):
        assert data["kv_bytes_per_token"] == {
            "MHA": 458752, "GQA-8": 114688, "GQA-2": 28672, "MQA": 14336
        }  # fmt: skip
    # The published checkpoint is 12,487,168,064 bytes, its 64-byte table of frequencies included.
    assert kv["weight_bytes"]["fp16"] == 12_487_168_064 - 64


def test_kv_rows_differ_in_their_cache_alone(report):
    rows = report("kv", "--json", "--memory-gb", "16", "--reserve-gb", "0")["rows"]
    assert len({row["weight_bytes"] for row in rows if row["weights"] == "fp16"}) == 1
    text = report("kv", "--memory-gb", "13", "--batch", "8")
    assert "Tokens that fit in each of 8 sequences beside the weights, 1 GB kept free" in text
    assert "the weights and what is kept free do not fit" in text


def test_kv_fits_what_is_left(report):
    data = report("kv", "--json", "--memory-gb", "16", "--reserve-gb", "2", "--batch", "4")
    (row,) = [r for r in data["rows"] if r["weights"] == "fp16" and r["heads"] == "GQA-2"]
    assert row["tokens"] == (14_000_000_000 - row["weight_bytes"]) // 28672
    assert row["tokens_a_sequence"] == row["tokens"] // 4
    small = report("kv", "--json", "--memory-gb", "3")
    assert not any(r["fits"] or r["tokens"] for r in small["rows"])


def test_quantised_weights_are_counted_as_published():
    layer = [(4608, 4096), (4096, 4096), (27392, 4096), (4096, 13696)]
    full = weight_bytes(CHATGLM2_6B, "fp16")
    for weight_format, bits in (("int8", 8), ("int4", 4)):
        saved = sum(2 * out * n - (out * n * bits // 8 + 2 * out) for out, n in layer) * 28
        assert weight_bytes(CHATGLM2_6B, weight_format) == full - saved


def test_decode_flops_are_two_a_weight_and_four_a_cached_dim():
    weights = 28 * (4608 * 4096 + 4096 * 4096 + 27392 * 4096 + 4096 * 13696) + 65024 * 4096
    assert decode_flops(CHATGLM2_6B, 100) == 2 * weights + 28 * 4 * 32 * 128 * 100


def test_mqa_counts_a_step():
    elements, work = attention_step(context=10, model_dim=8, heads=4, kv_heads=2, batch=3)
    weights = 8 * 8 + 2 * 8 * 4 + 8 * 8  # q, k and v, o
    assert elements == weights + 3 * (2 * 10 * 4) + 3 * (8 + 4 + 4 + 8 + 8 + 8)
    assert work == 3 * (weights + 2 * 10 * 8)


def test_mqa_counts_both_loop_orders(report):
    (table,) = [t for t in report("mqa", "--json")["tables"] if "both loop orders" in t["title"]]
    rows = {tuple(row[:3]): row[3:] for row in table["rows"]}
    alone, shared, ratio = rows["decoding at 8,192", "forward", "flash2"]
    assert alone == 16 * shared == 32 * 2 * 8192 * 128 * 2
    assert ratio == 16
    assert (
        rows["prefill of 1,024", "forward", "flash2"][2] == 1
    )  # a tile of rows is full either way
    assert rows["prefill of 1,024", "forward", "flash1"][2] == 16


def test_mqa_holds_the_weights_fixed_and_says_what_does_not_fit(report):
    data = report("mqa", "--json", "--context", "2000", "32768", "--batch", "1", "16")
    rows = {(r["system"], r["batch"], r["context"], r["heads"]): r for r in data["rows"]}
    mha, gqa = (rows["a100", 1, 2000, heads]["bytes"] for heads in ("MHA", "GQA-2"))
    assert mha - gqa == 2000 * (458752 - 28672)
    assert round(mha / gqa, 3) == 1.072  # as page 2 of the course has it
    assert not rows["a100", 16, 32768, "MHA"]["fits"]
    (table,) = [t for t in data["tables"] if "decoding step of" in t["title"]]
    (row,) = [r for r in table["rows"] if r[:3] == ["a100", 16, 32768]]
    assert row[3] is None
    assert row[5] is not None


def test_mqa_predictions_are_bounded_by_bytes_and_flops(report):
    rows = report("mqa", "--json")["rows"]
    assert all(row["step_ms"] == max(row["memory_ms"], row["compute_ms"]) for row in rows)
    assert any(row["step_ms"] == row["compute_ms"] for row in rows)  # a batch on the CPU


def test_masks_hold_the_four_frameworks(report):
    data = report("masks", "--json", "--len-a", "3", "--len-b", "2")["frameworks"]
    assert list(data) == ["causal", "bidirectional", "encoder-decoder", "GLM"]
    want = np.tril(np.ones((5, 5), int))
    want[:, :3] = 1
    assert data["GLM"]["mask"] == data["encoder-decoder"]["mask"] == want.tolist()


# ---- tables and charts --------------------------------------------------------------------------


def test_cells_are_shown_as_readers_expect():
    cells = [12288, 0.0001234, 25.23345, 12345.6, None, True, "x"]
    assert [show(cell) for cell in cells] == [
        "12,288", "0.0001234", "25.23", "12,346", "-", "yes", "x"
    ]  # fmt: skip


def test_text_sets_numbers_right_and_words_left():
    table = Table("T", ("name", "n"), [("a", 1), ("bcd", 1000)], "note")
    assert to_text(Report("R", "Q", [table], [], {})).splitlines() == [
        "R", "Q", "", "T", "  name      n", "  ----  -----", "  a         1", "  bcd   1,000",
        "  note",
    ]  # fmt: skip


def test_pages_escape_what_they_are_given():
    table = Table("<T>", ("a<b",), [("<i>",)])
    svg = bar_chart(["<x>"], [1.0], Axis("&"))
    page = to_html(Report("<R>", "?", [table], [Chart("<C>", svg)], {}))
    assert "<i>" not in page
    assert "&lt;R&gt;" in page
    assert "&lt;x&gt;" in page
    ET.fromstring(to_svg(Report("", "", [], [Chart("<C>", svg)], {})))


def test_lines_go_through_their_points():
    svg = line_chart([Line("a", [1, 2, 3], [0, 5, 10])], Axis("x"), Axis("y"))
    places = [(float(c.get("cx")), float(c.get("cy"))) for c in ET.fromstring(svg)
              if c.tag.endswith("circle")]  # fmt: skip
    (x1, y1), (x2, y2), (x3, y3) = places
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 > y2 > y3
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2)
    logarithmic = line_chart([Line("a", [1, 10, 100], [1, 1, 1])], Axis("x", log=True), Axis("y"))
    xs = [float(c.get("cx")) for c in ET.fromstring(logarithmic) if c.tag.endswith("circle")]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "nothing to draw"),
        ([Line("a", [1], [float("nan")])], "not a number"),
        ([Line(str(i), [1, 2], [1, 2]) for i in range(7)], "7 lines cannot be told apart"),
    ],
)
def test_what_cannot_be_drawn_is_refused(lines, message):
    with pytest.raises(ValueError, match=message):
        line_chart(lines, Axis("x"), Axis("y"))


def test_a_logarithmic_axis_refuses_zero():
    with pytest.raises(ValueError, match="the axis 'GB' is logarithmic, but has 0"):
        line_chart([Line("a", [1], [0])], Axis("x"), Axis("GB", log=True))


@pytest.mark.parametrize("low_high", [(0, 1), (0, 7), (0, 900), (0, 3.5), (0, 0)])
def test_axes_have_a_few_ticks(low_high):
    svg = line_chart([Line("a", [0, 1], low_high)], Axis("x"), Axis("y"))
    ends = [
        e for e in ET.fromstring(svg) if e.tag.endswith("text") and e.get("text-anchor") == "end"
    ]
    assert 2 <= len(ends) <= 7


def test_bars_may_be_logarithmic_and_grids_are_filled_where_true():
    widths = [
        float(rect.get("width"))
        for rect in ET.fromstring(bar_chart("abc", [1, 10, 100], Axis("x", log=True)))
        if rect.tag.endswith("rect") and rect.get("fill") != "#fff"
    ]
    assert widths[1] - widths[0] == pytest.approx(widths[2] - widths[1], abs=0.2)
    svg = grid(np.eye(3, dtype=bool), ["a", "b", "c"])
    fills = [rect.get("fill") for rect in ET.fromstring(svg) if rect.get("stroke")]
    assert [fill != "#fff" for fill in fills] == np.eye(3, dtype=bool).reshape(-1).tolist()


def test_help_shows_defaults_where_there_are_any(capsys):
    with pytest.raises(SystemExit):
        main(["hbm", "--help"])
    out = capsys.readouterr().out
    assert "query heads (default: 16)" in out
    assert "None" not in out
    assert "False" not in out
