"""Which heads attend to words of a group, and what becomes of answers without these heads."""
