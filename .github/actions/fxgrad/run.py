"""What the action runs: `fxgrad report`, and `fxgrad diff` for the job's summary where there is a base.

The inputs are environment variables, so that none is read as a command; words in them are quoted as in a
shell. The exit status is that of the report, 1 where a gradient was lost.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

models, both, own = (shlex.split(os.environ.get(name, "")) for name in ("MODEL", "ARGS", "REPORT_ARGS"))
sarif, base = os.environ.get("SARIF", ""), os.environ.get("BASE", "")

how = ["--format", "sarif", "-o", sarif] if sarif else ["--format", "github"]
status = subprocess.run(["fxgrad", "report", *models, *how, *both, *own], check=False).returncode
for model in models if base else []:
    command = ["fxgrad", "diff", base, "--model", model, "--format", "markdown", *both]
    with open(os.environ["GITHUB_STEP_SUMMARY"], "a", encoding="utf-8") as summary:
        lost = subprocess.run(command, stdout=summary, check=False).returncode
    if lost == 1:  # 2 is that the base has no such model, say: it is told, and no reason to fail
        status = max(status, 1)
sys.exit(status)
