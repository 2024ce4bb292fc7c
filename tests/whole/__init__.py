"""Random whole programs against eager: `python -m tests.whole`."""
