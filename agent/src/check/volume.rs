//! Whether a volume can be served: its directory, whose it is, and what its file system can do.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use common::size::BinarySize;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, openat2, statx};

use crate::finding::{Finding, Report};
use crate::fs::{Dir, Name};

/// A file system that does not answer in this time hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// Entries of the mount point that are looked at.
const LOOKED_AT: usize = 10_000;
/// Foreign entries that are named.
const NAMED: usize = 3;

/// Examines one configured volume.
pub(super) fn check(configured: &config::Volume, report: &mut Report) {
    let (key, path) = (format!("volume.{}.path", configured.name), configured.path.clone());
    if !crate::volume::is_native(&configured.backend_name) {
        let backend = &configured.backend_name;
        report.add(Finding::warning(
            format!("volume.{}.backend", configured.name),
            format!("{backend} is served as a plain directory: without quotas and without its own figures"),
        ));
    }
    let (send, receive) = mpsc::channel();
    let subject = key.clone();
    // A call into a dead network file system never returns, so it is made where nobody must wait for it.
    std::thread::spawn(move || send.send(examine(&subject, &path)));
    match receive.recv_timeout(PATIENCE) {
        Ok(findings) => findings.into_iter().for_each(|finding| report.add(finding)),
        Err(_) => report.add(
            Finding::problem(
                key,
                format!("{} does not answer; its file system hangs", configured.path.display()),
            )
            .cure("see that the storage server can be reached, then mount the volume again"),
        ),
    }
}

fn examine(key: &str, path: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let root = match open(key, path) {
        Ok(root) => root,
        Err(finding) => return vec![finding],
    };
    findings.push(mount_point(key, path));
    findings.push(space(key, &root));
    findings.extend(contained_opening(key, path));
    findings.push(writing(key, path, &root));
    findings.push(layout(key, path));
    findings.extend(strangers(key, path, &root));
    findings
}

fn open(key: &str, path: &Path) -> Result<Dir, Finding> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(meta) if !meta.is_dir() => Err(Finding::problem(key, format!("{shown} is not a directory"))
            .cure("name the directory where the volume is mounted")),
        Ok(_) => Dir::open_root(path).map_err(|error| forbidden(key, path, "opened", &error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Finding::problem(key, format!("{shown} does not exist"))
                .cure("mount the volume there, or correct the path"))
        }
        Err(error) => Err(forbidden(key, path, "reached", &error)),
    }
}

fn mount_point(key: &str, path: &Path) -> Finding {
    let shown = path.display();
    match statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS) {
        Ok(stat) if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) => {
            Finding::ok(key, format!("{shown} is a mount point"))
        }
        _ => Finding::note(key, format!("{shown} is a plain directory, not a mount point"))
            .cure("where a file system should be mounted there, it is not"),
    }
}

fn space(key: &str, root: &Dir) -> Finding {
    match root.statfs() {
        Ok(space) => {
            let (free, all) = (space.available, space.total);
            let text = format!("{} of {} are free", readable(free), readable(all));
            if free < all / 100 {
                Finding::warning(key, text).cure("make room")
            } else {
                Finding::ok(key, text)
            }
        }
        Err(error) => Finding::problem(key, format!("the free space cannot be asked for: {error}")),
    }
}

fn readable(bytes: u64) -> String {
    BinarySize::new(bytes).map_or_else(|_| format!("{bytes} bytes"), |size| size.to_string())
}

/// Everything below a volume is opened by openat2(2), which keeps it inside.
fn contained_opening(key: &str, path: &Path) -> Option<Finding> {
    let flags = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let root =
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let error = openat2(&root, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), flags).err()?;
    Some(
        Finding::warning(
            key,
            format!("openat2(2) is refused ({error}); paths are walked step by step, which is slower"),
        )
        .cure("use Linux 5.6 or later, and allow the call where a container's seccomp profile forbids it"),
    )
}

fn writing(key: &str, path: &Path, root: &Dir) -> Finding {
    let name = format!(".storage-agent-probe-{}", uuid::Uuid::new_v4().simple());
    match write_probe(root, &name) {
        Ok(()) => Finding::ok(key, format!("files can be written (made and removed {name})")),
        Err(error) => forbidden(key, path, "written", &error),
    }
}

fn write_probe(root: &Dir, name: &str) -> io::Result<()> {
    let name = Name::new(name.as_bytes()).map_err(io::Error::other)?;
    let mut file = root.create_new(&name, 0o600)?;
    let written = file.write_all(b"probe").and_then(|()| file.sync_all());
    root.unlink(&name)?;
    written
}

/// Why something was refused, and whose fault it is.
fn forbidden(key: &str, path: &Path, what: &str, error: &io::Error) -> Finding {
    let finding = Finding::problem(key, format!("{} cannot be {what}: {error}", path.display()));
    match error.kind() {
        io::ErrorKind::PermissionDenied => {}
        io::ErrorKind::ReadOnlyFilesystem => return finding.cure("mount it read-write"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => return finding.cure("make room"),
        io::ErrorKind::StaleNetworkFileHandle => return finding.cure("unmount and mount the volume again"),
        _ => return finding,
    }
    let own = nix::unistd::Uid::effective();
    match std::fs::metadata(path) {
        Ok(meta) => finding.cure(format!(
            "it belongs to uid {} and gid {} with mode {:04o}, and this is uid {own}: run the service as that uid (User= of \
             the unit, or storage-proxy.user), or give the volume to this one: chown -R {own} {}",
            meta.uid(), meta.gid(), meta.mode() & 0o7777, path.display()
        )),
        Err(_) => finding.cure(format!("let uid {own} pass through the directories above it (mode o+x)")),
    }
}

/// `version.txt` marks how folders are laid out; it is never an error.
fn layout(key: &str, path: &Path) -> Finding {
    match std::fs::read_to_string(path.join("version.txt")) {
        Ok(text) if text.trim() == "3" => Finding::ok(key, "version.txt: folders lie in quota scopes"),
        Ok(text) if text.trim() == "2" => {
            Finding::note(key, "version.txt: folders of an old site, without quota scopes")
        }
        Ok(_) => Finding::note(key, "version.txt holds neither 2 nor 3; it is not needed"),
        Err(_) => Finding::note(key, "there is no version.txt; both layouts of folders are served"),
    }
}

/// What an earlier proxy left as root, this one cannot change.
fn strangers(key: &str, path: &Path, root: &Dir) -> Option<Finding> {
    let own = nix::unistd::Uid::effective().as_raw();
    let entries = match root.entries() {
        Ok(entries) => entries,
        Err(error) => return Some(forbidden(key, path, "listed", &error)),
    };
    let (mut count, mut named) = (0usize, Vec::new());
    for entry in entries.take(LOOKED_AT) {
        let Ok(entry) = entry else { break };
        // lost+found is the file system's own.
        if entry.name.as_bytes() == b"lost+found" {
            continue;
        }
        let Ok(stat) = root.stat(&entry.name) else { continue };
        if stat.uid != own {
            count += 1;
            if named.len() < NAMED {
                named.push(format!("{:?} (uid {})", entry.name.to_string(), stat.uid));
            }
        }
    }
    if count == 0 {
        return None;
    }
    let more = if count > named.len() { ", ..." } else { "" };
    Some(
        Finding::warning(
            key,
            format!("{count} entries at the top belong to others: {}{more}", named.join(", ")),
        )
        .cure(format!(
            "the service may be unable to change them; once, as root: chown -R {own} {}",
            path.display()
        )),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &Path) -> String {
        format!("{:#?}", examine("volume.a.path", path))
    }

    #[test]
    fn a_good_directory_is_written_to_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("version.txt"), "3\n").unwrap();
        let found = text(dir.path());
        assert!(found.contains("files can be written (made and removed .storage-agent-probe-"), "{found}");
        assert!(found.contains("folders lie in quota scopes") && !found.contains("Problem"), "{found}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_directory_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(text(&file).contains("is not a directory"));
        assert!(text(&dir.path().join("missing")).contains("does not exist"));
    }
}
