"""What `xl3m bench` times: selection beside the bare model, beside its peers, and models of known shapes."""
