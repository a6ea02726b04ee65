//! Tree quotas of one ONTAP volume: the switch, and rules that come into force.
//!
//! Explicit rules come into force by a cheap resize only if qtrees were tracked when quotas were switched on, which a
//! default rule without a limit sees to. Where an administrator switched them on without it, they are switched off and on
//! once: for that moment the volume is without limits, so it is done only when the array asks for it, and once for all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::codes;
use super::gate::{Coming, Gate};
use super::ontap::{Ontap, forgive};
use crate::volume::array::{ArrayError, Fields, Kind, Turns};

/// The first pause between two looks at the state, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How often a change starts over because somebody else was faster.
const OVERTAKEN: u32 = 5;

/// How long a resize is waited for.
const SETTLES: Duration = Duration::from_secs(5);

/// The quotas of one volume.
pub(super) struct Quotas {
    ontap: Arc<Ontap>,
    readiness: Turns,
    renewal: Turns,
    settling: Turns,
    gate: Arc<Gate>,
}

impl Quotas {
    pub(super) fn new(ontap: Arc<Ontap>) -> Self {
        let [readiness, renewal, settling] = std::array::from_fn(|_| Turns::default());
        Quotas { ontap, readiness, renewal, settling, gate: Arc::default() }
    }

    /// Announces that a rule will be wanted soon, so that those who want one now may wait for it.
    pub(super) fn announce(&self) -> Coming {
        self.gate.announce()
    }

    /// Sees that quotas are on and rules may be changed.
    pub(super) async fn ready(&self) -> Result<(), ArrayError> {
        self.readiness.run(|| self.make_ready()).await
    }

    async fn make_ready(&self) -> Result<(), ArrayError> {
        match self.state().await?.as_str() {
            "on" | "resizing" => Ok(()),
            "off" => self.switch_on().await,
            _ => self.wait_for(&["on", "resizing"]).await,
        }
    }

    async fn state(&self) -> Result<String, ArrayError> {
        const READ: &str = "read the quota state";
        let volume = self.ontap.volume(READ, "quota.state").await?;
        let fields = Fields::new(&self.ontap.client, READ, &volume);
        Ok(fields.text("quota.state")?.to_owned())
    }

    async fn switch_on(&self) -> Result<(), ArrayError> {
        // The array refuses to switch on what has no rule.
        forgive(self.ontap.make_rule("", None).await, codes::DUPLICATE)?;
        let switched = forgive(self.ontap.switch_quotas(true).await, codes::ALREADY_ON);
        forgive(switched, codes::IN_TRANSITION)?;
        self.wait_for(&["on", "resizing"]).await
    }

    /// Switches quotas off and on, once for all who need it.
    async fn renew(&self) -> Result<(), ArrayError> {
        let renewal = || async {
            tracing::warn!(
                volume = self.ontap.name,
                "quotas of the ONTAP volume are switched off and on, because changed rules are not in force otherwise"
            );
            forgive(self.ontap.make_rule("", None).await, codes::DUPLICATE)?;
            self.ontap.switch_quotas(false).await?;
            self.wait_for(&["off"]).await?;
            self.switch_on().await
        };
        self.renewal.run(renewal).await
    }

    async fn wait_for(&self, states: &[&str]) -> Result<(), ArrayError> {
        let deadline = Instant::now() + self.ontap.job_patience;
        let (mut pause, longest) = PAUSE;
        loop {
            let state = self.state().await?;
            if states.contains(&state.as_str()) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let state = self.ontap.client.tame(&state);
                let seconds = self.ontap.job_patience.as_secs_f64();
                let problem = format!("quotas of the volume are still {state:?} after {seconds} s");
                return Err(self.ontap.client.error("switch quotas", Kind::Job(problem)));
            }
            tokio::time::sleep(pause).await;
            pause = pause.mul_f64(1.5).min(longest);
        }
    }

    /// Gives a qtree this limit in bytes, or none; in force when this returns.
    pub(super) async fn set(
        &self,
        qtree: &str,
        limit: Option<u64>,
        mut coming: Option<Coming>,
    ) -> Result<(), ArrayError> {
        let deadline = Instant::now() + self.ontap.job_patience;
        let (mut pause, longest) = PAUSE;
        let mut overtaken = 0;
        loop {
            self.ready().await?;
            let known = self.ontap.rule(qtree).await?;
            if let Some(coming) = coming.take() {
                coming.pass().await;
            }
            let outcome = match known {
                None if limit.is_none() => return Ok(()),
                None => self.ontap.make_rule(qtree, limit).await,
                Some(rule) => self.ontap.change_rule(&rule, limit).await,
            };
            match outcome {
                Err(error) if error.has_code(codes::NOT_IN_FORCE) => return self.renew().await,
                // Another agent, or an administrator, was faster.
                Err(error) if is_overtaken(&error) && overtaken < OVERTAKEN => overtaken += 1,
                // Quotas are being switched.
                Err(error) if error.has_code(codes::IN_TRANSITION) && Instant::now() < deadline => {
                    tokio::time::sleep(pause).await;
                    pause = pause.mul_f64(1.5).min(longest);
                }
                // A change can be done though its job or connection failed.
                Err(error) if !self.is_stored(qtree, limit).await => return Err(self.explained(qtree, error)),
                _ => {
                    self.settle().await;
                    return Ok(());
                }
            }
        }
    }

    /// Waits until the resize that a change has begun is over, so that limits hold and reports show them. It goes on
    /// without us where it takes long.
    async fn settle(&self) {
        let over = || async {
            let wait = tokio::time::timeout(SETTLES, self.wait_for(&["on"])).await;
            if !matches!(wait, Ok(Ok(()))) {
                tracing::debug!(volume = self.ontap.name, "a resize of quotas is still going on");
            }
            Ok(())
        };
        // The work itself never fails.
        let _ = self.settling.run(over).await;
    }

    fn explained(&self, qtree: &str, error: ArrayError) -> ArrayError {
        const SET: &str = "set a limit";
        let message = match error.kind() {
            Kind::Refused { message, .. } => message.clone(),
            _ => return error,
        };
        if error.has_code(codes::BAD_LIMIT) {
            return self.ontap.client.error(SET, Kind::Limit(message));
        }
        if error.has_code(codes::NO_QTREE) {
            let problem = format!("{qtree} is a directory but no qtree, so it cannot have a limit");
            return self.ontap.client.error(SET, Kind::Missing(problem));
        }
        error
    }

    async fn is_stored(&self, qtree: &str, limit: Option<u64>) -> bool {
        let stored = |limit: u64| limit.div_ceil(1024).max(1).saturating_mul(1024);
        match self.ontap.rule(qtree).await {
            Ok(Some(rule)) => rule.limit == limit || rule.limit == limit.map(stored),
            Ok(None) => limit.is_none(),
            Err(_) => false,
        }
    }
}

/// Whether the rule was made or removed by somebody else since it was looked up.
fn is_overtaken(error: &ArrayError) -> bool {
    error.has_code(codes::DUPLICATE) || error.has_code(codes::GONE)
}
