"""Mending source: from findings to text edits that were tried in a fresh process, shown as a diff or written
to the user's files."""

from __future__ import annotations

from fxgrad.fix_source.loop import MendResult, Refusal, Repair, mend
from fxgrad.fix_source.patch import Mended
from fxgrad.fix_source.trials.job import Subject

__all__ = ["MendResult", "Mended", "Refusal", "Repair", "Subject", "mend"]
