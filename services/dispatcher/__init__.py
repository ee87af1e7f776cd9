"""Decides whether, when and how each notice goes out, and knows what became of it."""
