_base_ = []  # mmengine allows the imports below only in a file that starts like this
from importlib import import_module  # noqa: E402

# The backbone's file: copied into mmdetection, or in this repository (its root on the path). Both
# are named, so that a config that was written out with one is read with the other.
custom_imports = dict(
    imports=[
        "mmdet.models.backbones.resnet_simam",
        "mmdetection.mmdet.models.backbones.resnet_simam",
    ],
    allow_failed_imports=True,
)
# Imported here too: a custom_imports of your own takes the place of this one.
try:
    import_module("mmdet.models.backbones.resnet_simam")
except ModuleNotFoundError:
    try:
        import_module("mmdetection.mmdet.models.backbones.resnet_simam")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the mmdet that is imported, {import_module('mmdet').__path__[0]}, "
            "has no ResNetSimAM; in a tree that it was copied into, start from its root with "
            "PYTHONPATH=., or put the root of SimAM's repository on PYTHONPATH"
        ) from error
runner_type = "SimAMRunner"  # says at once where the weights to train from are missing
