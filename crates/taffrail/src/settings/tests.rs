//! Install, then uninstall: the bytes come back.

use proptest::prelude::*;

use super::*;

fn wiring() -> Wiring {
    Wiring { program: "/opt/t/taffrail-hook".to_owned(), arguments: Vec::new(), http_url: None }
}

/// As `uninstall` decides: the backup's bytes when nothing else changed, else what is left.
fn restored(text: &str, backup: &str) -> String {
    let rest = without_hooks(text, Some(backup)).unwrap();
    let same = serde_json::from_str::<Value>(rest.trim_start_matches('\u{feff}')).unwrap()
        == serde_json::from_str::<Value>(backup.trim_start_matches('\u{feff}')).unwrap();
    if same { backup.to_owned() } else { rest }
}

#[track_caller]
fn check_round_trip(original: &str) {
    let installed = with_hooks(original, &wiring()).unwrap();
    assert_ne!(installed, original);
    assert_eq!(with_hooks(&installed, &wiring()).unwrap(), installed, "a second install changes nothing");
    assert_eq!(hooks_in(&installed).unwrap().len(), wiring().groups().len());
    assert_eq!(restored(&installed, original), original);
    // Foreign settings keep their values.
    let (before, after): (Value, Value) =
        (serde_json::from_str(original).unwrap(), serde_json::from_str(&installed).unwrap());
    for (key, value) in before.as_object().unwrap().iter().filter(|(key, _)| *key != "hooks") {
        assert_eq!(&after[key], value);
    }
    for (event, groups) in before.get("hooks").and_then(Value::as_object).into_iter().flatten() {
        let kept = &after["hooks"][event].as_array().unwrap()[..groups.as_array().unwrap().len()];
        assert_eq!(kept, groups.as_array().unwrap());
    }
}

#[test]
fn every_event_but_the_harmful_ones_is_registered() {
    let groups = wiring().groups();
    assert_eq!(groups.len(), 29);
    assert!(groups.iter().all(|(event, _)| !matches!(*event, "WorktreeCreate" | "MessageDisplay")));
    for (event, group) in &groups {
        assert_eq!(group["hooks"][0]["command"], "/opt/t/taffrail-hook");
        assert_eq!(group["hooks"][0]["args"], json!([event]));
        assert_eq!(group["hooks"][0]["timeout"], HOOK_TIMEOUT_S);
        assert_eq!(group.get("matcher").is_some(), *event == "FileChanged");
    }
}

#[test]
fn http_hooks_only_where_the_client_honours_them() {
    let url = format!("http://127.0.0.1:4000{HTTP_HOOK_PATH}");
    let wiring = Wiring { http_url: Some(url.clone()), ..wiring() };
    for (event, group) in wiring.groups() {
        let is_command = matches!(event, "SessionStart" | "Setup");
        assert_eq!(group["hooks"][0]["type"], if is_command { "command" } else { "http" }, "{event}");
    }
    let installed = with_hooks("{}", &wiring).unwrap();
    assert_eq!(
        hooks_in(&installed).unwrap().iter().filter(|hook| hook.target == Target::Url(url.clone())).count(),
        27
    );
    // Another transport replaces the first.
    let again = with_hooks(&installed, &self::wiring()).unwrap();
    assert_eq!(again, with_hooks("{}", &self::wiring()).unwrap().as_str());
}

#[test]
fn settings_of_all_kinds_come_back() {
    for original in [
        "{}",
        "{ }",
        "{\n}\n",
        "{\"a\":1}",
        "{\"a\":1}\n",
        "{\n  \"model\": \"x\"\n}\n",
        "{\r\n\t\"model\": \"x\",\r\n\t\"env\": { \"A\": \"b\" }\r\n}",
        "{\n    \"hooks\": {}\n}\n",
        "{\"hooks\": {\"Stop\": []}}",
        "{\n  \"hooks\": {\n    \"Stop\": [ ]\n  }\n}\n",
        "{\n  \"hooks\": {\n    \"PreToolUse\": [\n      {\n        \"matcher\": \"Bash\",\n        \"hooks\": [\n          { \"type\": \"command\", \"command\": \"uv run .claude/hooks/x.py\" }\n        ]\n      }\n    ]\n  },\n  \"last\": [1, 2]\n}\n",
        "{\"hooks\":{\"Unknown\":[{\"hooks\":[{\"type\":\"command\",\"command\":\"x\"}]}]},\"z\":null}",
    ] {
        check_round_trip(original);
    }
}

#[test]
fn what_the_user_changed_since_stays() {
    let original = "{\n  \"a\": 1\n}\n";
    let installed = with_hooks(original, &wiring()).unwrap();
    let changed = installed.replace("\"a\": 1", "\"a\": 2");
    assert_eq!(restored(&changed, original), "{\n  \"a\": 2\n}\n");
    // A foreign hook in the same event, and one that was put into our group by hand.
    let mut settings: Value = serde_json::from_str(&installed).unwrap();
    let foreign = json!({"type": "command", "command": "mine"});
    settings["hooks"]["Stop"].as_array_mut().unwrap().insert(0, json!({"hooks": [foreign]}));
    settings["hooks"]["PreToolUse"][0]["hooks"].as_array_mut().unwrap().insert(0, foreign.clone());
    let text = serde_json::to_string_pretty(&settings).unwrap();
    let rest: Value = serde_json::from_str(&restored(&text, original)).unwrap();
    let expected =
        json!({"a": 1, "hooks": {"Stop": [{"hooks": [foreign]}], "PreToolUse": [{"hooks": [foreign]}]}});
    assert_eq!(rest, expected);
}

#[test]
fn an_old_path_is_replaced_and_harmful_events_are_taken_out() {
    let old = Wiring { program: "/old/taffrail-hook".to_owned(), ..wiring() };
    let installed = with_hooks("{\"a\":1}", &old).unwrap();
    let mut settings: Value = serde_json::from_str(&installed).unwrap();
    settings["hooks"]["MessageDisplay"] = settings["hooks"]["Stop"].clone();
    settings["hooks"]["Stop"] = json!([{"hooks": [{"type": "command", "command": "taffrail hook"}]}]);
    let again = with_hooks(&settings.to_string(), &wiring()).unwrap();
    let hooks = hooks_in(&again).unwrap();
    assert_eq!(hooks.len(), 29);
    for hook in hooks {
        assert_eq!(
            hook.target,
            Target::Program { path: wiring().program, arguments: vec![hook.event.clone()] },
            "{again}"
        );
    }
}

#[test]
fn settings_that_an_edit_would_make_worse_are_refused() {
    for text in
        ["", "[]", "null", "{\"hooks\": []}", "{\"hooks\": {\"Stop\": {}}}", "{ // note\n}", "{\"a\":1,}"]
    {
        let error = format!("{:#}", with_hooks(text, &wiring()).unwrap_err());
        assert!(error.contains("hint:"), "{text:?}: {error}");
    }
}

#[test]
fn other_peoples_hooks_are_not_ours() {
    for hook in [
        json!({"type": "command", "command": "uv run send_event.py"}),
        json!({"type": "command", "command": "not-taffrail-hook"}),
        json!({"type": "command", "command": "/x/taffrail", "args": ["tail"]}),
        json!({"type": "command", "command": "echo taffrail-hook"}),
        json!({"type": "http", "url": "http://127.0.0.1:4000/events"}),
        json!({"type": "prompt", "prompt": "taffrail-hook"}),
        json!(null),
    ] {
        assert_eq!(our_target(&hook), None, "{hook}");
    }
    for hook in [
        json!({"type": "command", "command": "\"/a/taffrail-hook\" Stop"}),
        json!({"type": "command", "command": "C:\\t\\taffrail-hook.exe", "args": []}),
        json!({"type": "command", "command": "/x/taffrail", "args": ["hook", "Stop"]}),
        json!({"type": "http", "url": "http://localhost:4000/v1/hooks/claude-code"}),
    ] {
        assert!(our_target(&hook).is_some(), "{hook}");
    }
}

/// Settings as people have them: any JSON beside hooks of others, in several formats.
fn settings() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-zA-Z0-9é\\n\t\"{}\\[\\],\\\\/]{0,12}".prop_map(Value::from),
    ];
    let json = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec(("[a-zA-Z\"\\\\{]{0,8}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    });
    let event = prop_oneof![Just("PreToolUse"), Just("Stop"), Just("SessionEnd"), Just("Other")];
    let foreign = (event, 0..3_usize).prop_map(|(event, groups)| {
        let group = json!({"matcher": "Bash", "hooks": [{"type": "command", "command": "uv run x.py"}]});
        (event.to_owned(), Value::from(vec![group; groups]))
    });
    let hooks = proptest::option::of(proptest::collection::vec(foreign, 0..4));
    (
        proptest::collection::vec(("[a-g]{1,3}", json), 0..4),
        hooks,
        0..4_usize,
        any::<prop::sample::Index>(),
        any::<bool>(),
    )
        .prop_map(|(members, hooks, format, at, final_newline)| {
            let mut members: Vec<(String, Value)> = members;
            let at = at.index(members.len() + 1);
            if let Some(hooks) = hooks {
                members.insert(at, ("hooks".to_owned(), Value::Object(hooks.into_iter().collect())));
            }
            let value = Value::Object(members.into_iter().collect());
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            let mut text = match format {
                0 => pretty,
                1 => pretty.replace('\n', "\r\n").replace("  ", "\t"),
                2 => pretty.replace("  ", "    ").replace(": [", ":   ["),
                _ => value.to_string(),
            };
            if final_newline {
                text.push('\n');
            }
            text
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn install_then_uninstall_gives_the_same_bytes(original in settings()) {
        check_round_trip(&original);
    }
}
