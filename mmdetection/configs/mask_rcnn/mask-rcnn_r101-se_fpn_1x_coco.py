_base_ = "./mask-rcnn_r101-simam_fpn_1x_coco.py"

model = dict(backbone=dict(attention_type="se", init_cfg=dict(checkpoint="se-resnet101.pth")))
