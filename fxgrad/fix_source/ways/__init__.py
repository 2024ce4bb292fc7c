"""The ways to mend a place in the source: one module a way, each gives proposals of edits."""
