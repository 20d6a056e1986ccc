"""`python -m lit_mtdqn`."""

from lit_mtdqn.cli import main

if __name__ == "__main__":
    main()
