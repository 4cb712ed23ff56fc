"""Companion to "Enhancing Adversarial Robustness in SNNs with Sparse Gradients" (Liu et al., ICML 2024)."""
