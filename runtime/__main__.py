"""`python -m runtime …` is `oms …`."""

from runtime.cli import main

main()
