//! Whole flows over a simulated bottleneck, in virtual time.
