//! Secrets in what transcripts tell are replaced before it is stored, as in every other source. The parser is pure and
//! does not do it; numbers and ids hold none.

use taffrail_event::redact::Redactor;
use taffrail_event::transcript::Facts;

/// Replaces secrets in every text a person wrote or a server sent.
pub(super) fn redact(facts: &mut Facts) {
    for mark in &mut facts.marks {
        replace(&mut mark.summary);
    }
    for failure in &mut facts.failures {
        replace(&mut failure.message);
    }
    for session in &mut facts.sessions {
        [&mut session.title, &mut session.last_prompt].into_iter().flatten().for_each(replace);
    }
    for agent in &mut facts.agents {
        agent.description.iter_mut().for_each(replace);
    }
}

fn replace(text: &mut String) {
    if !text.is_empty() {
        let redacted = Redactor::builtin().redact(text);
        if !redacted.counts.is_empty() {
            *text = redacted.text.into_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taffrail_event::TimestampMs;
    use taffrail_event::ledger::{FailureSighting, Witness};
    use taffrail_event::transcript::{AgentSighting, Mark, MarkKind, SessionSighting};

    const SECRET: &str = "sk-ant-api03-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA-AAAAAAAA";

    #[test]
    fn no_text_keeps_a_secret() {
        let said = format!("use {SECRET} now");
        let at = TimestampMs::clamped(0);
        let mut facts = Facts {
            marks: vec![Mark {
                key: "k".to_owned(),
                session_id: "s".to_owned(),
                born: at,
                agent_id: None,
                ts: at,
                kind: MarkKind::Prompt { prompt_id: None },
                summary: said.clone(),
            }],
            failures: vec![FailureSighting {
                witness: Witness::Transcript,
                ts: at,
                key: "k".to_owned(),
                session_id: "s".to_owned(),
                agent_id: None,
                model: None,
                status_code: None,
                message: said.clone(),
                attempt: None,
                attempts_max: None,
                retry_in_ms: None,
                exhausted: false,
            }],
            sessions: vec![SessionSighting {
                title: Some(said.clone()),
                last_prompt: Some(said.clone()),
                ..SessionSighting::default()
            }],
            agents: vec![AgentSighting { description: Some(said), ..AgentSighting::default() }],
            ..Facts::default()
        };
        redact(&mut facts);
        let all = format!("{facts:?}");
        assert!(!all.contains("AAAA") && all.matches("REDACTED").count() == 5, "{all}");
    }
}
