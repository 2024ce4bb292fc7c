"""Mending source: from findings to text edits that were tried in a fresh process, shown as a diff or written to the user's files."""

from __future__ import annotations

from fxgrad.mend.job import Subject
from fxgrad.mend.loop import MendResult, Refusal, Repair, mend
from fxgrad.mend.patch import Mended

__all__ = ["MendResult", "Mended", "Refusal", "Repair", "Subject", "mend"]
