"""What users of other tools type, and its name here. A test composes each right side."""

from __future__ import annotations

# Of the command line of a training: what is typed elsewhere, and what is meant.
NAMES: dict[str, str] = {
    **dict.fromkeys(("lr", "lr0", "learning_rate", "base_lr"), "optimizer.lr"),
    **dict.fromkeys(("wd", "weight_decay"), "optimizer.weight_decay"),
    "momentum": "optimizer.momentum",
    **dict.fromkeys(("epoch", "max_epochs", "num_epochs", "n_epochs", "trainer.epochs"), "epochs"),
    **dict.fromkeys(("iters", "max_iters", "iterations", "steps"), "trainer.max_steps"),
    **dict.fromkeys(("max_steps", "num_steps", "total_steps"), "trainer.max_steps"),
    "max_time": "trainer.max_time",
    **dict.fromkeys(("batch", "batch_size", "bs", "batchsize", "train_batch_size", "b"), "data.batch_size"),
    **dict.fromkeys(("eval_batch_size", "val_batch_size"), "data.eval_batch_size"),
    **dict.fromkeys(("gpus", "gpu", "devices", "n_gpus", "num_gpus", "nproc", "world_size"), "trainer.devices"),
    **dict.fromkeys(("nodes", "num_nodes"), "trainer.num_nodes"),
    **dict.fromkeys(("device", "accelerator"), "trainer.accelerator"),
    "strategy": "trainer.strategy",
    **dict.fromkeys(("amp", "fp16", "bf16", "half", "precision"), "trainer.precision"),
    **dict.fromkeys(("workers", "num_workers", "n_workers", "j"), "data.num_workers"),
    **dict.fromkeys(("imgsz", "img_size", "image_size", "crop", "crop_size", "input_size"), "data.augment.crop"),
    **dict.fromkeys(("root", "data_dir", "data_root", "data_path", "dataset_path"), "data.root"),
    **dict.fromkeys(("dataset", "dataset_name", "datasets"), "data"),
    **dict.fromkeys(("nc", "num_classes", "n_classes", "classes"), "data.num_classes"),
    "ignore_index": "data.ignore_index",
    "cache": "data.cache",
    **dict.fromkeys(("model", "arch", "network", "net"), "student"),
    **dict.fromkeys(("backbone", "encoder"), "student.backbone"),
    "dropout": "student.dropout",
    **dict.fromkeys(("weights", "init_weights", "finetune", "load_from"), "student.weights"),
    **dict.fromkeys(("ckpt_path", "ckpt", "checkpoint", "resume_from", "resume_from_checkpoint"), "resume"),
    **dict.fromkeys(("optim", "opt"), "optimizer"),
    **dict.fromkeys(("lr_scheduler", "sched", "lr_schedule"), "scheduler"),
    **dict.fromkeys(("criterion", "losses", "loss_fn"), "loss"),
    **dict.fromkeys(("grad_clip", "clip_grad", "gradient_clip_val", "clip"), "trainer.gradient_clip_val"),
    **dict.fromkeys(
        ("accumulate", "grad_accum", "accumulate_grad_batches", "gradient_accumulation_steps"),
        "trainer.accumulate_grad_batches",
    ),
    **dict.fromkeys(("val_interval", "eval_interval", "val_every", "val_check_interval"), "trainer.val_check_interval"),
    **dict.fromkeys(("log_interval", "log_every", "log_every_n_steps", "print_freq"), "trainer.log_every_n_steps"),
    **dict.fromkeys(("save_interval", "save_every", "save_freq", "save_period"), "callbacks.last.every_n_steps"),
    **dict.fromkeys(("sync_bn", "syncbn", "sync_batchnorm"), "trainer.sync_batchnorm"),
    **dict.fromkeys(("ema", "use_ema"), "callbacks"),
    **dict.fromkeys(("output", "out_dir", "save_dir", "work_dir", "log_dir", "out", "project"), "output_dir"),
    **dict.fromkeys(("run_name", "exp_name"), "name"),
    **dict.fromkeys(("random_seed", "manual_seed"), "seed"),
    **dict.fromkeys(("temperature", "T", "tau"), "loss.kd.temperature"),
    **dict.fromkeys(("teacher_ckpt", "teacher_checkpoint", "teacher_weights"), "teacher.checkpoint"),
    **dict.fromkeys(("use_wandb", "wandb", "tensorboard"), "logger"),
}
# What to write, where the name alone does not tell.
EXAMPLES: dict[str, str] = {
    "trainer.max_steps": ", in optimizer steps",
    "data.augment.crop": "=[512,512]",
    "data": "=voc, or data=folder data.root=PATH",
    "student": "=r18",
    "trainer.precision": "=bf16-mixed",
    "resume": "=auto with the same hydra.run.dir goes on with a run; student.weights=PATH starts from weights",
    "callbacks": "=average",
    "data.root": "=PATH",
    "student.weights": "=PATH",
    "logger": "=wandb",
    "trainer.max_time": "=00:08:00:00",
    "trainer.accelerator": "=cpu",
}


def ours(key: str) -> str | None:
    """Return `; here it is X.` for a name of other tools, or None."""
    name = NAMES.get(key)
    return None if name is None else f"; here it is {name}{EXAMPLES.get(name, '')}."
