"""`--module DIR`: a repaired graph written as a Python package of text and weights."""
