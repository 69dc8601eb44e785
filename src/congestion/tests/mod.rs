//! Whole flows over a simulated bottleneck, in virtual time.
//!
//! [`network`] is the path, [`flow`] a sender of any kind on it; the other files are behaviours.

mod flow;
mod network;

mod behaviours;
mod fairness;
mod throughput;
