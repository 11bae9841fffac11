"""From a config to nets, optimisers, task, data and evaluations: the one place where names meet things."""
