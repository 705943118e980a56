"""Estimates with intervals, detection metrics, correlation and split-conformal thresholds."""
