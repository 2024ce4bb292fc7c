"""What is derived from the facts: each analysis is a function from facts to one record."""
