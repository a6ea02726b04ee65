//! The page of `storage-agent top` as text, made of the reply of `GET /overview`.
//!
//! Names in it come from users and arrays: nothing of them reaches the terminal but printable characters.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

use serde_json::Value;

/// What has to be remembered between two pages: how far each transfer was.
#[derive(Debug, Default)]
pub(super) struct Screen {
    before: BTreeMap<String, (Instant, u64)>,
}

impl Screen {
    /// The page, at most `width` columns wide. `asked` is when the reply was asked for.
    pub(super) fn draw(&mut self, address: &str, overview: &Value, asked: Instant, width: usize) -> String {
        let held = &overview["sandbox"];
        let mut page = format!(
            "storage-agent {}  {}  landlock {}, seccomp {}\n",
            text(&overview["storage-proxy"]),
            tame(address),
            text(&held["landlock"]),
            text(&held["seccomp"])
        );
        volumes(&mut page, list(&overview["volumes"]));
        self.transfers(&mut page, list(&overview["transfers"]), asked);
        tasks(&mut page, list(&overview["tasks"]));
        errors(&mut page, list(&overview["errors"]));
        let cut = |line: &str| line.chars().take(width).collect::<String>() + "\n";
        page.lines().map(cut).collect()
    }

    fn transfers(&mut self, page: &mut String, transfers: &[Value], asked: Instant) {
        heading(
            page,
            &format!("TRANSFERS ({})", transfers.len()),
            "      IN       OUT     SPEED     TIME  PEER, WHAT",
        );
        let mut now = BTreeMap::new();
        for transfer in transfers {
            let count = |key: &str| transfer[key].as_u64().unwrap_or(0);
            let (received, sent) = (count("received_bytes"), count("sent_bytes"));
            let (id, all) = (text(&transfer["request_id"]), received.saturating_add(sent));
            let age = transfer["seconds"].as_f64().unwrap_or(0.0);
            // Since the last look, or since it began.
            let (bytes, seconds) = match self.before.get(&id) {
                Some((then, bytes)) => {
                    (all.saturating_sub(*bytes), asked.duration_since(*then).as_secs_f64())
                }
                None => (all, age),
            };
            let speed = if seconds > 0.0 { bytes as f64 / seconds } else { 0.0 };
            line(
                page,
                format_args!(
                    "{:<16}{:>8}  {:>8}  {:>8}  {:>7}  {}  {} {}",
                    id,
                    size(received as f64),
                    size(sent as f64),
                    format!("{}/s", size(speed)),
                    duration(age),
                    text(&transfer["peer"]),
                    text(&transfer["method"]),
                    text(&transfer["path"])
                ),
            );
            now.insert(id, (asked, all));
        }
        self.before = now;
    }
}

fn volumes(page: &mut String, volumes: &[Value]) {
    heading(page, "VOLUMES", "BACKEND         USED  CAPACITY      STATE");
    for volume in volumes {
        let (used, all) = (volume["used_bytes"].as_f64(), volume["capacity_bytes"].as_f64());
        let shown = |bytes: Option<f64>| bytes.map_or_else(|| "-".to_owned(), size);
        let percent = match (used, all) {
            (Some(used), Some(all)) if all > 0.0 => format!("{:.0}%", used / all * 100.0),
            _ => "-".to_owned(),
        };
        let state = match volume["error"].as_str() {
            Some(error) => format!("NOT READY: {}", tame(error)),
            None => "ready".to_owned(),
        };
        line(
            page,
            format_args!(
                "{:<16}{:<12}{:>8}  {:>8} {percent:>4}  {state}",
                text(&volume["name"]),
                text(&volume["backend"]),
                shown(used),
                shown(all)
            ),
        );
    }
}

fn tasks(page: &mut String, tasks: &[Value]) {
    heading(page, &format!("TASKS ({})", tasks.len()), "STATE         ENTRIES     BYTES  WHAT");
    for task in tasks {
        let progress = &task["progress"];
        let entries = match (progress["entries_done"].as_u64(), progress["entries_total"].as_u64()) {
            (Some(done), Some(all)) if all > 0 => format!("{done}/{all}"),
            (done, _) => done.unwrap_or(0).to_string(),
        };
        line(
            page,
            format_args!(
                "{:<16}{:<10}{entries:>11}  {:>8}  {} {} {}",
                text(&task["kind"]),
                text(&task["state"]),
                size(progress["bytes_done"].as_f64().unwrap_or(0.0)),
                text(&task["volume"]),
                text(&task["vfid"]),
                text(&task["message"])
            ),
        );
    }
}

fn errors(page: &mut String, errors: &[Value]) {
    heading(page, "LAST WARNINGS AND ERRORS", "");
    for error in errors.iter().rev() {
        line(
            page,
            format_args!("{}  {:<7}  {}", text(&error["at"]), text(&error["level"]), text(&error["message"])),
        );
    }
    if errors.is_empty() {
        line(page, format_args!("none since the start"));
    }
}

fn heading(page: &mut String, first: &str, rest: &str) {
    line(page, format_args!("\n{first:<16}{rest}"));
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(page, "{text}");
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text of the reply as it may be shown; nothing where there is none.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(String::new, tame)
}

/// Without characters that steer a terminal or turn the direction of writing.
pub(super) fn tame(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if steers(c) { '?' } else { c }).collect()
}

/// Bytes with a binary unit.
fn size(bytes: f64) -> String {
    let units = ["B", "K", "M", "G", "T", "P", "E"];
    let mut left = bytes.max(0.0);
    let mut at = 0;
    while left >= 1024.0 && at + 1 < units.len() {
        left /= 1024.0;
        at += 1;
    }
    let unit = units.get(at).copied().unwrap_or_default();
    if at == 0 { format!("{left:.0}{unit}") } else { format!("{left:.1}{unit}") }
}

/// Seconds as people say them.
fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn overview(sent: u64) -> Value {
        json!({
            "storage-proxy": "0.1.0",
            "sandbox": {"landlock": "on", "seccomp": "on"},
            "volumes": [
                {"name": "local", "backend": "vfs", "ready": true, "error": null, "capacity_bytes": 1u64 << 40, "used_bytes": 1u64 << 38},
                {"name": "gone", "backend": "xfs", "ready": false, "error": "it hangs\u{1b}[2J", "capacity_bytes": null, "used_bytes": null},
            ],
            "transfers": [{"request_id": "r-1", "method": "GET", "path": "/download", "peer": "192.0.2.1:5", "seconds": 4.0, "received_bytes": 0, "sent_bytes": sent}],
            "tasks": [{"kind": "clone", "state": "running", "volume": "local", "vfid": "a\u{202e}b", "progress": {"entries_done": 3, "entries_total": 9, "bytes_done": 2048}}],
            "errors": [{"at": "2026-01-01T00:00:00Z", "level": "error", "message": "disk\nfull"}],
        })
    }

    #[test]
    fn all_parts_are_shown_and_nothing_steers_the_terminal() {
        let page = Screen::default().draw("127.0.0.1:6022", &overview(4096), Instant::now(), 200);
        for part in [
            "local",
            "256.0G",
            "1.0T",
            "25%",
            "NOT READY: it hangs?[2J",
            "r-1",
            "1.0K/s",
            "3/9",
            "a?b",
            "disk?full",
        ] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
        assert!(page.chars().all(|c| c == '\n' || !c.is_control()), "{page:?}");
    }

    #[test]
    fn the_speed_is_that_since_the_last_page() {
        let (mut screen, begin) = (Screen::default(), Instant::now());
        screen.draw("a", &overview(4096), begin, 200);
        let page = screen.draw("a", &overview(4096 + 3 * 2048), begin + Duration::from_secs(3), 200);
        assert!(page.contains("2.0K/s"), "{page}");
    }

    #[test]
    fn lines_are_cut_at_the_width_and_a_strange_reply_is_an_empty_page() {
        let page = Screen::default().draw("a", &overview(1), Instant::now(), 20);
        assert!(page.lines().all(|line| line.chars().count() <= 20));
        for strange in [json!(null), json!([]), json!({"volumes": 1, "transfers": [1, {}], "tasks": "x"})] {
            assert!(Screen::default().draw("a", &strange, Instant::now(), 80).contains("VOLUMES"));
        }
    }
}
