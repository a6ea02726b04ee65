//! Stands in for `xfs_quota(8)` where the kernel has no quotas: it understands what the quota helper says and keeps
//! limits beside the mounts file, in `kernel`. The file `mode` there makes it misbehave.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes used, inodes, limit in KiB.
type Record = [u64; 3];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |name: &str| arguments.iter().position(|a| a == name).map(|at| arguments[at + 1].clone());
    let state = PathBuf::from(after("-t").expect("a mounts file")).parent().unwrap().to_path_buf();
    let point = arguments.last().unwrap();
    let mode = fs::read_to_string(state.join("mode")).unwrap_or_default();
    match mode.trim() {
        "hang" => std::thread::sleep(Duration::from_secs(3600)),
        "flood" => (0..1 << 20).for_each(|_| println!("a line of nothing")),
        "rubbish" => return println!("what is a quota?"),
        "error" => {
            return eprintln!("xfs_quota: cannot setup path for mount {point}: No such device or address");
        }
        "status" => std::process::exit(1),
        _ => {}
    }
    for command in arguments.windows(2).filter(|pair| pair[0] == "-c").map(|pair| pair[1].as_str()) {
        let words: Vec<&str> = command.split(' ').collect();
        let id = words.last().unwrap().parse().unwrap();
        match words[0] {
            "limit" if mode.trim() == "silent" => {}
            "limit" => limit(&state, id, &words),
            "quota" => quota(&state, id, point),
            "report" => report(&state, &words),
            other => panic!("unknown command {other}"),
        }
    }
}

fn records(state: &Path) -> BTreeMap<u32, Record> {
    let text = fs::read_to_string(state.join("kernel")).unwrap_or_default();
    let lines =
        text.lines().map(|line| line.split(' ').map(|n| n.parse::<u64>().unwrap()).collect::<Vec<_>>());
    lines.map(|n| (n[0] as u32, [n[1], n[2], n[3]])).collect()
}

/// A line a change, each in one write: the last one of an id counts.
fn limit(state: &Path, id: u32, words: &[&str]) {
    let hard: u64 = words.iter().find_map(|w| w.strip_prefix("bhard=")).unwrap().parse().unwrap();
    let [used, inodes, _] = records(state).remove(&id).unwrap_or_default();
    let line = format!("{id} {used} {inodes} {}\n", hard.div_ceil(4096) * 4);
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(state.join("kernel"))
        .unwrap()
        .write_all(line.as_bytes())
        .unwrap();
}

fn columns([used, inodes, limit]: Record) -> String {
    format!(
        "{:>12} {:>10} {:>10} {:>6} [--------] {:>10} {:>10} {:>10} {:>6} [--------]",
        used / 1024,
        0,
        limit,
        "00",
        inodes,
        0,
        0,
        "00"
    )
}

fn quota(state: &Path, id: u32, point: &str) {
    if let Some(record) = records(state).get(&id) {
        println!("/dev/fake {} {point}", columns(*record));
    }
}

fn report(state: &Path, words: &[&str]) {
    let after =
        |name: &str| words[words.iter().position(|w| *w == name).unwrap() + 1].parse::<u32>().unwrap();
    for (id, record) in records(state).range(after("-L")..=after("-U")) {
        println!("#{id} {}", columns(*record));
    }
    println!();
}
