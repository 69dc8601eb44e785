//! The `longhaul` program: parses, runs, returns an exit code.

/// Buffers of 64 KiB and more come and go with every packet. glibc gives such memory back to the system and takes it
/// again, which costs a fifth of the time of a bulk transfer in page faults; mimalloc keeps it for a moment.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    longhaul::cli::main()
}
