_base_ = "./faster-rcnn_r101-simam_fpn_1x_coco.py"

model = dict(backbone=dict(attention_type="none", init_cfg=dict(checkpoint="resnet101.pth")))
