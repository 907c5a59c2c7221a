"""Models behind two protocols: `Scorer` gives evidence about segments, `Generator` answers from a context."""
