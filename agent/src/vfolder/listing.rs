//! Lists a directory as the JSON that managers read, written while the directory is read.

use bytes::Bytes;
use serde::Serialize;

use crate::api::text::ByteText;
use crate::error::OpError;
use crate::fs::{Dir, FileKind, Name, RelPath, Time};
use crate::tree::{ListEntry, list};

/// The pieces in which a long reply is kept: none is ever copied to grow.
const PIECE: usize = 64 * 1024;

#[derive(Serialize)]
struct Item {
    name: ByteText,
    r#type: &'static str,
    stat: ItemStat,
    symlink_target: ByteText,
}

#[derive(Serialize)]
struct ItemStat {
    mode: u32,
    size: u64,
    created: String,
    modified: String,
}

/// The reply's body: `{"items":[...]}` with at most `limit` entries, all of them for 0.
pub fn json(folder: &Dir, path: &RelPath, limit: u64) -> Result<Vec<Bytes>, OpError> {
    let dir = folder.open_dir(path).map_err(|e| OpError::fs(e, path))?;
    let mut pieces = Pieces::default();
    pieces.push(b"{\"items\":[");
    let (mut first, mut iso, mut text) = (true, Iso::default(), Vec::new());
    for entry in list(&dir, limit).map_err(|e| OpError::fs(e, path))? {
        let entry = entry.map_err(|e| OpError::fs(e, path))?;
        if path.is_root() && only_markers(&dir, &entry.name) {
            continue;
        }
        if !std::mem::replace(&mut first, false) {
            pieces.push(b",");
        }
        text.clear();
        serde_json::to_writer(&mut text, &item(entry, &mut iso)).map_err(|e| OpError::fs(e.into(), path))?;
        pieces.push(&text);
    }
    pieces.push(b"]}");
    Ok(pieces.done())
}

/// Whether this is `.upload` with nothing but marks of finished uploads in it: no upload is going on, so
/// there is nothing to show.
fn only_markers(dir: &Dir, name: &Name) -> bool {
    if name.as_bytes() != b".upload" {
        return false;
    }
    let staging = RelPath::root().child(name).ok().and_then(|path| dir.open_dir_nofollow(&path).ok());
    let Some(entries) = staging.and_then(|staging| staging.entries().ok()) else { return false };
    let mut count = 0;
    for entry in entries.flatten() {
        if !entry.name.as_bytes().ends_with(b".done") {
            return false;
        }
        count += 1;
    }
    count > 0
}

fn item(entry: ListEntry, iso: &mut Iso) -> Item {
    Item {
        name: ByteText(entry.name.as_bytes().to_vec()),
        r#type: match entry.stat.kind {
            FileKind::Dir => "DIRECTORY",
            FileKind::Symlink => "SYMLINK",
            FileKind::File | FileKind::Other | FileKind::Unknown => "FILE",
        },
        stat: ItemStat {
            mode: entry.stat.mode,
            size: entry.stat.size,
            created: iso.write(entry.stat.ctime),
            modified: iso.write(entry.stat.mtime),
        },
        symlink_target: ByteText(entry.symlink_target),
    }
}

/// Writes times in UTC as Python's `isoformat()` does: `+00:00`, and microseconds only where there are some.
///
/// The files of a directory tend to be of the same second, so the last one's text is kept.
#[derive(Default)]
struct Iso {
    secs: Option<i64>,
    text: String,
}

impl Iso {
    fn write(&mut self, time: Time) -> String {
        if self.secs != Some(time.secs) {
            let seconds = jiff::Timestamp::new(time.secs, 0).unwrap_or_default();
            self.text = seconds.strftime("%Y-%m-%dT%H:%M:%S").to_string();
            self.secs = Some(time.secs);
        }
        let micros = time.nanos / 1000;
        let mut text = String::with_capacity("2023-11-14T22:13:20.500000+00:00".len());
        text.push_str(&self.text);
        if micros > 0 {
            text.push('.');
            for unit in [100_000, 10_000, 1000, 100, 10, 1] {
                text.push(char::from(b'0' + (micros / unit % 10) as u8));
            }
        }
        text.push_str("+00:00");
        text
    }
}

#[derive(Default)]
struct Pieces {
    full: Vec<Bytes>,
    open: Vec<u8>,
}

impl Pieces {
    fn push(&mut self, text: &[u8]) {
        if self.open.len() + text.len() > PIECE && !self.open.is_empty() {
            self.full.push(std::mem::take(&mut self.open).into());
        }
        if self.open.capacity() == 0 {
            self.open.reserve(PIECE);
        }
        self.open.extend_from_slice(text);
    }

    fn done(mut self) -> Vec<Bytes> {
        self.open.shrink_to_fit();
        self.full.push(self.open.into());
        self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_python_writes_them() {
        let mut iso = Iso::default();
        for (secs, nanos, text) in [
            (1_700_000_000, 0, "2023-11-14T22:13:20+00:00"),
            (1_700_000_000, 500_000_000, "2023-11-14T22:13:20.500000+00:00"),
            (1_700_000_000, 999, "2023-11-14T22:13:20+00:00"),
            (1_700_000_000, 1_000, "2023-11-14T22:13:20.000001+00:00"),
            (-1, 250_000_000, "1969-12-31T23:59:59.250000+00:00"),
        ] {
            assert_eq!(iso.write(Time { secs, nanos }), text);
        }
    }

    #[test]
    fn a_long_listing_is_whole_json_in_small_pieces() {
        let place = tempfile::tempdir().unwrap();
        for number in 0..1000 {
            std::fs::write(place.path().join(format!("file-{number}")), "x").unwrap();
        }
        let pieces = json(&Dir::open_root(place.path()).unwrap(), &RelPath::root(), 0).unwrap();
        assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.len() <= PIECE));
        let whole: serde_json::Value = serde_json::from_slice(&pieces.concat()).unwrap();
        assert_eq!(whole["items"].as_array().unwrap().len(), 1000);
    }

    #[test]
    fn marks_of_finished_uploads_are_not_shown_but_running_uploads_are() {
        let place = tempfile::tempdir().unwrap();
        let staging = place.path().join(".upload");
        std::fs::create_dir(&staging).unwrap();
        std::fs::write(staging.join("0123.done"), "").unwrap();
        let text = || json(&Dir::open_root(place.path()).unwrap(), &RelPath::root(), 0).unwrap().concat();
        assert_eq!(text(), b"{\"items\":[]}");
        std::fs::write(staging.join("0123"), "").unwrap();
        assert!(String::from_utf8(text()).unwrap().contains(".upload"));
    }
}
