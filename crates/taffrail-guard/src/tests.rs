//! Table-driven: a command, the decision it must get.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const CONTEXT: Context<'static> = Context {
    cwd: Some("/home/user/work/project"),
    home: Some("/home/user"),
    taffrail_home: Some("/home/user/.local/share/taffrail"),
};

#[track_caller]
fn check_all(decision: Decision, commands: &[&str]) {
    for command in commands {
        let verdict = check_command(command, &CONTEXT);
        assert_eq!(verdict.decision, decision, "{command:?}: {verdict:?}");
        assert_eq!(verdict.rule.is_some(), decision != Decision::Allow, "{command:?}");
        assert_eq!(verdict.reason.is_empty(), decision == Decision::Allow, "{command:?}");
    }
}

#[test]
fn destructive_targets_are_denied() {
    check_all(
        Decision::Deny,
        &[
            "rm -rf /",
            "rm -fr /",
            "rm -r -f /",
            "rm -f -r /",
            "rm -Rf /",
            "rm -r /",
            "rm --recursive --force /",
            "rm --rec --force /",
            "rm -rf --no-preserve-root /",
            "rm / -rf",
            "rm -rf -- /",
            "rm -rf //",
            "rm -rf /.",
            "rm -rf /tmp/..",
            "rm -rf /*",
            "rm -rf /.*",
            "rm -rf /*/*",
            "rm -rf ~",
            "rm -rf ~/",
            "rm -rf ~/*",
            "rm -rf ~/.*",
            "rm -rf $HOME",
            "rm -rf ${HOME}",
            "rm -rf \"$HOME\"",
            "rm -rf \"$HOME\"/*",
            "rm -rf ${HOME:-/home/user}/",
            "rm -rf /home/user",
            "rm -rf /home/user/",
            "rm -rf /home/other",
            "rm -rf ~root/.. ",
            "rm -rf /home",
            "rm -rf /etc",
            "rm -rf /usr/*",
            "rm -rf ~/.ssh ~/Documents",
            "rm -rf ~/.local",
            "rm -rf ~/.local/share/taffrail",
            "rm -rf ~/.local/share/taffrail/spool",
            "rm -rf \"$TAFFRAIL_HOME\"",
            "rm -rf .git",
            "rm -rf ./.git/",
            "rm -rf ../../work/project/.git",
            "rm -rf ..",
            "rm -rf ../..",
            "rm -rf ../*",
            "rm -rf node_modules .. dist",
            "rm -rf build/../../..",
            "rm -rf ~/work",
        ],
    );
}

#[test]
fn spellings_and_wrappers_do_not_hide_a_delete() {
    check_all(
        Decision::Deny,
        &[
            "sudo rm -rf /",
            "sudo -u root -E rm -rf /",
            "sudo -n -- rm -rf /",
            "doas rm -rf /",
            "env rm -rf /",
            "env -i A=1 B=2 rm -rf /",
            "A=1 rm -rf /",
            "command rm -rf /",
            "\\rm -rf /",
            "r\\m -rf /",
            "'rm' -rf /",
            "r''m -rf /",
            "\"rm\" \"-rf\" \"/\"",
            "/bin/rm -rf /",
            "busybox rm -rf /",
            "nohup rm -rf / &",
            "nice -n 19 rm -rf /",
            "time rm -rf /",
            "timeout -k 5 60 rm -rf /",
            "exec rm -rf /",
            "true; rm -rf /",
            "true && rm -rf /",
            "false || rm -rf /",
            "true | rm -rf /",
            "true\nrm -rf /",
            "true & rm -rf /",
            "rm \\\n -rf \\\n /",
            "(rm -rf /)",
            "{ rm -rf /; }",
            "! rm -rf /",
            "if true; then rm -rf /; fi",
            "while :; do rm -rf /; done",
            "for d in /tmp/x ~; do rm -rf \"$d\"; done",
            "case x in x) rm -rf /;; esac",
            "f() { rm -rf /; }; f",
            "echo $(rm -rf /)",
            "echo \"$(rm -rf /)\"",
            "echo `rm -rf /`",
            "echo \"a `rm -rf /` b\"",
            "cat <(rm -rf /)",
            "x=$(rm -rf /)",
            "echo ${x:-$(rm -rf /)}",
            "echo $(( $(rm -rf /) + 1 ))",
            "cat <<EOF\n$(rm -rf /)\nEOF",
            "sh -c 'rm -rf /'",
            "bash -c \"rm -rf $HOME\"",
            "bash -lc 'cd x && rm -rf ~'",
            "sudo bash -x -c 'rm -rf /'",
            "sh -c \"bash -c 'rm -rf /'\"",
            "eval 'rm -rf /'",
            "eval rm -rf /",
            "bash <<EOF\nrm -rf /\nEOF",
            "bash <<< 'rm -rf /'",
            "echo 'rm -rf /' | sh",
            "echo / | xargs rm -rf",
            "xargs -n 1 rm -rf / < list",
            "rm -rf 2>/dev/null /",
            "rm -rf / > /dev/null 2>&1",
            "rm -rf {/,tmp}",
            "rm -rf /{bin,usr}",
            "X=/; rm -rf $X",
            "X='-rf /'; rm $X",
            "X=r; ${X}m -rf /",
            "OPTS=-rf; rm $OPTS /",
            "export D=/etc; rm -rf \"$D\"",
            "$'\\x72\\x6d' -rf /",
            "cd / && rm -rf *",
            "cd ~; rm -rf ./*",
            "cd ../.. && rm -rf *",
            "cd ..; rm -rf project/.git",
            "# comment\nrm -rf /",
            "echo \"it's\" && rm -rf /",
            "cat <<'EOF' > x\ntext\nEOF\nrm -rf /",
        ],
    );
}

#[test]
fn everyday_commands_are_allowed() {
    check_all(
        Decision::Allow,
        &[
            "",
            "ls -la",
            "rm -rf node_modules",
            "rm -rf ./build dist/ .next",
            "rm -rf /tmp/x",
            "rm -rf /tmp",
            "rm -rf /var/tmp/*",
            "rm -rf \"$TMPDIR/build\"",
            "rm -rf ${TMPDIR:-/tmp}/build",
            "rm -rf \"$(mktemp -d)\"",
            "rm -rf /home/user/work/project/target",
            "rm -rf ~/.cache/thing",
            "rm -rf build/*",
            "rm -rf $BUILD_DIR",
            "rm -rf /tmp/clone/.git",
            "cd /tmp/clone && rm -rf .git",
            "cd sub && rm -rf ../build",
            "rm file.txt",
            "rm -f /tmp/a.lock",
            "rm -i notes",
            "rm --version",
            "rm -- -rf",
            "rm -rf '~'",
            "echo \"rm -rf /\"",
            "echo rm -rf /",
            "printf '%s\\n' 'rm -rf ~'",
            "git commit -m \"rm -rf /\"",
            "git commit -m \"$(cat <<'EOF'\nStop using rm -rf /\n\nIt's bad.\nEOF\n)\"",
            "grep 'rm -rf ~' -r .",
            "rg -n \"rm -rf\" README.md",
            "cat > clean.sh <<'EOF'\nrm -rf /\nEOF",
            "cat <<-EOF\n\trm -rf /\n\tEOF\n",
            "# rm -rf /",
            "ls # rm -rf /",
            "docker rm -f container",
            "docker run --rm -it image",
            "git rm -r --cached /",
            "npm rm -g thing",
            "echo 'unterminated",
            "python3 -c \"print('a\"",
            "(cd / && ls) && rm -rf build",
            "bash -c 'cd / && ls'; rm -rf build/*",
            "find . -name '*.pyc' | xargs rm -f",
            "for f in a b; do rm -rf \"out/$f\"; done",
            "X=$((1 << 2)); rm -rf out$X",
            "terraform plan",
        ],
    );
}

#[test]
fn doubtful_commands_are_asked_about() {
    check_all(
        Decision::Ask,
        &[
            "rm -rf / 'unterminated",
            "echo \"; rm -rf ~",
            "rm -rf ../sibling",
            "rm -rf ~/other/.git",
            "rm -rf /etc/nginx",
            "rm -rf /var/log",
            "rm -rf /b*",
            "rm -rf \"$PWD\"",
            "rm -rf \"$X/../etc\"",
            "rm $FLAGS /",
            "$CMD -rf /",
            "rm -rf --no-preserve-root build",
        ],
    );
}

#[test]
fn loss_of_the_working_tree_is_warned_of() {
    check_all(Decision::Warn, &["rm -rf ./*", "rm -rf *", "rm -rf \"$DIR\"/*", "rm -rf $DIR/"]);
}

#[test]
fn what_is_too_large_or_deep_is_asked_about_only_when_it_deletes() {
    let padding = "x".repeat(shell::SCRIPT_LIMIT_BYTES);
    check_all(Decision::Ask, &[&format!("rm -rf / {padding}"), &format!("{padding}; rm -fr ~")]);
    check_all(Decision::Allow, &[&format!("echo {padding} rm"), &format!("echo {padding}")]);
    let deep = format!("{}rm -rf x{}", "$(".repeat(1000), ")".repeat(1000));
    check_all(Decision::Ask, &[&deep]);
    let deep = format!("{}arm{}", "$(".repeat(1000), ")".repeat(1000));
    check_all(Decision::Allow, &[&deep]);
    let many = format!("{} rm -rf x", "a;".repeat(shell::COMMAND_LIMIT + 1));
    check_all(Decision::Ask, &[&many]);
}

#[test]
fn values_that_double_stay_small() {
    let mut script = "a=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa;".to_owned();
    for n in 0..60 {
        let before = if n == 0 { "a".to_owned() } else { format!("a{}", n - 1) };
        script.push_str(&format!("a{n}=\"${before}${before}\";"));
    }
    script.push_str("rm -rf $a59$a59$a59 /");
    check_all(Decision::Deny, &[&script]);
    let braces = format!("rm -rf {} /", "{a,b}".repeat(200));
    check_all(Decision::Deny, &[&braces]);
}

#[test]
fn context_may_be_missing() {
    let nowhere = Context::default();
    for command in ["rm -rf /", "rm -rf ..", "rm -rf ../..", "rm -rf /home/user", "rm -rf /*"] {
        assert_eq!(check_command(command, &nowhere).decision, Decision::Deny, "{command}");
    }
    for command in ["rm -rf ~", "rm -rf $HOME", "rm -rf .git"] {
        assert!(check_command(command, &nowhere).decision >= Decision::Ask, "{command}");
    }
    assert_eq!(check_command("rm -rf node_modules", &nowhere).decision, Decision::Allow);
}

#[test]
fn only_commands_are_judged() {
    let check = |tool: &str, input: Value| check(tool, &input, &CONTEXT).decision;
    assert_eq!(check("Bash", json!({"command": "rm -rf /"})), Decision::Deny);
    assert_eq!(check("shell", json!({"command": ["bash", "-lc", "rm -rf /"]})), Decision::Deny);
    assert_eq!(check("shell", json!({"command": ["echo", "rm -rf /"]})), Decision::Allow);
    assert_eq!(check("Write", json!({"file_path": "x", "content": "rm -rf /"})), Decision::Allow);
    assert_eq!(check("Bash", json!(["rm -rf /"])), Decision::Allow);
    assert_eq!(check("Bash", json!(null)), Decision::Allow);
}

#[test]
fn reasons_are_capped_and_plain() {
    let command = format!("rm -rf /\x1b[31m{}/..", "y".repeat(5000));
    let verdict = check_command(&command, &CONTEXT);
    assert_eq!(verdict.decision, Decision::Deny);
    assert!(verdict.reason.len() < 400, "{}", verdict.reason.len());
    assert!(!verdict.reason.chars().any(char::is_control));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_input_panics(script in "[rm \\-f/~$(){}'\"`\\\\<>|&;\n#=*A-C.]{0,80}") {
        let _ = check_command(&script, &CONTEXT);
    }

    #[test]
    fn a_delete_of_root_is_never_allowed_behind_plain_commands(
        before in proptest::collection::vec("[a-z]{1,8}( [a-z0-9./-]{1,8}){0,3}", 0..4),
        joint in prop_oneof![Just(" ; "), Just(" && "), Just("\n"), Just(" || "), Just(" | "), Just(" & ")],
    ) {
        let mut parts = before;
        // Reserved words would make the script something else than a list of commands.
        prop_assume!(parts.iter().all(|p| !matches!(p.split(' ').next(), Some("for" | "select" | "cd" | "xargs"))));
        parts.push("rm -rf /".to_owned());
        prop_assert_eq!(check_command(&parts.join(joint), &CONTEXT).decision, Decision::Deny);
    }
}
