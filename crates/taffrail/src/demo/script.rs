//! One agent's session as a list of hook payloads with their times, in the shapes that the real client sends.

use serde_json::{Map, Value, json};

use super::catalog::{
    ANSWERS, LOOKS, MISHAPS, PEOPLE, PROJECTS, PROMPTS, Person, Project, SEARCHES, SUBAGENTS,
};
use super::rng::Rng;

/// One hook delivery of the demo.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tick {
    pub(crate) ts_ms: i64,
    pub(crate) payload: Value,
}

/// A whole session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) session_id: String,
    pub(crate) app: &'static str,
    pub(crate) user: &'static str,
    pub(crate) host: &'static str,
    /// By time.
    pub(crate) ticks: Vec<Tick>,
}

/// Prompts of one session, at most.
const TURNS_MAX: u64 = 9;
/// The context is compacted after so many calls.
const COMPACT_AFTER_CALLS: usize = 45;

/// The session that agent `agent` of fleet `seed` begins in slot `slot`, which starts at `start_ms`.
pub(crate) fn session(seed: u64, agent: u16, slot: i64, start_ms: i64, slot_ms: i64) -> Session {
    let mut rng = Rng::new(&[seed, u64::from(agent), slot.unsigned_abs()]);
    let project = &PROJECTS[(usize::from(agent) + usize::from(rng.chance(0.15))) % PROJECTS.len()];
    let person = &PEOPLE[usize::from(agent) % PEOPLE.len()];
    let late_ms = i64::try_from(rng.between(0, slot_ms.unsigned_abs() / 4)).unwrap_or(0);
    let mut script = Script::new(rng, project, person, start_ms + late_ms);
    script.run(start_ms + slot_ms);
    script.into_session()
}

/// A tool call to be made.
struct Call {
    tool: &'static str,
    input: Value,
    took_ms: i64,
    result: Outcome,
}

enum Outcome {
    /// `tool_response`, and what the batch says of it.
    Done(Value, String),
    Failed(String),
    /// A person said no; only the batch tells.
    Refused,
}

/// The subagent a call belongs to.
#[derive(Clone)]
struct Agent {
    id: String,
    kind: &'static str,
}

struct Script {
    rng: Rng,
    project: &'static Project,
    person: &'static Person,
    session_id: String,
    cwd: String,
    prompt_id: String,
    mode: &'static str,
    now: i64,
    calls: usize,
    ticks: Vec<Tick>,
}

impl Script {
    fn new(mut rng: Rng, project: &'static Project, person: &'static Person, now: i64) -> Self {
        let session_id = rng.uuid();
        let mode = ["default", "acceptEdits", "acceptEdits", "plan"][rng.index(4)];
        let cwd = format!("{}/src/{}", person.home, project.name);
        let prompt_id = rng.uuid();
        Self { rng, project, person, session_id, cwd, prompt_id, mode, now, calls: 0, ticks: Vec::new() }
    }

    fn into_session(mut self) -> Session {
        self.ticks.sort_by_key(|tick| tick.ts_ms);
        Session {
            session_id: self.session_id,
            app: self.project.name,
            user: self.person.user,
            host: self.person.host,
            ticks: self.ticks,
        }
    }

    /// Works until the work is done or the time is over.
    fn run(&mut self, until_ms: i64) {
        let source = *["startup", "startup", "resume", "clear"].get(self.rng.index(4)).unwrap_or(&"startup");
        self.emit("SessionStart", None, json!({ "source": source }));
        self.wait(200, 0.3);
        let instructions = format!("{}/CLAUDE.md", self.cwd);
        self.emit(
            "InstructionsLoaded",
            None,
            json!({ "file_path": instructions, "memory_type": "Project", "load_reason": "session_start" }),
        );
        for _ in 0..self.rng.between(2, TURNS_MAX) {
            self.wait(25_000, 0.9);
            if self.now >= until_ms {
                break;
            }
            self.turn();
        }
        self.wait(8_000, 0.8);
        let reason = *["prompt_input_exit", "prompt_input_exit", "other", "clear"]
            .get(self.rng.index(4))
            .unwrap_or(&"other");
        self.emit("SessionEnd", None, json!({ "reason": reason }));
    }

    /// One prompt and all that follows from it.
    fn turn(&mut self) {
        self.prompt_id = self.rng.uuid();
        let file = self.file();
        let prompt = PROMPTS[self.rng.index(PROMPTS.len())].replace("{file}", &file);
        self.emit("UserPromptSubmit", None, json!({ "prompt": prompt }));
        self.wait(2_500, 0.5);
        self.look_around(&file);
        match self.rng.index(40) {
            0..=17 => self.change_and_test(&file),
            18..=21 => self.delegate(),
            22 => self.loop_on_failure(),
            23..=25 => self.ask_for_permission(),
            26..=31 => self.use_services(),
            32..=33 => self.mishap(),
            // A question that needed no more than a look.
            _ => {}
        }
        if self.rng.chance(0.45) {
            self.commit();
        }
        if self.calls >= COMPACT_AFTER_CALLS {
            self.compact();
        }
        self.stop();
    }

    fn stop(&mut self) {
        self.wait(3_000, 0.5);
        if self.rng.chance(0.03) {
            let message = "API Error: 529 Overloaded. The service is busy, try again in a moment.";
            self.emit(
                "StopFailure",
                None,
                json!({ "error": "overloaded", "last_assistant_message": message }),
            );
            return;
        }
        let answer = ANSWERS[self.rng.index(ANSWERS.len())];
        let fields = json!({
            "stop_hook_active": false, "last_assistant_message": answer, "background_tasks": [], "session_crons": [],
        });
        self.emit("Stop", None, fields);
        if self.rng.chance(0.2) {
            let (now, message) = (self.now, "Claude is waiting for your input");
            self.now += 60_000;
            self.emit(
                "Notification",
                None,
                json!({ "message": message, "notification_type": "idle_prompt" }),
            );
            self.now = now + 61_000;
        }
    }

    /// Searches and reads, some of it at once.
    fn look_around(&mut self, file: &str) {
        let mut batch = Vec::new();
        if self.rng.chance(0.6) {
            batch.push(self.grep());
        }
        for _ in 0..self.rng.between(1, 3) {
            let other = if self.rng.chance(0.5) { file.to_owned() } else { self.file() };
            batch.push(self.read(&other));
        }
        self.batch(batch, None);
        if self.rng.chance(0.5) {
            let call = self.look(file);
            self.batch(vec![call], None);
        }
    }

    /// Edits until the tests pass.
    fn change_and_test(&mut self, file: &str) {
        let rounds = self.rng.between(1, 3);
        for round in 1..=rounds {
            for _ in 0..self.rng.between(1, 2) {
                let call = self.edit(file);
                self.batch(vec![call], None);
            }
            let fails = round < rounds || self.rng.chance(0.1);
            let call = self.test(fails);
            self.batch(vec![call], None);
        }
        if self.rng.chance(0.3) {
            let call = self.write();
            self.batch(vec![call], None);
        }
        if self.rng.chance(0.25) {
            let took_ms = self.rng.around_ms(38_000.0, 0.5);
            let call = bash(self.project.build, "Build it", took_ms, "Finished in a moment\n");
            self.batch(vec![call], None);
        }
    }

    /// The same command again and again: what the circuit breaker is for.
    fn loop_on_failure(&mut self) {
        let (command, description, error) = MISHAPS[self.rng.index(MISHAPS.len())];
        for _ in 0..self.rng.between(4, 9) {
            let took_ms = self.rng.around_ms(900.0, 0.6);
            self.batch(vec![failing(command, description, took_ms, error)], None);
        }
    }

    fn mishap(&mut self) {
        let (command, description, error) = MISHAPS[self.rng.index(MISHAPS.len())];
        let took_ms = self.rng.around_ms(700.0, 0.8);
        self.batch(vec![failing(command, description, took_ms, error)], None);
        let missing = format!("{}/src/does_not_exist.md", self.cwd);
        if self.rng.chance(0.4) {
            let error = format!("File does not exist. Note: your current working directory is {}.", self.cwd);
            let input = json!({ "file_path": missing });
            self.batch(vec![Call { tool: "Read", input, took_ms: 21, result: Outcome::Failed(error) }], None);
        }
        let file = self.file();
        let (edit, test) = (self.edit(&file), self.test(false));
        self.batch(vec![edit], None);
        self.batch(vec![test], None);
    }

    /// A command that a person is asked about, who takes a while and sometimes says no.
    fn ask_for_permission(&mut self) {
        let took_ms = self.rng.around_ms(4_000.0, 0.6);
        let (command, description) = *[
            ("rm -r build dist", "Remove build output"),
            ("git push --force-with-lease", "Push the rewritten branch"),
            ("docker compose down", "Stop the services"),
            ("psql -f migrations/0042.sql", "Apply the migration"),
        ]
        .get(self.rng.index(4))
        .unwrap_or(&("make clean", "Clean"));
        let mut call = bash(command, description, took_ms, "");
        let refused = self.rng.chance(0.3);
        let id = self.tool_use_id();
        self.pre(&call, &id, None);
        self.now += 40;
        let suggestions = json!([{ "type": "setMode", "mode": "acceptEdits", "destination": "session" }]);
        self.emit(
            "PermissionRequest",
            None,
            json!({ "tool_name": call.tool, "tool_input": call.input, "permission_suggestions": suggestions }),
        );
        self.now += 6_000;
        let fields = json!({ "message": "Claude needs your permission to use Bash", "notification_type": "permission_prompt" });
        self.emit("Notification", None, fields);
        self.wait(35_000, 0.8);
        if refused {
            call.result = Outcome::Refused;
        }
        let end = self.post(&call, &id, self.now, None);
        self.now = end + 30;
        self.batch_end(&[(call, id)], None);
    }

    /// Calls of MCP servers and of the web.
    fn use_services(&mut self) {
        let number = self.rng.between(100, 900);
        let took_ms = self.rng.around_ms(850.0, 0.5);
        let text = format!("#{number} Times are shown in the wrong zone (open, 3 comments)");
        let input = json!({ "owner": "example", "repo": self.project.name, "issue_number": number });
        let response = json!([{ "type": "text", "text": text }]);
        let call =
            Call { tool: "mcp__github__get_issue", input, took_ms, result: Outcome::Done(response, text) };
        self.batch(vec![call], None);
        let took_ms = self.rng.around_ms(2_400.0, 0.6);
        let url = "https://docs.example.com/time-zones";
        let result = "Store UTC, convert at the edge, and never compare local times.";
        let response = json!({ "bytes": 48_213, "code": 200, "codeText": "OK", "result": result, "durationMs": took_ms, "url": url });
        let input = json!({ "url": url, "prompt": "What does it recommend?" });
        let call =
            Call { tool: "WebFetch", input, took_ms, result: Outcome::Done(response, result.to_owned()) };
        self.batch(vec![call], None);
    }

    /// One or two subagents at once, each with calls of its own.
    fn delegate(&mut self) {
        let count = self.rng.between(1, 2);
        let began = self.now;
        let mut ends = Vec::new();
        let mut made = Vec::new();
        for _ in 0..count {
            let (kind, description, prompt) = SUBAGENTS[self.rng.index(SUBAGENTS.len())];
            let input = json!({
                "description": description, "prompt": prompt, "subagent_type": kind, "run_in_background": false,
            });
            let mut call =
                Call { tool: "Agent", input, took_ms: 0, result: Outcome::Done(Value::Null, String::new()) };
            let id = self.tool_use_id();
            self.now = began + self.rng.around_ms(150.0, 0.5);
            let started = self.now;
            self.pre(&call, &id, None);
            let (calls, report) = self.subagent(kind);
            call.took_ms = self.now - started;
            let response = json!({
                "status": "completed", "prompt": prompt, "agentType": kind,
                "content": [{ "type": "text", "text": report }],
                "totalDurationMs": call.took_ms, "totalToolUseCount": calls,
            });
            call.result = Outcome::Done(response, report.to_owned());
            ends.push(self.post(&call, &id, started, None));
            made.push((call, id));
        }
        self.now = ends.into_iter().max().unwrap_or(self.now) + 40;
        self.batch_end(&made, None);
    }

    /// A subagent's work; returns its calls and its report.
    fn subagent(&mut self, kind: &'static str) -> (u64, &'static str) {
        let agent = Agent { id: format!("a{}", self.rng.hex(16)), kind };
        self.wait(180, 0.4);
        self.emit("SubagentStart", Some(&agent), json!({}));
        let calls = self.rng.between(2, 6);
        for _ in 0..calls {
            let file = self.file();
            let call = match self.rng.index(4) {
                0 => self.grep(),
                1 => self.look(&file),
                2 if self.rng.chance(0.3) => self.test(true),
                _ => self.read(&file),
            };
            self.batch(vec![call], Some(&agent));
        }
        let report = ANSWERS[self.rng.index(ANSWERS.len())];
        self.wait(1_500, 0.5);
        self.stop_subagent(&agent, report);
        self.now += 60;
        (calls, report)
    }

    fn stop_subagent(&mut self, agent: &Agent, report: &str) {
        let transcript = self.transcript().replace(".jsonl", &format!("/subagents/agent-{}.jsonl", agent.id));
        let fields = json!({
            "stop_hook_active": false, "agent_transcript_path": transcript, "last_assistant_message": report,
            "background_tasks": [], "session_crons": [],
        });
        self.emit("SubagentStop", Some(agent), fields);
    }

    fn commit(&mut self) {
        let subject = self.rng.pick(self.project.subjects);
        let (files, added, removed) =
            (self.rng.between(1, 6), self.rng.between(3, 160), self.rng.between(0, 60));
        let id = self.rng.hex(7);
        let plural = if files == 1 { "" } else { "s" };
        let output = format!(
            "[main {id}] {subject}\n {files} file{plural} changed, {added} insertions(+), {removed} deletions(-)\n"
        );
        let took_ms = self.rng.around_ms(160.0, 0.5);
        let command = format!("git add -A && git commit -m \"{subject}\"");
        self.batch(vec![bash(&command, "Commit the change", took_ms, &output)], None);
        if self.rng.chance(0.4) {
            let took_ms = self.rng.around_ms(1_800.0, 0.5);
            let rejected = "Exit code 1\nTo git.example.com:team/project.git\n ! [rejected]        main -> main (fetch first)\nerror: failed to push some refs";
            let call = if self.rng.chance(0.2) {
                failing("git push", "Push the branch", took_ms, rejected)
            } else {
                bash("git push", "Push the branch", took_ms, &format!("   a90d5f1..{id}  main -> main\n"))
            };
            self.batch(vec![call], None);
        }
    }

    /// The client sums up the conversation, with an agent that has no type.
    fn compact(&mut self) {
        self.calls = 0;
        self.wait(400, 0.4);
        self.emit("PreCompact", None, json!({ "trigger": "auto", "custom_instructions": null }));
        self.wait(21_000, 0.3);
        let agent = Agent { id: format!("a{}", self.rng.hex(16)), kind: "" };
        let summary = "The conversation so far: what was asked, what was found, what is left.";
        self.stop_subagent(&agent, summary);
        self.now += 90;
        self.emit("PostCompact", None, json!({ "trigger": "auto", "compact_summary": summary }));
        self.now += 120;
        self.emit("SessionStart", None, json!({ "source": "compact" }));
    }

    // Calls.

    fn read(&mut self, file: &str) -> Call {
        let path = format!("{}/{file}", self.cwd);
        let lines = self.rng.between(20, 400);
        let content =
            "// The text of the file stands here.\n".repeat(usize::try_from(lines.min(40)).unwrap_or(40));
        let response = json!({
            "type": "text",
            "file": { "filePath": path, "content": content, "numLines": lines, "startLine": 1, "totalLines": lines },
        });
        let took_ms = self.rng.around_ms(18.0, 0.7);
        Call {
            tool: "Read",
            input: json!({ "file_path": path }),
            took_ms,
            result: Outcome::Done(response, content),
        }
    }

    fn grep(&mut self) -> Call {
        let pattern = SEARCHES[self.rng.index(SEARCHES.len())];
        let file = self.file();
        let hits = self.rng.between(0, 30);
        let content: String =
            (0..hits.min(12)).map(|n| format!("{file}:{}:{pattern}\n", n * 17 + 3)).collect();
        let response = json!({
            "mode": "content", "numFiles": 0, "filenames": [], "content": content, "numLines": hits, "totalLines": hits,
        });
        let input = json!({ "pattern": pattern, "path": self.cwd, "output_mode": "content" });
        let took_ms = self.rng.around_ms(140.0, 0.7);
        Call { tool: "Grep", input, took_ms, result: Outcome::Done(response, content) }
    }

    fn look(&mut self, file: &str) -> Call {
        let (command, description, output) = LOOKS[self.rng.index(LOOKS.len())];
        let took_ms = self.rng.around_ms(90.0, 0.7);
        bash(&command.replace("{file}", file), description, took_ms, &output.replace("{file}", file))
    }

    fn test(&mut self, fails: bool) -> Call {
        let took_ms = self.rng.around_ms(14_000.0, 0.7);
        if fails {
            let error = format!("Exit code 1\n{}", self.project.failure);
            return failing(self.project.test, "Run the tests", took_ms, &error);
        }
        let passed = self.rng.between(40, 120);
        bash(self.project.test, "Run the tests", took_ms, &format!("{passed} passed, 0 failed\n"))
    }

    fn edit(&mut self, file: &str) -> Call {
        let path = format!("{}/{file}", self.cwd);
        let (old, new) = ("    total += price(item);", "    total = total.checked_add(price(item))?;");
        let line = self.rng.between(1, 300);
        let patch = json!([{
            "oldStart": line, "oldLines": 1, "newStart": line, "newLines": 2,
            "lines": [format!("-{old}"), format!("+{new}"), "+    // Sums that overflow are refused."],
        }]);
        let response = json!({
            "filePath": path, "oldString": old, "newString": new, "originalFile": "...", "structuredPatch": patch,
            "userModified": false, "replaceAll": false,
        });
        let input = json!({ "file_path": path, "old_string": old, "new_string": new, "replace_all": false });
        let took_ms = self.rng.around_ms(35.0, 0.5);
        let done = format!("The file {path} has been updated.");
        Call { tool: "Edit", input, took_ms, result: Outcome::Done(response, done) }
    }

    fn write(&mut self) -> Call {
        let path = format!("{}/docs/notes-{}.md", self.cwd, self.rng.hex(4));
        let content = "# Notes\n\nWhat was found, and what is left to do.\n";
        let response = json!({
            "type": "create", "filePath": path, "content": content, "structuredPatch": [], "originalFile": null,
            "userModified": false,
        });
        let input = json!({ "file_path": path, "content": content });
        let took_ms = self.rng.around_ms(40.0, 0.5);
        let done = format!("File created successfully at: {path}");
        Call { tool: "Write", input, took_ms, result: Outcome::Done(response, done) }
    }

    // Deliveries.

    /// Makes calls at once: all begin, each ends in its time, then the batch is told.
    fn batch(&mut self, calls: Vec<Call>, agent: Option<&Agent>) {
        self.wait(1_400, 0.6);
        let mut made = Vec::new();
        let mut last = self.now;
        for call in calls {
            let id = self.tool_use_id();
            self.pre(&call, &id, agent);
            last = last.max(self.post(&call, &id, self.now, agent));
            self.now += 12;
            made.push((call, id));
        }
        self.now = last.max(self.now) + 25;
        self.batch_end(&made, agent);
    }

    fn pre(&mut self, call: &Call, id: &str, agent: Option<&Agent>) {
        self.calls += 1;
        let fields = json!({ "tool_name": call.tool, "tool_input": call.input, "tool_use_id": id });
        self.emit("PreToolUse", agent, fields);
    }

    /// The end of a call that began at `started_ms`; returns when that was.
    fn post(&mut self, call: &Call, id: &str, started_ms: i64, agent: Option<&Agent>) -> i64 {
        let end = started_ms + call.took_ms + 8;
        let (event, key, value) = match &call.result {
            Outcome::Done(response, _) => ("PostToolUse", "tool_response", response.clone()),
            Outcome::Failed(error) => ("PostToolUseFailure", "error", json!(error)),
            Outcome::Refused => return started_ms,
        };
        let mut fields = json!({ "tool_name": call.tool, "tool_input": call.input });
        fields[key] = value;
        fields["tool_use_id"] = json!(id);
        if event == "PostToolUseFailure" {
            fields["is_interrupt"] = json!(false);
        }
        fields["duration_ms"] = json!(call.took_ms);
        let now = std::mem::replace(&mut self.now, end);
        self.emit(event, agent, fields);
        self.now = now;
        end
    }

    fn batch_end(&mut self, calls: &[(Call, String)], agent: Option<&Agent>) {
        let calls: Vec<Value> = calls
            .iter()
            .map(|(call, id)| {
                let said = match &call.result {
                    Outcome::Done(_, text) | Outcome::Failed(text) => text.as_str(),
                    Outcome::Refused => "The user doesn't want to proceed with this tool use. The tool use was rejected.",
                };
                json!({ "tool_name": call.tool, "tool_input": call.input, "tool_use_id": id, "tool_response": said })
            })
            .collect();
        self.emit("PostToolBatch", agent, json!({ "tool_calls": calls }));
    }

    /// One delivery, with what every payload of the client carries.
    fn emit(&mut self, event: &str, agent: Option<&Agent>, fields: Value) {
        let mut payload = Map::new();
        payload.insert("session_id".to_owned(), json!(self.session_id));
        payload.insert("transcript_path".to_owned(), json!(self.transcript()));
        payload.insert("cwd".to_owned(), json!(self.cwd));
        if !matches!(event, "SessionStart" | "InstructionsLoaded") {
            payload.insert("prompt_id".to_owned(), json!(self.prompt_id));
            payload.insert("permission_mode".to_owned(), json!(self.mode));
        }
        if let Some(agent) = agent {
            payload.insert("agent_id".to_owned(), json!(agent.id));
            payload.insert("agent_type".to_owned(), json!(agent.kind));
        }
        payload.insert("hook_event_name".to_owned(), json!(event));
        if let Value::Object(fields) = fields {
            payload.extend(fields);
        }
        self.ticks.push(Tick { ts_ms: self.now, payload: Value::Object(payload) });
    }

    fn wait(&mut self, median_ms: i32, spread: f64) {
        self.now += self.rng.around_ms(f64::from(median_ms), spread);
    }

    fn file(&mut self) -> String {
        self.rng.pick(self.project.files).to_owned()
    }

    fn tool_use_id(&mut self) -> String {
        format!("toolu_01{}", self.rng.hex(22))
    }

    fn transcript(&self) -> String {
        let folder = self.cwd.replace('/', "-");
        format!("{}/.claude/projects/{folder}/{}.jsonl", self.person.home, self.session_id)
    }
}

fn bash(command: &str, description: &str, took_ms: i64, stdout: &str) -> Call {
    let response = json!({
        "stdout": stdout, "stderr": "", "interrupted": false, "isImage": false, "noOutputExpected": stdout.is_empty(),
    });
    let said = if stdout.is_empty() { "(Bash completed with no output)" } else { stdout };
    let input = json!({ "command": command, "description": description });
    Call { tool: "Bash", input, took_ms, result: Outcome::Done(response, said.to_owned()) }
}

fn failing(command: &str, description: &str, took_ms: i64, error: &str) -> Call {
    let input = json!({ "command": command, "description": description });
    Call { tool: "Bash", input, took_ms, result: Outcome::Failed(error.to_owned()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const SLOT_MS: i64 = 45 * 60_000;

    fn fleet(seed: u64) -> Vec<Session> {
        (0..6)
            .flat_map(|agent| (0..20).map(move |slot| session(seed, agent, slot, slot * SLOT_MS, SLOT_MS)))
            .collect()
    }

    #[test]
    fn the_same_seed_is_the_same_fleet_and_another_is_another() {
        let of = |seed| session(seed, 2, 7, 0, SLOT_MS);
        assert_eq!(of(1).ticks, of(1).ticks);
        assert_ne!(of(1).session_id, of(2).session_id);
    }

    #[test]
    fn a_fleet_shows_every_kind_of_thing_in_believable_measure() {
        let mut events: HashMap<String, u32> = HashMap::new();
        for tick in fleet(1).iter().flat_map(|session| &session.ticks) {
            *events.entry(tick.payload["hook_event_name"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        for kind in [
            "SessionStart",
            "UserPromptSubmit",
            "PreToolUse",
            "PostToolUse",
            "PostToolUseFailure",
            "PostToolBatch",
            "PermissionRequest",
            "Notification",
            "SubagentStart",
            "SubagentStop",
            "PreCompact",
            "PostCompact",
            "Stop",
            "StopFailure",
            "SessionEnd",
        ] {
            assert!(events.contains_key(kind), "no {kind} in {events:?}");
        }
        let (ended, failed) = (events["PostToolUse"], events["PostToolUseFailure"]);
        assert!((2..12).contains(&(failed * 100 / (ended + failed))), "{failed} of {ended}");
    }

    #[test]
    fn every_end_has_its_beginning_and_the_time_it_says() {
        for session in fleet(3) {
            let mut begun = HashMap::new();
            assert!(session.ticks.is_sorted_by_key(|tick| tick.ts_ms));
            for Tick { ts_ms, payload } in &session.ticks {
                let id = payload["tool_use_id"].as_str();
                match payload["hook_event_name"].as_str().unwrap() {
                    "PreToolUse" => assert!(begun.insert(id.unwrap(), *ts_ms).is_none()),
                    "PostToolUse" | "PostToolUseFailure" => {
                        let began = begun[id.unwrap()];
                        let took = payload["duration_ms"].as_i64().unwrap();
                        assert!(ts_ms - began >= took, "{payload}");
                    }
                    _ => {}
                }
            }
        }
    }
}
