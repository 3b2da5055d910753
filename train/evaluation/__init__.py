"""Evaluation: attempts and their figures, intervals, comparisons and plots."""
