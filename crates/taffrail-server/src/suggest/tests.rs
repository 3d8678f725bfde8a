//! Changing files and changing them back, whatever they hold and wherever they lead; computing from a store.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;
use taffrail_engine::suggest::RuleList;
use taffrail_event::prices::PriceTable;
use taffrail_store::{Options, Suggestion, SuggestionFilter};
use tempfile::TempDir;

use super::*;

const T0: i64 = 1_790_000_000_000;

/// A store, a project and a home, each in its own directory.
struct Bed {
    dir: TempDir,
    store: Store,
    suggest: Suggest,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["data", "project", "home", "elsewhere"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let store = Store::open(&Options::new(dir.path().join("data/taffrail.db"))).unwrap();
        Self { dir, store, suggest: Suggest::default() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn places(&self) -> Places {
        let text = |name: &str| self.at(name).to_str().unwrap().to_owned();
        Places { projects: vec![text("gone"), text("project")], home: Some(text("home")) }
    }

    fn desk<'a>(&'a self, data_dir: &'a Path) -> Desk<'a> {
        let now = TimestampMs::clamped(T0);
        Desk { suggest: &self.suggest, store: &self.store, data_dir, now, by: Some("ann".to_owned()) }
    }

    fn add(&self, edit: &Edit) -> RowId {
        let suggestion = Suggestion {
            kind: "failing_command".to_owned(),
            app: "app".to_owned(),
            edit: Some(serde_json::to_value(edit).unwrap()),
            ..Suggestion::default()
        };
        self.store.record_suggestions(vec![suggestion], TimestampMs::clamped(T0)).unwrap();
        let reader = self.store.reader().unwrap();
        reader.suggestions(&SuggestionFilter::default(), None, 1).unwrap().rows[0].id
    }

    fn row(&self, id: RowId) -> StoredSuggestion {
        self.store.reader().unwrap().suggestion(id).unwrap().unwrap()
    }

    fn preview(&self, id: RowId) -> PreviewJson {
        preview(&self.row(id), &self.places())
    }

    fn apply(&self, id: RowId, hash: &str) -> Result<(), String> {
        let data = self.at("data");
        self.desk(&data).apply(&self.row(id), &self.places(), hash).map_err(|e| e.to_string())
    }

    fn undo(&self, id: RowId) -> Result<(), String> {
        let data = self.at("data");
        self.desk(&data).undo(&self.row(id)).map_err(|e| e.to_string())
    }
}

fn note() -> Edit {
    Edit::Note { lines: vec!["a line".to_owned()] }
}

fn rule() -> Edit {
    Edit::SettingsList { list: RuleList::Allow, value: "Bash(cargo test)".to_owned() }
}

/// The preview must refuse, and say this.
#[track_caller]
fn check_refused(bed: &Bed, edit: &Edit, why: &str) {
    let shown = bed.preview(bed.add(edit));
    assert!(!shown.can_apply && shown.hash.is_none() && shown.diff.is_empty());
    let reason = shown.reason.unwrap();
    assert!(reason.contains(why), "{reason}");
}

#[test]
fn a_change_is_shown_made_and_undone() {
    let bed = Bed::new();
    let file = bed.at("project/.claude/settings.json");
    fs::create_dir(bed.at("project/.claude")).unwrap();
    let before = "{\"permissions\" : { \"allow\":[ \"X\" ] } ,\r\n \"z\":1}";
    fs::write(&file, before).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let id = bed.add(&rule());
    let shown = bed.preview(id);
    assert!(
        shown.can_apply
            && shown.diff.contains("+{\"permissions\" : { \"allow\":[ \"X\",\"Bash(cargo test)\" ] } ,"),
        "{}",
        shown.diff
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), before, "a preview writes nothing");
    assert_eq!(bed.apply(id, "0").unwrap_err(), "the file changed since the preview: look at it again");
    bed.apply(id, &shown.hash.unwrap()).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), before.replace("\"X\"", "\"X\",\"Bash(cargo test)\""));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    let row = bed.row(id);
    assert_eq!((row.state, row.decided_by.as_deref()), (SuggestionState::Applied, Some("ann")));
    let change: ChangeJson = serde_json::from_value(row.change.unwrap()).unwrap();
    let backup = change.backup.unwrap();
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!bed.preview(id).can_apply, "it is applied");
    bed.undo(id).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    assert_eq!(bed.row(id).state, SuggestionState::Undone);
    assert!(bed.undo(id).unwrap_err().contains("it is undone"));
    // And once more.
    let shown = bed.preview(id);
    let again = Bed { ..bed };
    assert!(
        shown.can_apply && again.apply(id, &shown.hash.unwrap()).unwrap_err().contains("exists"),
        "one backup per moment"
    );
}

#[test]
fn what_changed_meanwhile_is_left_alone() {
    let bed = Bed::new();
    let file = bed.at("project/CLAUDE.md");
    fs::write(&file, "# P\n").unwrap();
    let id = bed.add(&note());
    let hash = bed.preview(id).hash.unwrap();
    fs::write(&file, "# Q\n").unwrap();
    assert!(bed.apply(id, &hash).unwrap_err().contains("changed since the preview"));
    assert_eq!(
        (fs::read_to_string(&file).unwrap().as_str(), bed.row(id).state),
        ("# Q\n", SuggestionState::Open)
    );
    let hash = bed.preview(id).hash.unwrap();
    fs::remove_file(&file).unwrap();
    assert!(bed.apply(id, &hash).is_err(), "it vanished");
    fs::write(&file, "# Q\n").unwrap();
    bed.apply(id, &hash).unwrap();
    let applied = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{applied}mine\n")).unwrap();
    let refused = bed.undo(id).unwrap_err();
    assert!(
        refused.contains("undo it by hand") && refused.contains("-mine") && refused.contains("-a line"),
        "{refused}"
    );
    assert_eq!(bed.row(id).state, SuggestionState::Applied);
    // Somebody put the old text back by hand: nothing is left to undo.
    fs::write(&file, "# Q\n").unwrap();
    bed.undo(id).unwrap();
    assert_eq!(
        (fs::read_to_string(&file).unwrap().as_str(), bed.row(id).state),
        ("# Q\n", SuggestionState::Undone)
    );
}

#[test]
fn a_lost_or_forged_backup_is_not_put_back() {
    let bed = Bed::new();
    let file = bed.at("project/CLAUDE.md");
    fs::write(&file, "# P\n").unwrap();
    let id = bed.add(&note());
    bed.apply(id, &bed.preview(id).hash.unwrap()).unwrap();
    let applied = fs::read_to_string(&file).unwrap();
    let change: ChangeJson = serde_json::from_value(bed.row(id).change.unwrap()).unwrap();
    fs::write(change.backup.as_ref().unwrap(), "forged").unwrap();
    assert!(bed.undo(id).unwrap_err().contains("gone or changed"));
    fs::remove_file(change.backup.unwrap()).unwrap();
    assert!(bed.undo(id).unwrap_err().contains("gone or changed"));
    assert_eq!(fs::read_to_string(&file).unwrap(), applied);
}

#[test]
fn nothing_outside_of_the_project_is_touched() {
    let bed = Bed::new();
    fs::write(bed.at("elsewhere/settings.json"), "{}").unwrap();
    symlink(bed.at("elsewhere"), bed.at("project/.claude")).unwrap();
    check_refused(&bed, &rule(), "leads out of");
    fs::remove_file(bed.at("project/.claude")).unwrap();
    fs::create_dir(bed.at("project/.claude")).unwrap();
    symlink(bed.at("elsewhere/settings.json"), bed.at("project/.claude/settings.json")).unwrap();
    check_refused(&bed, &rule(), "leads out of");
    symlink("/nonexistent/x", bed.at("project/CLAUDE.md")).unwrap();
    check_refused(&bed, &note(), "cannot follow");
    fs::remove_file(bed.at("project/CLAUDE.md")).unwrap();
    symlink("CLAUDE.md", bed.at("project/CLAUDE.md")).unwrap();
    check_refused(&bed, &note(), "cannot follow");
    let agent = |name: &str| Edit::AgentModel { agent_type: name.to_owned(), model: "haiku".to_owned() };
    for name in ["../../elsewhere/x", "..", "a/b"] {
        check_refused(&bed, &agent(name), "not plain");
    }
    check_refused(&bed, &agent("nobody"), "no file of its own");
    for relative in ["../elsewhere/settings.json", "/etc/passwd", "a/../../x", "."] {
        let root = file::root(&bed.at("project")).unwrap();
        let refused = file::file(&root, relative);
        assert!(refused.is_err() || relative == ".", "{relative}");
    }
    assert_eq!(fs::read_to_string(bed.at("elsewhere/settings.json")).unwrap(), "{}");
}

#[test]
fn a_link_inside_the_project_is_followed_and_stays() {
    let bed = Bed::new();
    fs::write(bed.at("project/AGENTS.md"), "# P\n").unwrap();
    symlink("AGENTS.md", bed.at("project/CLAUDE.md")).unwrap();
    let id = bed.add(&note());
    bed.apply(id, &bed.preview(id).hash.unwrap()).unwrap();
    assert!(fs::symlink_metadata(bed.at("project/CLAUDE.md")).unwrap().is_symlink());
    assert!(fs::read_to_string(bed.at("project/AGENTS.md")).unwrap().contains("a line"));
}

#[test]
fn odd_files_and_directories_are_refused() {
    let bed = Bed::new();
    let file = bed.at("project/CLAUDE.md");
    fs::write(&file, "x").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    check_refused(&bed, &note(), "read-only");
    fs::remove_file(&file).unwrap();
    fs::write(&file, [0xff, 0xfe]).unwrap();
    check_refused(&bed, &note(), "no UTF-8");
    fs::write(&file, "x".repeat(usize::try_from(file::FILE_MAX_BYTES).unwrap() + 1)).unwrap();
    check_refused(&bed, &note(), "larger than");
    fs::write(&file, "x".repeat(usize::try_from(file::FILE_MAX_BYTES).unwrap())).unwrap();
    check_refused(&bed, &note(), "too large");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    check_refused(&bed, &note(), "no regular file");
    for root in ["", "relative", "/", "/nonexistent", "/dev/null"] {
        assert!(file::root(Path::new(root)).is_err(), "{root}");
    }
    let nowhere = Places::default();
    let id = bed.add(&rule());
    let reason = preview(&bed.row(id), &nowhere).reason.unwrap();
    assert_eq!(reason, "no directory of this project is known");
}

#[test]
fn a_subagent_of_the_home_gets_its_model() {
    let bed = Bed::new();
    fs::create_dir_all(bed.at("home/.claude/agents")).unwrap();
    fs::write(bed.at("home/.claude/agents/scout.md"), "---\nname: scout\n---\nLook.\n").unwrap();
    let id = bed.add(&Edit::AgentModel { agent_type: "scout".to_owned(), model: "haiku".to_owned() });
    bed.apply(id, &bed.preview(id).hash.unwrap()).unwrap();
    let text = fs::read_to_string(bed.at("home/.claude/agents/scout.md")).unwrap();
    assert_eq!(text, "---\nname: scout\nmodel: haiku\n---\nLook.\n");
}

#[test]
fn a_dismissed_one_is_not_applied_and_an_applied_one_not_dismissed() {
    let bed = Bed::new();
    let id = bed.add(&note());
    let (data, places) = (bed.at("data"), bed.places());
    let hash = bed.preview(id).hash.unwrap();
    bed.desk(&data).dismiss(&bed.row(id)).unwrap();
    assert!(bed.apply(id, &hash).unwrap_err().contains("not open"));
    assert!(!bed.at("project/CLAUDE.md").exists(), "what is refused writes nothing");
    let other = Suggestion {
        subject: "other".to_owned(),
        kind: "full_test_runs".to_owned(),
        app: "app".to_owned(),
        edit: Some(serde_json::to_value(note()).unwrap()),
        ..Suggestion::default()
    };
    bed.store.record_suggestions(vec![other], TimestampMs::clamped(T0)).unwrap();
    let rows = bed.store.reader().unwrap().suggestions(&SuggestionFilter::default(), None, 9).unwrap().rows;
    let open = rows.iter().find(|row| row.state == SuggestionState::Open).unwrap();
    bed.desk(&data).apply(open, &places, &preview(open, &places).hash.unwrap()).unwrap();
    assert!(bed.desk(&data).dismiss(open).unwrap_err().to_string().contains("undo it first"));
    bed.undo(open.id).unwrap();
    assert!(!bed.at("project/CLAUDE.md").exists(), "it was not there before");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn undo_gives_back_every_byte(
        text in prop_oneof!["\\PC{0,40}", "(.|\r\n|\n){0,60}", "\\{(\"a\":\\[1, 2\\])?( |\t|\n)*\\}"],
        mode in prop::sample::select(vec![0o600u32, 0o644, 0o664]),
        which in 0usize..3,
    ) {
        let bed = Bed::new();
        let edit = match which {
            0 => note(),
            1 => rule(),
            _ => Edit::SettingsEnv { name: "BASH_MAX_OUTPUT_LENGTH".to_owned(), value: "10000".to_owned() },
        };
        let path = bed.at("project").join(text::relative_path(&edit).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let id = bed.add(&edit);
        let shown = bed.preview(id);
        prop_assert_eq!(shown.can_apply, shown.reason.is_none());
        if let Some(hash) = shown.hash {
            bed.apply(id, &hash).unwrap();
            prop_assert_ne!(fs::read(&path).unwrap(), text.as_bytes());
            bed.undo(id).unwrap();
        }
        prop_assert_eq!(fs::read(&path).unwrap(), text.as_bytes());
        prop_assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        prop_assert_eq!(left.len(), 1, "no temporary file stays: {:?}", left);
    }
}

#[test]
fn an_empty_store_has_no_suggestions() {
    let bed = Bed::new();
    let computed = worker::compute_now(&bed.store, &PriceTable::builtin(), TimestampMs::clamped(T0));
    assert_eq!((computed.found, computed.sessions, computed.error), (0, 0, None));
    let rows = bed.store.reader().unwrap().suggestions(&SuggestionFilter::default(), None, 9).unwrap().rows;
    assert_eq!(rows, []);
}
