"""The ``glm2`` command: finds the modules of `glm2.commands` and reports their errors in a line."""

from __future__ import annotations

import functools
import importlib
import io
import os
import pkgutil
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

import glm2
import glm2.commands
from glm2.interrupts import deferred_interrupts

# What the package raises on purpose: the message alone says what to do.
_EXPECTED = (ValueError, OSError, ImportError, FloatingPointError, MemoryError)
_INTERRUPTED, _BROKEN_PIPE = 130, 141  # 128 + SIGINT, 128 + SIGPIPE, as shells report them


def main() -> None:
    """Run the command line."""
    try:
        _prepare_streams()
        with deferred_interrupts():  # numpy starts threads when it is imported
            app = _build_app()
        app()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _prepare_streams() -> None:
    """Make closed streams harmless, and undecodable bytes an error of one question, not of all."""
    for name, errors in (
        ("stdin", "surrogateescape"),
        ("stdout", "replace"),
        ("stderr", "replace"),
    ):
        stream = getattr(sys, name)
        if stream is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _build_app() -> typer.Typer:
    """Register every command module under its own name."""
    app = typer.Typer(
        name="glm2",
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for module_info in pkgutil.iter_modules(glm2.commands.__path__):
        if not module_info.name.startswith("_"):
            module = importlib.import_module(f"glm2.commands.{module_info.name}")
            name = module_info.name.replace("_", "-")
            settings = getattr(module, "context_settings", None)
            app.command(name, context_settings=settings)(_with_clear_errors(module.command))
    return app


def _print_version(wanted: bool) -> None:
    """Print the version and leave, before a command is asked for."""
    if wanted:
        typer.echo(f"glm2 {glm2.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """ChatGLM2 and ChatGLM3 on MindSpore, on our own attention operators."""
    del version  # its callback has done the work


def _with_clear_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn exceptions into one line on stderr and an exit code; GLM2_DEBUG=1 shows tracebacks."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except KeyboardInterrupt:
            typer.echo(err=True)
            raise typer.Exit(_INTERRUPTED) from None
        except BrokenPipeError:
            # The reader has left. What is still buffered must not raise again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(_BROKEN_PIPE) from None
        except Exception as error:
            if os.environ.get("GLM2_DEBUG") == "1":
                raise
            typer.echo(f"glm2: {_one_line(error)}", err=True)
            raise typer.Exit(1) from None

    return wrapped


def _one_line(error: Exception) -> str:
    """Return the message; of an error that nobody planned also its type and how to see more."""
    if isinstance(error, _EXPECTED):
        return str(error)
    return f"{type(error).__name__}: {error} (set GLM2_DEBUG=1 to see where)"
