"""A training run: epochs, evaluation, saving, stopping and going on."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.profiler import profile

from ..checkpoints.checkpoint import AVERAGE, CheckpointError, load_state
from ..checkpoints.files import save_atomically
from ..data.loader import DeviceLoader, SyntheticLoader
from ..data.mixing import MixingLoader
from ..errors import UsageError
from ..processes.dist import Dist
from ..processes.signals import Stopped, StopRequest
from .compiling import warm_up
from .engine import PUBLISHED, Precision, Recipe, evaluate, train_one_epoch
from .folder import BEST, LATEST, PREVIOUS
from .log import Progress, RunLog
from .metrics import Totals
from .optim import MovingAverage, load_optimizer
from .profiling import step_profiler

# what a checkpoint must hold for a training to go on from it
RESUMABLE = {
    *("epoch", "step", "best_acc1", "seconds", "sums", "state_dict", "optimizer", "scaler"),
    *("rng", "cuda_rng", "classes", "images", "seed", "batch_size", "decoder"),
}


class Plan(NamedTuple):
    """What a training does: its batches, epochs, learning rate by (epoch, step), steps a line.

    save_every: seconds between saves within an epoch, None for none. sync_bn: see `Dist.wrap`.
    recipe: what a step does beyond the published one. compile_for: images' side, in pixels, for
    which the network is compiled, None for no compilation. profile: steps to profile, None for
    none. goes_on: what a run that is stopped says of going on.
    """

    train: DeviceLoader | SyntheticLoader | MixingLoader
    val: DeviceLoader | SyntheticLoader
    epochs: int
    lr_at_step: Callable[[int, int], float]
    print_freq: int
    save_every: float | None = None
    sync_bn: bool = False
    recipe: Recipe = PUBLISHED
    compile_for: int | None = None
    profile: int | None = None
    goes_on: str = "the same command with --resume auto goes on"


class Training:
    """A network and all that a checkpoint must hold to go on from any step, bit for bit.

    model: on its device, not wrapped. identity: plain values that say which run this is; they are
    saved too. folder: where checkpoints go. ema_decay: of a moving average of the weights, which
    is then evaluated too, and decides which state is the best. The state is public: epoch, step
    (of the epoch, done), best_acc1 (percent, of what is kept as the best; -inf before there is
    one), totals and seconds (of the epoch so far).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        dist: Dist,
        folder: str,
        identity: Mapping[str, Any],
        ema_decay: float | None = None,
    ):
        self.model, self.optimizer, self.dist = model, optimizer, dist
        self.precision, self.scaler = precision, precision.scaler()
        self.folder, self.identity = folder, dict(identity)
        self.average = None if ema_decay is None else MovingAverage(model, ema_decay)
        self.epoch = self.step = 0
        self.best_acc1, self.seconds = -math.inf, 0.0
        self.totals = Totals.zero(dist.device)
        self.unsaved: OSError | None = None
        self.latest_is_whole = True
        self.saved_at = time.monotonic()
        self.log = RunLog(quiet=True)

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def resume(self, content: Mapping[str, Any], path: str) -> None:
        """Go on from `content`, read from `path`; the optimizer keeps its own settings.

        Raises CheckpointError for a file without training state, of another network, and where
        it stands within an epoch of other batches.
        """
        if not isinstance(content, Mapping) or not content.keys() >= RESUMABLE:
            raise CheckpointError(
                f"checkpoint {path} holds weights but no training state; "
                f"to start a new training from them: --weights {path}"
            )
        if content["classes"] != self.identity["classes"]:
            raise CheckpointError(f"checkpoint {path} was trained on other class folders")
        if content["step"]:
            for name in ("seed", "batch_size", "images", "decoder"):
                if content[name] != self.identity[name]:
                    raise CheckpointError(
                        f"checkpoint {path} stands within epoch {content['epoch']} with {name} "
                        f"{content[name]}, this run has {self.identity[name]}; go on with the same"
                    )
        if len(content["sums"]) != len(self.totals.sums):
            raise CheckpointError(
                f"checkpoint {path} was saved by another version; "
                f"to start a new training from its weights: --weights {path}"
            )
        load_state(self.model, content["state_dict"], path)
        load_optimizer(self.optimizer, content["optimizer"], path)
        if self.average:
            # one that begins here begins with these weights
            load_state(self.average.module, content.get(AVERAGE, content["state_dict"]), path)
            self.average.n_averaged.fill_(content.get("ema_updates", 0))
        if self.scaler.is_enabled() and content["scaler"]:  # empty after another --amp
            self.scaler.load_state_dict(content["scaler"])
        torch.set_rng_state(content["rng"])
        if content["cuda_rng"] is not None and self.dist.device.type == "cuda":
            torch.cuda.set_rng_state(content["cuda_rng"], self.dist.device)
        self.epoch, self.step = content["epoch"], content["step"]
        self.best_acc1, self.seconds = content["best_acc1"], content["seconds"]
        if self.dist.is_main:
            self.totals.sums.copy_(torch.tensor(content["sums"], dtype=torch.float64))
        self.latest_is_whole = path == self.path(LATEST)

    def save(self, acc1: float | None = None) -> None:
        """Write the state to the run folder. A failure is a warning: the run is worth more.

        acc1: validation accuracy, where it is that of this state; the best is also kept apart.
        Every process must call it, at the same step.
        """
        sums = self.dist.sum(self.totals.sums).tolist()
        self.saved_at = time.monotonic()
        if not self.dist.is_main:
            return
        on_gpu = self.dist.device.type == "cuda"
        content = {
            **self.identity,
            "epoch": self.epoch,
            "step": self.step,
            "best_acc1": self.best_acc1,
            "seconds": self.seconds,
            "sums": sums,
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.dist.device) if on_gpu else None,
        }
        if self.average:
            content[AVERAGE] = self.average.module.state_dict()
            content["ema_updates"] = int(self.average.n_averaged)
        try:
            if acc1 is not None and acc1 > self.best_acc1:
                content["best_acc1"] = acc1
                save_atomically(content, self.path(BEST))
                self.best_acc1 = acc1
            # a file that was cut off must not take the place of the one that replaced it
            kept = self.path(PREVIOUS) if self.latest_is_whole else None
            save_atomically(content, self.path(LATEST), kept)
            self.unsaved, self.latest_is_whole = None, True
        except OSError as error:
            self.unsaved = error
            self.log.warn(f"can't save {self.path(LATEST)} ({error}); the previous one stays")

    def run(self, plan: Plan, log: RunLog) -> None:
        """Train up to `plan.epochs` epochs, evaluating and saving after each.

        Raises Stopped after SIGINT, SIGTERM or SIGUSR1 to any process, with the state saved;
        UsageError for a loss that is not finite, an image that can't be decoded, and a last save
        that failed.
        """
        self.log = log
        if self.dist.is_main:
            for begun in Path(self.folder).glob("*.pth.tar.tmp-*"):  # by a run that was killed
                begun.unlink(missing_ok=True)
        if plan.compile_for:
            self.model.compile(dynamic=False)
        wrapped = self.dist.wrap(self.model, plan.sync_bn)
        if plan.compile_for:
            sizes = plan.train.batches.sizes, plan.val.batches.sizes
            seconds = warm_up(
                wrapped, *sizes, plan.compile_for, self.dist, self.precision, plan.recipe
            )
            log.line(f"compiled    in {seconds:.1f} s, which no rate below contains")
        stopping = StopRequest(torch.distributed.is_torchelastic_launched())
        steps = plan.profile if self.dist.is_main else None
        profiling = step_profiler(steps, self.folder, self.dist.device, log.line)
        with stopping as stop, profiling as profiler:
            while self.epoch < plan.epochs:
                self._one_epoch(wrapped, plan, stop, profiler)
        if self.unsaved:
            raise UsageError(f"can't save {self.path(LATEST)}: {self.unsaved}")

    def _one_epoch(
        self, wrapped: nn.Module, plan: Plan, stop: StopRequest, profiler: profile | None
    ) -> None:
        before, started = self.seconds, time.perf_counter()
        on_train = self._train(wrapped, plan, stop, profiler)
        train_seconds = self.seconds
        title = f"Validation {self.epoch + 1}/{plan.epochs}"
        results = {"val": self._evaluate(wrapped, title, plan, stop)}
        if self.average:
            average = f"{title}, average"
            results["val_ema"] = self._evaluate(self.average.module, average, plan, stop)
        if not math.isfinite(results["val"]["loss"]):
            raise self._diverged(len(plan.train) - 1, plan)

        metrics = {"epoch": self.epoch, "lr": plan.lr_at_step(self.epoch, len(plan.train) - 1)}
        for split, means in {"train": on_train, **results}.items():
            metrics |= {f"{split}_{name}": means[name] for name in ("loss", "acc1", "acc5")}
        metrics["images_per_s"] = on_train["images"] / train_seconds
        metrics["seconds"] = before + time.perf_counter() - started
        if self.scaler.is_enabled():
            metrics["skipped_steps"] = on_train["skipped"]
        self.log.metrics(metrics)
        self.log.scalar("grad_norm", on_train["grad_norm"], self.epoch)
        self.log.line(
            f"Epoch {self.epoch + 1}/{plan.epochs}  lr {metrics['lr']:.6g}  "
            f"train loss {on_train['loss']:.4f} acc@1 {on_train['acc1']:.2f}  "
            f"val loss {results['val']['loss']:.4f}  "
            f"{metrics['images_per_s']:.1f} images/s  {metrics['seconds']:.1f} s"
            + (f"  {on_train['skipped']} steps skipped" if on_train["skipped"] else "")
        )
        self.log.line(accuracy_line(results["val"]))
        if self.average:
            self.log.line(f"{accuracy_line(results['val_ema'])} (average)")
        self._advance(list(results.values())[-1]["acc1"])

    def _train(
        self, wrapped: nn.Module, plan: Plan, stop: StopRequest, profiler: profile | None
    ) -> dict[str, float]:
        epoch, first_step = self.epoch, self.step
        before, started = self.seconds, time.perf_counter()
        title = f"Epoch {epoch + 1}/{plan.epochs}"
        progress = Progress(self.log, title, plan.train.batches, plan.print_freq, first_step)

        def after_step(done: int, totals: Totals) -> None:
            self.step, self.seconds = done, before + time.perf_counter() - started
            if profiler:
                profiler.step()
            signum, save_due = self.dist.largest(stop.signum, self._save_due(plan))
            if progress.advance(done) or signum or save_due:
                bad_batch = totals.first_bad_batch()
                if bad_batch is not None:
                    raise self._diverged(bad_batch // plan.recipe.accumulate, plan)
                progress.show(done, totals.means())
            if signum:
                raise self._stop(signum, plan)
            if save_due:
                self.save()

        plan.train.batches.start(epoch, first_step)
        with progress:
            return train_one_epoch(
                wrapped,
                self._with_first_shown(plan.train),
                self.optimizer,
                lambda step: plan.lr_at_step(epoch, step),
                self.totals,
                self.dist,
                self.precision,
                self.scaler,
                first_step,
                after_step,
                plan.recipe,
                self.average,
            )

    def _with_first_shown(
        self, loader: DeviceLoader | SyntheticLoader | MixingLoader
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The loader's batches; the first of the run goes to TensorBoard."""
        for images, targets in loader:
            if self.epoch == self.step == 0:
                self.log.images("first batch", loader.normalise.undo(images[:16]))
            yield images, targets

    def _evaluate(
        self, evaluated: nn.Module, title: str, plan: Plan, stop: StopRequest
    ) -> dict[str, float]:
        def after_step(done: int) -> None:
            # beyond the common steps some processes have already finished
            if done <= plan.val.batches.common_steps:
                (signum,) = self.dist.largest(stop.signum)
                if signum:
                    raise self._stop(signum, plan)

        return evaluate_with_progress(
            self.dist.for_evaluation(evaluated),
            plan.val,
            self.dist,
            self.precision,
            self.log,
            title,
            plan.print_freq,
            after_step,
        )

    def _advance(self, acc1: float) -> None:
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self.totals = Totals.zero(self.dist.device)
        self.save(acc1)

    def _save_due(self, plan: Plan) -> bool:
        # the main process's clock decides for all
        if plan.save_every is None or not self.dist.is_main:
            return False
        return time.monotonic() - self.saved_at > plan.save_every

    def _diverged(self, bad_step: int, plan: Plan) -> UsageError:
        latest = self.path(LATEST)
        kept = (
            f"the last good checkpoint is {latest}" if os.path.exists(latest) else "none was saved"
        )
        return UsageError(
            f"the loss is NaN or infinite since epoch {self.epoch + 1}, step {bad_step + 1} "
            f"(learning rate {plan.lr_at_step(self.epoch, bad_step):g}); {kept}"
        )

    def _stop(self, signum: int, plan: Plan) -> Stopped:
        self.save()
        # launchers soon kill the others when one has left, and the main one may still be writing
        self.dist.wait()
        where = f"epoch {self.epoch + 1}, step {self.step} of {len(plan.train)}"
        if self.unsaved:
            return Stopped(
                signum, f"stopped after {where}, which could not be saved: {self.unsaved}"
            )
        return Stopped(signum, f"stopped after {where}; {plan.goes_on}")


def evaluate_with_progress(
    model: nn.Module,
    val: DeviceLoader,
    dist: Dist,
    precision: Precision,
    log: RunLog,
    title: str,
    print_freq: int,
    after_step: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """`evaluate`, saying where it is; see `Totals.means` for what it returns."""
    progress = Progress(log, title, val.batches, print_freq)

    def show(done: int, totals: Totals) -> None:
        if progress.advance(done):
            progress.show(done, totals.means())
        after_step(done)

    with progress:
        return evaluate(model, val, dist, precision, show)


def accuracy_line(metrics: Mapping[str, float]) -> str:
    """The line that an evaluation ends with."""
    return f" * Acc@1 {metrics['acc1']:.3f} Acc@5 {metrics['acc5']:.3f}"
