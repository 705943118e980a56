"""Calibrations: benign statistics and the thresholds that follow. Public: `guardrail.Calibration`."""
