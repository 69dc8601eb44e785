//! What the process uses, as `/proc` tells; nothing where there is none.

use std::fs;

use serde::Serialize;

/// What the process uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ProcessSnapshot {
    /// CPU time of its own code, in seconds.
    pub cpu_user_seconds: f64,
    /// CPU time of the kernel for it, in seconds.
    pub cpu_system_seconds: f64,
    /// Resident memory, in bytes.
    pub memory_bytes: u64,
    /// Threads.
    pub thread_count: u64,
    /// Open file descriptors.
    pub file_descriptor_count: u64,
}

impl ProcessSnapshot {
    /// Looks at this process.
    #[must_use]
    pub fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The listing is itself a descriptor while it is counted.
        let descriptors = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1));
        Self::parse(
            &stat,
            rustix::param::page_size() as u64,
            rustix::param::clock_ticks_per_second(),
            descriptors as u64,
        )
    }

    /// Fields of proc_pid_stat(5), by their numbers.
    fn parse(stat: &str, page_bytes: u64, ticks_per_second: u64, file_descriptor_count: u64) -> Option<Self> {
        // The second field is a name in parentheses, which may hold anything.
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let seconds = |ticks: u64| ticks as f64 / ticks_per_second.max(1) as f64;
        Some(Self {
            cpu_user_seconds: seconds(field(14)?),
            cpu_system_seconds: seconds(field(15)?),
            memory_bytes: field(24)? * page_bytes,
            thread_count: field(20)?,
            file_descriptor_count,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let fields: Vec<_> = (4..=52).map(|number| number.to_string()).collect();
        let stat = format!("77 (a) b) (c) S {}", fields.join(" "));
        let found = ProcessSnapshot::parse(&stat, 4096, 100, 9).unwrap();
        assert_eq!((found.cpu_user_seconds, found.cpu_system_seconds), (0.14, 0.15));
        assert_eq!((found.memory_bytes, found.thread_count, found.file_descriptor_count), (24 * 4096, 20, 9));
        assert_eq!(ProcessSnapshot::parse("77 (cut off", 4096, 100, 0), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_something() {
        let found = ProcessSnapshot::read().unwrap();
        assert!(found.memory_bytes > 0 && found.thread_count > 0 && found.file_descriptor_count > 0, "{found:?}");
    }
}
