"""Diffusion Policy: convolutions over the chunk, conditioned on where things are in the pictures (arXiv 2303.04137).

Path, prediction, times and solver are those of `config.loss` and `config.policy.solver`, as for pi0's expert: the
published policy predicts "eps" on "ddpm_cosine"; "u" on "straight" makes it a flow.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from pizero_jax.config import DiffusionPolicyConfig, LossConfig
from pizero_jax.mesh import constrain
from pizero_jax.nn.layers import convolution, dense
from pizero_jax.nn.lora import NONE
from pizero_jax.nn.paligemma import to_unit_range
from pizero_jax.nn.resnet import ResNet, spatial_softmax
from pizero_jax.nn.unet import Unet
from pizero_jax.policies import flow
from pizero_jax.types import Observation, Policy


class Camera(nn.Module):
    """Where the keypoints of a picture are, mixed."""

    config: DiffusionPolicyConfig

    @nn.compact
    def __call__(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B E"]:
        c = self.config
        features = ResNet(c.resnet, c.dtype, name="resnet")(to_unit_range(image))
        places = spatial_softmax(convolution(c.keypoints, 1, c.dtype, name="keypoints")(features))
        E = 2 * c.keypoints
        return dense(E, E, ("embed", None), c.dtype, NONE, name="out")(places.reshape(-1, E))


class DiffusionPolicy(nn.Module):
    """What `flow.make` needs: `read` and `velocities`. Each camera has a network of its own, as published."""

    config: DiffusionPolicyConfig

    def setup(self):
        c = self.config
        self.cameras = {name: Camera(c) for name in c.cameras}
        self.unet = Unet(c.unet, c.dtype)

    def read(self, observation: Observation) -> Float[Array, "B E"]:
        """The features of each camera, zeros where it is absent, and the state."""
        B, absent = observation.state.shape[0], jnp.zeros((1, 2 * self.config.keypoints))
        parts = [observation.state]
        for name in self.config.cameras:
            there = name in observation.images
            features = self.cameras[name](observation.images[name]) if there else absent
            mask = observation.image_masks[name][:, None] if there else False
            parts.append(jnp.broadcast_to(jnp.where(mask, features, 0), (B, absent.shape[1])))
        return constrain(jnp.concatenate(parts, axis=-1), "batch", None)

    def velocities(
        self,
        cache: Float[Array, "B E"],
        x_t: Float[Array, "B M C A"],
        t: Float[Array, "B M"],
        steps: Bool[Array, "B C"] | None = None,
    ) -> Float[Array, "B M C A"]:
        """What is predicted at M points for one observation; where `steps` is False the chunk is as beyond its end."""
        B, M, C, A = x_t.shape
        if steps is not None:
            x_t = jnp.where(steps[:, None, :, None], x_t, 0)
        y = self.unet(x_t.reshape(B * M, C, A), t.reshape(B * M), jnp.repeat(cache, M, axis=0))
        return y.reshape(B, M, C, A)

    def __call__(self, observation, x_t, t):
        return self.velocities(self.read(observation), x_t, t)


def make(config: DiffusionPolicyConfig, loss: LossConfig) -> Policy:
    """Diffusion Policy as pure functions."""
    return flow.make(DiffusionPolicy(config), loss, clip=config.clip or None)._replace(attention=None)
