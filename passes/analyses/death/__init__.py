"""A script that died of a gradient error: of each kind of error, where in what was seen its cause is looked
for.

A look-up gives causes at their own lines, or none where it finds nothing: then the error's own line and the
words of the table of errors must do. `fxgrad.passes.LOOK_UPS` says of which errors each is asked, and whose
finding it is; what none is for, the rules on facts explain.
"""
