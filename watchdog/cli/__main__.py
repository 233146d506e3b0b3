"""`python -m watchdog.cli`: the same command where no script was installed."""

from watchdog.cli import main

main()
