"""Puzzles to learn reasoning and remembering from: made as they are needed, or read from files of questions."""
