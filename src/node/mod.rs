//! The asynchronous node.
