"""spacing_mdn: the next spacing of zeta zeros as a mixture of Gaussians, with memory registers or with tones."""
