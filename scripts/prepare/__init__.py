"""What prepares data sets."""
