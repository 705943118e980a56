"""The overhead benchmark: measures the cost of the guard on your own model, policies and hardware.

Guarded and bare calls alternate in one process, and the result is the ratio per pair, with an interval.
`clocks`, `pairs`, `ratios`, `goals` and `results` are independent of models; `run` combines everything.
Nothing here imports torch before a model is measured.
"""
