//! Who a mount of CephFS is towards the cluster, as far as this host shows it.
//!
//! The kernel's client writes its name into the mount table; ceph-fuse is known by its command line. Only used for
//! advice, so nothing depends on finding it.

use std::path::Path;

/// A client as the mount table or a command line describes it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Client {
    name: Option<String>,
    file_system: Option<String>,
}

impl Client {
    /// The client of the CephFS mounted at `path`.
    pub(super) fn of_mount(path: &Path) -> Self {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        match of_kernel(&table, path) {
            Some(client) => client,
            None => of_processes(path).unwrap_or_default(),
        }
    }

    pub(super) fn is_known(&self) -> bool {
        self.name.is_some()
    }

    /// Its name in the cluster, `client.NAME` where it is not known.
    pub(super) fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| "client.NAME".into())
    }

    /// The file system's name, `FS` where it is not known.
    pub(super) fn file_system(&self) -> &str {
        self.file_system.as_deref().unwrap_or("FS")
    }

    /// What the words stand for that could not be found out.
    pub(super) fn hint(&self) -> &'static str {
        match (&self.name, &self.file_system) {
            (Some(_), Some(_)) => "",
            (Some(_), None) => "FS is the file system's name (ceph fs ls).",
            (None, Some(_)) => "NAME is what the mount was given as name= or --id.",
            (None, None) => {
                "NAME is what the mount was given as name= or --id, FS the file system's name (ceph fs ls)."
            }
        }
    }
}

/// The last line about a mount point is the mount on top (proc_pid_mountinfo(5)).
fn of_kernel(table: &str, path: &Path) -> Option<Client> {
    let line =
        table.lines().rfind(|line| line.split(' ').nth(4).is_some_and(|point| path.starts_with(point)))?;
    let (_, mount) = line.split_once(" - ")?;
    let mut fields = mount.split(' ');
    if fields.next() != Some("ceph") {
        return None;
    }
    let options = fields.nth(1).unwrap_or_default();
    let option = |key: &str| options.split(',').find_map(|o| o.strip_prefix(key)?.strip_prefix('='));
    Some(Client {
        name: option("name").map(|name| format!("client.{name}")),
        file_system: option("fs").or(option("mds_namespace")).map(str::to_owned),
    })
}

fn of_processes(path: &Path) -> Option<Client> {
    let processes = std::fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let line = std::fs::read(process.path().join("cmdline")).ok()?;
        let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        of_command(&words, path)
    })
}

/// Reads the command line of a ceph-fuse that serves `path`.
fn of_command(words: &[&str], path: &Path) -> Option<Client> {
    let program = Path::new(words.first()?).file_name()?;
    let serves = words.iter().any(|word| word.starts_with('/') && Path::new(word) == path);
    if program != "ceph-fuse" || !serves {
        return None;
    }
    let value = |names: &[&str]| {
        words.iter().enumerate().find_map(|(n, word)| match word.split_once('=') {
            Some((name, value)) if names.contains(&name) => Some(value.to_owned()),
            _ if names.contains(word) => words.get(n + 1).map(|value| (*value).to_owned()),
            _ => None,
        })
    };
    let name = value(&["-n", "--name"]).or(value(&["-i", "--id", "--user"]).map(|id| format!("client.{id}")));
    Some(Client {
        // What ceph-fuse is without a name.
        name: name.or(Some("client.admin".into())),
        file_system: value(&["--client_fs", "--client-fs", "--client_mds_namespace"]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str, file_system: Option<&str>) -> Option<Client> {
        Some(Client { name: Some(name.into()), file_system: file_system.map(str::to_owned) })
    }

    #[test]
    fn the_kernels_client_is_in_the_mount_table() {
        let table = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            50 22 0:45 / /vfroot/ceph rw,relatime shared:9 - ceph proxy@0e3.cephfs=/ rw,name=proxy,secret=<hidden>,acl\n\
            51 22 0:46 / /vfroot/old rw - ceph 10.0.0.1:6789:/ rw,name=old,mds_namespace=archive";
        let at = |path: &str| of_kernel(table, Path::new(path));
        assert_eq!(at("/vfroot/ceph/volume"), client("client.proxy", None));
        assert_eq!(at("/vfroot/old"), client("client.old", Some("archive")));
        assert_eq!(at("/srv"), None);
        assert_eq!(at("/vfroot/cephalopods"), None);
    }

    #[test]
    fn ceph_fuse_is_known_by_its_command_line() {
        let of = |line: &str| of_command(&line.split(' ').collect::<Vec<_>>(), Path::new("/mnt/a"));
        assert_eq!(of("ceph-fuse -n client.proxy -f /mnt/a"), client("client.proxy", None));
        assert_eq!(of("/usr/bin/ceph-fuse /mnt/a --id=p --client_fs two"), client("client.p", Some("two")));
        assert_eq!(of("ceph-fuse /mnt/a"), client("client.admin", None));
        assert_eq!(of("ceph-fuse -n client.proxy /mnt/ab"), None);
        assert_eq!(of("vi /mnt/a"), None);
        assert_eq!(of(""), None);
    }
}
