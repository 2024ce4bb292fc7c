"""One module per rule: a rule is a pure function from facts to findings, its docstring is its
documentation."""
