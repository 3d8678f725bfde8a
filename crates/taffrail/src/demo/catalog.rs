//! Who works on what in the demo. All of it is invented.

/// A project of the fleet.
pub(crate) struct Project {
    pub(crate) name: &'static str,
    pub(crate) files: &'static [&'static str],
    pub(crate) test: &'static str,
    pub(crate) build: &'static str,
    /// How a failing test of it reads.
    pub(crate) failure: &'static str,
    pub(crate) subjects: &'static [&'static str],
}

/// Whoever sits in front of an agent.
pub(crate) struct Person {
    pub(crate) user: &'static str,
    pub(crate) host: &'static str,
    pub(crate) home: &'static str,
}

pub(crate) const PEOPLE: [Person; 6] = [
    Person { user: "maya", host: "maya-laptop", home: "/home/maya" },
    Person { user: "tomas", host: "ws-14", home: "/home/tomas" },
    Person { user: "ines", host: "ines-mbp", home: "/Users/ines" },
    Person { user: "ravi", host: "build-02", home: "/home/ravi" },
    Person { user: "lena", host: "ws-07", home: "/home/lena" },
    Person { user: "oskar", host: "oskar-mbp", home: "/Users/oskar" },
];

pub(crate) const PROJECTS: [Project; 6] = [
    Project {
        name: "checkout-api",
        files: &[
            "src/cart.rs",
            "src/price.rs",
            "src/http/orders.rs",
            "src/store/orders.rs",
            "tests/orders.rs",
            "Cargo.toml",
        ],
        test: "cargo test --workspace",
        build: "cargo build --release",
        failure: "test orders::rounds_once_per_order ... FAILED\n\nassertion `left == right` failed\n  left: 1999\n right: 2000\n\ntest result: FAILED. 41 passed; 1 failed",
        subjects: &["Round prices once per order", "Reject an empty cart", "Retry the payment callback"],
    },
    Project {
        name: "storefront",
        files: &[
            "src/pages/Cart.vue",
            "src/pages/Search.vue",
            "src/lib/api.ts",
            "src/lib/money.ts",
            "src/App.vue",
            "package.json",
        ],
        test: "npm test -- --run",
        build: "npm run build",
        failure: "FAIL src/lib/money.spec.ts > formats two decimals\nAssertionError: expected '1.5' to be '1.50'\n\n Tests  1 failed | 63 passed (64)",
        subjects: &[
            "Show the discount in the cart",
            "Debounce the search field",
            "Format money in one place",
        ],
    },
    Project {
        name: "ledger-jobs",
        files: &[
            "jobs/reconcile.py",
            "jobs/export.py",
            "jobs/util/dates.py",
            "tests/test_reconcile.py",
            "pyproject.toml",
        ],
        test: "pytest -q",
        build: "python -m build",
        failure: "FAILED tests/test_reconcile.py::test_month_end - AssertionError: 2 rows left over\n1 failed, 87 passed in 6.41s",
        subjects: &["Close months by local time", "Stream the export", "Skip voided entries"],
    },
    Project {
        name: "fleet-agent",
        files: &[
            "cmd/agent/main.go",
            "internal/poll/poll.go",
            "internal/poll/poll_test.go",
            "internal/auth/token.go",
            "go.mod",
        ],
        test: "go test ./...",
        build: "go build ./cmd/agent",
        failure: "--- FAIL: TestBackoffIsBounded (0.03s)\n    poll_test.go:58: waited 64s, want at most 30s\nFAIL",
        subjects: &["Bound the back-off", "Refresh tokens before they end", "Log the host once"],
    },
    Project {
        name: "search-index",
        files: &[
            "src/main/java/index/Writer.java",
            "src/main/java/index/Merge.java",
            "src/test/java/index/MergeTest.java",
            "build.gradle",
        ],
        test: "./gradlew test",
        build: "./gradlew assemble",
        failure: "MergeTest > keepsNewestOfTwo FAILED\n    org.opentest4j.AssertionFailedError at MergeTest.java:71\n\n112 tests completed, 1 failed",
        subjects: &["Keep the newest of two", "Merge in one pass", "Close readers on error"],
    },
    Project {
        name: "infra",
        files: &[
            "modules/network/main.tf",
            "modules/db/main.tf",
            "envs/staging/main.tf",
            "scripts/rotate.sh",
            "README.md",
        ],
        test: "terraform validate",
        build: "terraform plan -out=plan.bin",
        failure: "Error: Unsupported argument\n\n  on modules/db/main.tf line 42, in resource \"db_instance\" \"main\":\n  42:   storage_kind = \"ssd\"",
        subjects: &["Name subnets by zone", "Raise the pool of the database", "Rotate keys monthly"],
    },
];

pub(crate) const PROMPTS: [&str; 14] = [
    "The tests fail since this morning, find out why and mend it",
    "Add a check for empty input in {file} and a test for it",
    "Why is {file} so slow? Measure first",
    "Refactor {file}: the two long functions do the same thing",
    "Write the missing tests for {file}",
    "Review the last three commits and tell me what could break",
    "Update the dependencies, one commit each",
    "There is a race somewhere around {file}, I see it once a day",
    "Explain how {file} gets its configuration",
    "Rename the option to what the docs call it",
    "continue",
    "ok, now commit that",
    "Look into the issue about time zones and propose a plan",
    "Make the error message say what to do",
];

pub(crate) const ANSWERS: [&str; 6] = [
    "Done. The cause was a rounding step that ran twice; both call sites share one function now, and the test covers it.",
    "All tests pass. I changed two files and left the public interface as it was.",
    "I found it: the value was read before the lock was taken. The fix is small, the test reproduces it.",
    "Committed. Two follow-ups are worth an issue: the retry has no bound, and the log repeats the host.",
    "Here is the plan in four steps; the first one is safe to do right away.",
    "It is slow because every row is parsed twice. Parsing once takes it from 4.1 s to 0.9 s.",
];

pub(crate) const SEARCHES: [&str; 6] =
    ["TODO", "fn retry", "deadline", "timezone", "unwrap\\(", "connect\\("];

/// Commands that look around, with what they might print.
pub(crate) const LOOKS: [(&str, &str, &str); 6] = [
    ("git status --short", "Show what changed", " M {file}\n?? notes.md"),
    (
        "git log --oneline -5",
        "Show recent commits",
        "4f1c2aa Bound the queue\n9be0d13 Read the config once\n1c77e02 Add the health route\na90d5f1 Mend the build\n77c01be Start",
    ),
    ("wc -l {file}", "Count lines", "     214 {file}"),
    (
        "ls -la",
        "List files",
        "total 48\n-rw-r--r-- 1 dev dev  1204 README.md\ndrwxr-xr-x 4 dev dev  4096 src",
    ),
    (
        "git diff --stat",
        "Show the size of the change",
        " {file} | 14 ++++++++------\n 1 file changed, 8 insertions(+), 6 deletions(-)",
    ),
    (
        "rg -n deadline --stats | tail -3",
        "Count matches",
        "12 matches\n5 files contained matches\n0.004 seconds",
    ),
];

/// Commands that fail, with how.
pub(crate) const MISHAPS: [(&str, &str, &str); 6] = [
    (
        "curl -fsS http://localhost:8080/health",
        "Ask the service",
        "Exit code 7\ncurl: (7) Failed to connect to localhost port 8080 after 0 ms: Connection refused",
    ),
    (
        "cat config/local.toml",
        "Read the local configuration",
        "Exit code 1\ncat: config/local.toml: No such file or directory",
    ),
    (
        "npm ci",
        "Install packages",
        "Exit code 1\nnpm error code ETIMEDOUT\nnpm error network request to https://registry.example.com/lodash failed, reason: connect ETIMEDOUT",
    ),
    (
        "./scripts/rotate.sh --dry-run",
        "Try the rotation",
        "Exit code 126\nbash: ./scripts/rotate.sh: Permission denied",
    ),
    (
        "git pull --rebase",
        "Update the branch",
        "Exit code 128\nfatal: Unable to create '.git/index.lock': File exists.\n\nAnother git process seems to be running in this repository.",
    ),
    (
        "gh pr view 381",
        "Read the pull request",
        "Exit code 1\nGraphQL: API rate limit exceeded for this account",
    ),
];

pub(crate) const SUBAGENTS: [(&str, &str, &str); 4] = [
    (
        "Explore",
        "Survey the callers",
        "List every caller of the function and say which of them pass user input.",
    ),
    (
        "general-purpose",
        "Check the edge cases",
        "Run the tests with empty, huge and malformed input and report what breaks.",
    ),
    (
        "code-reviewer",
        "Review the change",
        "Read the diff as a strict reviewer and name the three weakest points.",
    ),
    ("Plan", "Plan the split", "Propose how to split the module in two without changing its interface."),
];
