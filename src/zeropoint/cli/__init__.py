"""The command line: parse, call one function of zeropoint.api, render. Owns typer and rich."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the `zeropoint` command.

    A user's mistake is one paragraph and exit code 2, a failed quality gate is 3, an interruption is 130, and none shows a traceback.
    """
    try:
        sys.exit(_run())
    except KeyboardInterrupt:  # before a command began, which tells it by itself
        sys.stderr.write("interrupted: nothing was written\n")
        sys.exit(130)


def _run() -> int:
    from zeropoint.cli.app import app
    from zeropoint.cli.render import show_error
    from zeropoint.errors import ZeropointError

    try:
        app()
    except ZeropointError as error:
        show_error(error)
        return 2
    return 0
