_base_ = "./mask-rcnn_r50-simam_fpn_1x_coco.py"

model = dict(backbone=dict(attention_type="none", init_cfg=dict(checkpoint="resnet50.pth")))
