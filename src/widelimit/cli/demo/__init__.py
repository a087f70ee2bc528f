"""The demonstration: data, network, training, figures and report."""
