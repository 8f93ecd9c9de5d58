"""The paper's tables, and what its CIFAR recipe is called with."""
