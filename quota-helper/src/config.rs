//! The helper's own file: which volumes exist, where they are, and who may ask.
//!
//! It decides what a program with CAP_SYS_ADMIN does, so it is believed only when root alone can have written it. One
//! `key value` a line, which needs no parser among the dependencies:
//!
//! ```text
//! # comment
//! agent      storage-agent             # who may ask: a user's name or number, not root
//! xfs_quota  /usr/sbin/xfs_quota
//! ids        1000000-1999999           # project ids that are the helper's alone
//! state      /var/lib/storage-agent-quota-helper
//! volume     data /vfroot/xfs          # a name and a directory on an XFS; once for each volume
//! ```
//!
//! Optional: `socket` (where systemd passes none in), `lock` (a lock file shared with other programs),
//! `requests-per-second`, and `projects`, `projid`, `mounts` for other files than the system's.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::num::NonZeroU32;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::projects::id_range;
use common::protocol::{MOST_VOLUMES, VolumeName};

/// Where the file is.
pub const DEFAULT: &str = "/etc/storage-agent/quota-helper.conf";
/// Leaves room for an id and a subject's path in a line that `xfs_quota` doesn't cut.
const LONGEST_DIRECTORY: usize = 900;

/// What the file says.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The only user that is answered; never 0.
    pub agent: u32,
    /// Where to listen when no socket is passed in.
    pub socket: Option<PathBuf>,
    /// The program, an absolute path.
    pub xfs_quota: PathBuf,
    /// The first and last id that may be handed out.
    pub ids: (u32, u32),
    /// The directory of the durable record.
    pub state: PathBuf,
    /// A file that other writers of the project files lock.
    pub lock: Option<PathBuf>,
    /// Requests that are answered in a second, if not 20.
    pub rate: Option<NonZeroU32>,
    /// `/etc/projects`.
    pub projects: PathBuf,
    /// `/etc/projid`.
    pub projid: PathBuf,
    /// `/proc/self/mountinfo`.
    pub mounts: PathBuf,
    /// At least one, and at most [`MOST_VOLUMES`].
    pub volumes: Vec<Volume>,
}

/// A volume that scopes may be made in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// What the agent calls it.
    pub name: VolumeName,
    /// Its directory: absolute, without `.`, `..`, colon or white space.
    pub directory: PathBuf,
}

impl Config {
    /// Reads the file, which has to be root's.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = open_trusted(path).and_then(io::read_to_string).map_err(|error| error.to_string());
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let config = text.and_then(|text| Self::parse(&text, &passwd));
        config.map_err(|problem| format!("{}: {problem}", path.display()))
    }

    /// Understands the text; users are looked up in the text of a passwd(5).
    pub fn parse(text: &str, passwd: &str) -> Result<Self, String> {
        let mut config = Config {
            projects: "/etc/projects".into(),
            projid: "/etc/projid".into(),
            mounts: "/proc/self/mountinfo".into(),
            ..Config::default()
        };
        let mut seen = HashSet::new();
        for (line, number) in text.lines().zip(1..) {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(key) = words.next() else { continue };
            let set = config.set(key, &words.collect::<Vec<_>>(), passwd);
            set.map_err(|problem| format!("line {number}: {key}: {problem}"))?;
            if !seen.insert(key) && key != "volume" {
                return Err(format!("line {number}: {key} is given twice; leave one"));
            }
        }
        match ["agent", "xfs_quota", "ids", "state", "volume"].iter().find(|key| !seen.contains(*key)) {
            Some(key) => Err(format!("there is no line with {key}; add one")),
            None => Ok(config),
        }
    }

    fn set(&mut self, key: &str, values: &[&str], passwd: &str) -> Result<(), String> {
        match (key, values) {
            ("volume", [name, directory]) => self.add_volume(name, directory)?,
            ("agent", [user]) => self.agent = uid(user, passwd)?,
            ("ids", [range]) => self.ids = id_range(range).ok_or("write FIRST-LAST, of 1 to 4294967294")?,
            ("requests-per-second", [rate]) => self.rate = Some(rate.parse().map_err(|_| "write 1 or more")?),
            ("xfs_quota", [path]) => self.xfs_quota = absolute(path)?,
            ("state", [path]) => self.state = absolute(path)?,
            ("socket", [path]) => self.socket = Some(absolute(path)?),
            ("lock", [path]) => self.lock = Some(absolute(path)?),
            ("projects", [path]) => self.projects = absolute(path)?,
            ("projid", [path]) => self.projid = absolute(path)?,
            ("mounts", [path]) => self.mounts = absolute(path)?,
            _ => return Err("is no line of this file; see quota-helper --help".to_owned()),
        }
        Ok(())
    }

    fn add_volume(&mut self, name: &str, directory: &str) -> Result<(), String> {
        let volume = Volume { name: name.parse()?, directory: absolute(directory)? };
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains([':', '\\']);
        if directory.len() > LONGEST_DIRECTORY || !directory.split('/').skip(1).all(plain) {
            let form = "in full, with no colon, backslash, dot-dot, or slash at the end";
            return Err(format!("{directory}: write at most {LONGEST_DIRECTORY} bytes {form}"));
        }
        if self.volumes.iter().any(|v| v.name == volume.name || v.directory == volume.directory) {
            return Err(format!("{name} {directory}: a volume of this name or directory stands above"));
        }
        self.volumes.push(volume);
        if self.volumes.len() > MOST_VOLUMES { Err(format!("write {MOST_VOLUMES} at most")) } else { Ok(()) }
    }
}

fn absolute(path: &str) -> Result<PathBuf, String> {
    if path.starts_with('/') { Ok(path.into()) } else { Err(format!("{path} is not an absolute path")) }
}

fn uid(user: &str, passwd: &str) -> Result<u32, String> {
    let mut entries = passwd.lines().map(|line| line.split(':'));
    let entry = entries.find(|fields| fields.clone().next() == Some(user));
    match entry.and_then(|mut fields| fields.nth(2)).unwrap_or(user).parse() {
        Err(_) => Err(format!("there is no user {user} in /etc/passwd; write its number")),
        Ok(0) => Err("root is never answered; write the user that storage-agent runs as".to_owned()),
        Ok(uid) => Ok(uid),
    }
}

/// Opens a regular file that nobody but root can have changed, or put there in its directory.
pub fn open_trusted(path: &Path) -> io::Result<File> {
    let file = File::open(path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    let (metadata, place) = (file.metadata()?, fs::metadata(path.parent().unwrap_or(path))?);
    if metadata.is_file() && [&metadata, &place].iter().all(|m| m.uid() == 0 && m.mode() & 0o022 == 0) {
        return Ok(file);
    }
    let problem = "it or its directory can be changed by others than root; chown root and chmod go-w";
    Err(io::Error::other(format!("{}: {problem}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "agent storage-agent # who\nxfs_quota /usr/sbin/xfs_quota\n\nids 1000-1999\n\
        state /var/lib/helper\nvolume data /vfroot/xfs\nvolume more /vfroot/xfs/more\n";
    const PASSWD: &str = "root:x:0:0::/:/bin/sh\nstorage-agent:x:990:990::/:/bin/false\n";

    #[test]
    fn a_good_file_is_understood() {
        let config = Config::parse(GOOD, PASSWD).unwrap();
        assert_eq!((config.agent, config.ids, config.rate), (990, (1000, 1999), None));
        assert_eq!(config.projects, Path::new("/etc/projects"));
        assert_eq!(config.volumes[1].directory, Path::new("/vfroot/xfs/more"));
        assert_eq!(Config::parse(&GOOD.replace("storage-agent", "77"), "").unwrap().agent, 77);
    }

    #[test]
    fn each_mistake_says_its_line_and_what_is_right() {
        for (from, to, part) in [
            ("agent storage-agent", "agent nobody", "line 1: agent: there is no user nobody"),
            ("agent storage-agent", "agent root", "line 1: agent: root is never answered"),
            ("agent storage-agent", "agent 0", "root is never answered"),
            ("agent storage-agent", "", "no line with agent"),
            ("ids 1000-1999", "ids 0-5", "line 4: ids: write FIRST-LAST"),
            ("ids 1000-1999", "ids 7-5", "FIRST-LAST"),
            ("ids 1000-1999", "ids 1000", "FIRST-LAST"),
            ("ids 1000-1999", "ids 1-4294967295", "of 1 to 4294967294"),
            ("state /var", "state var", "not an absolute path"),
            ("state /var/lib/helper", "state", "line 5: state: is no line"),
            ("volume data /vfroot/xfs", "volume data /vfroot/../etc", "in full"),
            ("volume data /vfroot/xfs", "volume data /vfroot/xfs/", "slash at the end"),
            ("volume data /vfroot/xfs", "volume data /", "in full"),
            ("volume data /vfroot/xfs", "volume data /a:b", "no colon"),
            ("volume data /vfroot/xfs", "volume -x /a", "a volume's name is"),
            ("volume more", "volume data", "line 7: volume: data /vfroot/xfs/more: a volume of this name"),
            ("ids", "idss 1-2\nids", "line 4: idss: is no line"),
            ("ids 1000-1999", "ids 1-2\nids 1-2", "line 5: ids is given twice"),
            ("ids", "requests-per-second 0\nids", "write 1 or more"),
        ] {
            assert!(GOOD.contains(from));
            let error = Config::parse(&GOOD.replacen(from, to, 1), PASSWD).unwrap_err();
            assert!(error.contains(part), "{to}: {error}");
        }
    }

    #[test]
    fn a_file_that_others_can_change_is_not_believed() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quota-helper.conf");
        fs::write(&path, GOOD).unwrap();
        for mode in [0o620, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(Config::load(&path).unwrap_err().contains("others than root"));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(open_trusted(&path).is_err());
    }
}
