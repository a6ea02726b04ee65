//! Figures of the own process, from `/proc/self` at the moment of asking (proc(5)).

use std::fmt;
use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use rustix::time::{ClockId, clock_gettime};

/// The collector. What cannot be read is left out.
#[derive(Debug)]
pub(super) struct Process;

/// What the kernel says of this process.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Figures {
    cpu_seconds: f64,
    resident_bytes: u64,
    threads: u64,
    /// Seconds since the Unix epoch.
    start: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        if let Some(figures) = read() {
            let cpu = ConstCounter::new(figures.cpu_seconds);
            put(&mut encoder, "process_cpu", "User and system time", Some(&Unit::Seconds), &cpu)?;
            let resident = gauge(figures.resident_bytes);
            put(&mut encoder, "process_resident_memory", "Memory in RAM", Some(&Unit::Bytes), &resident)?;
            put(&mut encoder, "process_threads", "Threads", None, &gauge(figures.threads))?;
            let start = ConstGauge::new(figures.start);
            put(&mut encoder, "process_start_time", "Start since the epoch", Some(&Unit::Seconds), &start)?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is the directory that is being read.
            let open = open.count().saturating_sub(1) as u64;
            put(&mut encoder, "process_open_fds", "Open descriptors", None, &gauge(open))?;
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        put(
            &mut encoder,
            "process_max_fds",
            "Descriptors that may be open",
            None,
            &gauge(limit.unwrap_or(u64::MAX)),
        )
    }
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

fn put(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    metric: &impl EncodeMetric,
) -> Result<(), fmt::Error> {
    metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
}

fn read() -> Option<Figures> {
    parse(&fs::read_to_string("/proc/self/stat").ok()?, booted()?)
}

/// When the host booted, in seconds since the Unix epoch. `/proc/stat` says it too, but is hidden by `ProcSubset=pid`
/// of the unit. Settled once: with each correction of the clock it would change, and the start time with it.
fn booted() -> Option<f64> {
    static BOOTED: OnceLock<Option<f64>> = OnceLock::new();
    *BOOTED.get_or_init(|| {
        let up = Duration::try_from(clock_gettime(ClockId::Boottime)).ok()?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(now.saturating_sub(up).as_secs_f64())
    })
}

/// Reads the line of `/proc/PID/stat`. The program's name in it may hold anything, also parentheses, so the
/// fields are counted from the last one. `booted` is in seconds since the Unix epoch.
fn parse(stat: &str, booted: f64) -> Option<Figures> {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let page = rustix::param::page_size() as u64;
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // proc_pid_stat(5) numbers fields from 1; the first here is field 3.
    let field = |number: usize| fields.get(number.checked_sub(3)?)?.parse::<u64>().ok();
    Some(Figures {
        cpu_seconds: (field(14)? + field(15)?) as f64 / ticks,
        threads: field(20)?,
        start: booted + field(22)? as f64 / ticks,
        resident_bytes: field(24)? * page,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b 9 (c) S 1 1 1 0 -1 0 0 0 0 0 250 50 0 0 20 0 4 0 1000 9999 3 0 0 0";
        let figures = parse(stat, 1_700_000_000.0).unwrap();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(figures.cpu_seconds, 300.0 / ticks);
        assert_eq!(figures.threads, 4);
        assert_eq!(figures.start, 1_700_000_000.0 + 1000.0 / ticks);
        assert_eq!(figures.resident_bytes, 3 * rustix::param::page_size() as u64);
    }

    #[test]
    fn the_own_figures_are_plausible() {
        let figures = read().unwrap();
        assert!(figures.resident_bytes > 100_000 && figures.threads >= 1);
        let age =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64() - figures.start;
        assert!((-1.0..3_600.0).contains(&age), "started {age} s ago");
    }
}
