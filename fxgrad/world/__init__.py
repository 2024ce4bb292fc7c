"""The user's world, as it was: what a run of their program changes in objects, modules and torch's switches,
and how it is put back."""
