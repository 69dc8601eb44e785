//! A buffer a thread, for reads of which the size is not known and probably small: such a read is copied out at once,
//! so that no connection needs a buffer of its own.

use std::cell::Cell;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's buffer. What is in it is left over from others.
pub(crate) fn with_scratch<R>(read: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut scratch = SCRATCH.take();
    scratch.resize(SCRATCH_BYTES, 0);
    let result = read(&mut scratch);
    SCRATCH.set(scratch);
    result
}

/// Copying as much costs about what allocating does.
pub(crate) const SCRATCH_BYTES: usize = 16 * 1024;
