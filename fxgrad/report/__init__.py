"""The report of an analysis and its formats: `report` holds it, one module a format writes it."""

from __future__ import annotations

from fxgrad.report.report import FORMATS, Report

__all__ = ["FORMATS", "Report"]
