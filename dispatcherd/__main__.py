"""`dispatcherd` and `python -m dispatcherd`."""

from dispatcherd.cli.main import main

if __name__ == "__main__":
    main()
