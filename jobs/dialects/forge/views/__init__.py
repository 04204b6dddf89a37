"""The endpoints, a module for each group of them; ``base`` has what all share."""
