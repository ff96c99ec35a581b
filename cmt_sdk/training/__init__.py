"""Training adapters on a frozen model: data, packs, losses and loops. Needs the `train` extra; serving never imports it."""
