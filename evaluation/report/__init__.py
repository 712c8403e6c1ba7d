"""The report: one page, as HTML and Markdown, about final trainings and the search they came from.

It may import everything of the package but `comparison`.
"""

from evaluation.report.write import write_report

__all__ = ["write_report"]
