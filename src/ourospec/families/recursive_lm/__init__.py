"""recursive_lm: Cognate. A tiny network that thinks repeatedly about what a backbone read and a memory kept."""
