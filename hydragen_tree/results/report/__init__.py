"""A run as one page of HTML: nothing is fetched, and nothing of a sample is ever run as markup."""

from hydragen_tree.results.report.page import write_report

__all__ = ["write_report"]
