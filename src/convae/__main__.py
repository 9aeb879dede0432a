"""`python -m convae` is the command `convae`."""

from convae.cli.main import main

if __name__ == "__main__":
    main()
