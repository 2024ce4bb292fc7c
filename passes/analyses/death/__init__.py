"""A script that died of a gradient error: of each kind of error, where in what was seen its cause is looked
for.

A look-up gives causes at their own lines, or none where it finds nothing: then the error's own line and the
words of the table of errors must do. Which look-up is whose, each rule says (`LOOK_UPS`); errors that none is
for, the rules on facts explain.
"""
