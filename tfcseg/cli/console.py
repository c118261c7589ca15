"""Talking to people: everything here goes to stderr, so that stdout stays for results."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape

stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def print_error(message: str) -> None:
    """One line, ``error: …``."""
    stderr.print(f"[bold red]error:[/] {escape(' '.join(message.split()))}")


def print_warning(message: str) -> None:
    """One line, ``warning: …``."""
    stderr.print(f"[bold yellow]warning:[/] {escape(' '.join(message.split()))}")


def is_terminal() -> bool:
    """Whether a person is watching stderr."""
    return sys.stderr.isatty()
