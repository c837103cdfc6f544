//! What a workflow is: values, and what one step makes of them. Pure.

use serde::{Deserialize, Serialize};

const ROOT: &str = "workflows/";
const WORK: [&str; 6] = ["read the plan", "fetch", "check", "build", "test", "tidy up"];

/// What a workflow is called: a segment of a channel, and a part of its events' ids.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(crate) struct WorkflowId(String);

impl WorkflowId {
    const MAX_LENGTH: usize = 40;

    /// The workflow whose events a channel has.
    pub(crate) fn of_channel(channel: &str) -> Option<Self> {
        channel.strip_prefix(ROOT)?.to_owned().try_into().ok()
    }

    pub(crate) fn channel(&self) -> String {
        format!("{ROOT}{}", self.0)
    }
}

impl TryFrom<String> for WorkflowId {
    type Error = &'static str;

    fn try_from(id: String) -> Result<Self, Self::Error> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if !(1..=Self::MAX_LENGTH).contains(&id.len()) || !id.bytes().all(is_plain) {
            return Err("a workflow's id is 1 to 40 letters, digits, - and _");
        }
        Ok(Self(id))
    }
}

/// What somebody wants done.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    steps: u32,
    /// How long a step takes.
    #[serde(default)]
    step_ms: u64,
    /// The step that does not succeed, if one does not.
    #[serde(default)]
    fail_at: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Running,
    Completed,
    Failed,
}

/// A workflow's whole state: what each of its events has.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Progress {
    pub(crate) workflow_id: WorkflowId,
    pub(crate) status: Status,
    pub(crate) current_step: u32,
    pub(crate) total_steps: u32,
    pub(crate) message: String,
    pub(crate) step_ms: u64,
    fail_at: Option<u32>,
}

impl Progress {
    const MAX_STEPS: u32 = 100_000;
    const MAX_STEP_MS: u64 = 60_000;

    pub(crate) fn begin(workflow_id: WorkflowId, plan: &Plan) -> Result<Self, &'static str> {
        if !(1..=Self::MAX_STEPS).contains(&plan.steps) {
            return Err("steps must be from 1 to 100000");
        }
        if plan.step_ms > Self::MAX_STEP_MS {
            return Err("step_ms must be at most 60000");
        }
        Ok(Self {
            workflow_id,
            status: Status::Running,
            current_step: 0,
            total_steps: plan.steps,
            message: "begun".into(),
            step_ms: plan.step_ms,
            fail_at: plan.fail_at,
        })
    }

    /// After one more step, if there is one.
    pub(crate) fn next(&self) -> Option<Self> {
        if self.status != Status::Running {
            return None;
        }
        let current_step = self.current_step + 1;
        let work = WORK.get((current_step - 1) as usize % WORK.len()).copied().unwrap_or_default();
        let (status, message) = match current_step {
            step if self.fail_at == Some(step) => (Status::Failed, format!("{work}: failed")),
            step if step >= self.total_steps => (Status::Completed, "done".into()),
            _ => (Status::Running, work.into()),
        };
        Some(Self { current_step, status, message, ..self.clone() })
    }

    /// The identity of the event with this state: whoever publishes it twice has published it once.
    pub(crate) fn event_id(&self) -> String {
        format!("{}.{}", self.workflow_id.0, self.current_step)
    }
}
