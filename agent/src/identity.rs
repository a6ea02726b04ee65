//! Who the process is: an ordinary user without a single capability, who cannot become anything else.
//!
//! Everything here changes the calling thread (and, for ids, by way of libc all threads), so it is done while
//! there is only one: before the runtime starts. Each step is read back, and a step that did not take ends the
//! start.

use caps::{CapSet, CapsHashSet};
use config::Account;
use nix::sys::prctl;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{self, Gid, Group, Uid, User};
use thiserror::Error;

/// Why the process does not become who it should be.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// Nobody said that root may serve.
    #[error(
        "the storage agent does not run as root: start it as the user who owns the volumes' files, set \
         storage-proxy.user so that it switches to that user, or allow it by agent.allow-root = true or --allow-root"
    )]
    Root,
    /// The account is in no user database.
    #[error("{key}: there is no {what} {name:?} on this host")]
    Unknown {
        /// The configuration key.
        key: &'static str,
        /// `user` or `group`.
        what: &'static str,
        /// The name in the configuration.
        name: String,
    },
    /// The kernel, or the user database, refused a step.
    #[error("cannot {step}: {reason}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        reason: String,
    },
}

/// Who the configuration wants the process to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Target {
    switch: Option<(Uid, Gid)>,
    also: Option<Gid>,
}

impl Target {
    /// Decides who to be, before anything is opened. `allow_root` lets a process that was started as root stay it.
    pub fn choose(
        user: Option<&Account>,
        group: Option<&Account>,
        allow_root: bool,
    ) -> Result<Self, IdentityError> {
        if !Uid::effective().is_root() && !Uid::current().is_root() {
            return Ok(Target::default());
        }
        let wanted = match user {
            None | Some(Account::Current) => None,
            Some(account) => Some(find_user(account)?),
        };
        let Some((uid, own_group)) = wanted.filter(|(uid, _)| !uid.is_root()) else {
            return if allow_root { Ok(Target::default()) } else { Err(IdentityError::Root) };
        };
        let gid = match group {
            None | Some(Account::Current) => own_group.unwrap_or(Gid::from_raw(uid.as_raw())),
            Some(account) => find_group(account)?,
        };
        Ok(Target { switch: Some((uid, gid)), also: None })
    }

    /// Also a member of `group`, where it switches.
    pub fn joining(self, group: Option<Gid>) -> Self {
        Target { also: group, ..self }
    }

    /// Becomes it and gives up every capability, now and for good. Call while the process has one thread.
    pub fn assume(self) -> Result<(), IdentityError> {
        require_one_thread()?;
        umask(Mode::from_bits_truncate(0o022));
        // Dropping from the bounding set needs CAP_SETPCAP, which goes with the rest.
        let bounded = clear_bounding();
        if let Some((uid, gid)) = self.switch {
            switch(uid, gid, self.also)?;
        }
        for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
            // capset(2) is among the calls that the packaged unit forbids, and there is nothing to drop then.
            if !caps::read(None, set).map_err(step("read capabilities"))?.is_empty() {
                caps::clear(None, set).map_err(step("drop capabilities"))?;
            }
        }
        prctl::set_no_new_privs().map_err(step("set no_new_privs"))?;
        prctl::set_dumpable(false).map_err(step("forbid core dumps"))?;
        self.verify(bounded)
    }

    fn verify(self, bounded: bool) -> Result<(), IdentityError> {
        let failed = |what: &str| IdentityError::Step { step: "give up privileges", reason: what.to_owned() };
        for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
            let left = caps::read(None, set).map_err(step("read capabilities back"))?;
            if !left.is_empty() {
                return Err(failed(&format!("capabilities remain in the set {set:?}")));
            }
        }
        if bounded
            && caps::read(None, CapSet::Bounding).map_err(step("read capabilities back"))?
                != CapsHashSet::new()
        {
            return Err(failed("capabilities remain in the bounding set"));
        }
        if !prctl::get_no_new_privs().map_err(step("read no_new_privs back"))? {
            return Err(failed("no_new_privs did not take"));
        }
        if prctl::get_dumpable().map_err(step("read dumpable back"))? {
            return Err(failed("the process can still be dumped"));
        }
        if self.switch.is_some() && unistd::setuid(Uid::from_raw(0)).is_ok() {
            return Err(failed("the process could become root again"));
        }
        Ok(())
    }
}

/// Looks the configured names up, also where no switch would be made.
pub fn look_up(user: Option<&Account>, group: Option<&Account>) -> Result<(), IdentityError> {
    user.map(find_user).transpose()?;
    group.map(find_group).transpose()?;
    Ok(())
}

/// Who the process is now, for the log: `uid 1100, gid 1100`.
pub fn description() -> String {
    format!("uid {}, gid {}", Uid::effective(), Gid::effective())
}

/// Capabilities are dropped for the calling thread only; another one would keep them.
pub(crate) fn require_one_thread() -> Result<(), IdentityError> {
    let threads = std::fs::read_dir("/proc/self/task").map_err(step("count the threads"))?.count();
    if threads == 1 {
        return Ok(());
    }
    Err(IdentityError::Step { step: "give up privileges", reason: format!("{threads} threads run already") })
}

/// Whether the bounding set could be emptied: only who has CAP_SETPCAP can, and who has not, cannot raise anything
/// by executing a program either, because of no_new_privs.
fn clear_bounding() -> bool {
    caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP).unwrap_or(false)
        && caps::clear(None, CapSet::Bounding).is_ok()
}

fn switch(uid: Uid, gid: Gid, also: Option<Gid>) -> Result<(), IdentityError> {
    match User::from_uid(uid).map_err(step("look the user up"))? {
        Some(user) => {
            let name = std::ffi::CString::new(user.name).map_err(step("use the user's name"))?;
            unistd::initgroups(&name, gid).map_err(step("set the user's groups"))?;
        }
        None => unistd::setgroups(&[gid]).map_err(step("set the groups"))?,
    }
    if also.is_some() {
        let groups = unistd::getgroups().map_err(step("read the groups"))?;
        let groups: Vec<Gid> = groups.into_iter().chain(also).collect();
        unistd::setgroups(&groups).map_err(step("join a group"))?;
    }
    // Real, effective and saved ids, so that none is left to go back to.
    unistd::setresgid(gid, gid, gid).map_err(step("switch to the group"))?;
    unistd::setresuid(uid, uid, uid).map_err(step("switch to the user"))
}

/// The user with its primary group; a numeric id may be in no database.
fn find_user(account: &Account) -> Result<(Uid, Option<Gid>), IdentityError> {
    let found = match account {
        Account::Name(name) => User::from_name(name),
        Account::Id(id) => User::from_uid(Uid::from_raw(*id)),
        Account::Current => return Ok((Uid::current(), None)),
    };
    match (found.map_err(step("look the user up"))?, account) {
        (Some(user), _) => Ok((user.uid, Some(user.gid))),
        (None, Account::Id(id)) => Ok((Uid::from_raw(*id), None)),
        (None, _) => Err(unknown("storage-proxy.user", "user", account)),
    }
}

/// The group of this name; the reference proxy looked in the user database, so that is the second place.
fn find_group(account: &Account) -> Result<Gid, IdentityError> {
    match account {
        Account::Id(id) => Ok(Gid::from_raw(*id)),
        Account::Current => Ok(Gid::current()),
        Account::Name(name) => {
            if let Some(group) = Group::from_name(name).map_err(step("look the group up"))? {
                return Ok(group.gid);
            }
            let user = User::from_name(name).map_err(step("look the group up"))?;
            user.map(|user| user.gid).ok_or_else(|| unknown("storage-proxy.group", "group", account))
        }
    }
}

fn unknown(key: &'static str, what: &'static str, account: &Account) -> IdentityError {
    let name = match account {
        Account::Name(name) => name.clone(),
        Account::Id(id) => id.to_string(),
        Account::Current => String::new(),
    };
    IdentityError::Unknown { key, what, name }
}

fn step<E: ToString>(step: &'static str) -> impl Fn(E) -> IdentityError {
    move |error| IdentityError::Step { step, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> bool {
        Uid::effective().is_root()
    }

    #[test]
    fn root_needs_a_user_to_switch_to_or_leave_to_stay() {
        let refused = Target::choose(None, None, false);
        assert_eq!(matches!(refused, Err(IdentityError::Root)), root());
        assert!(Target::choose(None, None, true).is_ok());
    }

    #[test]
    fn a_user_that_is_root_by_another_name_is_refused_as_well() {
        for account in [Account::Id(0), Account::Name("root".into()), Account::Current] {
            let refused = Target::choose(Some(&account), None, false);
            assert_eq!(matches!(refused, Err(IdentityError::Root)), root(), "{account:?}");
        }
    }

    #[test]
    fn an_id_without_a_name_is_good_and_brings_a_group_of_the_same_number() {
        if root() {
            let target = Target::choose(Some(&Account::Id(61_234)), None, false).unwrap();
            assert_eq!(target.switch, Some((Uid::from_raw(61_234), Gid::from_raw(61_234))));
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_that_names_the_key() {
        let error = find_user(&Account::Name("no-such-user".into())).unwrap_err().to_string();
        assert_eq!(error, "storage-proxy.user: there is no user \"no-such-user\" on this host");
        assert!(
            find_group(&Account::Name("no-such-group".into())).unwrap_err().to_string().contains("group")
        );
    }
}
