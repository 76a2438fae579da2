"""Reports: `report.json` v1, and the table, Markdown and HTML made from that file alone.

Importing this package is cheap: the renderers load matplotlib and jinja2 when they are called.
"""

from eval.report.report import SCHEMA_VERSION, BenchmarkInfo, Report, RunInfo, Section, now

__all__ = ["SCHEMA_VERSION", "BenchmarkInfo", "Report", "RunInfo", "Section", "now"]
