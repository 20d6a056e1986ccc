"""Reading results: scores, statistics, curves."""
