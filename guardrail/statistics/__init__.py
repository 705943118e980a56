"""Statistics: estimates with intervals, detection metrics, correlation, split-conformal thresholds."""
