"""The `seenit` command: a command line comes in; tables, lines, JSON and an exit status go out.

`app` lists the commands; a module for each group of them is imported only when one of them is run.
It may ask every other wing; none asks it, but for the command of the training, which prints through `console`.
"""
