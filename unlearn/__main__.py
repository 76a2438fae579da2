"""``python -m unlearn``."""

from unlearn.cli import main

if __name__ == "__main__":
    main()
