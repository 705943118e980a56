"""From labelled prompts to trait vectors: a steering vector, and probes that detect the trait.

`reading` and `csv_file` read prompts, `duplicates` finds texts that are nearly the same, `folds` says what is
held out of what, `states` reads the model, `candidates` and `selection` choose what a probe reads and how it
is fitted, `fit` does all of it. Import from the modules. `states` and `fit` need torch.
"""
