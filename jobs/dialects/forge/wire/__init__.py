"""Both directions between this API's fields and ours, a module for each thing it speaks of."""
