"""{{about}}"""

# {{launcher}}

KERNEL = "{{kernel}}"

# The kit, config.yaml and the scores of pooled runs: a tar archive, compressed with bzip2, in base 85.
ARCHIVE = "{{archive}}"

tell_versions()
need_attached_runs()
code = unpack()
finish(
    run_kit(
        code,
        *("predict", "config.yaml", "--submission", WORKING / "submission.csv"),
        *("--output", code, "--cache", code / "cache"),
        *("--budget", seconds_left),
    )
)
