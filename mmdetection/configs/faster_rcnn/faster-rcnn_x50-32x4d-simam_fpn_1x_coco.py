_base_ = "./faster-rcnn_r50-simam_fpn_1x_coco.py"

model = dict(
    backbone=dict(
        groups=32,
        width_per_group=4,
        init_cfg=dict(checkpoint="simam-resnext50_32x4d.pth"),
    )
)
