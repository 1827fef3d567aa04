"""KD-NAS search: a controller proposes architectures, proxy distillation scores them."""
