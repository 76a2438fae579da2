"""``python -m unlearn``."""

from unlearn.shadow import refuse_if_shadowed

if __name__ == "__main__":
    refuse_if_shadowed()
    from unlearn.cli import main

    main()
