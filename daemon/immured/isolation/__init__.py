"""From a manifest to a plan, from a plan to the launcher, from its report to an outcome."""
