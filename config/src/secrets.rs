//! Where a secret comes from: the configuration file, a file of its own, or systemd's credentials directory
//! (`LoadCredential=`, systemd.exec(5)).
//!
//! One source is enough. Several may be given, for example while a site moves from one to another, as long as they
//! hold the same secret; if they differ, nobody could tell which one the manager knows, so the start is refused.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::section::Section;
use crate::source;
use crate::value::Secret;

/// Far above any key, so that a wrong path such as `/dev/zero` fails instead of filling the memory.
const LONGEST: u64 = 64 * 1024;

/// Where to look for one secret.
pub(crate) struct Sources<'s> {
    /// The key that holds the secret itself.
    pub(crate) key: &'s str,
    /// The key that names a file holding it.
    pub(crate) file_key: &'s str,
    /// The name of the file below `$CREDENTIALS_DIRECTORY`.
    pub(crate) credential: &'s str,
}

/// The secret, or `None` when no source has one. A wrong source is reported and gives an empty secret.
pub(crate) fn read(section: &Section<'_>, sources: &Sources<'_>) -> Option<Secret> {
    let found = [credential(section, sources), own_file(section, sources), inline(section, sources)];
    let mut found = found.into_iter().flatten();
    let (first_place, first) = found.next()?;
    for (place, secret) in found {
        if !first.expose().is_empty() && !secret.expose().is_empty() && secret.expose() != first.expose() {
            section.hidden_problem(
                sources.key,
                format!(
                    "the secret in {first_place} differs from the one in {place}; remove the outdated one"
                ),
            );
        }
    }
    Some(first)
}

/// Which ways there are to give the secret, for the message that it is missing.
pub(crate) fn remedy(sources: &Sources<'_>) -> String {
    format!(
        "give it as {} = \"…\", in a file named by {}, or as systemd credential {}",
        sources.key, sources.file_key, sources.credential
    )
}

fn inline(section: &Section<'_>, sources: &Sources<'_>) -> Option<(String, Secret)> {
    let place = format!("the key {}", sources.key);
    if !section.has(sources.key) {
        // Asked for nevertheless, so that the key is known.
        return section.secret(sources.key).map(|secret| (place, secret));
    }
    section.context().inline_secret.set(true);
    let secret = section.secret(sources.key);
    if secret.as_ref().is_some_and(|secret| secret.expose().is_empty()) {
        section.hidden_problem(sources.key, format!("is empty; {}", remedy(sources)));
    }
    Some((place, secret.unwrap_or_default()))
}

fn own_file(section: &Section<'_>, sources: &Sources<'_>) -> Option<(String, Secret)> {
    let path = match section.path(sources.file_key) {
        Some(path) => path,
        None if section.has(sources.file_key) => return Some((String::new(), Secret::default())),
        None => return None,
    };
    Some(from_file(section, sources.file_key, path))
}

fn credential(section: &Section<'_>, sources: &Sources<'_>) -> Option<(String, Secret)> {
    let directory =
        (section.context().env)("CREDENTIALS_DIRECTORY").filter(|directory| !directory.is_empty())?;
    let path = Path::new(&directory).join(sources.credential);
    source::seems_to_exist(&path).then(|| from_file(section, sources.key, path))
}

fn from_file(section: &Section<'_>, key: &str, path: PathBuf) -> (String, Secret) {
    section.belongs(&path);
    let secret = read_file(&path).unwrap_or_else(|error| {
        section.hidden_problem(key, format!("the secret file {} {error}", path.display()));
        Secret::default()
    });
    (path.display().to_string(), secret)
}

/// Judges the open file, so that what is checked is what is read.
fn read_file(path: &Path) -> Result<Secret, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    // Opening a FIFO would wait for a writer.
    if !path.metadata().map_err(unreadable)?.is_file() {
        return Err("is not a regular file".into());
    }
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(format!(
            "has mode {mode:04o}, so every user of this host can get at it; run: chmod 0600 {}",
            path.display()
        ));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    from_bytes(bytes)
}

fn from_bytes(bytes: Vec<u8>) -> Result<Secret, String> {
    if bytes.len() as u64 > LONGEST {
        return Err(format!("is longer than {LONGEST} bytes"));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| "is not UTF-8 text")?;
    if text.ends_with('\n') {
        text.pop();
    }
    if text.ends_with('\r') {
        text.pop();
    }
    if text.is_empty() {
        return Err("is empty".into());
    }
    if text.chars().any(char::is_control) {
        return Err("holds more than one line or control characters; it must hold the secret alone".into());
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<String, String> {
        from_bytes(bytes.to_vec()).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn one_line_end_is_not_part_of_the_secret() {
        for bytes in [&b"s3cret"[..], b"s3cret\n", b"s3cret\r\n"] {
            assert_eq!(read(bytes), Ok("s3cret".into()));
        }
        assert_eq!(read(b" s3cret "), Ok(" s3cret ".into()));
    }

    #[test]
    fn a_file_that_holds_no_single_secret_is_refused_without_showing_it() {
        for bytes in [
            &b""[..],
            b"\n",
            b"hunter2\n\n",
            b"hunter2\nhunter3\n",
            b"hunter2\0",
            b"hunter2\xff",
            &[b'h'; 70_000],
        ] {
            assert!(!read(bytes).unwrap_err().contains("hunter"));
        }
    }
}
