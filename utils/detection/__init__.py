"""torchvision's detectors around the networks: images of COCO's format, average precision."""
