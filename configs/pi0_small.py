"""pi0-small (arXiv 2410.24164, appendix C): 477,762,032 parameters, where 470M are published.

Sizes of layers and the recipe are not published. Words are read as DistilBERT's layers read them (arXiv 1910.01108),
pictures as ViT-S/32's.
"""

from ml_collections import ConfigDict

from configs import base


def get_config():
    c = base.get_config()
    pi0 = c.policy
    c.policy = ConfigDict(
        dict(
            name="pi0_small",
            dtype=pi0.dtype,
            unroll=pi0.unroll,
            cameras=pi0.cameras,
            image_size=pi0.image_size,
            prompt_length=64,  # bytes
            state_dim=pi0.state_dim,
            action_dim=pi0.action_dim,
            chunk=pi0.chunk,
            vision=dict(stem="conv", patch=32, width=384, depth=12, mlp=1536, heads=6),  # one for each camera
            language=dict(width=768, depth=6, heads=12, mlp=3072, vocabulary=259),  # of the byte tokenizer
            observation=dict(width=1024, depth=12, heads=16, mlp=4096),
            expert=dict(width=1024, depth=8, heads=16, mlp=4096),  # as wide as pi0's
            solver=pi0.solver,
            num_steps=pi0.num_steps,
        )
    )
    c.optimizer.peak = 1e-4  # fresh weights; four times what fine-tuning takes
    c.optimizer.end = 1e-5
    return c
