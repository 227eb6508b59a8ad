"""The command ``demo``."""

from __future__ import annotations

import click

from .. import demo
from .common import EXIT_CODES, one_line, reported_errors


@click.command("demo", epilog=EXIT_CODES)
@click.option("--url", default="memory://", show_default=True, help="The broker; memory:// needs none.")
def command(url: str) -> None:
    """Run a server and a client; print what each sees of one notification and of one call."""
    with reported_errors():
        demo.run(url, echo=lambda line: click.echo(one_line(line)))
