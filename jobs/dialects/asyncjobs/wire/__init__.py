"""Both directions between the fields of this API and ours."""
