"""`python -m zeropoint` is the `zeropoint` command."""

from zeropoint.cli import main

main()
