"""[VEG]: the figures of 'Recurrent neural networks: vanishing and exploding gradients are not the end of the story' (Zucchet and
Orvieto, NeurIPS 2024)."""
