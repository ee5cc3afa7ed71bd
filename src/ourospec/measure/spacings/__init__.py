"""Measures of spacings: laws and predictors to compare a model with, and statistics of many spacings in a row."""
