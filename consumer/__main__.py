"""Run `seenit` as `python -m consumer`."""

from consumer.cli.app import main

main()
