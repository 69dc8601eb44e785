//! `longhaul demo`: two nodes as two processes on this machine, a file server behind one, a client at the other, and
//! between them a path that loses its connections while files are on their way.

mod files;
mod nodes;
mod path;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use self::files::FileServer;
use self::nodes::Nodes;
use self::path::Path;
use super::CliError;

/// Files that are fetched at the same time, and their size.
const FILE_COUNT: usize = 4;
const FILE_BYTES: usize = 48 << 20;

/// What the path lets through each second, so that the transfer takes long enough to be disturbed.
const PATH_BYTES_PER_SECOND: u64 = 40 << 20;

/// Between two killed channels.
const KILL_INTERVAL: Duration = Duration::from_millis(400);

/// How long all channels are gone in the middle.
const OUTAGE: Duration = Duration::from_secs(2);

/// The demo has to end by itself.
const TIME_MAX: Duration = Duration::from_secs(28);

/// Shows a link at work on this machine: real files through two nodes, while channels are being killed
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Leave everything running afterwards, and say what to try
    #[arg(long)]
    keep: bool,
}

/// Runs the command.
#[expect(clippy::needless_pass_by_value, reason = "commands own their arguments")]
pub(super) fn run(args: Args) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(anyhow::Error::from)?;
    runtime.block_on(async {
        tokio::select! {
            result = show(args.keep) => result,
            signal = tokio::signal::ctrl_c() => signal.map_err(Into::into),
        }
    })?;
    Ok(())
}

async fn show(keep: bool) -> anyhow::Result<()> {
    let begin = Instant::now();
    say("1. A certificate authority, two nodes, and a file server behind the second one");
    let server = FileServer::start(FILE_COUNT, FILE_BYTES).await?;
    let mut nodes = Nodes::prepare(server.address())?;
    let path = Arc::new(Path::start(nodes.address_of_b(), PATH_BYTES_PER_SECOND).await?);
    nodes.start(path.address()).await?;
    say(&format!(
        "   node dc-a: process {}, forwards {} to the service \"files\" of dc-b",
        nodes.ids().0,
        nodes.front_door()
    ));
    say(&format!("   node dc-b: process {}, offers the service \"files\" at {}", nodes.ids().1, server.address()));
    say("   between them: four TCP channels, one session, TLS 1.3 with X25519MLKEM768 and certificates on both sides");

    let outcome = tokio::time::timeout(TIME_MAX, transfer(&server, &nodes, &path)).await;
    outcome.with_context(|| format!("the transfer did not end within {} s", TIME_MAX.as_secs()))??;
    nodes.check_alive()?;
    if keep {
        say(&format!(
            "\nEverything goes on running; Ctrl-C ends it. The configurations and logs are in {}",
            nodes.folder().display()
        ));
        say(&format!("   curl -s http://{}/file-0 | sha256sum", nodes.front_door()));
        say(&format!("   curl -s http://{}/file-0 | sha256sum    # the same without the link", server.address()));
        say(&format!("   tail -f {}/dc-a.log", nodes.folder().display()));
        std::future::pending::<()>().await;
    }
    nodes.stop().await?;
    say(&format!("\nDone in {:.1} s. Nothing is left behind.", begin.elapsed().as_secs_f64()));
    Ok(())
}

/// Fetches all files at once while the path misbehaves, and compares every byte.
async fn transfer(server: &FileServer, nodes: &Nodes, path: &Arc<Path>) -> anyhow::Result<()> {
    let total = FILE_COUNT * FILE_BYTES;
    say(&format!(
        "\n2. {FILE_COUNT} files of {} MiB through the link, while its channels are killed",
        FILE_BYTES >> 20
    ));
    let begin = Instant::now();
    let progress = files::Progress::default();
    let fetches: Vec<_> = (0..FILE_COUNT)
        .map(|index| tokio::spawn(files::fetch(nodes.front_door(), index, server.content(index), progress.clone())))
        .collect();
    let mut trouble = Trouble::new(path, begin);
    while fetches.iter().any(|fetch| !fetch.is_finished()) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        trouble.step(progress.received(), total).await;
    }
    for fetch in fetches {
        fetch.await.context("a client failed")?.context("a client lost its connection or got wrong bytes")?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let report = trouble.report();
    if report.killed == 0 || report.resumed.is_none() {
        bail!("the transfer ended before the path failed: nothing was shown");
    }
    say("\n3. What happened");
    say(&format!(
        "   {} MiB in {seconds:.1} s ({:.0} Mbit/s; the path lets {:.0} through), every byte compared: all right",
        total >> 20,
        total as f64 * 8e-6 / seconds,
        PATH_BYTES_PER_SECOND as f64 * 8e-6
    ));
    say(&format!("   channels killed one by one: {}, and all of them for {} s", report.killed, OUTAGE.as_secs()));
    say(&format!("   connections of the clients that broke: 0 of {FILE_COUNT}"));
    if let Some(resumed) = report.resumed {
        say(&format!("   after the outage data flowed again within {} ms", resumed.as_millis()));
    }
    Ok(())
}

/// Kills channels, one after the other, and once all of them.
struct Trouble<'a> {
    path: &'a Arc<Path>,
    begin: Instant,
    next_kill: Instant,
    killed: u32,
    next_line: Instant,
    outage: Outage,
}

enum Outage {
    Ahead,
    Now {
        until: Instant,
    },
    /// The path is back; nothing has arrived yet since.
    Over {
        at: Instant,
        received: usize,
    },
    Survived {
        resumed: Duration,
    },
}

struct Report {
    killed: u32,
    resumed: Option<Duration>,
}

impl<'a> Trouble<'a> {
    fn new(path: &'a Arc<Path>, begin: Instant) -> Self {
        Self { path, begin, next_kill: begin + KILL_INTERVAL, killed: 0, next_line: begin, outage: Outage::Ahead }
    }

    async fn step(&mut self, received: usize, total: usize) {
        let now = Instant::now();
        match self.outage {
            Outage::Ahead if received > total / 2 => {
                self.line(received, &format!("all channels killed, the path is down for {} s", OUTAGE.as_secs()));
                self.path.set_down(true);
                self.outage = Outage::Now { until: now + OUTAGE };
            }
            Outage::Now { until } if until <= now => {
                self.path.set_down(false);
                self.line(received, "the path is back");
                self.outage = Outage::Over { at: now, received };
            }
            Outage::Over { at, received: before } if received > before => {
                let resumed = now - at;
                self.line(received, &format!("data flows again after {} ms", resumed.as_millis()));
                self.outage = Outage::Survived { resumed };
                self.next_kill = now + KILL_INTERVAL;
            }
            Outage::Ahead | Outage::Survived { .. } if self.next_kill <= now => {
                if self.path.kill_one() {
                    self.killed += 1;
                    self.line(received, &format!("channel killed ({} so far)", self.killed));
                }
                self.next_kill = now + KILL_INTERVAL;
            }
            _ if self.next_line <= now => self.line(received, ""),
            _ => {}
        }
    }

    fn line(&mut self, received: usize, what: &str) {
        self.next_line = Instant::now() + Duration::from_secs(1);
        say(&format!("   {:5.1} s  {:4} MiB  {what}", self.begin.elapsed().as_secs_f64(), received >> 20));
    }

    fn report(&self) -> Report {
        let resumed = match self.outage {
            Outage::Survived { resumed } => Some(resumed),
            _ => None,
        };
        Report { killed: self.killed, resumed }
    }
}

#[expect(clippy::print_stdout, reason = "what the demo shows is its output")]
fn say(text: &str) {
    println!("{text}");
}
