"""Field-free mathematics of diffusion and distillation: tensors in, tensors out."""
