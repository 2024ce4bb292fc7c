"""One run of a program, recorded: a graph of its calls and the facts of its gradients. `run` makes it,
`facts` reads it."""
