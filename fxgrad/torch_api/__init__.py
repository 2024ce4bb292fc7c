"""What is known of torch itself: what a call is, how trees of tensors are walked, which writes autograd
refuses."""
