_base_ = "./mask-rcnn_r50-simam_fpn_1x_coco.py"

model = dict(backbone=dict(attention_type="se", init_cfg=dict(checkpoint="se-resnet50.pth")))
