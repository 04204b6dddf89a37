"""What can go wrong between a caller and a cluster."""


class ClusterNotBound(RuntimeError):
    """A cluster's data was asked for while no cluster was bound; there is no default to fall back to."""


class UnsoundSettings(ValueError):
    """Settings that are each allowed and do not fit together."""


class UnknownCluster(LookupError):
    """No cluster with this id is configured."""
