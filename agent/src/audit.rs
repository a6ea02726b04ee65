//! `storage-agent quota audit`, and the same look from time to time while serving: do the limits hold?

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use config::{Loaded, Source};

use crate::app::App;
use crate::check;
use crate::cli;
use crate::error::OpError;
use crate::finding::{Finding, Report};
use crate::volume::{Drift, DriftKind, Volume};

/// Something is not as it should be.
const DRIFT: u8 = 1;
/// The configuration is wrong (sysexits(3)).
const CONFIG: u8 = 78;
/// The first look while serving comes this long after the start, so that the start is quick.
const SOON: Duration = Duration::from_secs(60);

/// Audits every volume, prints what was found, and says by the exit status whether all limits hold now.
pub fn from_command_line(options: &cli::Audit) -> ExitCode {
    let source = Source::of_process(options.config.file.clone(), options.config.lenient);
    let mut report = Report::default();
    let code = match config::load(&source) {
        Err(problems) => {
            report.add(Finding::problem("configuration", problems.to_string()));
            CONFIG
        }
        Ok(loaded) => {
            audit(&loaded, options, &mut report);
            if report.has_problems() { DRIFT } else { 0 }
        }
    };
    report.print(options.json, |problems, _| match problems {
        0 => "All limits hold.".to_owned(),
        _ if options.repair => format!("{problems} problem(s) are left for you."),
        _ => format!("{problems} problem(s); --repair puts right what it can."),
    });
    ExitCode::from(code)
}

fn audit(loaded: &Loaded, options: &cli::Audit, report: &mut Report) {
    let config = &loaded.config;
    // The helper serves the agent's user alone.
    check::become_the_service(loaded, report);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report.add(Finding::problem("audit", format!("cannot begin: {error}"))),
    };
    for volume in config.volumes.iter().filter_map(|volume| Volume::configured(volume, config)) {
        let (name, volume) = (format!("volume.{}", volume.name), Arc::new(volume));
        match runtime.block_on(volume.backend.quota.audit(&volume, options.deep, options.repair)) {
            Ok(None) => {
                report.add(Finding::note(name, "its file system keeps the books of its limits itself"))
            }
            Ok(Some(drifts)) if drifts.is_empty() => report.add(Finding::ok(name, "all limits hold")),
            Ok(Some(drifts)) => drifts.iter().for_each(|drift| report.add(finding(&name, drift))),
            Err(error) => report.add(Finding::problem(name, format!("cannot be audited: {error}"))),
        }
    }
}

fn finding(volume: &str, drift: &Drift) -> Finding {
    let message = format!("{}: {}: {}", drift.kind.word(), drift.subject, drift.detail);
    if drift.repaired {
        Finding::note(volume, format!("{message}; put right"))
    } else {
        Finding::problem(volume, message)
    }
}

/// Looks at all volumes every now and then, and notes in the metrics and the log what does not hold.
pub async fn forever(app: Arc<App>) {
    let interval = app.config().agent.quota_audit_interval;
    if interval.is_zero() {
        return;
    }
    tokio::time::sleep(SOON.min(interval)).await;
    loop {
        for volume in app.volumes.iter() {
            match volume.backend.quota.audit(volume, false, false).await {
                Ok(None) => {}
                Ok(Some(drifts)) => note(&app, &volume.name, &drifts),
                Err(error) => unaudited(&volume.name, &error),
            }
        }
        tokio::time::sleep(interval).await;
    }
}

fn note(app: &App, volume: &str, drifts: &[Drift]) {
    let mut counts: BTreeMap<DriftKind, i64> = DriftKind::ALL.map(|kind| (kind, 0)).into();
    for drift in drifts {
        *counts.entry(drift.kind).or_default() += 1;
    }
    for (kind, count) in counts {
        app.metrics.quota_drift(volume, kind.word(), count);
    }
    if let Some(first) = drifts.first() {
        tracing::warn!(
            volume,
            count = drifts.len(),
            first = format!("{}: {}", first.subject, first.detail),
            "limits do not hold; see storage-agent quota audit"
        );
    }
}

fn unaudited(volume: &str, error: &OpError) {
    tracing::warn!(volume, %error, "the limits could not be audited");
}
