//! Everything that the helper takes from outside, fed with millions of spoilt examples: frames, both project files,
//! its configuration, the kernel's list of mounts, and what `xfs_quota` prints.
//!
//! Nothing may panic, and what the helper promises of the project files has to hold for any content. What was found is kept
//! as a test of its own beside the code.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use common::protocol::{Reply, Request, Subject, VolumeName, decode, encode, read_frame};
use common::uuid::Uuid;
use quota_helper::book::{self, Book, Key, Owned, Record};
use quota_helper::config::{Config, Volume};
use quota_helper::files::Edit;
use quota_helper::{mounts, tool};
use spoil::fuzz;

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
                record.insert(key.clone(), Owned { id, limit: chance.number() >> 1 });
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
fn records() {
    let history: String = keys()
        .iter()
        .zip([1_000_000, 1_000_001, 77, 9])
        .map(|(key, id)| book::record_line(key, Some(Owned { id, limit: u64::from(id) << 20 })))
        .collect();
    fuzz("records", |chance| {
        // What is understood is what would be written.
        if let Ok(record) = book::parse_record(&chance.spoil(&[history.clone().into_bytes()], &WORDS)) {
            let lines: String =
                record.iter().map(|(key, owned)| book::record_line(key, Some(*owned))).collect();
            assert_eq!(book::parse_record(lines.as_bytes()), Ok(record));
        }
    });
}

#[test]
fn half_written_changes() {
    let projects = texts(&PROJECTS);
    fuzz("half-written changes", |chance| {
        let (old, new) = (chance.spoil(&projects, &WORDS), chance.spoil(&projects, &WORDS));
        let edit = Edit::between(old.clone(), new.clone());
        let mut file = tempfile::tempfile().unwrap();
        // The new bytes up to some place, and the old length or the new one.
        let torn = chance.below(new.len() + 1);
        file.write_all(&new[..torn]).unwrap();
        file.write_all(old.get(torn..).unwrap_or_default()).unwrap();
        assert!(edit.finish(&file).unwrap(), "{} {} {torn}", old.len(), new.len());
        let mut now = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut now).unwrap();
        assert_eq!(now, new);
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
            assert!(config.ids.0 > 0 && config.ids.0 <= config.ids.1, "{text:?}");
            let sound = |path: &Path| path.is_absolute() && !path.ends_with("..");
            assert!(config.volumes.iter().all(|volume| sound(&volume.directory)), "{text:?}");
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
