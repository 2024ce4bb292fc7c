"""Subcommands that have a module of their own: `EXAMPLES`, `add(parser)` and `run(arguments) -> exit status`; registered in `fxgrad.cli`."""
