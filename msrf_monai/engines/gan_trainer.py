"""A trainer for two coupled adversarial networks: one generator of the mask, one of its complement."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, cast

import ignite.distributed as idist
import torch
from monai.engines.trainer import Trainer
from monai.engines.utils import IterationEvents, default_metric_cmp_fn, default_prepare_batch
from monai.utils.enums import CommonKeys
from torch import Tensor, nn

from msrf_monai.engines.shared_buffers import share_buffers
from msrf_monai.engines.weights import unwrap
from msrf_monai.errors import ConfigError
from msrf_monai.losses.higmis_loss import HiGMISDiscriminatorLoss, HiGMISGeneratorLoss
from msrf_monai.losses.reciprocal_loss import ReciprocalLoss
from msrf_monai.networks.nets.higmis_net import HiGMISNet, HiGMISNetOutput, fuse_probabilities
from msrf_monai.networks.nets.higmis_net_discriminator import PatchDiscriminator

__all__ = ["CoupledGanTrainer"]

_BRANCHES = ("lesion", "background")


class CoupledGanTrainer(Trainer):
    """Train Hi-gMISnet: two generators, each with its discriminator, coupled by the reciprocal loss.

    An iteration runs both generators once; then each discriminator takes one step on true and one on predicted masks,
    as in the authors' code; then both generators take one step on the sum of their losses and the reciprocal loss,
    through the discriminators as these are now, frozen: the generators' step changes neither their weights nor their
    gradients nor their running statistics.

    It is a MONAI trainer like ``SupervisedTrainer``, so that its handlers work: ``network`` is the pair of generators
    and ``optimizer`` theirs. Two optimisers are as good as the four of the authors' code, because Adam treats every
    parameter for itself. Give ``TrainingState`` the network, both discriminators and both optimisers.

    Under ``amp`` the generators run in reduced precision; the discriminators, 3 % of the work, and all losses stay in
    float32, so that there is one gradient scaler and MONAI's trainer has it. For training in several processes wrap the
    network and each discriminator in ``DistributedDataParallel``. A batch whose prediction or mask is not finite on any
    process never reaches a discriminator; what becomes of it is for ``NaNGuard`` to say.

    Differences from the authors' code: masks that the discriminators see come from the pass that trains the generators
    (theirs runs a second one in evaluation mode); the generators' optimisers do not touch the discriminators' norms;
    the reciprocal loss has a gradient.

    Besides ``loss`` the engine's output holds every term that is part of a loss, weighted, as ``loss_lesion_mask``,
    ``loss_background_adversarial``, ``loss_reciprocal_area``, ``loss_discriminator_lesion_real`` and so on; ``loss`` is
    the sum of those of lesion, background and reciprocal. ``History`` records them. ``pred`` is the fused probability.

    Args:
        device: where to train.
        max_epochs: number of epochs.
        train_data_loader: batches with image, float in [0, 1], and label, {0, 1} ``(B, 1, H, W)``.
        network: ``HiGMISNet``, maybe wrapped for distributed training.
        optimizer: of the network's parameters.
        discriminators: a ``PatchDiscriminator`` as "lesion" and one as "background", maybe wrapped.
        discriminator_optimizer: of the parameters of both.
        loss_function: a ``HiGMISGeneratorLoss`` as "lesion" and one as "background".
        discriminator_loss: of the discriminators' scores.
        reciprocal_loss: couples the two predictions; None trains without it.
        reciprocal_weight: factor of the reciprocal loss; 0 trains without it, too, as the authors' code in effect does.
        reciprocal_per_image: compute the reciprocal loss for each image and average, so that it does not depend on how
            a batch is divided among processes. Otherwise it is that of the batch, as in the authors' code: its
            logarithm and its differences of edges are taken of means over all images.
        epoch_length: number of iterations in an epoch; by default all batches of the loader.
        non_blocking: as in ``monai.engines.SupervisedTrainer``, like all that follow.
        prepare_batch: takes image and label from a batch.
        iteration_update: replaces the iteration described here.
        postprocessing: transforms of each item of the output.
        key_train_metric: metric of the training images.
        additional_metrics: further metrics.
        metric_cmp_fn: says which of two metrics is better.
        train_handlers: handlers of the engine.
        amp: reduced precision for the generators, float16 on CUDA and bfloat16 elsewhere.
        event_names: further events.
        event_to_attr: further attributes of the state.
        decollate: whether to split batches into items for the transforms.
        to_kwargs: options of ``prepare_batch``.
        amp_kwargs: options of ``torch.autocast``.

    Raises:
        ConfigError: when discriminators or losses are not those of a lesion and a background, or a weight is negative.
    """

    def __init__(
        self,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: Iterable[Any],
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        discriminators: Mapping[str, nn.Module],
        discriminator_optimizer: torch.optim.Optimizer,
        loss_function: Mapping[str, HiGMISGeneratorLoss],
        discriminator_loss: HiGMISDiscriminatorLoss,
        reciprocal_loss: ReciprocalLoss | None = None,
        reciprocal_weight: float = 1.0,
        reciprocal_per_image: bool = False,
        epoch_length: int | None = None,
        non_blocking: bool = False,
        prepare_batch: Callable[..., Any] = default_prepare_batch,
        iteration_update: Callable[..., Any] | None = None,
        postprocessing: Any = None,
        key_train_metric: dict[str, Any] | None = None,
        additional_metrics: dict[str, Any] | None = None,
        metric_cmp_fn: Callable[..., Any] = default_metric_cmp_fn,
        train_handlers: Sequence[Any] | None = None,
        amp: bool = False,
        event_names: list[Any] | None = None,
        event_to_attr: dict[Any, Any] | None = None,
        decollate: bool = True,
        to_kwargs: dict[str, Any] | None = None,
        amp_kwargs: dict[str, Any] | None = None,
    ) -> None:
        _check(network, discriminators, loss_function, reciprocal_weight)
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            data_loader=train_data_loader,
            epoch_length=epoch_length,
            non_blocking=non_blocking,
            prepare_batch=prepare_batch,
            iteration_update=iteration_update,
            postprocessing=postprocessing,
            key_metric=key_train_metric,
            additional_metrics=additional_metrics,
            metric_cmp_fn=metric_cmp_fn,
            handlers=train_handlers,
            amp=amp,
            event_names=event_names,
            event_to_attr=event_to_attr,
            decollate=decollate,
            to_kwargs=to_kwargs,
            amp_kwargs=amp_kwargs,
        )
        self.network = network
        self.optimizer = optimizer
        self.discriminators = {branch: discriminators[branch] for branch in _BRANCHES}
        self.discriminator_optimizer = discriminator_optimizer
        self.loss_function = {branch: loss_function[branch] for branch in _BRANCHES}
        self.discriminator_loss = discriminator_loss
        self.reciprocal_loss = reciprocal_loss if reciprocal_weight > 0 else None
        self.reciprocal_weight = float(reciprocal_weight)
        self.reciprocal_per_image = reciprocal_per_image

    def _iteration(self, engine: Any, batchdata: Any) -> Any:
        given = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)
        # MONAI's tensors with metadata would pass every operation of the networks through Python.
        image, mask = (tensor.as_subclass(Tensor).float() for tensor in given[:2])
        self.state.output = {CommonKeys.IMAGE: given[0], CommonKeys.LABEL: given[1]}

        for module in (self.network, *self.discriminators.values()):
            module.train()
        with torch.autocast(self.state.device.type, enabled=self.amp, **self.amp_kwargs):
            maps: HiGMISNetOutput = self.network(image)
        self.state.output[CommonKeys.PRED] = self._fused(maps)
        self.fire_event(IterationEvents.FORWARD_COMPLETED)

        judged = self._train_discriminators(image, mask, maps) if self._is_finite(maps, mask) else {}
        terms = self._generator_terms(image, mask, maps)
        self.state.output |= {f"loss_{name}": term.detach() for name, term in (terms | judged).items()}
        self.state.output[CommonKeys.LOSS] = torch.stack(list(terms.values())).sum()
        self.fire_event(IterationEvents.LOSS_COMPLETED)

        self._train_generators()
        if self.state.iteration % cast(int, self.state.epoch_length) == 0:
            share_buffers(unwrap(self.network))  # validation asks the network without its wrapper, which would do it
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output

    def _train_discriminators(self, image: Tensor, mask: Tensor, maps: HiGMISNetOutput) -> dict[str, Tensor]:
        """Take a step on true masks and one on predicted ones; return the losses by name."""
        sides = {
            "real": {"lesion": mask, "background": 1.0 - mask},
            "fake": {branch: getattr(maps, branch).mask.detach().float() for branch in _BRANCHES},
        }
        losses: dict[str, Tensor] = {}
        for side, masks in sides.items():
            found = {
                f"discriminator_{branch}_{side}": self.discriminator_loss(judge(image, masks[branch]), side == "real")
                for branch, judge in self.discriminators.items()
            }
            self.discriminator_optimizer.zero_grad(set_to_none=True)
            torch.stack(list(found.values())).sum().backward()  # type: ignore[no-untyped-call]
            self.discriminator_optimizer.step()
            losses |= found
        return losses

    def _generator_terms(self, image: Tensor, mask: Tensor, maps: HiGMISNetOutput) -> dict[str, Tensor]:
        """Return the weighted terms of the generators' loss by name."""
        terms: dict[str, Tensor] = {}
        with ExitStack() as frozen:
            for branch, judge in self.discriminators.items():
                own = getattr(maps, branch)
                # unwrapped: in distributed training the wrapper would wait for gradients that never come
                inner = cast("PatchDiscriminator", unwrap(judge))
                scores = frozen.enter_context(inner.frozen())(image, own.mask.float())
                loss = self.loss_function[branch]
                for name, term in loss.terms(own, mask, scores).items():
                    terms[f"{branch}_{name}"] = loss.weights[name] * term
        if self.reciprocal_loss is not None:
            lesion, background = maps.lesion.mask, maps.background.mask
            found = self._reciprocal_terms(self.reciprocal_loss, lesion, background, image, mask)
            for weight, (name, term) in zip(self.reciprocal_loss.weights, found.items(), strict=True):
                terms[f"reciprocal_{name}"] = self.reciprocal_weight * weight * term
        return terms

    def _reciprocal_terms(self, loss: ReciprocalLoss, *maps: Tensor) -> dict[str, Tensor]:
        if not self.reciprocal_per_image:
            return loss.terms(*maps)
        each = [loss.terms(*(tensor[k : k + 1] for tensor in maps)) for k in range(len(maps[0]))]
        return {name: torch.stack([terms[name] for terms in each]).mean() for name in each[0]}

    def _train_generators(self) -> None:
        """Take a step on the loss in the engine's output, which a handler may have put something else for."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.state.output[CommonKeys.LOSS]
        if self.scaler is not None:
            self.scaler.scale(loss).backward()
            self.fire_event(IterationEvents.BACKWARD_COMPLETED)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            return
        loss.backward()
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        self.optimizer.step()

    def _fused(self, maps: HiGMISNetOutput) -> Tensor:
        network = cast("HiGMISNet", unwrap(self.network))
        return fuse_probabilities(maps.lesion.mask.detach(), maps.background.mask.detach(), network.fusion)

    def _is_finite(self, maps: HiGMISNetOutput, mask: Tensor) -> bool:
        """Say whether predictions and masks are finite on all processes, so that all of them do the same."""
        # a sum lets no NaN and no infinity get lost, and these sums cannot overflow
        total = maps.lesion.mask.detach().sum() + maps.background.mask.detach().sum() + mask.sum()
        is_finite = bool(torch.isfinite(total))
        if idist.get_world_size() == 1:
            return is_finite
        return bool(idist.all_reduce(int(is_finite), op="MIN"))


def _check(
    network: nn.Module,
    discriminators: Mapping[str, nn.Module],
    losses: Mapping[str, HiGMISGeneratorLoss],
    reciprocal_weight: float,
) -> None:
    if not isinstance(unwrap(network), HiGMISNet):
        raise ConfigError(f"network is a {type(unwrap(network)).__name__}; expected msrf_monai.networks.HiGMISNet")
    for name, given, kind in (
        ("discriminators", discriminators, PatchDiscriminator),
        ("loss_function", losses, HiGMISGeneratorLoss),
    ):
        if set(given) != set(_BRANCHES) or not all(isinstance(unwrap(each), kind) for each in given.values()):
            found = {key: type(value).__name__ for key, value in given.items()}
            raise ConfigError(f"{name} is {found}; expected a {kind.__name__} for each of lesion and background")
    for branch, loss in losses.items():
        if loss.branch != branch:
            raise ConfigError(f"loss_function[{branch!r}] has branch={loss.branch!r}; give it branch={branch!r}")
    if not (math.isfinite(reciprocal_weight) and reciprocal_weight >= 0):
        raise ConfigError(f"reciprocal_weight is {reciprocal_weight}; expected a number of at least 0")
