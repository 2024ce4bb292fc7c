"""The report as one HTML page that needs nothing else: no network, no server, no build.

Made from a `Report` alone, source lines from the files as they are now. `page` is the whole, `findings` what
is wrong, `run` how it was found, `tree` the parameters by module; `style.css` and `script.js` are written
into the page as they stand. Every style begins with `.fxgrad`, so that a notebook may hold the same
(`output`) and look as before. Not handled: drawing the whole graph.
"""

from __future__ import annotations

from fxgrad.report.html.page import output, render
from fxgrad.report.html.side_by_side import side_by_side

__all__ = ["output", "render", "side_by_side"]
