"""``glm2 generate``: JSON lines in, JSON lines out, for files and pipes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from glm2.commands._options import (
    CacheDtype,
    ChatFormat,
    ModelName,
    PrefixEncoder,
    RepetitionPenalty,
    Seed,
    Temperature,
    TopK,
    TopP,
    given_sampling,
    open_checkpoint,
)
from glm2.commands._output import claimed_output

if TYPE_CHECKING:
    from glm2.chat_tokenizer import ChatTokenizer
    from glm2.pretrained import ChatGLM
    from glm2.sampling import SamplingParams


@dataclasses.dataclass(frozen=True)
class _Job:
    """Everything that a line is answered with."""

    model: ChatGLM
    tokenizer: ChatTokenizer
    sampling: SamplingParams
    max_new_tokens: int
    stop_strings: tuple[str, ...]


def command(
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="JSON lines; - is standard input.")
    ] = "-",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write here [default: stdout].")
    ] = None,
    model: ModelName = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 512,
    batch_size: Annotated[int, typer.Option(min=1, help="Lines answered together.")] = 1,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    repetition_penalty: RepetitionPenalty = None,
    seed: Seed = None,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends an answer.")] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on where an interrupted run with --output stopped.")
    ] = False,
    chat_format: ChatFormat = None,
    prefix_encoder: PrefixEncoder = None,
    cache_dtype: CacheDtype = "float16",
) -> None:
    """Answer a file of requests, a JSON object a line.

    Each has one of "prompt" (a question), "messages" (a conversation), "text" (to be continued) or
    "ids", and perhaps an "id". Answers come in the same order, a JSON object a line: "response",
    "finish_reason", "prompt_tokens", "new_tokens", or "error" where a line could not be answered.
    Exit code 1 if any could not.
    """
    sampling = given_sampling(temperature, top_p, top_k, repetition_penalty, seed)
    if stop is not None and "" in stop:
        msg = "--stop is empty; give it a text, or leave it out"
        raise typer.BadParameter(msg)
    if resume and output is None:
        msg = "--resume goes on with a file; name it with --output"
        raise typer.BadParameter(msg)
    with contextlib.ExitStack() as stack:
        lines, total = _open_source(source, stack)
        target: IO[str] = sys.stdout
        done = num_failed = 0
        if output is not None:
            claimed = stack.enter_context(claimed_output(output, source, resume=resume))
            target, done, num_failed = claimed.file, claimed.num_done, claimed.num_failed
        if total is not None and done > total:
            msg = (
                f"{output}.partial has {done} answers and {source} {total} lines; it is of "
                "another input: delete it"
            )
            raise ValueError(msg)
        checkpoint = open_checkpoint(
            model, chat_format, prefix_encoder=prefix_encoder, cache_dtype=cache_dtype
        )
        job = _Job(
            checkpoint.model,
            checkpoint.tokenizer,
            dataclasses.replace(checkpoint.model.checkpoint.sampling, **sampling),
            max_new_tokens,
            tuple(stop or ()),
        )
        num_failed += _run(job, lines, total, done, batch_size, target)
    if num_failed:
        typer.echo(f"glm2: {num_failed} lines could not be answered; see their error", err=True)
        raise typer.Exit(1)


def _run(
    job: _Job,
    lines: Iterable[str],
    total: int | None,
    done: int,
    batch_size: int,
    target: IO[str],
) -> int:
    """Answer all lines but the first ``done``; return how many could not be."""
    from glm2.progress import count_progress

    numbered = itertools.islice(enumerate(lines), done, None)
    num_failed = num_tokens = 0
    started_s = time.perf_counter()
    with count_progress("Answering", total, done) as advance:
        while batch := list(itertools.islice(numbered, batch_size)):
            for answer in _answer(job, batch):
                target.write(_json_line(answer))
                num_failed += "error" in answer
                num_tokens += answer.get("new_tokens", 0)
            target.flush()
            advance(len(batch), f"{num_tokens / (time.perf_counter() - started_s):.1f} tokens/s")
    return num_failed


def _json_line(answer: dict[str, Any]) -> str:
    """Write an answer readably; text that UTF-8 cannot hold is escaped."""
    line = json.dumps(answer, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(answer)
    return line + "\n"


def _answer(job: _Job, batch: list[tuple[int, str]]) -> list[dict[str, Any]]:
    """Answer some lines together; what one of them gets wrong is no other's error."""
    from glm2.generate import check_ids, check_lengths
    from glm2.json_lines import parse_request
    from glm2.response import clean_response

    answers: dict[int, dict[str, Any]] = {}
    prompts: dict[int, list[int]] = {}
    turns = set()
    checkpoint, config = job.model.checkpoint, job.model.config
    for number, line in batch:
        answers[number] = {"index": number}
        try:
            request = parse_request(line, job.tokenizer, checkpoint.default_system)
            if request.label is not None:
                answers[number]["id"] = request.label
            check_lengths(
                0,
                len(request.ids),
                checkpoint.max_length,
                config.seq_length,
                job.max_new_tokens,
            )
            check_ids(request.ids, config.vocab_size)
        except (ValueError, TypeError) as error:
            answers[number]["error"] = str(error)
        else:
            prompts[number] = request.ids
            turns |= {number} if request.is_chat else set()
    for number, result in _complete(job, prompts).items():
        if number in turns and "response" in result:
            result["response"] = clean_response(result["response"])
        answers[number] |= result
    return list(answers.values())


def _complete(job: _Job, prompts: dict[int, list[int]]) -> dict[int, dict[str, Any]]:
    """Generate for the prompts of a batch; where one of them fails, for each alone."""
    from glm2.completion import complete
    from glm2.prompt import stop_ids
    from glm2.sampling import Sampler

    if not prompts:
        return {}
    params, checkpoint = job.sampling, job.model.checkpoint
    # Each line draws from a generator of its own, so its answer does not depend on the batch.
    samplers = [
        Sampler(
            params if params.seed is None else dataclasses.replace(params, seed=params.seed + n)
        )
        for n in prompts
    ]
    try:
        completions = complete(
            job.model.model,
            list(prompts.values()),
            job.tokenizer.tokenizer,
            samplers,
            stop_ids=stop_ids(job.tokenizer.tokenizer, checkpoint.chat_format)
            | {*checkpoint.eos_token_ids},
            stop_strings=job.stop_strings,
            max_new_tokens=job.max_new_tokens,
            max_length=checkpoint.max_length,
        )
    except (ValueError, FloatingPointError, MemoryError) as error:
        if len(prompts) == 1:
            return {number: {"error": str(error)} for number in prompts}
        alone = (_complete(job, {number: ids}) for number, ids in prompts.items())
        return {number: result for results in alone for number, result in results.items()}
    return {
        number: dataclasses.asdict(completion)
        for number, completion in zip(prompts, completions, strict=True)
    }


def _open_source(source: str, stack: contextlib.ExitStack) -> tuple[Iterator[str], int | None]:
    """Return the lines that are not blank, and their number where it can be known."""
    if source == "-":
        return (line for line in sys.stdin if line.strip()), None
    path = Path(source)
    if not path.is_file():
        msg = f"{path} is not a file; pass JSON lines, or - for standard input"
        raise FileNotFoundError(msg)
    with path.open("rb") as counted:
        total = sum(1 for line in counted if line.strip())
    file = stack.enter_context(path.open(encoding="utf-8-sig", errors="surrogateescape"))
    return (line for line in file if line.strip()), total
