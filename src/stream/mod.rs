//! Streams: offsets, buffers, flow control, priorities.
