"""Policy files: from YAML to a plan for one model, and from scores to a decision. Needs no torch."""
