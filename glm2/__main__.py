"""``python -m glm2`` is the ``glm2`` command."""

from glm2.cli import main

if __name__ == "__main__":
    main()
