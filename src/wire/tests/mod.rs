//! Tests of the whole layer: against prost, against hostile bytes, against the vectors in `tests/golden/`.
//!
//! What one file alone can show is tested there.

mod agreement;
mod crafted;
mod golden;
mod hostile;
mod ranges;
mod reference;
mod strategies;
mod strict;
