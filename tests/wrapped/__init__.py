"""The programs of `cases/` trained inside wrappers, against themselves without one: `python -m tests.wrapped`."""
