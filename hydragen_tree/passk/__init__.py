"""pass@k: estimators, intervals, table and plot."""
