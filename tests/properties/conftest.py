"""Settings of the property tests: hypothesis generates the same inputs in every run."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    'dblr',
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=100,
    # fixtures only provide paths
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile('dblr')
