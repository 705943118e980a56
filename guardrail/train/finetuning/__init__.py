"""Finetuning with TRL's SFTTrainer: LoRA or all weights, with interventions, evaluations and checkpoints."""
