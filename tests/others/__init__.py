"""Model files and training scripts of other people, as they are met: what `fxgrad report` and `fxgrad run` say of each."""
