"""Compiling: PolicySet + vectors + calibration + fingerprint -> Plan, with every problem on the way."""
