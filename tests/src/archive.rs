//! What is inside a ZIP file.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use zip::ZipArchive;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The bytes; none for a directory.
    pub content: Vec<u8>,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Whether it is a symbolic link.
    pub is_link: bool,
    /// Whether it is compressed.
    pub deflated: bool,
    /// Year to second of the modification time, as stored.
    pub modified: Option<[u16; 6]>,
}

/// All entries by their names, or what is wrong with the archive. A name that occurs twice is wrong.
pub fn entries(archive: &[u8]) -> Result<BTreeMap<String, Entry>, String> {
    let mut archive = ZipArchive::new(Cursor::new(archive)).map_err(|e| e.to_string())?;
    let mut entries = BTreeMap::new();
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).map_err(|e| e.to_string())?;
        let mut content = Vec::new();
        let name = String::from_utf8_lossy(file.name_raw()).into_owned();
        file.read_to_end(&mut content).map_err(|e| format!("{name}: {e}"))?;
        let modified = file.last_modified().map(|t| {
            [
                t.year(),
                t.month().into(),
                t.day().into(),
                t.hour().into(),
                t.minute().into(),
                t.second().into(),
            ]
        });
        let entry = Entry {
            content,
            is_dir: file.is_dir(),
            is_link: file.is_symlink(),
            deflated: file.compression() == zip::CompressionMethod::Deflated,
            modified,
        };
        if entries.insert(name.clone(), entry).is_some() {
            return Err(format!("{name} is there twice"));
        }
    }
    Ok(entries)
}
