"""What stands behind `fxgrad.watch` and `fxgrad run`: `session` begins and ends a watch, `trace.observer`
sees every torch call, `trace.ledger` keeps what was seen, `judge` and `gradient_errors` make a report of it,
`death` looks for the cause of an error that ended the program.
"""
