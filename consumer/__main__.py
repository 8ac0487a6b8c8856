"""`python -m consumer` is `seenit`."""

from consumer.cli import main

main()
