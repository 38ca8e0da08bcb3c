"""{{about}}"""

# {{launcher}}

KERNEL = "{{kernel}}"

# The kit, config.yaml and folds.csv: a tar archive, compressed with bzip2, in base 85.
ARCHIVE = "{{archive}}"

ONLY = []  # where `kernel push` pushes what is left of an earlier version, it names these runs here

code, runs = unpack(), ONLY or KERNEL["runs"]
finish(
    run_kit(
        code,
        *("run", "config.yaml", "--folds", "folds.csv", "--jobs", "auto"),
        *("--output", WORKING, "--cache", code / "cache"),
        *("--budget", seconds_left),
        *(word for run in ONLY for word in ("--only", run)),
        runs=runs,
    ),
    runs,
)
