//! Where a volume is mounted, and whether quotas are enforced there.
//!
//! `xfs_quota` ends successfully when there is no quota at all, so this is asked of the kernel before each request.
//! The answer is also the one line of the mounts file that `xfs_quota` is given, so that it never looks at another
//! file system, which might hang.

use std::fs::canonicalize;
use std::path::Path;

use common::protocol::Refusal;

/// Where the XFS that a directory is on is mounted, and its line of a mounts file (fstab(5)), by the text of a
/// proc_pid_mountinfo(5). It has to enforce project quotas.
pub fn find(mountinfo: &str, directory: &Path) -> Result<(String, String), Refusal> {
    let place = directory.display();
    let unreachable = |error| refusal!(NotMounted: "{place} cannot be reached: {error}");
    let real = canonicalize(directory).map_err(unreachable)?;
    if real != directory {
        return Err(refusal!(NotMounted: "{place} passes a symbolic link; configure {}", real.display()));
    }
    // The longest mount point counts, and of several at one place the last one.
    let holding = mountinfo.lines().filter_map(parse).filter(|(point, _)| directory.starts_with(point));
    match holding.max_by_key(|(point, _)| point.len()) {
        Some((point, ["xfs", device, options])) if options.split(',').any(|one| one == "prjquota") => {
            Ok((point.to_owned(), format!("{device} {point} xfs rw,prjquota 0 0\n")))
        }
        Some((point, ["xfs", ..])) => {
            Err(refusal!(NoQuota: "{point} is mounted without enforced quotas; use the option pquota"))
        }
        other => {
            let kind = other.map_or("nothing", |(_, [kind, ..])| kind);
            Err(refusal!(NotMounted: "{place} is on {kind}, not on XFS; mount the volume"))
        }
    }
}

/// The mount point; the file system's type, device and options.
fn parse(line: &str) -> Option<(&str, [&str; 3])> {
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    Some((before.split(' ').nth(4)?, [after.next()?, after.next()?, after.next()?]))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use common::protocol::RefusalKind;

    use super::*;

    fn found(options: &str, directory: &Path) -> Result<(String, String), Refusal> {
        let point = directory.display();
        let text = format!(
            "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n26 20 9:0 / {point} rw,relatime - tmpfs none rw\n\
             27 26 98:0 / {point} rw,relatime shared:1 - xfs /dev/sdb rw,attr2,{options}\n"
        );
        find(&text, &directory.join("below"))
    }

    #[test]
    fn the_last_mount_at_the_longest_place_counts() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("below")).unwrap();
        let mount = found("prjquota", folder.path()).unwrap();
        assert_eq!(mount.1, format!("/dev/sdb {} xfs rw,prjquota 0 0\n", folder.path().display()));
        assert_eq!(found("pqnoenforce", folder.path()).unwrap_err().kind, RefusalKind::NoQuota);
    }

    #[test]
    fn another_file_system_a_link_and_a_missing_directory_are_no_volume() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link, gone) =
            (folder.path().join("real"), folder.path().join("link"), folder.path().join("gone"));
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        for (directory, part) in
            [(real, "is on ext4, not on XFS"), (link, "symbolic link"), (gone, "cannot be reached")]
        {
            let refusal = find("20 1 8:1 / / rw - ext4 /dev/sda1 rw\n", &directory).unwrap_err();
            assert_eq!(refusal.kind, RefusalKind::NotMounted);
            assert!(refusal.message.contains(part), "{refusal}");
        }
    }
}
