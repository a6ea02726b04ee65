//! What managers are sent, in both encodings at once: `args`, MessagePack, which releases up to 26.8 read, and
//! `payload`, JSON, which newer ones read instead (the storage-proxy contract, section 8.3).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use uuid::Uuid;

use super::msgpack::{Item, array};
use crate::tasks::journal::Outcome;
use crate::tasks::{Kind, Subject};
use crate::tree::Progress;

/// Where an event says that it comes from.
pub(super) const SOURCE: &str = "storage";

/// An entry of the stream that managers act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamEvent {
    pub(super) name: &'static str,
    pub(super) args: Vec<u8>,
    pub(super) payload: String,
}

/// What those who watch a task are sent, as JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TaskEvent {
    pub(super) task: Uuid,
    pub(super) text: String,
}

/// What the end of a task has managers do, if anything.
pub(super) fn stream_event(subject: &Subject, outcome: &Outcome) -> Option<StreamEvent> {
    let message = match outcome {
        Outcome::Done => None,
        Outcome::Failed(message) => Some(message.as_str()),
        Outcome::Cancelled => Some("cancelled"),
    };
    let (vfid, target) = (subject.vfid.as_str(), subject.target.as_deref());
    let name = match (subject.kind, message) {
        (Kind::Delete, None) => "vfolder_deletion_success",
        (Kind::Delete, Some(_)) => "vfolder_deletion_failure",
        (Kind::Clone, None) => "vfolder_clone_success",
        (Kind::Clone, Some(_)) => "vfolder_clone_failure",
        (Kind::DeleteFiles, _) => return None,
    };
    let args: Vec<_> = [Some(vfid), target, message].into_iter().flatten().map(Item::Text).collect();
    #[derive(Serialize)]
    struct Payload<'a> {
        vfid: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        dst_vfid: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
    }
    Some(StreamEvent {
        name,
        args: array(&args),
        payload: json(&Payload { vfid, dst_vfid: target, message }),
    })
}

/// That a task has ended.
pub(super) fn task_ended(task: Uuid, outcome: &Outcome) -> TaskEvent {
    let (name, message) = match outcome {
        Outcome::Done => ("bgtask_done", None),
        Outcome::Failed(message) => ("bgtask_failed", Some(message.as_str())),
        Outcome::Cancelled => ("bgtask_cancelled", None),
    };
    #[derive(Serialize)]
    struct Payload<'a> {
        task_id: Uuid,
        message: Option<&'a str>,
    }
    let id = task.to_string();
    let args = [Item::Text(&id), message.map_or(Item::Nil, Item::Text)];
    task_event(task, name, &args, &Payload { task_id: task, message })
}

/// That a task has been begun.
pub(super) fn task_begun(task: Uuid) -> TaskEvent {
    task_updated(task, 0, 0, "Task started")
}

/// How far a task is: in entries, and in bytes where a copy knows how many there are.
pub(super) fn task_progress(task: Uuid, progress: Progress) -> TaskEvent {
    let Progress { entries_done, entries_total, bytes_done, bytes_total } = progress;
    let (current, total) = match bytes_total {
        0 => (entries_done, entries_total),
        _ => (bytes_done, bytes_total),
    };
    let of = |total: u64| if total > 0 { format!(" of {total}") } else { String::new() };
    let message =
        format!("{entries_done}{} entries, {bytes_done}{} bytes", of(entries_total), of(bytes_total));
    task_updated(task, current, total, &message)
}

fn task_updated(task: Uuid, current: u64, total: u64, message: &str) -> TaskEvent {
    #[derive(Serialize)]
    struct Payload<'a> {
        task_id: Uuid,
        current_progress: u64,
        total_progress: u64,
        message: &'a str,
    }
    let id = task.to_string();
    let args = [Item::Text(&id), Item::Number(current), Item::Number(total), Item::Text(message)];
    let payload = Payload { task_id: task, current_progress: current, total_progress: total, message };
    task_event(task, "bgtask_updated", &args, &payload)
}

fn task_event(task: Uuid, name: &str, args: &[Item<'_>], payload: &impl Serialize) -> TaskEvent {
    #[derive(Serialize)]
    struct Event<'a> {
        name: &'a str,
        source: &'a str,
        args: String,
        payload: String,
    }
    let event = Event { name, source: SOURCE, args: STANDARD.encode(array(args)), payload: json(payload) };
    TaskEvent { task, text: json(&event) }
}

/// Strings and numbers in structs always have a JSON form.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The golden bytes: one message a line, its name and its encodings in hexadecimal. The suite `events` decodes the
    /// same file by the rules of both generations of managers.
    const GOLDEN: &str = include_str!("../../../tests/events/golden.txt");

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn subject(kind: Kind, target: Option<&str>) -> Subject {
        let scope = "user:5f1d9a3e-0c55-4f0e-9c1e-2b8f5b1c7d10";
        Subject {
            kind,
            volume: "local".into(),
            vfid: format!("{scope}/0b6c1d7ea6f24d57a1b2c3d4e5f60718"),
            target: target.map(|target| format!("{scope}/{target}")),
        }
    }

    #[test]
    fn messages_have_the_golden_bytes() {
        let task = Uuid::from_u128(0x0f0e_0d0c_0b0a_4908_8706_0504_0302_0100);
        let failed = Outcome::Failed("No space left on device: weights/größe.bin".into());
        let target = Some("ffffffffffffffffffffffffffffffff");
        let mut found = Vec::new();
        for (kind, target) in [(Kind::Delete, None), (Kind::Clone, target), (Kind::DeleteFiles, None)] {
            for outcome in [&Outcome::Done, &failed, &Outcome::Cancelled] {
                if let Some(event) = stream_event(&subject(kind, target), outcome) {
                    let payload = hex(event.payload.as_bytes());
                    found.push(format!("stream {} {} {payload}", event.name, hex(&event.args)));
                }
            }
        }
        for outcome in [&Outcome::Done, &failed, &Outcome::Cancelled] {
            found.push(format!("channel {}", hex(task_ended(task, outcome).text.as_bytes())));
        }
        let progress =
            Progress { entries_done: 200, entries_total: 70_000, bytes_done: 128, bytes_total: 5 << 32 };
        let unknown = Progress { entries_total: 0, bytes_total: 0, ..progress };
        for event in [task_begun(task), task_progress(task, progress), task_progress(task, unknown)] {
            found.push(format!("channel {}", hex(event.text.as_bytes())));
        }
        let golden: Vec<&str> = GOLDEN.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(found, golden);
    }

    #[test]
    fn a_deletion_is_as_the_contract_writes_it() {
        let event = stream_event(&subject(Kind::Delete, None), &Outcome::Done).unwrap();
        let vfid = subject(Kind::Delete, None).vfid;
        assert_eq!(vfid.len(), 74);
        assert_eq!(event.args, [&[0x91, 0xd9, 0x4a], vfid.as_bytes()].concat());
        assert_eq!(event.payload, format!(r#"{{"vfid":"{vfid}"}}"#));
    }
}
