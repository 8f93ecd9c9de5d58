"""A run: epochs, evaluation, saving, logs."""
