//! Who is let in, and who is not.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::{Answer, PATIENCE, Server, prompt};

/// One route of each group.
const READS: [&str; 8] = [
    "/api/v1/events",
    "/api/v1/sessions",
    "/api/v1/calls",
    "/api/v1/summary",
    "/api/v1/filters",
    "/api/v1/health",
    "/metrics",
    "/openapi.json",
];
const OLD_READS: [&str; 4] = ["/events/recent", "/events/filter-options", "/api/themes", "/api/themes/stats"];
const OLD_PAGE: &str = "http://localhost:5173";

#[test]
fn a_name_that_is_not_ours_is_refused_on_every_route() {
    let server = Server::start();
    let port = server.addr.port();
    for path in READS.iter().chain(&OLD_READS).chain(&["/", "/health", "/auth?code=x", "/stream", "/docs"]) {
        let answer = server.request("GET", path).token().host("evil.example").send();
        assert_eq!((answer.status, answer.problem().as_str()), (403, "host_not_allowed"), "{path}");
        let rebound = server.request("GET", path).token().host(&format!("evil.example:{port}")).send();
        assert_eq!(rebound.status, 403, "{path}");
    }
    let hook =
        server.request("POST", "/v1/hooks/claude-code").host("evil.example").body(prompt("s", "x")).send();
    assert_eq!(hook.status, 403);
    let good = server.request("GET", "/health").host(&format!("localhost:{port}")).send();
    assert_eq!(good.status, 200);
    assert_eq!(server.stored(), 0);
}

#[test]
fn another_site_is_refused_on_every_route() {
    let server = Server::start();
    for origin in ["http://evil.example", "null", "http://localhost:1"] {
        for path in READS.iter().chain(&OLD_READS).chain(&["/", "/health", "/stream"]) {
            let answer = server.request("GET", path).token().header("origin", origin).send();
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (403, "origin_not_allowed"),
                "{path} {origin}"
            );
        }
        for path in ["/events", "/v1/hooks/claude-code"] {
            let answer = server.request("POST", path).header("origin", origin).body(prompt("s", "x")).send();
            assert_eq!(answer.status, 403, "{path}");
        }
    }
    assert_eq!(server.stored(), 0);
    let own =
        server.request("GET", "/api/v1/events").token().header("origin", &format!("http://{}", server.addr));
    let own = own.send();
    assert_eq!((own.status, own.header("access-control-allow-origin")), (200, None));
}

#[test]
fn reads_need_the_token_and_ingest_does_not() {
    let server = Server::start();
    for path in READS.iter().chain(&OLD_READS) {
        let answer = server.request("GET", path).send();
        assert_eq!((answer.status, answer.problem().as_str()), (401, "unauthorized"), "{path}");
        let wrong = server.request("GET", path).header("authorization", "Bearer nonsense").send();
        assert_eq!(wrong.status, 401, "{path}");
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    assert_eq!(server.request("GET", "/stream").send().status, 401);
    assert_eq!(server.request("POST", "/api/v1/auth/link").send().status, 401);
    assert_eq!(server.hook(prompt("s", "x")).status, 200);
    for open in ["/health", "/ready", "/", "/docs", "/docs/docs.js", "/api/v1/auth/session"] {
        assert_eq!(server.request("GET", open).send().status, 200, "{open}");
    }
}

#[test]
fn a_link_signs_one_browser_in_and_the_session_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path());
    let link = server.request("POST", "/api/v1/auth/link").token().send().json();
    let url = link["url"].as_str().unwrap();
    assert!(!url.contains(&server.token));
    let path = url.strip_prefix(&format!("http://{}", server.addr)).unwrap().to_owned();

    let entered = server.request("GET", &path).send();
    assert_eq!((entered.status, entered.header("location")), (303, Some("/")));
    let set = entered.header("set-cookie").unwrap().to_owned();
    for part in ["taffrail_session=", "HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(set.contains(part), "{set}");
    }
    let again = server.request("GET", &path).send();
    assert_eq!((again.status, again.header("set-cookie")), (403, None), "a link works once");

    let cookie = set.split(';').next().unwrap().to_owned();
    let read = |server: &Server, cookie: &str| {
        server.request("GET", "/api/v1/events").header("cookie", &format!("other=1; {cookie}")).send().status
    };
    assert_eq!(read(&server, &cookie), 200);
    let mut forged = cookie.clone().into_bytes();
    let last = forged.last_mut().unwrap();
    *last = if *last == b'0' { b'1' } else { b'0' };
    assert_eq!(read(&server, std::str::from_utf8(&forged).unwrap()), 401);
    let session = server.request("GET", "/api/v1/auth/session").header("cookie", &cookie).send();
    assert_eq!(session.json()["signed_in"], true);
    assert_eq!(server.request("GET", "/api/v1/auth/session").send().json()["signed_in"], false);
    server.stop();

    let server = Server::start_in(dir.path());
    assert_eq!(read(&server, &cookie), 200);
}

#[test]
fn the_page_signs_in_with_the_token_and_out_again() {
    let server = Server::start();
    let login = |body: String| server.request("POST", "/api/v1/auth/login").body(body).send();
    let wrong = login(r#"{"token":"nonsense"}"#.to_owned());
    assert_eq!(
        (wrong.status, wrong.problem().as_str(), wrong.header("set-cookie")),
        (401, "unauthorized", None)
    );
    assert_eq!(login("nonsense".to_owned()).status, 400);
    let right = login(format!(r#"{{"token":"{}"}}"#, server.token));
    assert_eq!((right.status, &right.json()["signed_in"]), (200, &serde_json::json!(true)));
    let cookie = right.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(server.request("GET", "/api/v1/events").header("cookie", &cookie).send().status, 200);
    let out = server.request("POST", "/api/v1/auth/logout").header("cookie", &cookie).send();
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    let foreign = server.request("POST", "/api/v1/auth/login").header("origin", "http://evil.example");
    assert_eq!(foreign.body(format!(r#"{{"token":"{}"}}"#, server.token)).send().status, 403);
}

#[test]
fn a_named_old_page_may_use_the_old_routes_and_nothing_else() {
    let server = Server::start_with(|c| c.legacy_origins = vec![OLD_PAGE.to_owned()]);
    for path in OLD_READS {
        let answer = server.request("GET", path).header("origin", OLD_PAGE).send();
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin")),
            (200, Some(OLD_PAGE)),
            "{path}"
        );
        assert_eq!(server.request("GET", path).send().status, 200, "{path}: a program may read");
        assert_eq!(server.request("GET", path).header("origin", "http://evil.example").send().status, 403);
    }
    for path in READS {
        let answer = server.request("GET", path).token().header("origin", OLD_PAGE).send();
        assert_eq!(answer.status, 403, "{path}");
    }
    let preflight = server
        .request("OPTIONS", "/events/5/respond")
        .header("origin", OLD_PAGE)
        .header("access-control-request-method", "POST")
        .send();
    assert_eq!((preflight.status, preflight.body.len()), (200, 0));
    assert_eq!(preflight.header("access-control-allow-methods"), Some("GET, POST, PUT, DELETE, OPTIONS"));
    assert_eq!(preflight.header("access-control-allow-headers"), Some("Content-Type"));
    let change = server.request("POST", "/api/themes").header("origin", OLD_PAGE).body("{}").send();
    assert_eq!(change.status, 400, "the page may change");
    assert_eq!(server.request("POST", "/api/themes").body("{}").send().status, 401, "a program may not");
}

#[test]
fn two_hosts_or_a_foreign_target_are_no_honest_request() {
    let server = Server::start();
    for head in [
        format!("GET /health HTTP/1.1\r\nhost: {0}\r\nhost: {0}\r\nconnection: close\r\n\r\n", server.addr),
        format!(
            "GET http://evil.example/health HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            server.addr
        ),
        "GET /health HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(),
    ] {
        let mut stream = TcpStream::connect(server.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let status = Answer::read(&mut stream).status;
        assert!(status == 400 || status == 403, "{status} {head}");
    }
}

#[test]
fn pages_have_a_strict_policy_and_answers_are_not_kept() {
    let server = Server::start();
    let page = server.request("GET", "/").send();
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"));
    assert!(!policy.contains("unsafe"), "{policy}");
    for (path, cache) in [("/api/v1/events", "no-store"), ("/", "no-cache")] {
        let answer = server.get(path);
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert_eq!(answer.header("cache-control"), Some(cache), "{path}");
    }
    let deep = server.request("GET", "/sessions/abc").header("accept", "text/html").send();
    assert_eq!((deep.status, deep.body), (200, page.body));
    assert_eq!(server.request("GET", "/sessions/abc").header("accept", "*/*").send().status, 404);
    assert_eq!(server.request("GET", "/api/none").header("accept", "text/html").send().status, 404);
    assert_eq!(server.request("POST", "/").body("x").send().status, 404);
}

#[test]
fn headers_that_drip_are_cut_off() {
    let server = Server::start_with(|c| c.limits.header_read_ms = 300);
    let mut stream = TcpStream::connect(server.addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let began = Instant::now();
    let mut alive = true;
    for byte in
        b"GET /health HTTP/1.1\r\nhost: localhost\r\nx-slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
            .iter()
    {
        alive = stream.write_all(&[*byte]).is_ok() && !is_closed(&mut stream);
        if !alive {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!alive, "a head that takes longer than its time ends the connection");
    assert!(began.elapsed() < Duration::from_secs(3));
}

/// Whether the other side ended, without waiting for it.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut byte = [0; 512];
    let closed = match std::io::Read::read(stream, &mut byte) {
        Ok(0) => true,
        Ok(_) => false,
        Err(e) => e.kind() != std::io::ErrorKind::WouldBlock,
    };
    stream.set_nonblocking(false).unwrap();
    closed
}

#[test]
fn an_idle_connection_is_kept_longer_than_a_slow_head() {
    let server = Server::start_with(|c| c.limits.header_read_ms = 200);
    let mut stream = TcpStream::connect(server.addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET /health HTTP/1.1\r\nhost: {}\r\n\r\n", server.addr);
    for _ in 0..3 {
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 2048];
        let n = std::io::Read::read(&mut stream, &mut answer).unwrap();
        assert!(answer[..n].starts_with(b"HTTP/1.1 200"));
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn a_body_that_drips_is_cut_off() {
    let server = Server::start_with(|c| {
        c.limits.body_grace_ms = 200;
        c.limits.body_min_rate = 1_000_000;
    });
    let mut stream = TcpStream::connect(server.addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST /v1/hooks/claude-code HTTP/1.1\r\nhost: {}\r\ncontent-length: 100\r\n\r\n{{",
        server.addr
    );
    stream.write_all(head.as_bytes()).unwrap();
    let answer = Answer::read(&mut stream);
    assert_eq!((answer.status, answer.problem().as_str()), (408, "slow_body"));
}

#[test]
fn connections_over_the_cap_are_told_so() {
    let server = Server::start_with(|c| c.limits.connections = 4);
    let held: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(server.addr).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(200));
    let refused = server.request("GET", "/health").send();
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    drop(held);
    crate::harness::eventually("room again", || server.request("GET", "/health").send().status == 200);
}
