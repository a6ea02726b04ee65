//! Random changes of well-formed input for each parser and editor of the helper: nothing may panic, and no line of
//! others may be changed. Runs for `MUTATION_SECONDS` (2 unless set) per target, from a seed that it prints and that
//! `MUTATION_SEED` sets.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::projects;
use common::protocol::{Reply, Request, Subject, VolumeName, decode, encode};
use quota_helper::book::{Book, Key, Owned, Record, parse_record, record_line, repaired, without};
use quota_helper::config::{Config, Volume};
use quota_helper::files::Edit;
use quota_helper::tool::{parse_quota, parse_report};

/// xorshift64* (Vigna 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most.max(1) as u64) as usize
    }

    /// A few bytes changed, inserted, removed, repeated or exchanged for telling ones.
    fn mutate(&mut self, input: &[u8]) -> Vec<u8> {
        const TELLING: [&[u8]; 12] = [
            b"\n",
            b":",
            b"#",
            b"/",
            b"0",
            b"4294967295",
            b"\xff",
            b"\0",
            b"-",
            b" ",
            b"]",
            b"99999999999999999999",
        ];
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len() + 1);
            let end = (at + self.below(20)).min(bytes.len());
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] = self.next() as u8,
                1 => bytes.insert(at, self.next() as u8),
                2 => drop(bytes.drain(at..end)),
                3 => drop(bytes.splice(at..at, TELLING[self.below(TELLING.len())].iter().copied())),
                4 => {
                    let piece = bytes[at..end].to_vec();
                    let to = self.below(bytes.len() + 1);
                    drop(bytes.splice(to..to, piece));
                }
                _ => bytes.truncate(at),
            }
        }
        bytes
    }
}

/// Calls a target again and again with a new state of chance.
fn run(name: &str, mut target: impl FnMut(&mut Random)) {
    let seconds = std::env::var("MUTATION_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    let mut seed = std::env::var("MUTATION_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(clock);
    let (begin, mut runs) = (Instant::now(), 0u64);
    while begin.elapsed() < Duration::from_secs(seconds) {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target(&mut Random(seed))));
        if let Err(panic) = result {
            eprintln!("{name}: MUTATION_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
        (seed, runs) = (seed.wrapping_add(0x9e37_79b9_7f4a_7c15) | 1, runs + 1);
    }
    println!("{name}: {runs} mutations in {seconds} s");
}

fn volumes() -> Vec<Volume> {
    let volume = |name: &str, path: &str| Volume { name: name.parse().unwrap(), directory: path.into() };
    vec![volume("data", "/vfroot/xfs"), volume("more", "/vfroot/xfs/more")]
}

fn key(volume: &str, subject: Subject) -> Key {
    (volume.parse::<VolumeName>().unwrap(), subject)
}

fn record() -> Record {
    let scope = |n: u128| Subject::Scope((0xa << 124 | n).into());
    BTreeMap::from([
        (key("data", scope(1)), Owned { id: 1001, limit: 5 }),
        (key("data", scope(2)), Owned { id: 1002, limit: 0 }),
        (key("more", scope(1)), Owned { id: 1003, limit: 7 }),
        (key("data", Subject::Folder(4.into())), Owned { id: 4, limit: 7 }),
        (key("gone", scope(9)), Owned { id: 1009, limit: 7 }),
    ])
}

/// Files as the record has them, with lines of others between.
fn content() -> [Vec<u8>; 3] {
    let empty = [b"# by hand\n7:/srv/a b\nnonsense\n".to_vec(), b"seven:7\n\n#eight\n".to_vec(), Vec::new()];
    repaired(&record(), &volumes(), &empty).unwrap()
}

fn lines(content: &[u8]) -> Vec<&[u8]> {
    content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect()
}

/// Whether a line is about a subject of a volume, or has the name of a subject.
fn may_be_ours(line: &[u8]) -> bool {
    let record = record();
    let ids: Vec<u32> = record.values().map(|owned| owned.id).collect();
    let path = projects::directory(line).is_some_and(|(_, path)| path.starts_with(b"/vfroot/xfs/"));
    path || projects::name(line).is_some_and(|(name, id)| ids.contains(&id) || name.len() >= 32)
}

fn assert_foreign_lines_kept(old: &[u8], new: &[u8]) {
    let foreign = |content| lines(content).into_iter().filter(|line| !may_be_ours(line)).collect::<Vec<_>>();
    let (old, new) = (foreign(old), foreign(new));
    assert_eq!(old, new);
}

#[test]
fn requests_and_replies() {
    let request = encode(&Request::Create {
        volume: "data".parse().unwrap(),
        subject: Subject::Scope(7.into()),
        limit: 9,
    });
    let reply = encode(&Reply::List { entries: Vec::new(), more: true });
    let (request, reply) = (request.unwrap()[4..].to_vec(), reply.unwrap()[4..].to_vec());
    run("frames", |random| {
        // What is understood is what would be written.
        let bytes = random.mutate(&request);
        if let Ok(decoded) = decode::<Request>(&bytes) {
            assert_eq!(encode(&decoded).unwrap()[4..], bytes);
        }
        let bytes = random.mutate(&reply);
        if let Ok(decoded) = decode::<Reply>(&bytes) {
            assert_eq!(encode(&decoded).unwrap()[4..], bytes);
        }
    });
}

#[test]
fn project_files() {
    let [projects, projid, history] = content();
    run("project files", |random| {
        let content = [random.mutate(&projects), random.mutate(&projid), history.clone()];
        let (record, volumes) = (record(), volumes());
        let fixed = repaired(&Record::new(), &volumes, &content).unwrap();
        for (old, new) in content.iter().zip(&fixed).take(2) {
            assert_foreign_lines_kept(old, new);
        }
        let again = repaired(&Record::new(), &volumes, &fixed).unwrap();
        assert_eq!(again, fixed, "a repair leaves nothing to repair");
        let book = Book::new(&volumes, &fixed).unwrap();
        let missing = book.damage.iter().filter(|(key, damage)| {
            record.contains_key(key) && **damage == quota_helper::book::Damage::Missing
        });
        assert_eq!(missing.count(), 0);
        let (key, owned) = record.iter().nth(random.below(4)).unwrap();
        let without = without(key, owned.id, &volumes, &fixed);
        for (old, new) in fixed.iter().zip(&without).take(2) {
            assert_foreign_lines_kept(old, new);
        }
        assert!(!Book::new(&volumes, &without).unwrap().projects.contains_key(key));
    });
}

#[test]
fn records() {
    let [_, _, history] = content();
    run("records", |random| {
        // What is understood is what would be written.
        if let Ok(record) = parse_record(&random.mutate(&history)) {
            let lines: String = record.iter().map(|(key, owned)| record_line(key, Some(*owned))).collect();
            assert_eq!(parse_record(lines.as_bytes()), Ok(record));
        }
    });
}

#[test]
fn half_written_changes() {
    let [projects, ..] = content();
    run("half-written changes", |random| {
        let (old, new) = (random.mutate(&projects), random.mutate(&projects));
        let edit = Edit::between(old.clone(), new.clone());
        let mut file = tempfile::tempfile().unwrap();
        // The new bytes up to some place, and the old length or the new one.
        let torn = random.below(new.len() + 1);
        let mut bytes = new[..torn].to_vec();
        bytes.extend(old.get(torn..).unwrap_or_default());
        std::io::Write::write_all(&mut file, &bytes).unwrap();
        assert!(edit.finish(&file).unwrap(), "{:?} {:?} {torn}", old.len(), new.len());
        let mut now = Vec::new();
        std::io::Seek::rewind(&mut file).unwrap();
        std::io::Read::read_to_end(&mut file, &mut now).unwrap();
        assert_eq!(now, new);
    });
}

#[test]
fn output_of_xfs_quota() {
    let quota = b"/dev/ubda 100 0 124 00 [--------] 3 0 0 00 [7 days] /vfroot/xfs\n";
    let report =
        b"#5001 100 0 124 00 [--------] 3 0 0 00 [--------]\n#5002 0 0 0 00 [--none--] 1 0 0 00 [0 days]\n\n";
    run("output of xfs_quota", |random| {
        if let Ok(text) = String::from_utf8(random.mutate(quota)) {
            parse_quota(&text, "/vfroot/xfs");
        }
        if let Ok(text) = String::from_utf8(random.mutate(report)) {
            parse_report(&text);
        }
    });
}

#[test]
fn configurations() {
    let text = b"agent a # b\nxfs_quota /usr/sbin/xfs_quota\nids 1-9\nstate /s\nvolume data /vfroot/xfs\nvolume b /b/c\n";
    run("configurations", |random| {
        if let Ok(text) = String::from_utf8(random.mutate(text))
            && let Ok(config) = Config::parse(&text, "a:x:990:\n")
        {
            assert!(config.agent != 0 && config.ids.0 > 0 && config.ids.0 <= config.ids.1);
            assert!(config.volumes.iter().all(|v| v.directory.is_absolute() && !v.directory.ends_with("..")));
        }
    });
}
