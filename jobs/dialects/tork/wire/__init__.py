"""Both directions between the fields of this API and ours, a module for each thing it speaks of."""
