"""Processes, devices, signals, memory."""
