"""Whether verdicts stay the same under another engine, dtype, quantisation or library version.

`recording` writes down what one configuration says about prompts, `comparison` compares two, `criteria` fixes
when they count as the same, `recalibration` makes the calibration that the second one needs.
"""
