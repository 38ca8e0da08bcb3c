import sys

try:
    from kit.cli.main import main
except ModuleNotFoundError as error:  # a machine where nothing is installed yet
    if (error.name or "").startswith("kit"):
        raise
    from kit.cli.doctor import examine

    print(f"{error.name} is not installed; this is what the kit finds:", *examine(), sep="\n", file=sys.stderr)
    sys.exit(1)

if __name__ == "__main__":
    main()
