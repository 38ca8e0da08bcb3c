"""{{about}}"""

# {{launcher}}

KERNEL = "{{kernel}}"

# The kit, config.yaml and folds.csv: a tar archive, compressed with bzip2, in base 85.
ARCHIVE = "{{archive}}"

tell_versions()
code = unpack()
finish(
    run_kit(
        code,
        *("run", "config.yaml", "--folds", "folds.csv", "--jobs", "auto"),
        *("--output", WORKING, "--cache", code / "cache"),
        *("--budget", seconds_left),
    )
)
