"""An edit of the source, tried in a fresh process: what is asked, what is measured, and who starts it."""
