"""Calibrates policies for one model: benign statistics and thresholds from your own harmless prompts.

`sample` splits prompts into a calibration part and a held-out part, `projections` reads the model, `fit`
makes the calibration and measures what its thresholds achieve, `joint_rates` finds rates for a whole set of
policies, `policy_edit` writes thresholds into a policy file, `drift` compares live scores with a calibration.
Import from the modules. `projections` and everything that uses it (`fit`, `achieved`, `benign_replies`) need
torch.
"""
