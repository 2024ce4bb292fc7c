"""From a program to a report: the runs that an analysis needs, what they show together, and the rules over
it."""
