"""Diffusion Policy: convolutions over the chunk, conditioned on where things are in the pictures (arXiv 2303.04137).

Path, prediction, times and solver are those of `config.loss` and `config.policy.solver`, as for pi0's expert: the
published policy predicts "eps" on "ddpm_cosine"; "u" on "straight" makes it a flow.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Key

from pizero_jax.config import DiffusionPolicyConfig, KeypointConfig, LossConfig
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

    config: KeypointConfig

    @nn.compact
    def __call__(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B E"]:
        c = self.config
        features = ResNet(c.resnet, c.dtype, name="resnet")(to_unit_range(image))
        places = spatial_softmax(convolution(c.keypoints, 1, c.dtype, name="keypoints")(features))
        E = 2 * c.keypoints
        return dense(E, E, ("embed", None), c.dtype, NONE, name="out")(places.reshape(-1, E))


class KeypointPolicy(nn.Module):
    """What `flow.make` needs: `read` and `velocities`. Each camera has a network of its own, as published.

    A form of the policy defines `chunks`.
    """

    config: KeypointConfig

    def setup(self):
        c = self.config
        self.cameras = {name: Camera(c) for name in c.cameras}

    def chunks(
        self,
        x_t: Float[Array, "B C A"],
        t: Float[Array, "B"],
        seen: Float[Array, "B E"],
        steps: Bool[Array, "B C"],
        keys: Key[Array, "B"] | None,
    ) -> Float[Array, "B C A"]:
        """What is predicted; where `steps` is False the chunk is as beyond its end. `keys` are dropout's."""
        raise NotImplementedError

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
        keys: Key[Array, "B"] | None = None,
    ) -> Float[Array, "B M C A"]:
        """What is predicted at M points for one observation."""
        B, M, C, A = x_t.shape
        steps = jnp.ones((B, C), bool) if steps is None else steps
        cache, steps = (jnp.repeat(x, M, axis=0) for x in (cache, steps))
        keys = None if keys is None else jax.vmap(lambda key: jax.random.split(key, M))(keys).reshape(B * M)
        return self.chunks(x_t.reshape(B * M, C, A), t.reshape(B * M), cache, steps, keys).reshape(B, M, C, A)

    def __call__(self, observation, x_t, t):
        return self.velocities(self.read(observation), x_t, t)


class DiffusionPolicy(KeypointPolicy):
    """The form with convolutions."""

    config: DiffusionPolicyConfig

    def setup(self):
        super().setup()
        self.unet = Unet(self.config.unet, self.config.dtype)

    def chunks(self, x_t, t, seen, steps, keys):
        return self.unet(jnp.where(steps[:, :, None], x_t, 0), t, seen)


def make(config: DiffusionPolicyConfig, loss: LossConfig) -> Policy:
    """Diffusion Policy as pure functions."""
    return flow.make(DiffusionPolicy(config), loss, clip=config.clip or None)._replace(attention=None)
