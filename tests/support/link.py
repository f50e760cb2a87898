"""The shaped link of the experiments, under the name by which tests and benchmarks import it."""

from megace2_iot.cli.experiments.link import ShapedLink

__all__ = ["ShapedLink"]
