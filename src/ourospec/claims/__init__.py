"""Claims about models, put to the test: arms, seeds, tuned learning rates, leak tests and a verdict (docs/claim.md)."""
