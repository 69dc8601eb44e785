//! Flows that share the bottleneck.
