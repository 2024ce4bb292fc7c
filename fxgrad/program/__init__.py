"""What is analysed: from MODEL, its inputs and its loss, as a command line or a caller names them, to one
program."""
