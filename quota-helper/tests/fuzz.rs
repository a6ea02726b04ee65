//! Everything that the helper takes from outside, fed with millions of spoilt examples: frames, both project files,
//! its configuration, the kernel's list of mounts, and what `xfs_quota` prints.
//!
//! Nothing may panic, and what the helper promises of the project files has to hold for any content. Each test runs for
//! `FUZZ_SECONDS` (1). What it found would print its seed, and is kept as a test of its own beside the code.

#![allow(clippy::print_stdout, clippy::print_stderr)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::protocol::{Reply, Request, Subject, VolumeName, decode, encode, read_frame};
use common::uuid::Uuid;
use quota_helper::book::{self, Book, Key, Owned, Record};
use quota_helper::config::{Config, Volume};
use quota_helper::{mounts, tool};

/// A source of chance that can be repeated (xorshift64*).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// An example with some things done to it, of which each could be done by a clumsy hand, a torn write or an enemy.
    fn spoil(&mut self, examples: &[Vec<u8>], words: &[&[u8]]) -> Vec<u8> {
        let mut bytes = self.pick(examples).clone();
        for _ in 0..self.below(6) {
            let (at, size) = (self.below(bytes.len() + 1), self.below(12));
            let end = (at + size).min(bytes.len());
            match self.below(7) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = self.next() as u8,
                2 => drop(bytes.drain(at..end)),
                3 => bytes.truncate(at),
                4 => drop(bytes.splice(at..at, self.pick(words).to_vec())),
                5 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
                _ => {
                    let other = self.pick(examples);
                    let from = self.below(other.len() + 1);
                    bytes.extend_from_slice(&other[from..]);
                }
            }
        }
        bytes
    }
}

/// Runs `attempt` with ever new seeds for as long as asked, and says how often that was.
fn fuzz(name: &str, mut attempt: impl FnMut(&mut Chance)) {
    let seconds = env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let (end, start) = (Instant::now() + Duration::from_secs(seconds), u64::from(std::process::id()));
    let mut runs = 0u64;
    while Instant::now() < end {
        for _ in 0..64 {
            let seed = (start << 32 | runs) ^ 0x9e37_79b9_7f4a_7c15;
            let told = Told(name, seed);
            attempt(&mut Chance(seed));
            std::mem::forget(told);
            runs += 1;
        }
    }
    println!("fuzzed {name}: {runs} inputs in {seconds} s, 0 findings");
}

/// Says which seed an attempt had when it panics.
struct Told<'a>(&'a str, u64);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        eprintln!("{}: seed {:#x}", self.0, self.1);
    }
}

fn volume(name: &str, directory: &str) -> Volume {
    Volume { name: name.parse().unwrap(), directory: PathBuf::from(directory) }
}

fn volumes() -> Vec<Volume> {
    vec![volume("data", "/vfroot/xfs"), volume("more", "/vfroot/xfs/inner")]
}

const UUID: u128 = 0x5f1d_9a3e_0c55_4f0e_9c1e_2b8f_5b1c_7d10;

fn keys() -> Vec<Key> {
    let name = |name: &str| -> VolumeName { name.parse().unwrap() };
    let uuid = Uuid::from(UUID);
    vec![
        (name("data"), Subject::Scope(uuid)),
        (name("data"), Subject::Folder(uuid)),
        (name("more"), Subject::Scope(uuid)),
        (name("data"), Subject::Scope(7.into())),
    ]
}

fn texts(examples: &[&str]) -> Vec<Vec<u8>> {
    examples.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn frames() {
    let volume: VolumeName = "data".parse().unwrap();
    let subject = Subject::Scope(Uuid::from(UUID));
    let requests = [
        Request::Status,
        Request::Create { volume: volume.clone(), subject, limit: 1 << 40 },
        Request::SetLimit { volume: volume.clone(), subject, limit: 0 },
        Request::Remove { volume: volume.clone(), subject: Subject::Folder(Uuid::from(UUID)) },
        Request::List { volume, after: Some(subject) },
    ];
    let examples: Vec<_> = requests.iter().map(|request| encode(request).unwrap()).collect();
    let words: [&[u8]; 5] = [&[0; 8], &[0xff; 8], &[1], &[0, 0x10, 0, 0], b"../etc"];
    fuzz("frames", |chance| {
        let bytes = chance.spoil(&examples, &words);
        let _ = read_frame::<Request>(&mut bytes.as_slice());
        let payload = bytes.get(4..).unwrap_or_default();
        if let Ok(request) = decode::<Request>(payload) {
            // There is one way to write a request: nothing is read over.
            assert_eq!(encode(&request).unwrap()[4..], *payload);
        }
        if let Ok(reply) = decode::<Reply>(payload) {
            let _ = encode(&reply);
        }
    });
}

const PROJECTS: [&str; 4] = [
    "1:/srv/a\n# comment\n\n1000000:/vfroot/xfs/5f1d9a3e0c554f0e9c1e2b8f5b1c7d10\n",
    "1000001:/vfroot/xfs/5f/1d/9a3e0c554f0e9c1e2b8f5b1c7d10\n77:/vfroot/xfs/inner/5f1d9a3e0c554f0e9c1e2b8f5b1c7d10",
    "9:/vfroot/xfs/00000000000000000000000000000007\n4294967295:/x\n  12 : /y\n",
    "",
];
const PROJID: [&str; 4] = [
    "root:1\n# comment\n\n5f1d9a3e0c554f0e9c1e2b8f5b1c7d10:1000000\n",
    "5f1d9a3e-0c55-4f0e-9c1e-2b8f5b1c7d10:1000001\n5f1d9a3e0c554f0e9c1e2b8f5b1c7d10.more:77",
    "00000000000000000000000000000007.data:9\nx:4294967295\n y : 12 \n",
    "",
];
const WORDS: [&[u8]; 10] = [
    b"\n",
    b":",
    b"#",
    b" ",
    b"\r\n",
    b"\0",
    b"1000000",
    b"\xff\xfe",
    b"/vfroot/xfs/",
    b"1000000:/vfroot/xfs/5f1d9a3e0c554f0e9c1e2b8f5b1c7d10\n",
];

fn lines(content: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<_> = content.split(|byte| *byte == b'\n').collect();
    // What follows the last newline is no line when it is empty.
    lines.pop_if(|last| last.is_empty());
    lines
}

/// Whether the lines of `before` that speak of none of these ids and of nothing of the volumes are all in `after`, in
/// the same order.
fn foreign_lines_stayed(before: &[u8], after: &[u8], ids: &[u32]) -> bool {
    let ours = |line: &[u8]| {
        let text = String::from_utf8_lossy(line);
        let names = ["/vfroot/xfs", "5f1d9a3e", "00000007"].iter().any(|name| text.contains(name));
        names || ids.iter().any(|id| text.contains(&id.to_string()))
    };
    let mut after = lines(after).into_iter();
    lines(before).into_iter().filter(|line| !ours(line)).all(|line| after.any(|other| other == line))
}

fn shown(content: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(content))
}

#[test]
fn project_files() {
    let (projects, projid, volumes, keys) = (texts(&PROJECTS), texts(&PROJID), volumes(), keys());
    let ids = [1_000_000, 1_000_001, 77, 9];
    fuzz("project files", |chance| {
        let mut record = Record::new();
        for (key, id) in keys.iter().zip(ids) {
            if chance.below(2) == 0 {
                record.insert(key.clone(), Owned { id, limit: chance.next() >> 1 });
            }
        }
        let history: String =
            record.iter().map(|(key, owned)| book::record_line(key, Some(*owned))).collect();
        let content = [chance.spoil(&projects, &WORDS), chance.spoil(&projid, &WORDS), history.into_bytes()];
        let book = Book::new(&volumes, &content).unwrap();
        assert!(record.keys().all(|key| book.projects.contains_key(key)));
        let (key, id) = (chance.pick(&keys), *chance.pick(&ids));
        for (after, before) in book::without(key, id, &volumes, &content).iter().zip(&content).take(2) {
            assert!(
                foreign_lines_stayed(before, after, &ids),
                "a foreign line went from {} to {}",
                shown(before),
                shown(after)
            );
            assert!(after.len() <= before.len() + 1);
        }
        let repair = |content| book::repaired(&Record::new(), &volumes, content).unwrap();
        let repaired = repair(&content);
        for (after, before) in repaired.iter().zip(&content).take(2) {
            assert!(
                foreign_lines_stayed(before, after, &ids),
                "a foreign line went from {} to {}",
                shown(before),
                shown(after)
            );
        }
        assert_eq!(repair(&repaired), repaired, "repaired twice is something else");
        let _ = book::difference(&content[0], &repaired[0]);
    });
}

#[test]
fn configuration_and_mounts() {
    let configs = texts(&[
        "agent storage-agent\nxfs_quota /usr/sbin/xfs_quota\nids 1000000-1999999\nstate /var/lib/x\nvolume a /vfroot/xfs\n",
        "# c\nagent 1100\nids 1-2\nlock /tmp/l\nrequests-per-second 20\nsocket /run/s\n",
    ]);
    let mountinfo = texts(&[
        "36 35 98:0 / /vfroot/xfs rw,noatime master:1 - xfs /dev/sda1 rw,prjquota\n",
        "37 36 98:1 /sub /vfroot/xfs/with\\040blank rw - xfs /dev/sdb rw,attr2,prjquota,noquota\n38 1 0:5 / / rw - tmpfs none rw\n",
    ]);
    let words: [&[u8]; 8] = [b"\n", b" ", b"\\040", b"\\9", b"/", b"..", b"4294967296", b" - xfs "];
    fuzz("configuration and mounts", |chance| {
        let text = String::from_utf8_lossy(&chance.spoil(&configs, &words)).into_owned();
        if let Ok(config) =
            Config::parse(&text, "storage-agent:x:1100:1100::/:/bin/false\nroot:x:0:0::/:/bin/sh\n")
        {
            assert_ne!(config.agent, 0, "root is the agent: {text:?}");
        }
        let text = String::from_utf8_lossy(&chance.spoil(&mountinfo, &words)).into_owned();
        let _ = mounts::find(&text, Path::new("/vfroot/xfs/5f"));
    });
}

#[test]
fn what_the_tool_prints() {
    let examples = texts(&[
        "/dev/sda1               4          0       2048     00 [--------]   1  0  0  00 [--------] /vfroot/xfs\n",
        "#1000000             4       8192      10240     00 [--------]  3 0 0 00 [7 days]\n#1000001 0 0 0 00 [--none--] 1 0 0 00 [--------]\n\n",
        "",
    ]);
    let words: [&[u8]; 7] = [b"\n", b" ", b"#", b"18446744073709551615", b"-1", b"[7 days]", b"/vfroot/xfs"];
    let mut most = BTreeMap::new();
    fuzz("what the tool prints", |chance| {
        let text = String::from_utf8_lossy(&chance.spoil(&examples, &words)).into_owned();
        if tool::parse_quota(&text, "/vfroot/xfs").is_some() {
            assert!(text.is_empty() || text.contains("/vfroot/xfs"), "{text:?} is another mount's");
        }
        if let Some(found) = tool::parse_report(&text) {
            let longest = most.entry("records").or_insert(0);
            *longest = found.len().max(*longest);
            assert!(found.len() <= text.lines().count());
        }
    });
    assert!(most["records"] > 1, "no whole report was among the inputs");
}
