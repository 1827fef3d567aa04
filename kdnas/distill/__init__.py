"""Distillation: hidden states (Eq. 1, 2), then self-attention relations (Eq. 5, 6)."""
