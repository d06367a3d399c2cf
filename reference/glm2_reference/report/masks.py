"""`masks`: who sees whom in the four pre-training frameworks."""

from __future__ import annotations

import argparse

from glm2_reference.checks import BoolArray
from glm2_reference.masks import (
    bidirectional_mask,
    causal_mask,
    draw_mask,
    encoder_decoder_masks,
    glm_mask,
)
from glm2_reference.report.arguments import positive
from glm2_reference.report.document import Chart, Report, Table
from glm2_reference.report.svg import grid


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``masks``."""
    parser.add_argument("--len-a", type=positive, default=5, help="tokens of part A, or the source")
    parser.add_argument("--len-b", type=positive, default=5, help="tokens of part B, or the target")


def build(args: argparse.Namespace) -> Report:
    """Draw the four masks over the same number of tokens."""
    a, b = args.len_a, args.len_b
    _check_legible(a + b)
    frameworks = _frameworks(a, b)
    return Report(
        title="Four frameworks, four masks",
        question="Which tokens may each token look at?",
        tables=[
            Table(
                "Side by side",
                ("framework", "model", "seen by the first", "seen by the last", "pairs", "loss on"),
                [
                    (name, model, int(mask[0].sum()), int(mask[-1].sum()), int(mask.sum()), loss)
                    for name, model, mask, _, loss in frameworks
                ],
                f"{(a + b) ** 2} pairs in all. The encoder-decoder's three masks as one are GLM's.",
            )
        ],
        charts=[
            Chart(
                f"{name} ({model})",
                grid(mask, names),
                "A row is a token that looks, a column one that is looked at.",
            )
            for name, model, mask, names, _ in frameworks
        ],
        data={
            "report": "masks",
            "len_a": a,
            "len_b": b,
            "frameworks": {
                name: {"model": model, "loss_on": loss, "mask": mask.astype(int).tolist()}
                for name, model, mask, _, loss in frameworks
            },
        },
        text="\n\n".join(
            f"{name} ({model})\n{draw_mask(mask, ''.join(label[0] for label in names))}"
            for name, model, mask, names, _ in frameworks
        ),
    )


def _frameworks(a: int, b: int) -> list[tuple[str, str, BoolArray, list[str], str]]:
    """List name, model, mask, names of the tokens and what the loss is on."""
    return [
        ("causal", "GPT", causal_mask(a + b), _numbered("x", a + b), "every token"),
        ("bidirectional", "BERT", bidirectional_mask(a + b), _numbered("x", a + b),
         "masked tokens"),
        ("encoder-decoder", "T5", encoder_decoder_masks(a, b).joined(),
         [*_numbered("s", a), *_numbered("t", b)], "the target"),
        ("GLM", "GLM, ChatGLM", glm_mask(a, b), [*_numbered("a", a), *_numbered("b", b)],
         "part B"),
    ]  # fmt: skip


def _check_legible(tokens: int) -> None:
    if tokens > 40:
        msg = f"len_a + len_b is {tokens}; more than 40 tokens cannot be drawn legibly"
        raise ValueError(msg)


def _numbered(letter: str, count: int) -> list[str]:
    return [f"{letter}{i}" for i in range(1, count + 1)]
