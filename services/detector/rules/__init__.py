"""The detector's decisions: pure functions over values. facts.py folds events, then one file a scenario judges."""
