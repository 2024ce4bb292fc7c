"""What stands behind `fxgrad.watch` and `fxgrad run`: `session` begins and ends a watch, `observer` sees every torch call, `ledger` keeps what
was seen, `judge` and `dying` make a report of it.
"""
