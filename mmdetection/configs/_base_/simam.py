_base_ = []  # mmengine allows the import below only in a file that starts like this
from importlib.util import find_spec  # noqa: E402

# The backbone's file: copied into mmdetection, or else in this repository (its root on the path).
custom_imports = dict(
    imports=[
        "mmdet.models.backbones.resnet_simam"
        if find_spec("mmdet.models.backbones.resnet_simam")
        else "mmdetection.mmdet.models.backbones.resnet_simam"
    ]
)
