"""torch's own test suites as programs that train, each judged against eager: see `programs`, `judge` and `python -m tests.suites --help`."""
