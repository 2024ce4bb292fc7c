"""The graph's repair: a recorded forward as a GraphModule that is rewritten, guarded, proven, timed and
exported."""
