"""Calibration files: benign statistics and the thresholds they give. Public: `guardrail.Calibration`."""
