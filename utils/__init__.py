"""What the commands share: options, data, checkpoints, training, processes, reports."""
