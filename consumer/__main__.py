"""`python -m consumer` is `seenit`."""

from consumer.cli.main import main

main()
