"""Images: which there are, decoded, augmented, in batches on the device."""
