"""What the configuration of a run says of its data, without anything of torch."""
