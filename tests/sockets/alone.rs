//! Tests that measure their process, each in one of its own.

use std::process::Command;

/// Set in the process that a test has for itself.
const ALONE: &str = "LONGHAUL_TEST_ALONE";

/// Runs a test in a process of its own; `name` is the test's.
pub(crate) fn run(name: &str, test: impl Future<Output = ()>) {
    if std::env::var_os(ALONE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        return runtime.expect("a runtime").block_on(test);
    }
    let binary = std::env::current_exe().expect("this program");
    let outcome = Command::new(binary).args(["--exact", name, "--nocapture"]).env(ALONE, "1").output();
    let outcome = outcome.expect("the program can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(outcome.status.success(), "{}{}", text(&outcome.stdout), text(&outcome.stderr));
    assert!(text(&outcome.stdout).contains("1 passed"), "no test is called {name}");
}

/// What this process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) resident_bytes: u64,
    pub(crate) descriptors: usize,
}

impl Usage {
    /// At this moment.
    pub(crate) fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of it");
        let kibibytes: u64 = resident.trim().trim_end_matches(" kB").parse().expect("a number");
        let descriptors = std::fs::read_dir("/proc/self/fd").expect("Linux").count();
        Self { resident_bytes: kibibytes * 1024, descriptors }
    }

    /// Fails when the process holds more than before, beyond what is allowed.
    pub(crate) fn expect_no_growth(self, bytes: u64, descriptors: usize) {
        let now = Self::now();
        assert!(
            now.resident_bytes <= self.resident_bytes + bytes && now.descriptors <= self.descriptors + descriptors,
            "before {self:?}, now {now:?}"
        );
    }
}
