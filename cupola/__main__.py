"""`python -m cupola` is `cupola`."""

from cupola.command.main import main

if __name__ == "__main__":
    main()
