"""A progress bar on stderr for work that reports stage, bytes done and bytes in all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)


@contextlib.contextmanager
def stage_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield ``report(stage, done, total)``: a bar a stage, or a line where stderr is no terminal.

    ``total`` is 0 where nobody knows it.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    bars = Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )
    tasks: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total or None)
            if not console.is_terminal:
                console.print(f"{stage} ...", highlight=False)
        bars.update(tasks[stage], completed=done)

    with bars:
        yield report


@contextlib.contextmanager
def count_progress(
    description: str, total: int | None, done: int
) -> Iterator[Callable[[int, str], None]]:
    """Yield ``advance(count, note)``: a bar of things done, on a terminal only.

    ``total`` is None where nobody knows it; ``note`` is shown behind the bar.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(
        *columns,
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task(description, total=total, completed=done, note="")
    with bar:
        yield lambda count, note: bar.update(task, advance=count, note=note)
