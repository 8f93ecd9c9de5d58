"""Training and evaluation: data, engine, schedule, metrics, checkpoints, processes, logs."""
