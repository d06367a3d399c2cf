"""The commands of ``glm2``: each module without a leading underscore is one, its ``command``."""
