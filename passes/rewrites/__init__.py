"""One module per rewrite: each returns edits of a graph, or a refusal with its reason."""
