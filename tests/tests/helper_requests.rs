//! What the quota helper does for the agent, one function for each kind of request and of trouble.

use std::fs;
use std::time::{Duration, Instant};

use common::protocol::{PAGE, RefusalKind, Reply, Request, Subject, UNRECORDED};
use storage_agent_tests::helper::{FOREIGN, Helper, create, remove, scope, volume};

const MIB: u64 = 1 << 20;

fn describe(number: u128) -> Request {
    Request::Describe { volume: volume(), subject: scope(number) }
}

fn set_limit(number: u128, limit: u64) -> Request {
    Request::SetLimit { volume: volume(), subject: scope(number), limit }
}

#[test]
fn a_scope_is_created_described_changed_and_removed() {
    let helper = Helper::started("");
    let created = helper.project(&create(1, 5 * MIB));
    assert_eq!((created.id, created.limit, created.used, created.created), (1000, 5 * MIB, 0, true));
    let base = helper.path("volume").display().to_string();
    assert_eq!(helper.text("projects"), format!("{}1000:{base}/{}\n", FOREIGN[0], scope(1).path()));
    assert_eq!(helper.text("projid"), format!("{}{}:1000\n", FOREIGN[1], scope(1).path()));

    let again = helper.project(&create(1, 5 * MIB));
    assert_eq!((again.id, again.created), (1000, false));
    assert_eq!(helper.project(&set_limit(1, MIB + 1)).limit, MIB + 4096);
    helper.fill(1000, 3 * 1024, 2, 1028);
    let described = helper.project(&describe(1));
    assert_eq!((described.limit, described.used), (MIB + 4096, 3 * 1024));
    let (kind, message) = helper.refusal(&remove(1));
    assert_eq!(kind, RefusalKind::InUse);
    assert!(message.contains("2 files with 3072 bytes"), "{message}");

    helper.fill(1000, 0, 0, 1028);
    assert_eq!(helper.ask(&remove(1)), Reply::Removed);
    assert_eq!([helper.text("projects"), helper.text("projid")], FOREIGN);
    for request in [describe(1), remove(1), set_limit(1, 0)] {
        assert_eq!(helper.refusal(&request).0, RefusalKind::NotFound);
    }
    assert_eq!(helper.project(&create(2, 0)).limit, 0);
    helper.check_foreign_lines();
}

#[test]
fn an_empty_directory_counts_as_use() {
    let helper = Helper::started("");
    helper.project(&create(1, MIB));
    helper.fill(1000, 0, 1, 1024);
    assert_eq!(helper.refusal(&remove(1)).0, RefusalKind::InUse);
    assert_eq!(helper.project(&describe(1)).limit, MIB, "the limit is still in force");
}

#[test]
fn ids_that_files_or_the_kernel_have_are_not_given_away() {
    let helper = Helper::new("");
    fs::create_dir(helper.path("state")).unwrap();
    fs::write(helper.path("projects"), "1000:/somewhere\n").unwrap();
    fs::write(helper.path("projid"), "else:1001").unwrap();
    helper.fill(1002, 4096, 1, 0);
    helper.fill(1003, 0, 1, 0);
    let mut helper = helper;
    helper.start();
    assert_eq!(helper.project(&create(1, MIB)).id, 1004);
    assert_eq!(
        helper.text("projid"),
        format!("else:1001\n{}:1004\n", scope(1).path()),
        "a newline was missing"
    );
    helper.fill(1005, 4096, 1, 64);
    assert_eq!(helper.project(&create(2, MIB)).id, 1006, "1005 came into use after it was looked up");
}

#[test]
fn a_range_without_free_ids_is_named() {
    let helper = Helper::new("");
    let conf = helper.text("conf").replace("1000-99999", "7-9");
    fs::write(helper.path("conf"), conf).unwrap();
    let mut helper = helper;
    helper.start();
    assert_eq!(helper.project(&create(1, 0)).id, 9);
    let (kind, message) = helper.refusal(&create(2, 0));
    assert_eq!(kind, RefusalKind::Exhausted);
    assert!(message.contains("7-9"), "{message}");
}

#[test]
fn limits_are_rounded_up_and_those_out_of_range_refused() {
    let helper = Helper::started("");
    for (limit, want) in [(1, 4096), (4096, 4096), (i64::MAX as u64, 1 << 63), (0, 0)] {
        assert_eq!(helper.project(&create(1, limit)).limit, want, "{limit}");
    }
    for limit in [1 << 63, u64::MAX] {
        assert_eq!(helper.refusal(&create(1, limit)).0, RefusalKind::InvalidLimit);
        assert_eq!(helper.refusal(&set_limit(1, limit)).0, RefusalKind::InvalidLimit);
    }
}

#[test]
fn lines_of_earlier_programs_are_adopted_as_they_are() {
    let mut helper = Helper::new("");
    let base = helper.path("volume").display().to_string();
    let (scoped, bare) = (scope(1), Subject::Folder(2.into()));
    let projects = format!("{}3:{base}/{}\n4:{base}/{}\n", FOREIGN[0], scoped.path(), bare.path());
    let projid = format!("{}renamed:3\n00000000-0000-0000-0000-000000000002:4\n", FOREIGN[1]);
    fs::write(helper.path("projects"), &projects).unwrap();
    fs::write(helper.path("projid"), &projid).unwrap();
    helper.start();
    let listed = |helper: &Helper| match helper.ask(&Request::List { volume: volume(), after: None }) {
        Reply::List { entries, more: false } => {
            entries.iter().map(|e| (e.subject, e.id, e.limit)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(listed(&helper), [(scoped, 3, UNRECORDED), (bare, 4, UNRECORDED)]);
    let adopted = helper.project(&create(1, MIB));
    assert_eq!((adopted.id, adopted.created), (3, false));
    assert_eq!(helper.project(&Request::SetLimit { volume: volume(), subject: bare, limit: MIB }).id, 4);
    assert_eq!(listed(&helper), [(scoped, 3, MIB), (bare, 4, MIB)]);
    assert_eq!([helper.text("projects"), helper.text("projid")], [projects, projid]);
    assert_eq!(helper.ask(&remove(1)), Reply::Removed);
    assert!(!helper.text("projid").contains("renamed"));
    helper.check_foreign_lines();
}

#[test]
fn one_scope_in_two_volumes_is_two_projects() {
    let helper = Helper::started("");
    let other = Request::Create { volume: "second".parse().unwrap(), subject: scope(1), limit: MIB };
    assert_eq!((helper.project(&create(1, MIB)).id, helper.project(&other).id), (1000, 1001));
    assert!(helper.text("projid").ends_with(&format!("{}.second:1001\n", scope(1).path())));
    assert_eq!(helper.check_no_duplicates(), 2);
}

#[test]
fn a_scope_whose_name_is_a_number_gets_another_one() {
    let helper = Helper::started("");
    let digits = Subject::Scope(0x1234.into());
    helper.project(&Request::Create { volume: volume(), subject: digits, limit: MIB });
    assert!(helper.text("projid").ends_with(&format!("{}.data:1000\n", digits.path())));
    assert_eq!(helper.ask(&Request::Remove { volume: volume(), subject: digits }), Reply::Removed);
    assert_eq!([helper.text("projects"), helper.text("projid")], FOREIGN);
}

#[test]
fn a_list_comes_in_pages_and_in_order() {
    let helper = Helper::started("");
    for number in (0..PAGE as u128 + 5).rev() {
        helper.project(&create(number, 0));
    }
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let Reply::List { entries, more } = helper.ask(&Request::List { volume: volume(), after }) else {
            panic!()
        };
        assert!(entries.len() <= PAGE);
        seen.extend(entries.iter().map(|entry| entry.subject));
        after = seen.last().copied();
        if !more {
            break;
        }
    }
    assert_eq!(seen, (0..PAGE as u128 + 5).map(scope).collect::<Vec<_>>());
}

#[test]
fn what_is_wrong_with_a_volume_is_told_with_its_cure() {
    let helper = Helper::started("");
    helper.project(&create(1, MIB));
    let mounts = helper.text("mounts");
    for (text, kind, part) in [
        (mounts.replace("prjquota", "noquota"), RefusalKind::NoQuota, "pquota"),
        (mounts.replace("prjquota", "pqnoenforce"), RefusalKind::NoQuota, "enforced"),
        (mounts.replace("xfs", "ext4"), RefusalKind::NotMounted, "mount the volume"),
        (String::new(), RefusalKind::NotMounted, "mount the volume"),
    ] {
        fs::write(helper.path("mounts"), text).unwrap();
        for request in [create(2, 0), create(1, 0), describe(1), set_limit(1, 0), remove(1)] {
            let (found, message) = helper.refusal(&request);
            assert_eq!(found, kind, "{request:?}");
            assert!(message.contains(part), "{message}");
        }
        let Reply::Status(status) = helper.ask(&Request::Status) else { panic!() };
        assert!(status.volumes[0].problem.as_ref().unwrap().contains(part), "{status:?}");
    }
    fs::write(helper.path("mounts"), mounts).unwrap();
    fs::rename(helper.path("volume"), helper.path("moved")).unwrap();
    std::os::unix::fs::symlink(helper.path("moved"), helper.path("volume")).unwrap();
    assert!(helper.refusal(&create(2, 0)).1.contains("symbolic link"));
    let unknown = Request::List { volume: "other".parse().unwrap(), after: None };
    assert_eq!(helper.refusal(&unknown).0, RefusalKind::UnknownVolume);
}

#[test]
fn a_tool_that_does_not_do_its_work_is_told_from_one_that_does() {
    let helper = Helper::started("");
    helper.project(&create(1, MIB));
    let files = [helper.text("projects"), helper.text("projid")];
    for (mode, part) in [
        ("rubbish", "what is a quota?"),
        ("error", "cannot setup path"),
        ("status", "exit status: 1"),
        ("flood", "more than 65536 bytes"),
        ("silent", "and then"),
    ] {
        helper.misbehave(mode);
        for request in [set_limit(1, 2 * MIB), create(2, 2 * MIB)] {
            let (kind, message) = helper.refusal(&request);
            assert_eq!(kind, RefusalKind::ToolFailed, "{mode}: {request:?}");
            assert!(message.contains(part), "{mode}: {message}");
        }
    }
    helper.misbehave("");
    fs::rename(helper.path("xfs_quota"), helper.path("away")).unwrap();
    assert!(helper.refusal(&set_limit(1, MIB)).1.contains("xfs_quota"));
    fs::rename(helper.path("away"), helper.path("xfs_quota")).unwrap();
    std::os::unix::fs::chown(helper.path("xfs_quota"), Some(77), None).unwrap();
    assert!(helper.refusal(&set_limit(1, MIB)).1.contains("others than root"));
    assert_eq!([helper.text("projects"), helper.text("projid")], files);
    std::os::unix::fs::chown(helper.path("xfs_quota"), Some(0), None).unwrap();
    assert_eq!(helper.project(&describe(1)).limit, MIB);
}

#[test]
fn a_tool_that_was_upgraded_works_or_the_refusal_says_restart() {
    let mut helper = Helper::started("");
    helper.project(&create(1, MIB));
    fs::copy(helper.path("xfs_quota"), helper.path("new")).unwrap();
    fs::rename(helper.path("new"), helper.path("xfs_quota")).unwrap();
    match helper.ask(&set_limit(1, 2 * MIB)) {
        Reply::Project(_) => assert!(helper.log().contains("no Landlock"), "{}", helper.log()),
        Reply::Refused(refusal) => assert!(refusal.message.contains("restart quota-helper"), "{refusal}"),
        other => panic!("{other:?}"),
    }
    helper.kill();
    helper.start();
    assert_eq!(helper.project(&set_limit(1, 2 * MIB)).limit, 2 * MIB);
}

#[test]
fn a_tool_that_hangs_is_ended_with_its_group() {
    let helper = Helper::started("");
    helper.project(&create(1, MIB));
    helper.misbehave("hang");
    let begin = Instant::now();
    let (kind, message) = helper.refusal(&set_limit(1, 2 * MIB));
    assert_eq!(kind, RefusalKind::ToolFailed);
    assert!(message.contains("30 s") && begin.elapsed() < Duration::from_secs(33), "{message}");
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", helper.pid())).unwrap();
    assert_eq!(children, "");
    helper.misbehave("");
    assert_eq!(helper.project(&describe(1)).limit, MIB);
}

#[test]
fn changes_by_others_are_seen_and_kept() {
    let helper = Helper::started("");
    helper.project(&create(1, MIB));
    for (name, line) in [("projects", "1001:/new\n"), ("projid", "new:1001\n")] {
        fs::write(helper.path(name), line.to_owned() + &helper.text(name)).unwrap();
    }
    assert_eq!(helper.project(&create(2, MIB)).id, 1002);
    assert_eq!(helper.ask(&remove(1)), Reply::Removed);
    helper.check_foreign_lines();
    assert!(
        helper.text("projects").starts_with("1001:/new\n") && helper.text("projid").starts_with("new:1001\n")
    );
}

#[test]
fn lost_and_edited_lines_are_reported_and_repaired_on_request() {
    let helper = Helper::started("");
    for number in 1..=4 {
        helper.project(&create(number, MIB));
    }
    let good = [helper.text("projects"), helper.text("projid")];
    let hex = |number| scope(number).path();
    let lost = |text: &str, part: &str| {
        text.lines().filter(|l| !l.contains(part)).map(|l| l.to_owned() + "\n").collect()
    };
    let [projects, projid] = good.clone();
    for (damaged, refused) in [
        ([lost(&projects, &hex(2)), projid.clone()], false),
        ([projects.clone(), lost(&projid, &hex(2))], false),
        ([projects.replace("1001:", "2001:"), projid.clone()], true),
        ([projects.clone(), projid.replace(":1001", ":2001")], false),
        ([projects.clone() + "1001:/elsewhere\n", projid.clone()], true),
        ([projects.replace("1001:", "100x:"), projid.clone()], false),
        ([String::new(), String::new()], false),
    ] {
        fs::write(helper.path("projects"), &damaged[0]).unwrap();
        fs::write(helper.path("projid"), &damaged[1]).unwrap();
        let Reply::Status(status) = helper.ask(&Request::Status) else { panic!() };
        assert!(
            status.volumes[0].problem.as_ref().unwrap().contains("differ from the record"),
            "{damaged:?}"
        );
        assert_eq!(status.volumes[1].problem, None);
        assert_eq!(helper.project(&describe(2)).id, 1001);
        match helper.ask(&set_limit(2, MIB)) {
            Reply::Project(project) => assert!(!refused && project.id == 1001, "{damaged:?}"),
            Reply::Refused(refusal) => {
                assert!(refused && refusal.kind == RefusalKind::FilesDamaged, "{refusal:?}")
            }
            other => panic!("{other:?}"),
        }
        let (said, fine) = helper.operator("repair", &[]);
        assert!(!fine || damaged[0].ends_with("elsewhere\n"), "{said}");
        assert_eq!([helper.text("projects"), helper.text("projid")], damaged, "a dry run writes nothing");
        let (said, fine) = helper.operator("repair", &["--apply"]);
        assert!(fine, "{said}");
        for (name, good) in ["projects", "projid"].iter().zip(&good) {
            let now = helper.text(name);
            let missing: Vec<_> =
                good.lines().filter(|line| line.len() > 32 && !now.lines().any(|l| l == *line)).collect();
            assert!(missing.is_empty(), "{missing:?} is missing in\n{now}");
        }
        fs::write(helper.path("projects"), &good[0]).unwrap();
        fs::write(helper.path("projid"), &good[1]).unwrap();
    }
    let Reply::Status(status) = helper.ask(&Request::Status) else { panic!() };
    assert_eq!(status.volumes[0].problem, None);
}

#[test]
fn missing_files_stop_changes_until_they_are_repaired() {
    let helper = Helper::started("");
    helper.project(&create(1, MIB));
    fs::remove_file(helper.path("projects")).unwrap();
    for request in [create(2, MIB), remove(1)] {
        let (kind, message) = helper.refusal(&request);
        assert_eq!(kind, RefusalKind::FilesDamaged);
        assert!(message.contains("quota-helper repair"), "{message}");
    }
    assert_eq!(helper.project(&describe(1)).id, 1000);
    assert!(helper.operator("repair", &["--apply"]).1);
    assert!(helper.text("projects").starts_with("1000:"));
}

#[test]
fn a_record_that_cannot_be_read_stops_everything_and_names_the_line() {
    let mut helper = Helper::started("");
    helper.project(&create(1, MIB));
    helper.kill();
    let record = helper.text("state/record");
    fs::write(helper.path("state/record"), record.clone() + "+ data sc").unwrap();
    helper.start();
    assert_eq!(helper.project(&describe(1)).id, 1000, "a line that was cut short never was");
    assert_eq!(helper.project(&create(2, MIB)).id, 1001);
    fs::write(helper.path("state/record"), format!("{record}nonsense\n{record}")).unwrap();
    let (kind, message) = helper.refusal(&describe(1));
    assert_eq!(kind, RefusalKind::FilesDamaged);
    assert!(message.contains("record:2"), "{message}");
}

#[test]
fn files_that_are_full_stay_right() {
    let helper = Helper::new("");
    let full = helper.path("full");
    fs::create_dir(&full).unwrap();
    let mount = |options: &str| {
        let done = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "none"])
            .arg(&full)
            .status();
        assert!(done.unwrap().success(), "mounting a small tmpfs needs root");
    };
    mount("size=16k,mode=755");
    let conf = ["projects", "projid"].iter().fold(helper.text("conf"), |conf, name| {
        fs::copy(helper.path(name), full.join(name)).unwrap();
        conf.replace(
            &format!("{name} {}", helper.path(name).display()),
            &format!("{name} {}", full.join(name).display()),
        )
    });
    fs::write(helper.path("conf"), conf).unwrap();
    let mut helper = helper;
    helper.start();
    fs::write(full.join("filler"), vec![0; 1 << 20]).unwrap_err();
    let mut made = 0;
    let refusal = loop {
        match helper.ask(&create(made, MIB)) {
            Reply::Project(_) => made += 1,
            Reply::Refused(refusal) => break refusal,
            other => panic!("{other:?}"),
        }
    };
    let now = ["projects", "projid"].map(|name| fs::read_to_string(full.join(name)).unwrap());
    let removed = helper.ask(&remove(0));
    let _ = std::process::Command::new("umount").arg("-l").arg(&full).status();
    assert_eq!(refusal.kind, RefusalKind::StorageFailed);
    assert!(refusal.message.contains("No space left"), "{refusal}");
    assert!(made > 5, "{made} projects fitted");
    assert_eq!(removed, Reply::Removed);
    for (text, foreign) in now.iter().zip(FOREIGN) {
        assert!(text.starts_with(foreign) && text.ends_with('\n'), "{text}");
        assert_eq!(text.lines().count(), foreign.lines().count() + made as usize);
    }
}

#[test]
fn a_lock_of_another_program_is_waited_for_and_then_named() {
    let mut helper = Helper::new("");
    let lock = helper.path("lock-of-others");
    fs::write(helper.path("conf"), format!("{}lock {}\n", helper.text("conf"), lock.display())).unwrap();
    helper.start();
    helper.project(&create(1, MIB));
    let held = fs::File::open(&lock).unwrap();
    held.lock().unwrap();
    let (kind, message) = helper.refusal(&create(2, MIB));
    assert_eq!(kind, RefusalKind::StorageFailed);
    assert!(message.contains("another program has it"), "{message}");
    drop(held);
    assert_eq!(helper.project(&create(2, MIB)).id, 1001);
}
