"""Whether verdicts stay the same under another engine, dtype, quantisation or library version."""
