"""The serving benchmark: `make bench`, or `python -m bench` from the pipeline environment."""
