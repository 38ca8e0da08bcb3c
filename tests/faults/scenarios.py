"""What is interrupted: small experiments that hold, between them, every kind of state a training has."""

from typing import Any

LONGER = {"epochs": 16, "batch_size": 6, "log_every": 2}  # 48 updates a run
ALWAYS = LONGER | {"checkpoint_minutes": 0.0}
RATE = {"lr": 1e-2, "groups": "stage"}

SCENARIOS: dict[str, dict[str, Any]] = {
    "static": {"training": ALWAYS},
    "default checkpoints": {"training": LONGER},
    "adaptive": {
        "training": ALWAYS,
        "policies": {"lars": RATE | {"lr": 1.0, "controller": {"name": "lars"}}},
    },
    "phases that freeze": {
        "training": ALWAYS,
        "policies": {
            "phases": {
                "lr": 1e-2,
                "groups": "stage",
                "phases": [
                    {"fraction": 0.5, "schedule": {"name": "constant"}, "freeze_to": -1},
                    {"schedule": {"name": "cosine", "warmup": 0}},
                ],
            }
        },
    },
    "gradual unfreezing": {
        "training": ALWAYS,
        "policies": {"gradual": {"lr": 1e-2, "groups": "stage", "profile": {"name": "gradual_unfreezing"}}},
    },
    "EMA": {"training": ALWAYS | {"ema": 0.9}},
    "mixup": {"training": ALWAYS | {"mixup": 0.4, "cutmix": 0.5}},
    "accumulation": {"training": ALWAYS | {"batch_size": 3, "accumulate": 2, "clip_grad": 1.0}},
    "schedule-free": {
        "training": ALWAYS | {"optimizer": {"name": "schedulefree:AdamWScheduleFree"}, "norm_batches": 2},
        "policies": {"free": RATE | {"schedule": {"name": "constant", "warmup": 0.1}}},
    },
    "four workers": {"training": ALWAYS, "data": {"workers": 4}},
    "weights' tails": {
        "training": ALWAYS,
        "policies": {"tails": RATE | {"controller": {"name": "temp_balance"}}},
    },
    "probes": {"training": ALWAYS | {"probes": {"every": 3, "butterfly": [0, 0.5, 1], "images": 6}}},
    "two jobs": {"training": ALWAYS},
    "no pixel cache": {"training": ALWAYS, "data": {"cache": False}},
}

WORDS = {"two jobs": ("--jobs", "2")}  # of the command line
