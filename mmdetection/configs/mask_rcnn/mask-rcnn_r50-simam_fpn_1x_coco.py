_base_ = [
    # of the mmdetection that is imported: in its .mim, where pip put a copy, else beside it
    (mmdet := __import__("mmdet").__path__[0])
    + ("/.mim" if __import__("os").path.exists(f"{mmdet}/.mim/configs") else "/..")
    + "/configs/mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py",
    "../_base_/simam.py",
]

model = dict(
    backbone=dict(
        type="ResNetSimAM",
        attention_type="simam",  # with lambda 0.1
        # our network's weights, see this folder's README
        init_cfg=dict(type="Pretrained", checkpoint="simam-resnet50.pth"),
    )
)
optim_wrapper = dict(optimizer=dict(lr=0.01))  # for 4 GPUs x 2 images
auto_scale_lr = dict(base_batch_size=8)
